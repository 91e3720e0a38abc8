//! Layers on their way from a registry into containerd's store.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use prefetch::image::Image;
use tokio::sync::{Notify, Semaphore};
use tonic::Status;

use super::{
    buffer::{Buffer, Files},
    handover::Handover,
};
use crate::{
    command::pace::Pace, context::Context, failure::Failure, login::Login, pull::reason, registry::blob::Blob,
};

/// Bounds the layers that containerd writes at once.
pub const LAYERS_AT_ONCE: usize = 3;
/// Bounds what is handed to containerd at once, in bytes: with 64 KiB it takes a seventh more of a processor.
pub const PIECE: usize = 256 << 10;

/// Tells where the layers of an image come from, and where they go.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The node.
    pub context: &'a Context,
    /// The image.
    pub image: &'a Image,
    /// The login of its registry.
    pub login: Option<&'a Login>,
    /// The connections and the bandwidth for them.
    pub pace: &'a Pace,
    /// True where a pod's own pull may wait for this one.
    pub may_have_pods: bool,
    /// The lease that holds the layers.
    pub lease: &'a str,
    /// The files of their chunks.
    pub files: &'a Files,
}

/// Layers of one image that are being downloaded.
pub struct Transfer<'a> {
    pub(super) source: Source<'a>,
    pub(super) handover: &'a Handover,
    pub(super) may_have_pods: Cell<bool>,
    /// The layers whose chunks are downloaded.
    pub(super) open: RefCell<Vec<Rc<Open<'a>>>>,
    /// Chunks that may be in memory.
    pub(super) places: Semaphore,
    pub(super) has_work: Notify,
    pub(super) has_come: Notify,
    /// True where no further chunk is begun: containerd does the rest.
    pub(super) is_leaving: Cell<bool>,
    /// True where others write one of the layers.
    pub(super) is_shared: Cell<bool>,
    /// True where a layer is something else than its digest stands for.
    pub(super) is_wrong: Cell<bool>,
}

/// A layer whose chunks are downloaded.
pub(super) struct Open<'a> {
    pub(super) blob: Blob<'a>,
    /// The chunks that nobody has begun.
    pub(super) left: RefCell<VecDeque<Rc<Buffer>>>,
    /// The number of chunks that are in memory, or on their way there.
    pub(super) places: Cell<usize>,
}

/// Returns how many chunks may be in memory: one for each connection, and of each layer the one that containerd takes in.
pub(super) const fn places(pace: &Pace) -> usize {
    pace.max_connections() + LAYERS_AT_ONCE
}

impl<'a> Transfer<'a> {
    /// Takes up an image's layers, which a lease holds and whose chunks are in files.
    #[must_use]
    pub fn of(source: Source<'a>, handover: &'a Handover) -> Self {
        Self {
            source,
            handover,
            may_have_pods: Cell::new(source.may_have_pods),
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

    pub(super) fn failure(&self, status: &Status) -> Failure {
        reason::of_status(self.source.image, status)
    }
}
