//! One command from its parameters to its exit code.

mod at_work;
mod ours;
mod settle;
mod stop;
mod turn;
pub mod work;

use std::{cell::RefCell, collections::HashSet, time::Duration};

use chrono::Utc;
use futures_util::{StreamExt, future::join_all, stream};
use prefetch::outcome::{NodeReason, Status};
use tokio::{
    sync::{Mutex, Notify, OnceCell, Semaphore},
    time::{Instant, sleep, sleep_until},
};

pub use self::stop::Stop;
use self::{at_work::LayersAtWork, turn::Turn, work::Work};
use crate::{
    containerd::{
        config::Config,
        inventory::{Inventory, confirm_all},
        leftovers,
        start::{Start, is_installed},
    },
    context::Context,
    description::Description,
    disk::{Limits, pinned},
    failure::Failure,
    host::Host,
    kubelet,
    lock::Lock,
    login::Answer,
    parameters::Parameters,
    pull::{self, download::pace::Pace, room::Room, slot::SMALL_AT_ONCE},
    report::{Line, Speech},
    time::Time,
};

/// How long containerd may take to answer at all, as after a boot.
const BOOT: Duration = Duration::from_mins(1);
/// How long a containerd that does not answer is left alone.
const PAUSE: Duration = Duration::from_secs(1);
/// How many images are described at once.
const DESCRIBED_AT_ONCE: usize = 8;

/// A command at work on a node.
pub struct Command<'a> {
    /// The node.
    pub context: &'a Context,
    /// What is asked for.
    pub parameters: &'a Parameters,
    /// What it says.
    pub speech: Speech,
    /// Its images.
    pub works: Vec<Work>,
    /// How many small images may be pulled at once.
    pub slots: Semaphore,
    /// How fast layers are downloaded.
    pub pace: Pace,
    /// Held for the one image whose layers are downloaded.
    pub downloading: Mutex<()>,
    /// The layers of the images that are pulled.
    pub layers_at_work: LayersAtWork,
    is_described: Notify,
    descriptions: Vec<OnceCell<Result<Description, Failure>>>,
    room: OnceCell<Room>,
    /// The images that are being pulled, or wait for their turn.
    occupied: RefCell<HashSet<usize>>,
    is_idle: Notify,
    stop: &'a Stop,
    /// The node's, once it is this command's turn; it is held until all is cleaned up.
    lock: RefCell<Option<Lock>>,
}

/// Runs a command to its end, and returns its exit code: 0 where every image is there or left out, 1 where one is not.
///
/// # Errors
/// Why nothing can be done on this node.
pub async fn run(parameters: &Parameters, host: Host, began: Instant) -> Result<u8, String> {
    if !is_installed(&host) {
        return Err("there is no containerd on this node; it cannot be prefetched to".to_owned());
    }
    let stop = Stop::new().map_err(|error| format!("signals cannot be taken: {error}"))?;
    let time = Time::of(parameters, began);
    let speech = Speech::new(parameters.report_only);
    let config = tokio::select! {
        config = Config::of(&host, time.deadline().into_std()) => config,
        () = stop.happens() => Err(Failure::new(NodeReason::Interrupted, "the command was ended")),
        () = sleep_until(time.deadline()) => Err(Failure::new(NodeReason::Timeout, "containerd's settings cannot be had")),
    };
    let config = match config {
        Ok(config) => config,
        Err(failure) => return Ok(fail_all(parameters, &speech, &failure)),
    };
    if config.is_cri_disabled {
        return Err(
            "containerd's CRI is disabled: kubelet uses another runtime, such as Docker, which is not supported"
                .to_owned(),
        );
    }
    let context = Context::new(host, time, config);
    let command = Command::new(&context, parameters, speech, &stop);
    command.note_what_is_named();
    let may_serve = command.run(command.prefetch()).await == Some(true);
    if may_serve && command.lock.borrow().is_some() {
        turn::serve_queue(&command, &stop).await;
    }
    turn::bring_boots_along(&command);
    Ok(command.exit_code())
}

fn fail_all(parameters: &Parameters, speech: &Speech, failure: &Failure) -> u8 {
    speech.say(&failure.detail);
    for image in &parameters.images {
        speech.report(&Line {
            image,
            status: Status::Failed,
            reason: Some(failure.reason),
            spent: Duration::ZERO,
            bytes: 0,
            attempts: 0,
        });
    }
    1
}

impl<'a> Command<'a> {
    /// Takes up a command.
    #[must_use]
    pub fn new(context: &'a Context, parameters: &'a Parameters, speech: Speech, stop: &'a Stop) -> Self {
        let images = parameters.images.iter().enumerate();
        let talk = || speech.talk_of_each(parameters.images.len());
        Self {
            context,
            parameters,
            works: images
                .map(|(number, image)| Work::new(number, image.clone(), talk()))
                .collect(),
            slots: Semaphore::new(parameters.max_parallel_image_pulls * SMALL_AT_ONCE as usize),
            pace: Pace::new(parameters.max_connections, parameters.bandwidth),
            downloading: Mutex::default(),
            layers_at_work: LayersAtWork::default(),
            is_described: Notify::new(),
            descriptions: parameters.images.iter().map(|_| OnceCell::new()).collect(),
            room: OnceCell::new(),
            occupied: RefCell::default(),
            is_idle: Notify::new(),
            speech,
            stop,
            lock: RefCell::default(),
        }
    }

    /// Does a command's work until it ends, a signal ends it, or its time is over. Whatever ends it, every image is reported.
    async fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let reason = tokio::select! {
            biased;
            () = self.stop.happens() => NodeReason::Interrupted,
            ended = Box::pin(work) => return Some(ended),
            () = sleep_until(self.context.time.end()) => NodeReason::Timeout,
        };
        self.end(reason).await;
        None
    }

    /// Looks what is there, and brings the rest in turn with other commands; returns true where it had its turn, and a
    /// containerd that answers.
    async fn prefetch(&self) -> bool {
        let began = Instant::now();
        let has_looked = match self.context.inventory(began).await {
            Ok(inventory) => self.report_complete(&inventory).await.is_ok(),
            Err(_) => false,
        };
        let is_work_left = self.works.iter().any(|work| !work.is_told());
        if !is_work_left && self.parameters.keep == 0 {
            return false;
        }
        // what was seen before others were at work is old
        let (lock, is_fresh) = match self.wait_for_turn().await {
            Turn::Work(lock) => (lock, has_looked && began.elapsed() < crate::context::FRESH),
            Turn::WorkAfterAnother(lock) => (Some(lock), false),
            Turn::GivenUp(reason) => {
                self.fail_the_rest(reason);
                return false;
            }
        };
        self.lock.replace(lock);
        let has_containerd = is_fresh || self.look_again().await;
        if has_containerd {
            self.take_over_what_was_begun().await;
            self.bring_the_rest().await;
            self.keep_the_newest().await;
        }
        has_containerd
    }

    /// Looks what is there, and brings the rest, for one who has the lock.
    async fn bring_all(&self) {
        if self.look_again().await {
            self.bring_the_rest().await;
            self.keep_the_newest().await;
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
            self.speech.say(&failure.detail);
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
        let is_complete = |work: &&Work| work.is_left() && inventory.is_complete(&work.image);
        let complete: Vec<_> = self.works.iter().filter(is_complete).collect();
        let images: Vec<_> = complete.iter().map(|work| &work.image).collect();
        let confirmed = confirm_all(&self.context.containerd, &images);
        let confirmed = self.context.time.until_deadline(confirmed).await??;
        for (work, is_found) in complete.into_iter().zip(confirmed) {
            work.is_doubtful.set(!is_found);
            if is_found {
                work.report_without_bytes(&self.speech, Status::Cached, None);
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
        let left: Vec<&Work> = self.works.iter().filter(|work| work.is_left()).collect();
        if left.is_empty() {
            return;
        }
        self.wait_for_snapshotter().await;
        for (handler, snapshotter) in self.context.other_runtimes() {
            let words =
                format!("runtime class {handler} unpacks into {snapshotter}: images are brought for it as well");
            self.speech.say(&words);
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
            self.speech.say(&words);
        }
        let describing = stream::iter(&left)
            .map(|work| self.description_of(work))
            .buffer_unordered(DESCRIBED_AT_ONCE)
            .for_each(|_| {
                self.is_described.notify_waiters();
                std::future::ready(())
            });
        let bringing = join_all(left.iter().map(|work| pull::prefetch(self, work)));
        tokio::join!(describing, bringing, self.remove_leftovers());
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
                    self.speech.say(&words);
                }
            }
            Ok(Err(failure)) | Err(failure) => {
                let words = format!("what earlier commands left cannot be removed: {}", failure.detail);
                self.speech.say(&words);
            }
        }
    }

    /// Returns what the registry says of an image, which is asked for once.
    ///
    /// # Errors
    /// What the registry failed with.
    pub async fn description_of(&self, work: &Work) -> Result<Description, Failure> {
        let describe = async {
            let login = match self.login(work).await {
                Answer::Given(login) => Some(login),
                Answer::None | Answer::Failed(_) => None,
            };
            self.context.describe(&work.image, login.as_ref()).await
        };
        self.descriptions[work.number].get_or_init(|| describe).await.clone()
    }

    /// Returns what the registry says of an image, once it has been asked; none where it fails.
    pub async fn described(&self, work: &Work) -> Option<Description> {
        loop {
            let notified = self.is_described.notified();
            if let Some(described) = self.descriptions[work.number].get() {
                return described.clone().ok();
            }
            notified.await;
        }
    }

    /// Tells whether pods may come, whose own pulls would wait behind one of ours in containerd: kubelet runs, or has run.
    pub async fn may_have_pods(&self) -> bool {
        let sandboxes = self.context.containerd.sandboxes().await;
        kubelet::is_running() || !sandboxes.is_ok_and(|sandboxes| sandboxes.is_empty())
    }

    /// Returns the login for an image, which all images of its registry share.
    pub async fn login(&self, work: &Work) -> Answer {
        self.context.login(&work.image, |cause| self.speech.say(cause)).await
    }

    /// Returns the room that the node has for images.
    pub async fn room(&self) -> &Room {
        let find = async {
            let limits = Limits {
                percent: self.parameters.image_gc_high_threshold_percent,
                kubelet: self.context.facts().kubelet.clone(),
            };
            for file in &limits.kubelet.unreadable {
                self.speech
                    .say(&format!("kubelet's {file} cannot be read: its defaults count"));
            }
            let context = self.context;
            let pinned = match context.fresh_inventory().await {
                Ok(inventory) => {
                    let bytes = pinned::bytes(&context.containerd, &inventory);
                    context.time.until_deadline(bytes).await.unwrap_or(0)
                }
                Err(_) => 0,
            };
            Room::on(&context.host, &context.config, limits, pinned, self.is_pinning())
        };
        self.room.get_or_init(|| Box::pin(find)).await
    }

    /// Tells whether this command has pulled the same image under another name.
    pub fn has_pulled(&self, work: &Work) -> bool {
        let is_same = |other: &&Work| other.image.digest() == work.image.digest();
        self.works.iter().filter(is_same).any(Work::was_pulled)
    }

    /// Notes that an image is being pulled, or waits for its turn.
    pub fn occupy(&self, work: &Work) {
        self.occupied.borrow_mut().insert(work.number);
    }

    /// Notes that an image has come: others have its turn.
    pub fn settle(&self, work: &Work) {
        if let Some(room) = self.room.get() {
            room.settle(work.number);
        }
        self.release(work);
    }

    /// Notes that an image is not being pulled any more: its room is free.
    pub fn release(&self, work: &Work) {
        if let Some(room) = self.room.get() {
            room.release(work.number);
        }
        let mut occupied = self.occupied.borrow_mut();
        if occupied.remove(&work.number) && occupied.is_empty() {
            self.is_idle.notify_waiters();
        }
    }

    /// Returns once no image is being pulled, or waits for its turn.
    async fn idle(&self) {
        loop {
            let notified = self.is_idle.notified();
            if self.occupied.borrow().is_empty() {
                return;
            }
            notified.await;
        }
    }

    fn exit_code(&self) -> u8 {
        u8::from(self.works.iter().any(Work::has_failed))
    }
}
