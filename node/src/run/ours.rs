//! Images of ours on the node: they are labelled, pinned, kept, and let go.

use std::time::SystemTime;

use prefetch::image::Image;
use tokio::time::Instant;

use crate::{
    command::{Command, work::Work},
    containerd::inventory::{Inventory, unanswered},
    context::Context,
    keep::{self, Age, KeepPolicy, recent},
    naming::{self, Before, ours},
    pull::{download, marker::KilledPull},
};

impl Command<'_> {
    /// Remembers what the command names, so that no other one lets go of it at once.
    pub(super) fn note_what_is_named(&self) {
        if self.parameters.report_only {
            return;
        }
        if let Err(error) = recent::note(&self.context.host, &self.parameters.images) {
            self.reporter.say(&format!("what is named cannot be noted: {error}"));
        }
    }

    /// Sets right what an image of ours carries, whose names somebody has written anew.
    pub(super) async fn set_right(&self, inventory: &Inventory, work: &Work) {
        if self.parameters.report_only {
            return;
        }
        let Context { time, containerd, .. } = self.context;
        let set = time
            .until_end(ours::set_right(containerd, inventory, &work.image))
            .await;
        if let Ok(Err(status)) = set {
            let name = work.image.name_by_digest();
            self.reporter
                .say(&format!("could not label {name}: {}", status.message()));
        }
    }

    /// Names and labels what a command that was killed had pulled, and nobody has named as ours.
    pub(super) async fn take_over_what_was_begun(&self) {
        let Context {
            time, containerd, host, ..
        } = self.context;
        let left = if self.parameters.report_only {
            Vec::new()
        } else {
            KilledPull::all(host)
        };
        if left.is_empty() {
            return;
        }
        let Ok(inventory) = self.context.inventory(Instant::now()).await else {
            return;
        };
        for pull in left {
            let image = &pull.image;
            if is_of_killed_pull(&inventory, &pull) {
                let before = Before::default();
                let named = naming::add_names(containerd, &inventory, image, Some(&before), async || Ok(None));
                if let Ok(Err(failure)) | Err(failure) = time.until_end(Box::pin(named)).await {
                    let words = format!("could not label {}: {}", image.name_by_digest(), failure.detail);
                    self.reporter.say(&words);
                }
            }
            if inventory.has_content(image) {
                self.forget_layers_of(image).await;
            }
            pull.forget();
        }
    }

    /// Lets go of the layers that a killed command had downloaded for a pull that has come.
    async fn forget_layers_of(&self, image: &Image) {
        let forget = async {
            let local = self.context.describe_local(image).await?;
            let Some(content) = &local.content else {
                return Ok(());
            };
            let forgotten = download::forget(self.context, image, content, false).await;
            forgotten.map_err(|status| unanswered(&status))
        };
        if let Ok(Err(failure)) | Err(failure) = self.context.time.until_end(Box::pin(forget)).await {
            let words = format!(
                "layers of {} cannot be let go: {}",
                image.name_by_digest(),
                failure.detail
            );
            self.reporter.say(&words);
        }
    }

    /// Keeps the newest images of ours in each repository, pinned where that is wanted, and lets go of the older ones.
    pub(super) async fn keep_the_newest(&self) {
        let Context {
            time, containerd, host, ..
        } = self.context;
        if self.parameters.keep == 0 || time.is_over() {
            return;
        }
        let Ok(inventory) = self.context.inventory(Instant::now()).await else {
            return;
        };
        let images: Vec<_> = self.works.iter().map(|work| (&work.image, work.presence())).collect();
        let policy = KeepPolicy {
            images: &images,
            keep: self.parameters.keep,
            pin: self.is_pinning(),
            report_only: self.parameters.report_only,
        };
        if let (Age::Pinned, Some(words)) = (self.age(), Age::Pinned.words()) {
            self.reporter.say(words);
        }
        let tidied = keep::tidy(containerd, host, &inventory, &policy, |words| self.reporter.say(words));
        if time.until_end(Box::pin(tidied)).await.is_err() {
            self.reporter.say("there was no time to let go of all older images");
        }
    }
}

/// Returns true where the pull of a killed command made an image's name, and nothing says yet that the image is ours.
fn is_of_killed_pull(inventory: &Inventory, pull: &KilledPull) -> bool {
    let KilledPull { image, until, .. } = pull;
    let made = inventory
        .names
        .get(&image.name_by_digest())
        .and_then(|name| name.created_at);
    let is_by_it = made.is_some_and(|made| SystemTime::from(made) <= *until);
    is_by_it && inventory.has_content(image) && ours::pulled_at(inventory, image).is_none()
}
