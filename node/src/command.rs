//! A command at work on a node: its parameters, its images, and what these share.

pub mod layers_at_work;
pub mod pace;
pub mod stop;
pub mod work;

use std::{cell::RefCell, collections::HashSet};

use futures_util::{StreamExt, stream};
use tokio::sync::{Mutex, Notify, OnceCell, Semaphore};

use self::{layers_at_work::LayersAtWork, pace::Pace, stop::Stop, work::Work};
use crate::{
    context::Context,
    description::Description,
    disk::{limits::Limits, pinned, room::Room, size::SMALL_AT_ONCE},
    failure::Failure,
    keep::Age,
    kubelet,
    lock::Lock,
    login::Answer,
    parameters::Parameters,
    report::Reporter,
};

/// Bounds the images that are described at once.
const DESCRIBED_AT_ONCE: usize = 8;

/// A command at work on a node.
pub struct Command<'a> {
    /// The node.
    pub context: &'a Context,
    /// Its parameters.
    pub parameters: &'a Parameters,
    /// Its standard output and standard error.
    pub reporter: Reporter,
    /// Its images.
    pub works: Vec<Work>,
    /// The places for small images that are pulled at once.
    pub slots: Semaphore,
    /// The connections and the bandwidth for layers.
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
    /// The signals that end it.
    pub(crate) stop: &'a Stop,
    /// The node's, once it is this command's turn; it is held until all is cleaned up.
    pub(crate) lock: RefCell<Option<Lock>>,
}

impl<'a> Command<'a> {
    /// Takes up a command.
    #[must_use]
    pub fn new(context: &'a Context, parameters: &'a Parameters, reporter: Reporter, stop: &'a Stop) -> Self {
        let images = parameters.images.iter().enumerate();
        let budget = || reporter.budget_of_each(parameters.images.len());
        Self {
            context,
            parameters,
            works: images
                .map(|(number, image)| Work::new(number, image.clone(), budget()))
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
            reporter,
            stop,
            lock: RefCell::default(),
        }
    }

    /// Returns what the registry says of an image, which is asked for once.
    ///
    /// # Errors
    /// The registry's failure.
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

    /// Describes images, so many at once.
    pub(crate) async fn describe_all(&self, works: &[&Work]) {
        stream::iter(works)
            .map(|work| self.description_of(work))
            .buffer_unordered(DESCRIBED_AT_ONCE)
            .for_each(|_| {
                self.is_described.notify_waiters();
                std::future::ready(())
            })
            .await;
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
        self.context.login(&work.image, |cause| self.reporter.say(cause)).await
    }

    /// Returns the room that the node has for images.
    pub async fn room(&self) -> &Room {
        let find = async {
            let limits = Limits {
                percent: self.parameters.image_gc_high_threshold_percent,
                kubelet: self.context.facts().kubelet.clone(),
            };
            for file in &limits.kubelet.unreadable {
                self.reporter
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
    #[must_use]
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
    pub(crate) async fn idle(&self) {
        loop {
            let notified = self.is_idle.notified();
            if self.occupied.borrow().is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// Returns the exit code: 1 where an image failed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(self.works.iter().any(Work::has_failed))
    }

    /// Returns true where images of ours are pinned while they are kept.
    #[must_use]
    pub fn is_pinning(&self) -> bool {
        self.parameters.pin || self.age() == Age::Pinned
    }

    /// Returns how images fare on a node whose kubelet removes them by age.
    #[must_use]
    pub fn age(&self) -> Age {
        Age::of(&self.context.facts().kubelet, self.parameters.keep)
    }
}
