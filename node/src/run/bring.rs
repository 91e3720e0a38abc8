//! The work of one command: looks what is there, and brings the rest.

use std::time::Duration;

use chrono::Utc;
use futures_util::future::join_all;
use prefetch::outcome::{NodeReason, Status};
use tokio::time::{Instant, sleep, sleep_until};

use super::turn::{self, Turn};
use crate::{
    command::{Command, work::Work},
    containerd::{
        config::Config,
        inventory::{Inventory, confirm_all},
        leftovers,
        start::Start,
    },
    context::{Context, FRESH},
    failure::Failure,
    lock::Locks,
    pull::{self, marker::KilledPull},
};

/// Bounds the time in which containerd answers at all, as after a boot.
const BOOT: Duration = Duration::from_mins(1);
/// Separates two questions to a containerd that does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells how a command has done its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// There was nothing to do.
    Idle,
    /// It had its turn.
    Worked,
    /// It gave way to others, or containerd did not answer.
    GivenUp,
}

impl Command<'_> {
    /// Does a command's work until it ends, a signal ends it, or its time is over. Whatever ends it, every image is reported.
    pub(super) async fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let reason = tokio::select! {
            biased;
            () = self.stop.happens() => NodeReason::Interrupted,
            ended = Box::pin(work) => return Some(ended),
            () = sleep_until(self.context.time.end()) => NodeReason::Timeout,
        };
        self.end(reason).await;
        None
    }

    /// Looks what is there, and brings the rest in turn with other commands.
    pub(super) async fn prefetch(&self) -> End {
        let began = Instant::now();
        let has_looked = match self.context.inventory(began).await {
            Ok(inventory) => self.report_complete(&inventory).await.is_ok(),
            Err(_) => false,
        };
        let is_work_left = self.works.iter().any(|work| !work.is_reported());
        if !is_work_left && self.parameters.keep == 0 {
            self.clear_after_killed().await;
            return End::Idle;
        }
        // what was seen before others were at work is old
        let (lock, is_fresh) = match self.wait_for_turn().await {
            Turn::Work(lock) => (lock, has_looked && began.elapsed() < FRESH),
            Turn::WorkAfterAnother(lock) => (Some(lock), false),
            Turn::GivenUp(reason) => {
                self.fail_the_rest(reason);
                return End::GivenUp;
            }
        };
        self.lock.replace(lock);
        if !is_fresh && !self.look_again().await {
            return End::GivenUp;
        }
        self.take_over_what_was_begun().await;
        self.bring_the_rest().await;
        self.keep_the_newest().await;
        End::Worked
    }

    /// Looks what is there, and brings the rest, for one who has the lock.
    pub(super) async fn bring_all(&self) {
        if self.look_again().await {
            self.bring_the_rest().await;
            self.keep_the_newest().await;
        }
    }

    /// Clears what a killed command has left, where nobody works; one that does has the same files.
    async fn clear_after_killed(&self) {
        let Context { host, .. } = self.context;
        if self.parameters.report_only || !KilledPull::may_be_there(host) {
            return;
        }
        let lock = turn::folder(self.context).and_then(|folder| Locks::in_folder(&folder).try_work());
        if let Ok(Some(lock)) = lock {
            self.lock.replace(Some(lock));
            self.take_over_what_was_begun().await;
            self.remove_leftovers().await;
        }
    }

    /// Looks again, and waits a while for a containerd that does not answer, as at boot; returns false where it does not.
    async fn look_again(&self) -> bool {
        let patience = Instant::now() + BOOT;
        loop {
            let looked = match self.context.inventory(Instant::now()).await {
                Ok(inventory) => self.report_complete(&inventory).await,
                Err(failure) => Err(failure),
            };
            let Err(failure) = looked else {
                return true;
            };
            self.reporter.say(&failure.detail);
            if Instant::now() > patience || self.context.time.is_over() {
                self.fail_the_rest(NodeReason::Interrupted);
                return false;
            }
            sleep(PAUSE).await;
        }
    }

    /// Reports the images that kubelet finds; where CRI does not find one that seems to be there, it is looked at again when
    /// it has its turn.
    async fn report_complete(&self, inventory: &Inventory) -> Result<(), Failure> {
        let is_complete = |work: &&Work| work.is_pending() && inventory.is_complete(&work.image);
        let complete: Vec<_> = self.works.iter().filter(is_complete).collect();
        let images: Vec<_> = complete.iter().map(|work| &work.image).collect();
        let confirmed = confirm_all(&self.context.containerd, &images);
        let confirmed = self.context.time.until_deadline(confirmed).await??;
        for (work, is_found) in complete.into_iter().zip(confirmed) {
            work.is_doubtful.set(!is_found);
            if is_found {
                work.report_without_bytes(&self.reporter, Status::Cached, None);
                self.set_right(inventory, work).await;
            }
        }
        Ok(())
    }

    /// Waits for a snapshotter outside containerd which a containerd that has just begun may not reach yet, as at boot.
    async fn wait_for_snapshotter(&self) {
        let Context { config, host, .. } = self.context;
        let began = Start::of(host).and_then(Start::moment);
        let age = || began.and_then(|began| (Utc::now() - began).to_std().ok());
        let is_young = || age().is_some_and(|age| age < BOOT) && !self.context.time.is_over();
        while config.runs_outside(&config.snapshotter) && is_young() {
            match self.context.inventory(Instant::now()).await {
                Ok(inventory) if inventory.is_snapshotter_missing => sleep(PAUSE).await,
                _ => return,
            }
        }
    }

    /// Brings the images that are left, so many at a time; registries are asked about all of them meanwhile.
    async fn bring_the_rest(&self) {
        let left: Vec<&Work> = self.works.iter().filter(|work| work.is_pending()).collect();
        if left.is_empty() {
            return;
        }
        self.wait_for_snapshotter().await;
        self.tell_of_runtime_classes();
        let describing = self.describe_all(&left);
        let bringing = join_all(left.iter().map(|work| pull::prefetch(self, work)));
        tokio::join!(describing, bringing, self.remove_leftovers());
    }

    /// Tells people of runtime classes that unpack into other snapshotters.
    fn tell_of_runtime_classes(&self) {
        for (handler, snapshotter) in self.context.other_runtimes() {
            let words =
                format!("runtime class {handler} unpacks into {snapshotter}: images are brought for it as well");
            self.reporter.say(&words);
        }
        let Config {
            unreached_snapshotters,
            discards_layers,
            ..
        } = &self.context.config;
        for (handler, snapshotter) in unreached_snapshotters.iter().filter(|_| *discards_layers) {
            let words = format!(
                "runtime class {handler} unpacks into {snapshotter}, for which containerd pulls nothing and keeps no layers: set \
                 its runtime_platforms, or its pods cannot start"
            );
            self.reporter.say(&words);
        }
    }

    async fn remove_leftovers(&self) {
        if self.parameters.report_only {
            return;
        }
        let Context {
            time, containerd, host, ..
        } = self.context;
        let removed = async {
            let inventory = self.context.fresh_inventory().await?;
            let removed = leftovers::remove_leftovers(containerd, host, &inventory).await;
            removed.map_err(|status| Failure::new(NodeReason::Interrupted, status.message()))
        };
        match time.until_end(Box::pin(removed)).await {
            Ok(Ok(leases)) => {
                for lease in leases {
                    let words = format!("removing the lease {lease} of a pull that died with its containerd");
                    self.reporter.say(&words);
                }
            }
            Ok(Err(failure)) | Err(failure) => {
                let words = format!("what earlier commands left cannot be removed: {}", failure.detail);
                self.reporter.say(&words);
            }
        }
    }
}
