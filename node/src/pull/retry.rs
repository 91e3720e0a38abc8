//! Retries of an image.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use prefetch::outcome::NodeReason;

use super::image_pull::ImagePull;
use crate::{failure::Failure, login::Answer};

impl ImagePull<'_> {
    /// Tells whether the same may succeed later. A refused login may, if a login helper failed at it, or has another now.
    pub(super) async fn may_pass(&mut self, failure: &Failure) -> bool {
        if self.command.parameters.report_only || failure.reason != NodeReason::Denied {
            return !self.command.parameters.report_only && failure.reason.is_retryable();
        }
        let refused = self.answer().await;
        if self.is_login_renewed && !matches!(refused, Answer::Failed(_)) {
            return false;
        }
        self.is_login_renewed = true;
        let renewed = self.command.context.login_anew(&self.work.image).await;
        let may_pass = matches!(renewed, Answer::Failed(_)) || renewed != refused;
        self.login = Some(renewed);
        may_pass
    }

    /// Sleeps after an attempt; returns false where there is no time for it.
    pub(super) async fn back_off(&self, attempt: u32) -> bool {
        let pause = pause_after(attempt);
        if pause >= self.command.context.time.left() {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }
}

/// Returns how long to wait after an attempt: 1 to 2 seconds after the first, and each time twice as long.
#[must_use]
pub fn pause_after(attempt: u32) -> Duration {
    let least = Duration::from_secs(1 << attempt.saturating_sub(1));
    least + least.mul_f64(a_fraction())
}

/// Returns a number from 0 to 1 that differs between nodes, so that they do not all try again at once.
fn a_fraction() -> f64 {
    let random = RandomState::new().hash_one(std::process::id()) >> 32;
    f64::from(u32::try_from(random).unwrap_or(0)) / f64::from(u32::MAX)
}
