//! Chunks on their way into containerd's store.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use prefetch::manifest::Layer;
use tonic::{Code, Status};

use super::{
    buffer::{Buffer, of_file},
    chunks::{chunk_bytes, chunks},
    transfer::{LAYERS_AT_ONCE, Open, PIECE, Transfer, places},
};
use crate::{
    containerd::write::{Opened, Writer},
    failure::Failure,
};

impl<'a> Transfer<'a> {
    /// Writes one layer, as far as its chunks come.
    pub(super) async fn write(&self, layer: &'a Layer, opened: Opened) -> Result<(), Failure> {
        let mut writer = match opened {
            Opened::Writer(writer) => writer,
            Opened::There => return Ok(()),
            Opened::Busy => {
                self.is_shared.set(true);
                return Ok(());
            }
        };
        let chunks = self.chunks_of(layer, writer.offset())?;
        let open = self.open_chunks(layer, &chunks);
        self.open.borrow_mut().push(Rc::clone(&open));
        self.has_work.notify_waiters();
        let drained = self.drain(&mut writer, &chunks, &open).await;
        self.open.borrow_mut().retain(|other| !Rc::ptr_eq(other, &open));
        if !drained? {
            writer.flush().await.ok(); // then another has it
            return Ok(());
        }
        self.commit(layer, writer).await
    }

    /// Cuts what is left of a layer into chunks, those among them that an earlier command has left.
    fn chunks_of(&self, layer: &Layer, offset: u64) -> Result<Vec<Rc<Buffer>>, Failure> {
        let files = self.source.files;
        let kept = files.kept(&layer.digest).map_err(|error| of_file(&error))?;
        let size = chunk_bytes(places(self.source.pace));
        let chunks = chunks(offset, layer.bytes, &kept, size).into_iter();
        Ok(chunks
            .map(|chunk| Rc::new(files.buffer(&layer.digest, chunk)))
            .collect())
    }

    /// Offers the chunks of a layer that are missing to the connections.
    fn open_chunks(&self, layer: &'a Layer, chunks: &[Rc<Buffer>]) -> Rc<Open<'a>> {
        for chunk in chunks.iter().filter(|chunk| chunk.is_filled()) {
            self.take_place_of(chunk);
        }
        let places = chunks.iter().filter(|chunk| chunk.has_place.get()).count();
        let left = chunks
            .iter()
            .filter(|chunk| !chunk.is_filled())
            .map(Rc::clone)
            .collect();
        let (registry, repository) = (self.source.image.registry(), self.source.image.repository());
        let registries = self.source.context.registries();
        Rc::new(Open {
            blob: registries.blob(registry, repository, &layer.digest, self.source.login),
            left: RefCell::new(left),
            places: Cell::new(places),
        })
    }

    /// Ends a layer; one that is something else than its digest stands for is removed.
    async fn commit(&self, layer: &Layer, writer: Box<Writer>) -> Result<(), Failure> {
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
}
