//! The layers that are downloaded, and their chunks.

use std::collections::HashSet;

use prefetch::manifest::{Configuration, Content, Layer, chain_ids};

use crate::{containerd::inventory::Inventory, registry::byte_range::ByteRange};

/// Bounds the size of a chunk, in bytes.
pub const CHUNK: u64 = 8 << 20;
/// Bounds the bytes that wait for containerd at once, in chunks that others have to come before.
pub const IN_FLIGHT: u64 = 46 << 20;

/// Returns the size of a chunk where so many may be in memory, in bytes: all of them are within [`IN_FLIGHT`].
#[must_use]
pub const fn chunk_bytes(places: usize) -> u64 {
    let share = IN_FLIGHT / places as u64;
    if share < CHUNK { share } else { CHUNK }
}

/// Returns the layers that a pull fetches: those above the snapshots that are here, each once.
#[must_use]
pub fn missing<'a>(
    content: &'a Content,
    configuration: Option<&Configuration>,
    inventory: &Inventory,
) -> Vec<&'a Layer> {
    let chains = configuration.map_or_else(Vec::new, |configuration| chain_ids(&configuration.diff_ids));
    let is_here = |chain: &&String| inventory.snapshots.contains_key(*chain);
    let here = chains.iter().take_while(is_here).count();
    let mut seen = HashSet::new();
    let above = content.layers.iter().skip(here);
    above.filter(|layer| seen.insert(&layer.digest)).collect()
}

/// A chunk of a layer, and from where on a file has bytes of it, where an earlier command was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its bytes.
    pub part: ByteRange,
    /// The file that has all of them, by the place of its first byte.
    pub kept_from: Option<u64>,
}

/// Cuts what is left of a layer into chunks, around the bytes that files hold: their places and lengths, in any order.
#[must_use]
pub fn chunks(offset: u64, total: u64, kept: &[(u64, u64)], bytes: u64) -> Vec<Chunk> {
    let mut kept: Vec<_> = kept.to_vec();
    kept.sort_unstable();
    let (mut chunks, mut at) = (Vec::new(), offset);
    for (from, length) in kept {
        let (begin, to) = (from.max(at), from.saturating_add(length).min(total));
        if begin >= to {
            continue;
        }
        chunks.extend(cut(at, begin, bytes));
        chunks.push(Chunk {
            part: ByteRange { from: begin, to },
            kept_from: Some(from),
        });
        at = to;
    }
    chunks.extend(cut(at, total, bytes));
    chunks
}

fn cut(from: u64, to: u64, bytes: u64) -> impl Iterator<Item = Chunk> {
    let begins = (from..to).step_by(usize::try_from(bytes.max(1)).unwrap_or(usize::MAX));
    begins.map(move |begin| Chunk {
        part: ByteRange {
            from: begin,
            to: begin.saturating_add(bytes).min(to),
        },
        kept_from: None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::containerd::snapshots::{Snapshot, SnapshotKind};

    #[test]
    fn all_that_is_in_flight_is_bounded() {
        for connections in 1..=20 {
            assert!(chunk_bytes(connections) * connections as u64 <= IN_FLIGHT);
        }
        assert_eq!(chunk_bytes(3), CHUNK);
    }

    #[test]
    fn layers_that_are_unpacked_are_left_out_and_others_come_once() {
        let layer = |digest: &str| Layer {
            digest: digest.to_owned(),
            bytes: 1,
            unpacked: 1,
            ..Layer::default()
        };
        let content = Content {
            layers: vec![layer("a"), layer("b"), layer("b"), layer("c")],
            ..Content::default()
        };
        let mut inventory = Inventory::default();
        let digests = |inventory: &Inventory, configuration: Option<&Configuration>| -> Vec<String> {
            let missing = missing(&content, configuration, inventory).into_iter();
            missing.map(|layer| layer.digest.clone()).collect()
        };
        assert_eq!(digests(&inventory, None), ["a", "b", "c"]);
        let diff_ids: Vec<String> = ["1", "2"].map(|digit| format!("sha256:{}", digit.repeat(64))).into();
        let configuration = Configuration {
            platform: None,
            diff_ids: diff_ids.clone(),
        };
        let snapshot = Snapshot {
            key: diff_ids[0].clone(),
            parent: String::new(),
            kind: SnapshotKind::Committed,
        };
        inventory.snapshots.insert(snapshot.key.clone(), snapshot);
        assert_eq!(digests(&inventory, Some(&configuration)), ["b", "c"]);
    }

    proptest! {
        #[test]
        fn chunks_are_what_is_left_each_byte_once_and_in_order(
            offset in 0..200_u64, total in 0..200_u64, bytes in 1..50_u64,
            kept in prop::collection::vec((0..200_u64, 0..60_u64), 0..6),
        ) {
            let mut at = offset;
            for Chunk { part, kept_from } in chunks(offset, total, &kept, bytes) {
                prop_assert!(part.from == at && part.from < part.to);
                match kept_from {
                    None => prop_assert!(part.to - part.from <= bytes),
                    Some(from) => {
                        let has = |(begin, length): &(u64, u64)| *begin == from && from <= part.from && part.to <= from + length;
                        prop_assert!(kept.iter().any(has));
                    }
                }
                at = part.to;
            }
            prop_assert_eq!(at, total.max(offset));
        }
    }
}
