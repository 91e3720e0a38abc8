//! The time that a command has: to work, and to clean up after that.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

use crate::failure::Failure;
use prefetch::outcome::NodeReason;

/// Bounds the time that a command that is ended still takes for its work.
const HURRY: Duration = Duration::from_secs(3);

/// A command's time.
#[derive(Debug)]
pub struct Time {
    began: Instant,
    deadline: Cell<Instant>,
    clean_up: Duration,
}

impl Time {
    /// Begins to count, for a command that SSM kills after so long: it works a tenth less, and at least 3 and at most 15
    /// seconds less, of which it cleans up for a half.
    #[must_use]
    pub fn within(execution_timeout: Duration, began: Instant) -> Self {
        let margin = (execution_timeout / 10).clamp(Duration::from_secs(3), Duration::from_secs(15));
        Self {
            began,
            deadline: Cell::new(began + execution_timeout.saturating_sub(margin)),
            clean_up: margin / 2,
        }
    }

    /// Returns when the command began.
    #[must_use]
    pub const fn began(&self) -> Instant {
        self.began
    }

    /// Returns when no work is done any more.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline.get()
    }

    /// Returns when nothing at all is done any more.
    #[must_use]
    pub fn end(&self) -> Instant {
        self.deadline() + self.clean_up
    }

    /// Returns how long there is to work.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    /// Tells whether no work is done any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Brings the deadline forward: somebody ends the command.
    pub fn hurry(&self) {
        self.deadline.set(self.deadline().min(Instant::now() + HURRY));
    }

    /// Runs something until the deadline.
    ///
    /// # Errors
    /// `timeout` where it takes longer.
    pub async fn until_deadline<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        within(self.deadline(), work).await
    }

    /// Runs something that may still be done while the command cleans up.
    ///
    /// # Errors
    /// `timeout` where it takes longer.
    pub async fn until_end<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        within(self.end(), work).await
    }
}

async fn within<T>(end: Instant, work: impl Future<Output = T>) -> Result<T, Failure> {
    let over = |_| Failure::new(NodeReason::Timeout, "the time for the command is over");
    tokio::time::timeout_at(end, work).await.map_err(over)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time_of(seconds: u64) -> Time {
        Time::within(Duration::from_secs(seconds), Instant::now())
    }

    #[test]
    fn a_command_ends_before_ssm_ends_it() {
        for (timeout, working, cleaning) in [(5, 2_000, 1_500), (60, 54_000, 3_000), (600, 585_000, 7_500)] {
            let time = time_of(timeout);
            assert_eq!((time.deadline() - time.began()).as_millis(), working);
            assert_eq!((time.end() - time.deadline()).as_millis(), cleaning);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_at_the_deadline_and_cleaning_up_a_little_later() {
        let time = time_of(100);
        let forever = std::future::pending::<()>();
        assert_eq!(
            time.until_deadline(forever).await.unwrap_err().reason,
            NodeReason::Timeout
        );
        assert!(time.is_over());
        assert_eq!(time.began().elapsed().as_secs(), 90);
        assert!(time.until_end(tokio::time::sleep(Duration::from_secs(4))).await.is_ok());
        assert!(
            time.until_end(tokio::time::sleep(Duration::from_secs(4)))
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_is_ended_has_three_seconds_left_and_never_more_than_it_had() {
        let time = time_of(100);
        time.hurry();
        assert_eq!(time.left(), HURRY);
        tokio::time::sleep(Duration::from_secs(2)).await;
        time.hurry();
        assert_eq!(time.left().as_secs(), 1);
    }
}
