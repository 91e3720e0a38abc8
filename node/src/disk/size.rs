//! The room that an image takes.

use prefetch::manifest::{Configuration, Content, chain_ids, missing_bytes};

use crate::containerd::inventory::Inventory;

/// Counts the small images that take the place of one: most of their time is the way to the registry and back, not bytes.
pub const SMALL_AT_ONCE: u32 = 4;
/// Bounds the compressed size, in bytes, of a small image: a few of them take containerd no longer than one larger image does,
/// whose layers stand before a pod's own pull all together.
const SMALL: u64 = 8 << 20;

/// Counts the bytes that an image takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Downloaded.
    pub compressed: u64,
    /// Unpacked.
    pub unpacked: u64,
}

impl Size {
    /// Returns what a whole image takes.
    #[must_use]
    pub fn of(content: &Content) -> Self {
        let compressed = content.bytes();
        Self {
            compressed,
            unpacked: content.bytes_with_unpacked().saturating_sub(compressed),
        }
    }

    /// Returns what an image takes where containerd holds some of its layers: nothing of those that are unpacked, the
    /// unpacked bytes alone of those that are downloaded.
    #[must_use]
    pub fn missing(content: &Content, configuration: Option<&Configuration>, inventory: &Inventory) -> Self {
        let chains = configuration.map_or_else(Vec::new, |configuration| chain_ids(&configuration.diff_ids));
        let has_snapshot = |chain: &str| inventory.snapshots.contains_key(chain);
        let has_blob = |digest: &str| inventory.blobs.contains_key(digest);
        let unpacked = missing_bytes(content, &chains, has_snapshot, |_| true);
        let all = missing_bytes(content, &chains, has_snapshot, has_blob);
        Self {
            compressed: all.saturating_sub(unpacked),
            unpacked,
        }
    }

    /// Returns what an image takes that is unpacked into so many snapshotters.
    #[must_use]
    pub fn unpacked_times(self, times: u64) -> Self {
        Self {
            unpacked: self.unpacked.saturating_mul(times),
            ..self
        }
    }

    /// Adds what another image takes.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            compressed: self.compressed.saturating_add(other.compressed),
            unpacked: self.unpacked.saturating_add(other.unpacked),
        }
    }

    /// Returns true for an image so small that a few take the place of one.
    #[must_use]
    pub const fn is_small(self) -> bool {
        self.compressed <= SMALL
    }
}

#[cfg(test)]
mod tests {
    use prefetch::manifest::Layer;

    use super::*;
    use crate::containerd::content::Blob;

    #[test]
    fn layers_that_are_here_take_no_room() {
        let layer = |digest: &str| Layer {
            digest: digest.to_owned(),
            bytes: 100,
            unpacked: 200,
            ..Layer::default()
        };
        let content = Content {
            layers: vec![layer("a"), layer("b")],
            ..Content::default()
        };
        let whole = Size {
            compressed: 200,
            unpacked: 400,
        };
        assert_eq!(Size::of(&content), whole);
        let mut inventory = Inventory::default();
        assert_eq!(Size::missing(&content, None, &inventory), whole);
        inventory.blobs.insert("a".to_owned(), Blob::default());
        let compressed = 100;
        assert_eq!(Size::missing(&content, None, &inventory), Size { compressed, ..whole });
    }
}
