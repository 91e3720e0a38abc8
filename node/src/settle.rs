//! The end of an image: it is seen and reported, or given up and cleaned up after.

use std::{rc::Rc, time::Duration};

use futures_util::future::join_all;
use prefetch::outcome::{NodeReason, Status};
use tokio::time::{Instant, sleep};

use crate::{
    command::{
        Command,
        work::{Brought, Stage, Work},
    },
    containerd::{
        inventory::{Inventory, unanswered},
        leftovers,
    },
    description::Fit,
    failure::Failure,
    keep::{self, Age},
    naming,
};

/// Bounds the time for which an image that has come waits for others, to be seen together with them.
const TOGETHER: Duration = Duration::from_secs(1);
/// Separates two questions to a containerd that does not answer.
const PAUSE: Duration = Duration::from_secs(1);

impl Command<'_> {
    /// Looks whether an image that has come is there, and reports it as what is seen. One look does for all that have come
    /// meanwhile, or before the last was pulled.
    pub async fn see(&self, work: &Work, come: Brought) {
        if self.parameters.report_only {
            return work.report_brought(&self.reporter, come);
        }
        let since = Instant::now();
        tokio::select! {
            () = self.idle() => {}
            () = sleep(TOGETHER) => {}
        }
        self.report_seen(work, come, since).await;
    }

    async fn report_seen(&self, work: &Work, come: Brought, since: Instant) {
        let inventory = self.look_patiently(since).await;
        if let Some(inventory) = inventory
            && let Some(come) = seen(&inventory, work, come)
        {
            self.spare_from_age(&inventory, work).await;
            return work.report_brought(&self.reporter, come);
        }
        let detail = "containerd does not hold it completely";
        let failure = Failure::new(NodeReason::Interrupted, detail);
        self.reporter
            .tell_failure(&work.budget, &work.image, come.attempts, &failure);
        work.report_without_bytes(&self.reporter, Status::Failed, Some(NodeReason::Interrupted));
        self.clean_up(work, NodeReason::Interrupted).await;
    }

    /// Looks until containerd answers, or the time is over.
    async fn look_patiently(&self, since: Instant) -> Option<Rc<Inventory>> {
        loop {
            match self.context.inventory(since).await {
                Ok(inventory) => return Some(inventory),
                Err(failure) => self.reporter.say(&failure.detail),
            }
            if self.context.time.is_over() {
                return None;
            }
            sleep(PAUSE).await;
        }
    }

    /// Pins an image at once where kubelet removes what is unused by age, at any moment.
    async fn spare_from_age(&self, inventory: &Inventory, work: &Work) {
        if self.age() != Age::Pinned {
            return;
        }
        let pinned = keep::pin(&self.context.containerd, inventory, &work.image);
        let failure = match self.context.time.until_end(Box::pin(pinned)).await {
            Ok(Ok(())) => return,
            Ok(Err(status)) => unanswered(&status),
            Err(failure) => failure,
        };
        let words = format!("could not pin {}: {}", work.image.name_by_digest(), failure.detail);
        self.reporter.say(&words);
    }

    /// Reports an image that could not be brought.
    pub fn report_failure(&self, work: &Work, failure: &Failure, bytes: u64) {
        let status = match failure.reason {
            NodeReason::ReportOnly => return work.report_only(&self.reporter, bytes),
            NodeReason::Platform
            | NodeReason::TooLarge
            | NodeReason::NoSpace
            | NodeReason::Snapshotter
            | NodeReason::RuntimeClass
            | NodeReason::Policy => Status::Skipped,
            _ => Status::Failed,
        };
        work.report_without_bytes(&self.reporter, status, Some(failure.reason));
    }

    /// Ends the command before its work is done: every image is reported, what has come as what it is, and what was begun is
    /// cleared.
    pub(crate) async fn end(&self, reason: NodeReason) {
        self.context.time.hurry();
        let mut come = Vec::new();
        let mut begun = Vec::new();
        for work in &self.works {
            match work.stage() {
                Stage::Reported(..) => continue,
                Stage::Brought(image) => {
                    come.push((work, image));
                    continue;
                }
                Stage::Trying(_) => begun.push(work),
                Stage::Pending => {}
            }
            work.report_without_bytes(&self.reporter, Status::Failed, Some(reason));
        }
        let since = Instant::now();
        join_all(come.into_iter().map(|(work, come)| self.report_seen(work, come, since))).await;
        join_all(begun.into_iter().map(|work| self.clean_up(work, reason))).await;
    }

    /// Reports every image of which nothing is known yet as failed.
    pub(crate) fn fail_the_rest(&self, reason: NodeReason) {
        for work in self.works.iter().filter(|work| work.is_pending()) {
            work.report_without_bytes(&self.reporter, Status::Failed, Some(reason));
        }
    }

    /// Removes what attempts that came to nothing left behind, unless the image has become complete by other hands.
    pub async fn clean_up(&self, work: &Work, reason: NodeReason) {
        if self.parameters.report_only {
            return;
        }
        let cleared = self.context.time.until_end(Box::pin(self.clear(work, reason))).await;
        if let Ok(Err(failure)) | Err(failure) = cleared {
            let words = format!("could not clear {}: {}", work.image.name_by_digest(), failure.detail);
            self.reporter.say(&words);
        }
    }

    async fn clear(&self, work: &Work, reason: NodeReason) -> Result<(), Failure> {
        let containerd = &self.context.containerd;
        let inventory = self.context.inventory(Instant::now()).await?;
        let is_lacking = !inventory.has_content(&work.image) || work.is_doubtful.get() || self.is_foreign(work).await;
        let before = work.before.borrow().clone().filter(|_| is_lacking);
        if let Some(before) = before.filter(|_| !self.is_brought_under_another_name(work)) {
            naming::remove_new_names(containerd, &work.image, &before).await?;
        }
        if matches!(
            reason,
            NodeReason::NoSpace | NodeReason::Registry | NodeReason::Timeout | NodeReason::Interrupted
        ) {
            let full = (reason == NodeReason::NoSpace).then_some(inventory.snapshotter.as_str());
            let collected = leftovers::collect_garbage(containerd, full).await;
            collected.map_err(|status| unanswered(&status))?;
        }
        Ok(())
    }

    async fn is_foreign(&self, work: &Work) -> bool {
        let local = self.context.describe_local(&work.image).await;
        local.is_ok_and(|local| matches!(local.fit, Fit::Foreign(_)))
    }

    /// Tells whether the same image is at work, or has come, as another one of this command: its names are its own affair.
    fn is_brought_under_another_name(&self, work: &Work) -> bool {
        self.works.iter().any(|other| {
            let is_same = other.number != work.number && other.image.name_by_digest() == work.image.name_by_digest();
            is_same && matches!(other.stage(), Stage::Trying(_) | Stage::Brought(_))
        })
    }
}

/// Returns how an image that has come is there; none where it is not. Its tag may have been given to another one meanwhile.
fn seen(inventory: &Inventory, work: &Work, come: Brought) -> Option<Brought> {
    let Work { image, .. } = work;
    let is_by_digest = inventory.is_right(&image.name_by_digest(), image.digest()) && inventory.has_content(image);
    let tag = image.name_by_tag().and_then(|name| inventory.names.get(&name));
    let is_moved = tag.is_some_and(|name| name.target.digest != image.digest());
    match come.note {
        None if is_by_digest && is_moved => Some(Brought {
            note: Some(NodeReason::TagMoved),
            ..come
        }),
        Some(NodeReason::TagMoved) if is_by_digest => Some(come),
        _ => inventory.is_complete(image).then_some(come),
    }
}
