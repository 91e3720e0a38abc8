//! Layers on their way from a registry into containerd's store.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, future::try_join_all, stream};
use prefetch::{image::Image, manifest::Layer, outcome::NodeReason};
use tokio::{
    sync::{Notify, Semaphore},
    time::{sleep, timeout},
};
use tonic::{Code, Status};

use super::{
    Handover,
    buffer::{Buffer, Files},
    of_file,
    pace::Pace,
    parts::{chunk_bytes, chunks},
};
use crate::{
    containerd::{
        Containerd, SOCKET,
        write::{Opened, Writer},
    },
    context::Context,
    failure::Failure,
    kubelet,
    login::Login,
    pull::reason,
    registry::blob::Blob,
};

/// How many layers containerd writes at once.
const LAYERS_AT_ONCE: usize = 3;
/// Bounds the layers of an image whose pull begins beside its download: for each that is being written containerd waits longer
/// and longer; 100 layers took containerd 1.7 45 seconds so.
const MAX_BESIDE: usize = 12;
/// Bounds what is handed to containerd at once, in bytes: with 64 KiB it takes a seventh more of a processor.
const PIECE: usize = 256 << 10;
/// How long a host may say nothing before it is asked anew.
const SILENT: Duration = Duration::from_secs(10);
/// How often a chunk of which nothing came is tried.
const MAX_ATTEMPTS: u32 = 4;
/// The same where nobody answered: then it is the pull's turn, before its progress is given up.
const MAX_SILENT: u32 = 2;
/// How long is waited for the end of a part that is all here.
const END: Duration = Duration::from_secs(1);
/// How long is waited before the second of them; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(250);

/// Where the layers of an image come from, and where they go.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The node.
    pub context: &'a Context,
    /// The image.
    pub image: &'a Image,
    /// The login of its registry.
    pub login: Option<&'a Login>,
    /// How fast they come.
    pub pace: &'a Pace,
}

/// Layers of one image that are being downloaded.
pub struct Transfer<'a> {
    source: Source<'a>,
    handover: &'a Handover,
    may_have_pods: Cell<bool>,
    lease: &'a str,
    files: &'a Files,
    /// The layers whose chunks are downloaded.
    open: RefCell<Vec<Rc<Open<'a>>>>,
    /// Chunks that may be in memory.
    places: Semaphore,
    has_work: Notify,
    has_come: Notify,
    /// Whether no further chunk is begun: containerd does the rest.
    is_leaving: Cell<bool>,
    /// Whether others write one of the layers.
    is_shared: Cell<bool>,
    /// Whether a layer is something else than its digest stands for.
    is_wrong: Cell<bool>,
}

/// A layer whose chunks are downloaded.
struct Open<'a> {
    blob: Blob<'a>,
    /// The chunks that nobody has begun.
    left: RefCell<VecDeque<Rc<Buffer>>>,
    /// How many are in memory, or on their way there.
    places: Cell<usize>,
}

/// Returns how many chunks may be in memory: one for each connection, and of each layer the one that containerd takes in.
const fn places(pace: &Pace) -> usize {
    pace.max_connections() + LAYERS_AT_ONCE
}

impl<'a> Transfer<'a> {
    /// Takes up an image's layers, which a lease holds and whose chunks are in files.
    #[must_use]
    pub fn of(
        source: Source<'a>,
        handover: &'a Handover,
        may_have_pods: bool,
        lease: &'a str,
        files: &'a Files,
    ) -> Self {
        Self {
            source,
            handover,
            may_have_pods: Cell::new(may_have_pods),
            lease,
            files,
            open: RefCell::default(),
            places: Semaphore::new(places(source.pace)),
            has_work: Notify::new(),
            has_come: Notify::new(),
            is_leaving: Cell::new(false),
            is_shared: Cell::new(false),
            is_wrong: Cell::new(false),
        }
    }

    /// Tells whether a layer was something else than its digest stands for, of which nothing is to stay.
    #[must_use]
    pub const fn is_wrong(&self) -> bool {
        self.is_wrong.get()
    }

    /// Tells whether something was left to containerd, or to others who write it.
    #[must_use]
    pub const fn has_left(&self) -> bool {
        self.is_leaving.get() || self.is_shared.get()
    }

    /// Downloads layers.
    ///
    /// # Errors
    /// The first that something is the matter with.
    pub async fn bring(&self, wanted: &[&'a Layer]) -> Result<(), Failure> {
        // Where the pull goes on meanwhile, none of them is to be its own.
        let is_beside = !self.may_have_pods.get() && wanted.len() <= MAX_BESIDE;
        let opened = if is_beside {
            try_join_all(wanted.iter().map(|layer| self.open(layer))).await?
        } else {
            Vec::new()
        };
        let opened = opened.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let written = stream::iter(wanted.iter().zip(opened).enumerate())
            .map(async |(number, (layer, opened))| {
                let opened = match opened {
                    Some(opened) => opened,
                    None => self.open(layer).await?,
                };
                self.write(layer, opened).await?;
                if number == 0 && is_beside {
                    self.begin_to_pull();
                }
                Ok(())
            })
            .buffer_unordered(LAYERS_AT_ONCE)
            .try_for_each(|()| std::future::ready(Ok(())));
        let fetched = stream::iter(0..self.source.pace.max_connections())
            .map(|number| self.fetch(number))
            .buffer_unordered(self.source.pace.max_connections())
            .try_for_each(|()| std::future::ready(Ok(())));
        let adapted = async {
            self.source.pace.adapt(LAYERS_AT_ONCE.min(wanted.len())).await;
            if !self.may_have_pods.get() && !self.source.pace.has_bandwidth() {
                self.is_leaving.set(true);
                self.has_come.notify_waiters();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            written = written => written,
            fetched = fetched => fetched,
            () = adapted => Ok(()),
        }
    }

    /// Lets the pull begin beside the download, where still no pod can be.
    fn begin_to_pull(&self) {
        self.may_have_pods
            .set(self.may_have_pods.get() || kubelet::is_running());
        if !self.may_have_pods.get() {
            self.handover.begin_to_pull();
        }
    }

    async fn open(&self, layer: &Layer) -> Result<Opened, Failure> {
        if self.is_leaving.get() {
            return Ok(Opened::Busy);
        }
        // A connection of its own: containerd takes in little at a time of each.
        let containerd = Containerd::at(&self.source.context.host.path(SOCKET));
        let opened = containerd.write_layer(&layer.digest, layer.bytes, self.lease).await;
        opened.map_err(|status| self.failure(&status))
    }

    /// Writes one layer, as far as its chunks come.
    async fn write(&self, layer: &'a Layer, opened: Opened) -> Result<(), Failure> {
        let mut writer = match opened {
            Opened::Writer(writer) => writer,
            Opened::There => return Ok(()),
            Opened::Busy => {
                self.is_shared.set(true);
                return Ok(());
            }
        };
        let held = self.files.held(&layer.digest).map_err(|error| of_file(&error))?;
        let size = chunk_bytes(places(self.source.pace));
        let chunks = chunks(writer.offset(), layer.bytes, &held, size).into_iter();
        let all: Vec<_> = chunks
            .map(|chunk| Rc::new(self.files.buffer(&layer.digest, chunk)))
            .collect();
        for chunk in all.iter().filter(|chunk| chunk.is_filled()) {
            self.take_place_of(chunk);
        }
        let places = all.iter().filter(|chunk| chunk.has_place.get()).count();
        let left = all.iter().filter(|chunk| !chunk.is_filled()).map(Rc::clone).collect();
        let (registry, repository) = (self.source.image.registry(), self.source.image.repository());
        let registries = self.source.context.registries();
        let open = Rc::new(Open {
            blob: registries.blob(registry, repository, &layer.digest, self.source.login),
            left: RefCell::new(left),
            places: Cell::new(places),
        });
        self.open.borrow_mut().push(Rc::clone(&open));
        self.has_work.notify_waiters();
        let drained = self.drain(&mut writer, &all, &open).await;
        self.open.borrow_mut().retain(|other| !Rc::ptr_eq(other, &open));
        if !drained? {
            writer.flush().await.ok(); // then another has it
            return Ok(());
        }
        let Err(status) = writer.commit().await else {
            return Ok(());
        };
        if status.code() == Code::FailedPrecondition {
            self.is_wrong.set(true);
            self.source.context.containerd.abort_layer(&layer.digest).await.ok(); // then the pull fails of it
        }
        Err(self.failure(&status))
    }

    /// Has a chunk that an earlier download has left count among those in memory; one place stays for what is missing, beside
    /// those of the chunks that containerd takes in.
    fn take_place_of(&self, chunk: &Buffer) {
        if self.places.available_permits() > LAYERS_AT_ONCE + 1
            && let Ok(place) = self.places.try_acquire()
        {
            place.forget();
            chunk.has_place.set(true);
        }
    }

    /// Hands the chunks of a layer to containerd in their order, as they come; returns false where the rest is left. A chunk
    /// stays until containerd has taken it in: the next is longer than what may be under way to it.
    async fn drain(&self, writer: &mut Writer, all: &[Rc<Buffer>], open: &Open<'_>) -> Result<bool, Failure> {
        let mut last = None;
        for chunk in all {
            while writer.offset() < chunk.part.to {
                let has_come = self.has_come.notified();
                let data = if chunk.is_filled() || chunk.left().from >= writer.offset() + PIECE as u64 {
                    chunk.read(writer.offset(), PIECE).map_err(|error| of_file(&error))?
                } else {
                    Vec::new()
                };
                if !data.is_empty() {
                    if !self.is_taken_in(writer.write(data).await)? {
                        return Ok(false);
                    }
                } else if self.is_leaving.get() && open.left.borrow().iter().any(|left| Rc::ptr_eq(left, chunk)) {
                    return Ok(false);
                } else {
                    has_come.await;
                }
            }
            if let Some(taken_in) = last.replace(chunk) {
                self.remove(taken_in, open);
            }
        }
        let is_taken_in = self.is_taken_in(writer.flush().await)?;
        if let Some(taken_in) = last {
            self.remove(taken_in, open);
        }
        Ok(is_taken_in)
    }

    /// Tells whether containerd takes in what is written; not where somebody else has written the layer meanwhile.
    fn is_taken_in(&self, written: Result<(), Status>) -> Result<bool, Failure> {
        match written {
            Ok(()) => Ok(true),
            Err(status) if status.code() == Code::AlreadyExists => Ok(false),
            Err(status) => Err(self.failure(&status)),
        }
    }

    /// Removes a chunk that containerd has taken in, and gives its place to another.
    fn remove(&self, chunk: &Buffer, open: &Open<'_>) {
        chunk.remove();
        if chunk.has_place.get() {
            self.places.add_permits(1);
            open.places.set(open.places.get() - 1);
        }
    }

    /// Downloads chunks over one connection, one after the other.
    async fn fetch(&self, connection: usize) -> Result<(), Failure> {
        loop {
            self.source.pace.turn_of(connection).await;
            let Ok(place) = self.places.acquire().await else {
                return Ok(());
            };
            let has_work = self.has_work.notified();
            let Some((open, chunk)) = self.take() else {
                drop(place);
                has_work.await;
                continue;
            };
            place.forget(); // it is given back once containerd has the chunk
            chunk.has_place.set(true);
            self.fetch_chunk(connection, &open.blob, &chunk).await?;
        }
    }

    /// Takes the next chunk of the lowest layer, which is unpacked first. Where that has three quarters of all places it is the
    /// turn of the next: containerd may take in one layer more slowly than it comes.
    fn take(&self) -> Option<(Rc<Open<'a>>, Rc<Buffer>)> {
        if self.is_leaving.get() {
            return None;
        }
        let open = self.open.borrow();
        let mut open = open.iter().filter(|open| !open.left.borrow().is_empty());
        let most = places(self.source.pace) * 3 / 4;
        let lowest = open.next()?;
        let open = open.find(|_| lowest.places.get() >= most).unwrap_or(lowest);
        let chunk = open.left.borrow_mut().pop_front()?;
        open.places.set(open.places.get() + 1);
        Some((Rc::clone(open), chunk))
    }

    /// Downloads a chunk; where that breaks off, it goes on from there.
    async fn fetch_chunk(&self, connection: usize, blob: &Blob<'_>, chunk: &Buffer) -> Result<(), Failure> {
        let mut attempt = 1;
        loop {
            let before = chunk.left().from;
            let Err(failure) = self.fetch_part(connection, blob, chunk).await else {
                return Ok(());
            };
            let most = if failure.reason == NodeReason::Timeout {
                MAX_SILENT
            } else {
                MAX_ATTEMPTS
            };
            if chunk.left().from > before {
                attempt = 1;
            } else if attempt >= most || !failure.reason.is_retryable() || blob.is_whole_only() {
                return Err(failure);
            }
            sleep(PAUSE * 2_u32.pow(attempt - 1)).await;
            attempt += 1;
        }
    }

    async fn fetch_part(&self, connection: usize, blob: &Blob<'_>, chunk: &Buffer) -> Result<(), Failure> {
        let mut answer = blob.part(chunk.left(), SILENT).await?;
        let mut untold = 0;
        while !chunk.is_filled() {
            let Ok(data) = timeout(SILENT, answer.next()).await else {
                let detail = format!("{} says nothing any more", answer.host);
                return Err(Failure::new(NodeReason::Timeout, detail));
            };
            let data = data.map_err(|refusal| refusal.failure)?;
            let Some(data) = data else {
                let detail = format!("{} ends in the middle of a layer", answer.host);
                return Err(Failure::new(NodeReason::Registry, detail));
            };
            chunk.add(&data).map_err(|error| of_file(&error))?;
            untold += data.len();
            if untold >= PIECE || chunk.is_filled() {
                untold = 0;
                self.has_come.notify_waiters();
            }
            self.source.pace.received(connection, data.len()).await;
        }
        timeout(END, answer.next()).await.ok(); // read to its end, the connection is used again
        Ok(())
    }

    fn failure(&self, status: &Status) -> Failure {
        reason::of_status(self.source.image, status)
    }
}
