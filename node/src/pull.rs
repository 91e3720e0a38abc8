//! One image: its attempts, what goes on while it is pulled, and what is left behind where it fails.

pub mod download;
mod fetch;
mod image_pull;
pub mod marker;
mod names;
pub mod progress;
pub mod reason;
pub mod retry;
pub mod slot;
mod watch;

use std::time::Duration;

use prefetch::outcome::NodeReason;
use tokio::time::Instant;

use self::image_pull::ImagePull;
use crate::{
    command::{
        Command,
        work::{Brought, Stage, Work},
    },
    containerd::inventory::{Inventory, confirm},
    failure::Failure,
};

/// Bounds the attempts to bring an image.
const MAX_ATTEMPTS: u32 = 4;
/// Bounds the time in which CRI learns a name that others have made (seen: 0.3 s).
const CRI_NOTICES_WITHIN: Duration = Duration::from_millis(500);

/// Tries to bring an image, and reports what became of it.
pub async fn prefetch(command: &Command<'_>, work: &Work) {
    let mut pull = ImagePull::of(command, work);
    let ended = pull.bring_with_retries().await;
    command.release(work);
    let ended = match ended {
        Err(failure) if pull.may_have_come(&failure) => pull.look_whether_it_came().await.ok_or(failure),
        ended => ended,
    };
    match ended {
        Ok(come) => {
            work.set(Stage::Brought(come));
            pull.ballast = None;
            command.see(work, come).await;
        }
        Err(failure) => {
            let has_begun = pull.attempts().is_some_and(|attempts| attempts.count > 0);
            command.report_failure(work, &failure, pull.bytes());
            pull.ballast = None;
            if has_begun {
                if !failure.reason.is_retryable() {
                    pull.forget_layers().await;
                }
                command.clean_up(work, failure.reason).await;
            }
        }
    }
}

impl ImagePull<'_> {
    async fn bring_with_retries(&mut self) -> Result<Brought, Failure> {
        let mut attempt = 1;
        loop {
            let failure = match self.bring(attempt).await {
                Ok(come) => return Ok(come),
                Err(failure) => failure,
            };
            self.command.release(self.work);
            if self.attempts().is_none_or(|attempts| attempts.count < attempt) {
                return Err(failure); // the time was over before this attempt began
            }
            let Command { reporter, .. } = self.command;
            reporter.tell_failure(&self.work.budget, &self.work.image, attempt, &failure);
            let is_last = attempt == MAX_ATTEMPTS || !self.may_pass(&failure).await;
            if is_last || !self.back_off(attempt).await {
                return Err(failure);
            }
            attempt += 1;
        }
    }

    /// Makes one attempt. Others have their turn while it is only named.
    async fn bring(&mut self, attempt: u32) -> Result<Brought, Failure> {
        let Command { context, .. } = self.command;
        self.command.occupy(self.work);
        let slot = slot::take(self.command, self.work).await?;
        if context.time.is_over() {
            return Err(Failure::new(NodeReason::Timeout, "the time for the command is over"));
        }
        self.begin(attempt);
        let inventory = if attempt == 1 && !self.command.has_pulled(self.work) {
            context.fresh_inventory().await?
        } else {
            context.inventory(Instant::now()).await?
        };
        self.remember_names(&inventory);
        self.was_there = self.is_there(&inventory).await?;
        if !self.was_there {
            self.fetch(&inventory, attempt).await?;
        }
        drop(slot);
        self.command.settle(self.work);
        self.name(&inventory).await
    }

    /// Tells whether an image is there but for a name. Where CRI does not find what seems to be there, it may only have been
    /// named a moment ago.
    async fn is_there(&self, inventory: &Inventory) -> Result<bool, Failure> {
        let (context, image) = (self.command.context, &self.work.image);
        let is_here = inventory.has_content(image);
        if !is_here || !self.work.is_doubtful.get() {
            return Ok(is_here);
        }
        tokio::time::sleep(CRI_NOTICES_WITHIN).await;
        let is_found = context
            .time
            .until_deadline(confirm(&context.containerd, image))
            .await??;
        self.work.is_doubtful.set(!is_found);
        Ok(is_found)
    }
}
