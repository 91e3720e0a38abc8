//! The images of a command, and what has become of each so far.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use prefetch::{
    image::Image,
    outcome::{NodeReason, Status},
};
use tokio::time::Instant;

use crate::{
    keep::Presence,
    naming::Before,
    report::{Budget, Line, Reporter},
};

/// One image of a command.
#[derive(Debug)]
pub struct Work {
    /// Its place in the command.
    pub number: usize,
    /// The image.
    pub image: Image,
    /// The room for words on it.
    pub budget: Budget,
    /// True where CRI does not find it although containerd holds it, as it seems, completely.
    pub is_doubtful: Cell<bool>,
    /// The names that it had at the first look before a pull; none as long as nobody has looked.
    pub before: RefCell<Option<Before>>,
    stage: RefCell<Stage>,
}

/// Tells how far an image is.
#[derive(Clone, Debug)]
pub enum Stage {
    /// Nothing was done for it.
    Pending,
    /// Its attempts.
    Trying(Attempts),
    /// It has come, and has to be seen.
    Brought(Brought),
    /// It was reported.
    Reported(Status, Option<NodeReason>),
}

/// An image's attempts so far.
#[derive(Clone, Copy, Debug)]
pub struct Attempts {
    /// The moment when the first began.
    pub began: Instant,
    /// Their number.
    pub count: u32,
}

/// An image that has come.
#[derive(Clone, Copy, Debug)]
pub struct Brought {
    /// Pulled, or cached where it was there but for a name.
    pub status: Status,
    /// The reason that is reported with it.
    pub note: Option<NodeReason>,
    /// Its compressed size, where it was pulled.
    pub bytes: u64,
    /// The number of attempts that it took.
    pub attempts: u32,
    /// The time that it took.
    pub spent: Duration,
}

impl Work {
    /// Begins with an image.
    #[must_use]
    pub fn new(number: usize, image: Image, budget: Budget) -> Self {
        Self {
            number,
            image,
            budget,
            is_doubtful: Cell::new(false),
            before: RefCell::default(),
            stage: RefCell::new(Stage::Pending),
        }
    }

    /// Returns what has become of it.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage.borrow().clone()
    }

    /// Says what has become of it.
    pub fn set(&self, stage: Stage) {
        self.stage.replace(stage);
    }

    /// Tells whether nothing was done for it.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Pending)
    }

    /// Tells whether it was reported.
    #[must_use]
    pub fn is_reported(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Reported(..))
    }

    /// Tells whether it was reported as failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Reported(Status::Failed, _))
    }

    /// Tells whether it was reported as ended by the command's end or containerd's.
    #[must_use]
    pub fn was_interrupted(&self) -> bool {
        matches!(
            *self.stage.borrow(),
            Stage::Reported(Status::Failed, Some(NodeReason::Interrupted))
        )
    }

    /// Tells whether it has been pulled by this command.
    #[must_use]
    pub fn was_pulled(&self) -> bool {
        match *self.stage.borrow() {
            Stage::Reported(status, _) => status == Status::Pulled,
            Stage::Brought(come) => come.status == Status::Pulled,
            _ => false,
        }
    }

    /// Tells whether it is there, or would be, by what was reported.
    #[must_use]
    pub fn presence(&self) -> Presence {
        match *self.stage.borrow() {
            Stage::Reported(Status::Pulled | Status::Cached, _) => Presence::There,
            Stage::Reported(_, Some(NodeReason::ReportOnly)) => Presence::WouldBe,
            _ => Presence::Missing,
        }
    }

    /// Reports it as it was seen.
    pub fn report_brought(&self, reporter: &Reporter, come: Brought) {
        self.report(reporter, come.status, come.note, come.bytes, come.attempts, come.spent);
    }

    /// Reports it as not there, or as cached, after the attempts that there were.
    pub fn report_without_bytes(&self, reporter: &Reporter, status: Status, reason: Option<NodeReason>) {
        let (attempts, spent) = match *self.stage.borrow() {
            Stage::Trying(Attempts { began, count, .. }) => (count, began.elapsed()),
            Stage::Brought(come) => (come.attempts, come.spent),
            _ => (0, Duration::ZERO),
        };
        self.report(reporter, status, reason, 0, attempts, spent);
    }

    /// Reports what would be pulled.
    pub fn report_only(&self, reporter: &Reporter, bytes: u64) {
        let spent = match *self.stage.borrow() {
            Stage::Trying(Attempts { began, .. }) => began.elapsed(),
            _ => Duration::ZERO,
        };
        self.report(reporter, Status::Skipped, Some(NodeReason::ReportOnly), bytes, 0, spent);
    }

    fn report(
        &self,
        reporter: &Reporter,
        status: Status,
        reason: Option<NodeReason>,
        bytes: u64,
        attempts: u32,
        spent: Duration,
    ) {
        if self.is_reported() {
            return; // once is enough
        }
        let image = &self.image;
        reporter.report(&Line {
            image,
            status,
            reason,
            spent,
            bytes,
            attempts,
        });
        self.set(Stage::Reported(status, reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work() -> (Work, Reporter) {
        let image = format!("registry.example/app:v1@sha256:{}", "a".repeat(64));
        let reporter = Reporter::new(false);
        let budget = reporter.budget_of_each(1);
        (Work::new(0, image.parse().unwrap(), budget), reporter.without_lines())
    }

    #[test]
    fn an_image_is_reported_once_as_what_was_known_first() {
        let (work, reporter) = work();
        assert!(work.is_pending() && !work.is_reported());
        work.report_without_bytes(&reporter, Status::Cached, None);
        work.report_without_bytes(&reporter, Status::Failed, Some(NodeReason::Timeout));
        assert!(work.is_reported() && !work.has_failed());
        assert_eq!(work.presence(), Presence::There);
    }

    #[test]
    fn what_would_be_pulled_is_counted_as_if_it_were() {
        let (work, reporter) = work();
        work.report_only(&reporter, 7);
        assert!(!work.has_failed() && !work.was_pulled());
        assert_eq!(work.presence(), Presence::WouldBe);
    }

    #[test]
    fn what_has_come_was_pulled_though_nobody_has_seen_it_yet() {
        let (work, reporter) = work();
        work.set(Stage::Brought(Brought {
            status: Status::Pulled,
            note: None,
            bytes: 7,
            attempts: 1,
            spent: Duration::ZERO,
        }));
        assert!(work.was_pulled() && work.presence() == Presence::Missing);
        work.report_without_bytes(&reporter, Status::Failed, Some(NodeReason::Interrupted));
        assert!(work.has_failed() && !work.was_pulled());
    }
}
