//! Stands for what is still being written: what is left over.

use super::Command;
use crate::{containerd::Containerd, failure::Failure};

/// Removes what commands that were killed left behind.
///
/// # Errors
/// containerd's.
pub async fn remove_leftovers(command: &Command<'_>) -> Result<(), Failure> {
    Ok(())
}

/// Makes containerd collect what nothing holds.
///
/// # Errors
/// containerd's.
pub async fn collect_garbage(containerd: &Containerd, snapshotter: &str, is_full: bool) -> Result<(), Failure> {
    Ok(())
}
