//! The names of an image that has come.

use std::time::Duration;

use prefetch::outcome::{NodeReason, Status};
use tokio::time::Instant;

use super::image_pull::{ImagePull, refuse_foreign};
use crate::{
    command::{
        Command,
        work::{Brought, Work},
    },
    containerd::inventory::Inventory,
    failure::Failure,
    naming::{self, Tag},
};

impl ImagePull<'_> {
    /// Gives the image the names that it lacks.
    pub(super) async fn name(&mut self, inventory: &Inventory) -> Result<Brought, Failure> {
        let Command { parameters, .. } = self.command;
        let is_pulled = self.status == Status::Pulled;
        let note = if parameters.report_only {
            None
        } else {
            self.add_names(inventory).await?
        };
        let attempts = self.attempts();
        let count = attempts.as_ref().map_or(0, |attempts| attempts.count);
        Ok(Brought {
            status: self.status,
            note,
            bytes: if is_pulled { self.bytes() } else { 0 },
            // finding an image there is no attempt to pull it
            attempts: if is_pulled { count } else { count.saturating_sub(1) },
            spent: attempts.map_or(Duration::ZERO, |attempts| attempts.began.elapsed()),
        })
    }

    async fn add_names(&self, inventory: &Inventory) -> Result<Option<NodeReason>, Failure> {
        let Command { context, reporter, .. } = self.command;
        let Work { image, budget, .. } = self.work;
        let attempts = self.attempts().filter(|_| self.status == Status::Pulled);
        let before = attempts.and_then(|_| self.work.before.borrow().clone());
        let digest_of_tag = async || {
            let login = self.login().await;
            context.ask_registry_for_tag(image, login.as_ref()).await
        };
        let names = naming::add_names(&context.containerd, inventory, image, before.as_ref(), digest_of_tag);
        if context.time.until_end(Box::pin(names)).await?? == Tag::Given {
            return Ok(None);
        }
        let attempt = attempts.as_ref().map_or(1, |attempts| attempts.count.max(1));
        let cause = "the tag stands for another image by now and stays there";
        reporter.tell(budget, image, attempt, NodeReason::TagMoved, cause);
        Ok(Some(NodeReason::TagMoved))
    }

    /// Tells whether somebody else, such as kubelet, may have pulled the image since the last attempt began.
    pub(super) fn may_have_come(&self, failure: &Failure) -> bool {
        let is_settled = matches!(
            failure.reason,
            NodeReason::Platform | NodeReason::TooLarge | NodeReason::ReportOnly
        );
        let Command {
            context, parameters, ..
        } = self.command;
        let has_tried = self.attempts().is_some_and(|attempts| attempts.count > 0);
        !is_settled && has_tried && !self.was_there && !parameters.report_only && !context.time.is_over()
    }

    pub(super) async fn look_whether_it_came(&mut self) -> Option<Brought> {
        let context = self.command.context;
        let inventory = context.inventory(Instant::now()).await.ok()?;
        if !inventory.has_content(&self.work.image) || self.work.is_doubtful.get() {
            return None;
        }
        let local = context.describe_local(&self.work.image).await.ok()?;
        refuse_foreign(&local).ok()?;
        self.name(&inventory).await.ok()
    }
}
