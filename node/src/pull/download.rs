//! Layers that are in containerd's store before its pull: downloaded in parts over several connections, none of which takes
//! one of the few places that containerd has for the downloads of all pulls of a node.
//!
//! Whatever goes wrong here, the pull is asked afterwards, goes on where this ended, and tells what is the matter.

mod buffer;
pub mod pace;
mod parts;
mod ramp;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    rc::Rc,
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, future::try_join_all, stream};
use prefetch::{
    image::Image,
    manifest::{Configuration, Content, Layer},
    outcome::NodeReason,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::{sleep, timeout},
};
use tonic::{Code, Status};

use self::{
    buffer::{Buffer, Files, KEPT},
    pace::Pace,
    parts::{chunk_bytes, chunks, missing},
};
use super::{reason, slot};
use crate::{
    command::Command,
    containerd::{
        Containerd, SOCKET,
        inventory::Inventory,
        leases,
        write::{Opened, Writer},
    },
    context::Context,
    failure::Failure,
    login::Login,
    queue::name_of,
    registry::{Kind, blob::Blob},
};

/// How many layers containerd writes at once.
const LAYERS_AT_ONCE: usize = 3;
/// What is handed to containerd at once, in bytes.
const PIECE: usize = 64 << 10;
/// How long a host may say nothing before it is asked anew.
const SILENT: Duration = Duration::from_secs(10);
/// How often a chunk of which nothing came is tried.
const MAX_ATTEMPTS: u32 = 4;
/// How long is waited before the second of them; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(250);

/// What the download of an image's layers tells whoever pulls it afterwards.
#[derive(Debug, Default)]
pub struct Handover {
    is_waiting: Cell<bool>,
    may_pull: Cell<bool>,
    changed: Notify,
}

impl Handover {
    /// Tells whether another image of the command has its turn.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.is_waiting.get()
    }

    /// Lets the pull begin.
    pub fn begin_to_pull(&self) {
        self.may_pull.set(true);
        self.changed.notify_waiters();
    }

    /// Returns once the pull may begin.
    pub async fn may_pull(&self) {
        let changed = self.changed.notified();
        if !self.may_pull.get() {
            changed.await;
        }
    }
}

/// Downloads the layers that a pull of an image would, where that is worth it and possible, and holds them by a lease of its
/// own until [`forget`].
///
/// The pull begins once they are all there. Where no pod can be, whose own pull would wait behind it, it begins once the
/// lowest is: containerd unpacks what is there, and waits for what is being written.
///
/// # Errors
/// Why they are not all there; the pull brings the others.
pub async fn layers(
    command: &Command<'_>,
    image: &Image,
    content: &Content,
    login: Option<&Login>,
    inventory: &Inventory,
    handover: &Handover,
) -> Result<(), Failure> {
    let Command { context, pace, .. } = command;
    if !is_possible(command, content) {
        return Ok(());
    }
    handover.is_waiting.set(true);
    let _one_at_a_time = command.downloading.acquire().await;
    handover.is_waiting.set(false);
    let configuration = configuration(context, image, &content.config, login, inventory).await?;
    let wanted = missing(content, configuration.as_ref(), inventory);
    let may_have_pods = command.may_have_pods().await;
    let download = Download {
        context,
        image,
        login,
        pace,
        handover,
        may_have_pods,
        lease: lease(context, image).await?,
        files: Files::on(&context.host).map_err(|error| of_file(&error))?,
        connections: pace.max_connections(),
        open: RefCell::default(),
        places: Semaphore::new(pace.max_connections()),
        has_work: Notify::new(),
        has_come: Notify::new(),
        is_leaving: Cell::new(false),
    };
    pace.begin();
    let brought = tokio::select! {
        brought = download.bring(&wanted) => brought,
        () = pace.give_way(&context.containerd, |digest| command.is_own_layer(digest)) => Ok(()),
    };
    pace.begin();
    brought
}

/// Makes the lease by which an image's layers are held.
async fn lease(context: &Context, image: &Image) -> Result<String, Failure> {
    let lease = format!("{}.{}", lease_of(image), std::process::id());
    let held_for = context.time.left() + KEPT;
    match context.containerd.create_lease(&lease, held_for).await {
        Err(status) if status.code() != Code::AlreadyExists => Err(reason::of_status(image, &status)),
        _ => Ok(lease),
    }
}

/// Lets go of the layers of an image: it has come, or never will.
///
/// # Errors
/// containerd's; the lease ends by itself.
pub async fn forget(context: &Context, image: &Image, layers: &[Layer]) -> Result<(), Status> {
    let lease = lease_of(image);
    for held in context.containerd.leases().await? {
        if held.id.strip_prefix(&lease).is_some_and(|rest| rest.starts_with('.')) {
            context.containerd.remove_lease(&held.id, true).await?; // what is unpacked takes no room twice
        }
    }
    if let Ok(files) = Files::on(&context.host) {
        for layer in layers {
            files.remove(&layer.digest);
        }
    }
    Ok(())
}

/// Returns what the names of the leases of an image begin with; a dot and the process follow.
fn lease_of(image: &Image) -> String {
    let name = name_of(image.name_by_digest().as_bytes());
    format!("{}layers-{name}", leases::OURS)
}

/// Tells whether the layers of an image are written by us: not those of a small one, nor those that containerd may fetch from
/// elsewhere, or a snapshotter or an image service outside containerd by itself.
fn is_possible(command: &Command<'_>, content: &Content) -> bool {
    let Command { context, pace, .. } = command;
    let config = &context.config;
    let is_outside = config.runs_outside(&config.snapshotter)
        || context.other_runtimes().any(|(_, other)| config.runs_outside(other))
        || context.other_image_service().is_some();
    let is_plain = |layer: &Layer| !layer.digest.is_empty() && layer.bytes > 0 && !layer.is_elsewhere;
    pace.max_connections() > 0
        && !is_outside
        && !config.has_image_verifiers(&context.host)
        && !slot::is_small(content)
        && content.layers.iter().all(is_plain)
}

/// Reads the configuration where some of the image's layers may be unpacked already.
async fn configuration(
    context: &Context,
    image: &Image,
    digest: &str,
    login: Option<&Login>,
    inventory: &Inventory,
) -> Result<Option<Configuration>, Failure> {
    if inventory.snapshots.is_empty() {
        return Ok(None);
    }
    let text = context.ask_registry(image, Kind::Blob, digest, login).await?;
    Ok(Configuration::parse(&text).ok())
}

/// Layers of one image that are being downloaded.
struct Download<'a> {
    context: &'a Context,
    image: &'a Image,
    login: Option<&'a Login>,
    pace: &'a Pace,
    handover: &'a Handover,
    may_have_pods: bool,
    lease: String,
    files: Files,
    connections: usize,
    /// The layers whose chunks are downloaded.
    open: RefCell<Vec<Rc<Open<'a>>>>,
    /// Chunks that may be in memory.
    places: Semaphore,
    has_work: Notify,
    has_come: Notify,
    /// Whether no further chunk is begun: containerd does the rest.
    is_leaving: Cell<bool>,
}

/// A layer whose chunks are downloaded.
struct Open<'a> {
    blob: Blob<'a>,
    /// The chunks that nobody has begun.
    left: RefCell<VecDeque<Rc<Buffer>>>,
    /// How many are being downloaded.
    at_work: Cell<usize>,
}

impl<'a> Download<'a> {
    async fn bring(&self, wanted: &[&'a Layer]) -> Result<(), Failure> {
        // Where the pull goes on meanwhile, none of them is to be its own.
        let opened = if self.may_have_pods {
            Vec::new()
        } else {
            try_join_all(wanted.iter().map(|layer| self.open(layer))).await?
        };
        let opened = opened.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let written = stream::iter(wanted.iter().zip(opened).enumerate())
            .map(async |(number, (layer, opened))| {
                let opened = match opened {
                    Some(opened) => opened,
                    None => self.open(layer).await?,
                };
                self.write(layer, opened).await?;
                if number == 0 && !self.may_have_pods {
                    self.handover.begin_to_pull();
                }
                Ok(())
            })
            .buffer_unordered(LAYERS_AT_ONCE)
            .try_for_each(|()| std::future::ready(Ok(())));
        let fetched = stream::iter(0..self.connections)
            .map(|number| self.fetch(number))
            .buffer_unordered(self.connections)
            .try_for_each(|()| std::future::ready(Ok(())));
        let adapted = async {
            self.pace.adapt(LAYERS_AT_ONCE.min(wanted.len())).await;
            if !self.may_have_pods && !self.pace.has_bandwidth() {
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

    async fn open(&self, layer: &Layer) -> Result<Opened, Failure> {
        if self.is_leaving.get() {
            return Ok(Opened::Busy);
        }
        // A connection of its own: containerd takes in little at a time of each.
        let containerd = Containerd::at(&self.context.host.path(SOCKET));
        let opened = containerd.write_layer(&layer.digest, layer.bytes, &self.lease).await;
        opened.map_err(|status| self.failure(&status))
    }

    /// Writes one layer, as far as its chunks come.
    async fn write(&self, layer: &'a Layer, opened: Opened) -> Result<(), Failure> {
        let Opened::Writer(mut writer) = opened else {
            return Ok(());
        };
        let held = self.files.held(&layer.digest).map_err(|error| of_file(&error))?;
        let size = chunk_bytes(self.connections);
        let chunks = chunks(writer.offset(), layer.bytes, &held, size).into_iter();
        let all: Vec<_> = chunks
            .map(|chunk| Rc::new(self.files.buffer(&layer.digest, chunk)))
            .collect();
        let left = all.iter().filter(|chunk| !chunk.is_filled()).map(Rc::clone).collect();
        let (registry, repository) = (self.image.registry(), self.image.repository());
        let registries = self.context.registries();
        let open = Rc::new(Open {
            blob: registries.blob(registry, repository, &layer.digest, self.login),
            left: RefCell::new(left),
            at_work: Cell::new(0),
        });
        self.open.borrow_mut().push(Rc::clone(&open));
        self.has_work.notify_waiters();
        let drained = self.drain(&mut writer, &all, &open).await;
        self.open.borrow_mut().retain(|other| !Rc::ptr_eq(other, &open));
        if !drained? {
            return Ok(());
        }
        let Err(status) = writer.commit().await else {
            return Ok(());
        };
        if status.code() == Code::FailedPrecondition {
            self.files.remove(&layer.digest);
            self.context.containerd.abort_layer(&layer.digest).await.ok(); // then the pull fails of it
        }
        Err(self.failure(&status))
    }

    /// Hands the chunks of a layer to containerd in their order, as they come; returns false where the rest is left.
    async fn drain(&self, writer: &mut Writer, all: &[Rc<Buffer>], open: &Open<'_>) -> Result<bool, Failure> {
        for chunk in all {
            while writer.offset() < chunk.part.to {
                let has_come = self.has_come.notified();
                let data = if chunk.is_filled() || chunk.left().from >= writer.offset() + PIECE as u64 {
                    chunk.read(writer.offset(), PIECE).map_err(|error| of_file(&error))?
                } else {
                    Vec::new()
                };
                if !data.is_empty() {
                    writer.write(data).await.map_err(|status| self.failure(&status))?;
                } else if self.is_leaving.get() && open.left.borrow().iter().any(|left| Rc::ptr_eq(left, chunk)) {
                    return Ok(false);
                } else {
                    has_come.await;
                }
            }
            chunk.remove();
            if !chunk.is_left {
                self.places.add_permits(1);
            }
        }
        Ok(true)
    }

    /// Downloads chunks over one connection, one after the other.
    async fn fetch(&self, connection: usize) -> Result<(), Failure> {
        loop {
            self.pace.turn_of(connection).await;
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
            let fetched = self.fetch_chunk(connection, &open.blob, &chunk).await;
            open.at_work.set(open.at_work.get() - 1);
            fetched?;
        }
    }

    /// Takes the next chunk of the layer of which the fewest are being downloaded.
    fn take(&self) -> Option<(Rc<Open<'a>>, Rc<Buffer>)> {
        if self.is_leaving.get() {
            return None;
        }
        let open = self.open.borrow();
        let open = open.iter().filter(|open| !open.left.borrow().is_empty());
        let open = open.min_by_key(|open| open.at_work.get())?;
        let chunk = open.left.borrow_mut().pop_front()?;
        open.at_work.set(open.at_work.get() + 1);
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
            if chunk.left().from > before {
                attempt = 1;
            } else if attempt == MAX_ATTEMPTS || !failure.reason.is_retryable() {
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
            self.pace.received(connection, data.len()).await;
        }
        timeout(SILENT, answer.next()).await.ok(); // read to its end, the connection is used again
        Ok(())
    }

    fn failure(&self, status: &Status) -> Failure {
        reason::of_status(self.image, status)
    }
}

fn of_file(error: &io::Error) -> Failure {
    Failure::new(
        NodeReason::Interrupted,
        format!("a chunk of a layer cannot be kept: {error}"),
    )
}
