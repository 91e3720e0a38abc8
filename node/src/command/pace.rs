//! The pace of a command's downloads: over so many connections, within a bandwidth, and not while containerd downloads
//! for somebody else.

mod ramp;

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};

use self::ramp::{Ramp, Step};
use crate::containerd::{Containerd, content::Ingest};

/// Bounds the time for which a rate is measured.
const MEASURED: Duration = Duration::from_millis(100);
/// Bounds the time until new connections bring something.
const FLOWING_WITHIN: Duration = Duration::from_secs(1);
/// Separates two looks for others.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bounds the time for which others are given way after their downloads were last seen to grow.
const AFTER: Duration = Duration::from_millis(500);
/// Bounds the time for which an image gives way in all; beyond that it comes beside others, over one connection.
const AT_MOST: Duration = Duration::from_mins(5);
/// Bounds the part of a second's bandwidth that is taken at once.
const BURST: Duration = Duration::from_millis(100);

/// Holds what all downloads of a command share.
#[derive(Debug)]
pub struct Pace {
    /// The most connections.
    max_connections: usize,
    /// Bytes per second; none for no limit.
    bandwidth: Option<u64>,
    /// The number of connections that may be used now.
    connections: Cell<usize>,
    /// Connections that have brought something since the last change of their number.
    flowing: RefCell<HashSet<usize>>,
    received: Cell<u64>,
    /// The moment from which on the bandwidth allows the next bytes.
    allowed_at: Cell<Option<Instant>>,
    /// The time for which others were given way while the image is downloaded.
    waited: Cell<Duration>,
    changed: Notify,
}

impl Pace {
    /// Takes the limits of a command: connections, and bytes per second.
    #[must_use]
    pub fn new(max_connections: usize, bandwidth: Option<u64>) -> Self {
        Self {
            max_connections,
            bandwidth,
            connections: Cell::new(1),
            flowing: RefCell::default(),
            received: Cell::new(0),
            allowed_at: Cell::new(None),
            waited: Cell::new(Duration::ZERO),
            changed: Notify::new(),
        }
    }

    /// Returns how many connections there may be.
    #[must_use]
    pub const fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// Tells whether there is a limit of bytes per second.
    #[must_use]
    pub const fn has_bandwidth(&self) -> bool {
        self.bandwidth.is_some()
    }

    /// Begins with another image, for which others are given way anew.
    pub fn begin(&self) {
        self.waited.set(Duration::ZERO);
    }

    /// Returns once a connection may be used.
    pub async fn turn_of(&self, connection: usize) {
        loop {
            let changed = self.changed.notified();
            if connection < self.connections.get() {
                return;
            }
            changed.await;
        }
    }

    /// Counts what a connection has brought, and returns once it may bring more.
    pub async fn received(&self, connection: usize, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
        if !self.flowing.borrow().contains(&connection) {
            self.flowing.borrow_mut().insert(connection);
            self.changed.notify_waiters();
        }
        if let Some(bandwidth) = self.bandwidth {
            let now = Instant::now();
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            let at = self.allowed_at.get().map_or(earliest, |at| at.max(earliest));
            let takes = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / bandwidth.max(1));
            self.allowed_at.set(Some(at + takes));
            sleep_until(at + takes).await;
        }
    }

    /// Finds out how many connections are worth it, and returns where no more than containerd would use are; it uses so many
    /// at a time. `containerds` is how many those are.
    pub async fn adapt(&self, containerds: usize) {
        let max = if self.has_waited_enough() {
            1
        } else {
            self.max_connections
        };
        let mut ramp = Ramp::new(max, containerds);
        loop {
            self.use_connections(ramp.connections);
            self.flow(ramp.connections).await;
            let (before, began) = (self.received.get(), Instant::now());
            sleep(MEASURED).await;
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
            let step = ramp.step((self.received.get() - before).saturating_mul(1_000_000) / micros);
            self.use_connections(ramp.connections);
            match step {
                Step::More => {}
                Step::NoHelp => return,
                Step::Enough => std::future::pending().await,
            }
        }
    }

    /// Returns once all connections bring something, or have had time enough to; some do in any case.
    async fn flow(&self, connections: usize) {
        let all = async {
            loop {
                let changed = self.changed.notified();
                if self.flowing.borrow().len() >= connections {
                    return;
                }
                changed.await;
            }
        };
        tokio::pin!(all);
        while timeout(FLOWING_WITHIN, &mut all).await.is_err() {
            if !self.flowing.borrow().is_empty() {
                return;
            }
        }
    }

    fn use_connections(&self, connections: usize) {
        self.connections.set(connections);
        self.flowing.borrow_mut().clear();
        self.changed.notify_waiters();
    }

    /// Returns once containerd downloads layers for others; never where they were given way for long enough.
    pub async fn others_come(&self, containerd: &Containerd, own: impl Fn(&str) -> bool) {
        let mut others = Others::default();
        while self.has_waited_enough() || !others.look(containerd, &own).await.unwrap_or(false) {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Returns once they do so no more, or were given way for long enough, or containerd does not answer.
    pub async fn others_go(&self, containerd: &Containerd, own: impl Fn(&str) -> bool) {
        let mut others = Others::coming();
        while !self.has_waited_enough() {
            let began = Instant::now();
            sleep(LOOK_EVERY).await;
            let is_downloading = others.look(containerd, &own).await.unwrap_or(false);
            self.waited.set(self.waited.get() + began.elapsed());
            if !is_downloading {
                return;
            }
        }
    }

    fn has_waited_enough(&self) -> bool {
        self.waited.get() >= AT_MOST
    }
}

/// Follows the downloads of containerd for others.
#[derive(Default)]
struct Others {
    /// The bytes of each at the last look: nobody downloads a layer that does not grow.
    seen: Option<HashMap<String, u64>>,
    grew_at: Option<Instant>,
}

impl Others {
    fn coming() -> Self {
        Self {
            seen: None,
            grew_at: Some(Instant::now()),
        }
    }

    /// Tells whether something is being downloaded; none where containerd does not answer.
    async fn look(&mut self, containerd: &Containerd, own: impl Fn(&str) -> bool) -> Option<bool> {
        let others = others(containerd.ingests().await.ok()?, own);
        let grows = |seen: &HashMap<_, _>| others.iter().any(|(layer, offset)| seen.get(layer) != Some(offset));
        if self.seen.as_ref().is_some_and(grows) {
            self.grew_at = Some(Instant::now());
        }
        self.seen = Some(others);
        Some(self.grew_at.is_some_and(|at| at.elapsed() < AFTER))
    }
}

/// Returns the layers that are being downloaded for others, with the bytes that are there of each.
fn others(ingests: Vec<Ingest>, own: impl Fn(&str) -> bool) -> HashMap<String, u64> {
    let is_other = |ingest: &Ingest| {
        let layer = ingest.reference.strip_prefix("layer-");
        layer.is_some_and(|digest| !own(digest))
    };
    let others = ingests.into_iter().filter(is_other);
    others.map(|ingest| (ingest.reference, ingest.offset)).collect()
}
