//! Describes what is logged in more than one place.

use tracing::info;

/// Logs that a command was sent.
pub fn log_sent(command: &str, rule: &str, images: usize) {
    info!(
        command.id = command,
        rule, images, "sent {images} images by rule {rule}"
    );
}
