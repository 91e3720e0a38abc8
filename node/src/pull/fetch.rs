//! One attempt to pull an image that is not there: its description, its room, and the pull itself.

use std::time::Duration;

use prefetch::{
    manifest::Configuration,
    outcome::{NodeReason, Status},
};

use super::{
    download,
    image_pull::{ImagePull, refuse_foreign, size_of},
    marker::PullMarker,
    watch::{self, Attempt},
};
use crate::{
    command::{Command, work::Work},
    containerd::inventory::Inventory,
    description::{Description, Fit},
    disk::{room::Reservation, size::Size},
    failure::Failure,
    keep::Age,
    login::Login,
    registry::DocumentKind,
};

/// Separates two looks of an image that waits for room.
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_millis(500);

impl ImagePull<'_> {
    /// Pulls the image, unless the node or the image stand against it.
    pub(super) async fn fetch(&mut self, inventory: &Inventory, attempt: u32) -> Result<(), Failure> {
        self.refuse_node(inventory)?;
        let login = self.login().await;
        let description = self.describe(attempt, login.as_ref()).await?;
        refuse_foreign(&description)?;
        self.find_room(&description, inventory, login.as_ref()).await?;
        if self.command.parameters.report_only {
            let detail = format!("would pull {} bytes", description.bytes());
            return Err(Failure::new(NodeReason::ReportOnly, detail));
        }
        self.pull(&description, attempt, login.as_ref(), inventory).await?;
        self.forget_layers().await;
        if description.fit != Fit::Own
            && let Ok(local) = self.command.context.describe_local(&self.work.image).await
        {
            refuse_foreign(&local)?;
            self.description = Some(local);
        }
        self.status = Status::Pulled;
        self.work.is_doubtful.set(false);
        Ok(())
    }

    /// Refuses to pull where the node's snapshotter does not run, or where kubelet would remove the image.
    fn refuse_node(&self, inventory: &Inventory) -> Result<(), Failure> {
        if inventory.is_snapshotter_missing {
            let detail = format!("containerd is set to use {}, which does not run", inventory.snapshotter);
            return Err(Failure::new(NodeReason::Snapshotter, detail));
        }
        if let Age::NotBrought = self.command.age() {
            return Err(Failure::new(
                NodeReason::Policy,
                Age::NotBrought.words().unwrap_or_default(),
            ));
        }
        Ok(())
    }

    /// Pulls the image beside its ballast and the note that its pull was begun.
    async fn pull(
        &mut self,
        description: &Description,
        attempt: u32,
        login: Option<&Login>,
        inventory: &Inventory,
    ) -> Result<(), Failure> {
        self.ballast = self.command.room().await.ballast(size_of(description));
        self.marker = None; // its file would go with it
        self.marker = PullMarker::note(&self.command.context.host, &self.work.image).ok(); // else, killed, it is nobody's
        watch::pull(Attempt {
            command: self.command,
            work: self.work,
            number: attempt,
            description,
            login,
            inventory,
            marker: self.marker.as_ref(),
        })
        .await
    }

    /// Reserves room, and waits for it where only images beside this one are in the way.
    async fn find_room(
        &self,
        description: &Description,
        inventory: &Inventory,
        login: Option<&Login>,
    ) -> Result<(), Failure> {
        let Command {
            context, parameters, ..
        } = self.command;
        if let Some(limit) = parameters.max_image_bytes.filter(|limit| description.bytes() > *limit) {
            let detail = format!("{} bytes, more than {} GiB", description.bytes(), limit >> 30);
            return Err(Failure::new(NodeReason::TooLarge, detail));
        }
        let room = self.command.room().await;
        let copies = 1 + u64::try_from(context.other_runtimes().count()).unwrap_or(0);
        let (mut size, mut is_exact) = (size_of(description).unpacked_times(copies), false);
        loop {
            match room.reserve(self.work.number, size) {
                Reservation::Reserved => return Ok(()),
                Reservation::Refused(why) if is_exact => return Err(Failure::new(NodeReason::NoSpace, why)),
                Reservation::Refused(_) => {
                    size = self.missing(description, inventory, login).await.unpacked_times(copies);
                    is_exact = true;
                }
                Reservation::Wait => {
                    let pause = tokio::time::sleep(LOOK_FOR_ROOM_EVERY);
                    context.time.until_deadline(pause).await?;
                }
            }
        }
    }

    /// Returns what the layers take that are not here yet.
    async fn missing(&self, description: &Description, inventory: &Inventory, login: Option<&Login>) -> Size {
        let Some(content) = &description.content else {
            return Size::default();
        };
        let Command { context, .. } = self.command;
        let document = context
            .ask_registry(&self.work.image, DocumentKind::Blob, &content.config, login)
            .await;
        let configuration = document.ok().and_then(|text| Configuration::parse(&text).ok());
        Size::missing(content, configuration.as_ref(), inventory)
    }

    /// Lets go of layers that were downloaded for the pull, which has come, or never will.
    pub(super) async fn forget_layers(&self) {
        let Command { context, reporter, .. } = self.command;
        let Some(content) = self
            .description
            .as_ref()
            .and_then(|described| described.content.as_ref())
        else {
            return;
        };
        // Collecting 1 GB takes a fifth of a second, for which nobody need wait where no other image wants the room.
        let is_other = |work: &Work| work.number != self.work.number && !work.is_reported();
        let others_come = self.command.works.iter().any(is_other);
        let forgotten = download::forget(context, &self.work.image, content, others_come);
        if let Ok(Err(status)) = context.time.until_end(Box::pin(forgotten)).await {
            reporter.say(&format!("the lease of layers cannot be removed: {}", status.message()));
        }
    }
}
