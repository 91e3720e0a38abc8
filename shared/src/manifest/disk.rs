//! Describes what images take on a disk: each layer compressed, and unpacked on top of the layers below it.

use std::collections::{HashMap, HashSet, hash_map};

use super::{
    content::Content,
    read::{MAX_TOTAL, total},
};

/// Counts the bytes that images take on an empty disk: what several have lies there once compressed, and a layer is unpacked
/// once on top of the same layers.
#[must_use]
pub fn bytes_on_disk<'a>(contents: impl IntoIterator<Item = &'a Content>) -> u64 {
    let mut compressed: HashSet<&str> = HashSet::new();
    let mut unpacked: HashMap<(usize, &str), usize> = HashMap::new();
    let mut bytes = Vec::new();
    for content in contents {
        if compressed.insert(&content.config) {
            bytes.push(content.config_bytes);
        }
        let mut below = 0;
        for layer in &content.layers {
            if compressed.insert(&layer.digest) {
                bytes.push(layer.bytes);
            }
            let next = unpacked.len() + 1;
            below = match unpacked.entry((below, &layer.digest)) {
                hash_map::Entry::Occupied(known) => *known.get(),
                hash_map::Entry::Vacant(new) => {
                    bytes.push(layer.unpacked);
                    *new.insert(next)
                }
            };
        }
    }
    total(bytes.into_iter())
}

/// Counts the bytes that an image takes where a part of it is there: nothing for a layer that is unpacked, the unpacked
/// bytes alone for one of which the content is there. `chain_ids` are the layers' own, and may be fewer.
#[must_use]
pub fn missing_bytes(
    content: &Content,
    chain_ids: &[String],
    has_snapshot: impl Fn(&str) -> bool,
    has_blob: impl Fn(&str) -> bool,
) -> u64 {
    let layers = content.layers.iter().enumerate();
    let missing = layers.filter(|(number, _)| !chain_ids.get(*number).is_some_and(|chain| has_snapshot(chain)));
    let sizes = missing.map(|(_, layer)| {
        let compressed = if has_blob(&layer.digest) { 0 } else { layer.bytes };
        compressed.saturating_add(layer.unpacked).min(MAX_TOTAL)
    });
    total(sizes)
}
