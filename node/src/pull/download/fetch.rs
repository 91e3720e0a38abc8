//! Chunks on their way from a registry.

use std::{rc::Rc, time::Duration};

use prefetch::outcome::NodeReason;
use tokio::time::{sleep, timeout};

use super::{
    buffer::{Buffer, of_file},
    transfer::{Open, PIECE, Transfer, places},
};
use crate::{failure::Failure, registry::blob::Blob};

/// Bounds the time in which a host says nothing before it is asked anew.
const SILENT: Duration = Duration::from_secs(10);
/// Bounds the attempts at a chunk of which nothing came.
const MAX_ATTEMPTS: u32 = 4;
/// Bounds them where nobody answered: then it is the pull's turn, before its progress is given up.
const MAX_SILENT: u32 = 2;
/// Bounds the wait for the end of an answer whose bytes are all here.
const END: Duration = Duration::from_secs(1);
/// Separates the first attempt from its retry; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(250);

impl<'a> Transfer<'a> {
    /// Downloads chunks over one connection, one after the other.
    pub(super) async fn fetch(&self, connection: usize) -> Result<(), Failure> {
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
}
