//! Indexes: images for several platforms under one digest.

use super::{
    platform::{Platform, PlatformMatcher},
    written,
};

/// An index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// The manifests that it leads to, but for those of artifacts: a SOCI index stands beside the image, under the same
    /// platform.
    pub entries: Vec<Entry>,
}

/// A manifest, or a further index, that an index leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its digest.
    pub digest: String,
    /// Its platform; none where the index does not tell.
    pub platform: Option<Platform>,
}

impl Index {
    /// Picks the entry that containerd takes: of those for the best platform the first, else the first that tells none
    /// (`images.LimitManifests`).
    #[must_use]
    pub fn entry_for(&self, node: &PlatformMatcher) -> Option<&Entry> {
        let rank = |entry: &&Entry| node.rank(entry.platform.as_ref()?);
        let ranked = self.entries.iter().filter_map(|entry| Some((rank(&entry)?, entry)));
        let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry);
        best.or_else(|| self.entries.iter().find(|entry| entry.platform.is_none()))
    }
}

impl From<Vec<written::Descriptor>> for Index {
    fn from(written: Vec<written::Descriptor>) -> Self {
        let images = written.into_iter().filter(|entry| !entry.is_artifact());
        let entry = |entry: written::Descriptor| Entry {
            digest: entry.digest(),
            platform: entry.platform.map(Platform::from),
        };
        // What has no digest leads nowhere.
        let entries = images.map(entry).filter(|entry| !entry.digest.is_empty());
        Self {
            entries: entries.collect(),
        }
    }
}
