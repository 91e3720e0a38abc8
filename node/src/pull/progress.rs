//! A pull's progress, by what containerd is writing and unpacking.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::containerd::content::Ingest;

/// Bounds the time in which a first attempt makes no progress; each retry has twice as long as the attempt before.
const FIRST_LIMIT: Duration = Duration::from_secs(30);

/// Returns how long an attempt may make no progress.
#[must_use]
pub fn limit(attempt: u32) -> Duration {
    FIRST_LIMIT * 2_u32.saturating_pow(attempt.saturating_sub(1))
}

/// One look at what containerd is doing.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The blobs that are being written, for all pulls of the node.
    pub ingests: Vec<Ingest>,
    /// True while something is being unpacked.
    pub is_unpacking: bool,
}

/// Follows a pull's progress.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The image's layers and their bytes; empty where nobody knows them.
    layers: HashMap<String, u64>,
    /// True once something of the image has come: what is left then may be unpacked only.
    has_begun: bool,
    /// The blobs of it that were being written at the last look.
    seen: Vec<(String, u64)>,
    /// Tells since when nothing has moved.
    quiet_since: Instant,
}

impl Progress {
    /// Begins to watch a pull.
    #[must_use]
    pub fn new(layers: HashMap<String, u64>, has_begun: bool, now: Instant) -> Self {
        Self {
            layers,
            has_begun,
            seen: Vec::new(),
            quiet_since: now,
        }
    }

    /// Takes a look into account.
    ///
    /// A pull goes on where what is written of it grows; where all of it waits in containerd's queue, what others download
    /// counts; and where nothing of it is left to download, it is being unpacked, which shows no progress.
    pub fn see(&mut self, look: &Look, now: Instant) {
        let (mut own, mut waiting, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for ingest in &look.ingests {
            let Some((_, layer)) = ingest.reference.rsplit_once("-sha256:") else {
                continue;
            };
            let entry = (ingest.reference.clone(), ingest.offset);
            let bytes = self.layers.get(&format!("sha256:{layer}"));
            if bytes.is_none() && !self.layers.is_empty() {
                others.push(entry);
            } else if ingest.offset == 0 {
                waiting.push(entry);
            } else if is_whole(ingest, bytes) {
                self.has_begun = true;
            } else {
                own.push(entry);
            }
        }
        let is_all_here = own.is_empty() && waiting.is_empty();
        if own.is_empty() && !waiting.is_empty() {
            own = [waiting, others].concat();
        }
        own.sort_unstable();
        if is_all_here && look.is_unpacking && (self.has_begun || !self.seen.is_empty()) {
            self.quiet_since = now;
        } else if own != self.seen {
            self.seen = own;
            self.has_begun = true;
            self.quiet_since = now;
        }
    }

    /// Notes that nothing has to move: others have their turn.
    pub fn wait(&mut self, now: Instant) {
        self.quiet_since = now;
    }

    /// Returns for how long nothing has moved.
    #[must_use]
    pub fn quiet_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.quiet_since)
    }
}

/// Tells whether all of a blob has been written, and is only being looked through.
fn is_whole(ingest: &Ingest, bytes: Option<&u64>) -> bool {
    let total = bytes.copied().filter(|bytes| *bytes > 0).unwrap_or(ingest.total);
    total > 0 && ingest.offset >= total
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: &str = "sha256:aa";
    const OTHER: &str = "sha256:bb";

    fn writing(layer: &str, offset: u64) -> Ingest {
        Ingest {
            reference: format!("layer-{layer}"),
            offset,
            total: 100,
        }
    }

    fn look(ingests: &[Ingest], is_unpacking: bool) -> Look {
        Look {
            ingests: ingests.to_vec(),
            is_unpacking,
        }
    }

    /// Returns for how many seconds nothing has moved, after looks of which each comes a second after the one before.
    fn quiet_after(looks: &[Look]) -> u64 {
        let now = Instant::now();
        let mut progress = Progress::new(HashMap::from([(OWN.to_owned(), 100)]), false, now);
        for (second, look) in (1..).zip(looks) {
            progress.see(look, now + Duration::from_secs(second));
        }
        progress
            .quiet_for(now + Duration::from_secs(looks.len() as u64))
            .as_secs()
    }

    #[test]
    fn what_grows_goes_on_and_what_does_not_is_quiet() {
        assert_eq!(
            quiet_after(&[look(&[writing(OWN, 1)], false), look(&[writing(OWN, 2)], false)]),
            0
        );
        assert_eq!(
            quiet_after(&[look(&[writing(OWN, 1)], false), look(&[writing(OWN, 1)], false)]),
            1
        );
        assert_eq!(quiet_after(&[look(&[], false), look(&[], false)]), 2);
    }

    #[test]
    fn what_others_download_counts_where_all_of_an_image_waits_for_them_and_only_there() {
        let waits = |offset| look(&[writing(OWN, 0), writing(OTHER, offset)], false);
        assert_eq!(quiet_after(&[waits(1), waits(2), waits(3)]), 0);
        let stalls = |offset| look(&[writing(OWN, 1), writing(OTHER, offset)], false);
        assert_eq!(quiet_after(&[stalls(1), stalls(2), stalls(3)]), 2);
    }

    #[test]
    fn an_unpacking_shows_no_progress_and_goes_on() {
        let unpacked = look(&[], true);
        assert_eq!(
            quiet_after(&[look(&[writing(OWN, 50)], false), unpacked.clone(), unpacked.clone()]),
            0
        );
        assert_eq!(quiet_after(&[look(&[writing(OWN, 100)], true), look(&[], true)]), 0);
        assert_eq!(
            quiet_after(&[unpacked.clone(), unpacked]),
            2,
            "another image's: nothing of this one has come"
        );
    }

    #[test]
    fn a_whole_layer_is_looked_through_while_others_of_the_image_come() {
        let both = |offset| look(&[writing(OWN, 100), writing(OWN, offset)], false);
        assert_eq!(quiet_after(&[both(1), both(2)]), 0);
    }

    #[test]
    fn the_limits_double() {
        assert_eq!([1, 2, 3, 4].map(|attempt| limit(attempt).as_secs()), [30, 60, 120, 240]);
    }

    proptest! {
        #[test]
        fn whatever_is_being_written_has_a_progress(
            ingests in prop::collection::vec(("\\PC{0,20}", any::<u64>(), any::<u64>()), 0..20), is_unpacking: bool,
        ) {
            let now = Instant::now();
            let mut progress = Progress::new(HashMap::new(), true, now);
            let ingests = ingests.into_iter().map(|(reference, offset, total)| Ingest { reference, offset, total });
            progress.see(&Look { ingests: ingests.collect(), is_unpacking }, now + Duration::from_secs(1));
            prop_assert!(progress.quiet_for(now + Duration::from_secs(1)) <= Duration::from_secs(1));
        }
    }
}
