//! Volumes: how large one is that holds all images.

use std::collections::{HashMap, hash_map::Entry};

use prefetch::bake::MIN_GIB;

use crate::manifest::Content;

/// How many bytes a GiB has.
const GIB: u128 = 1 << 30;
/// What is on a data volume beside images, in GiB.
const HEADROOM_GIB: u128 = 4;

/// Tells how large a volume must be, in GiB, so that no pull fills it above the threshold, in percent, above which the
/// document takes nothing more.
pub fn needed_gib(contents: &[&Content], threshold: i32) -> u128 {
    let bytes = bytes_on_disk(contents) * 100 / u128::from(threshold.unsigned_abs().max(1));
    (bytes.div_ceil(GIB) + HEADROOM_GIB).max(u128::from(MIN_GIB))
}

/// Tells how many bytes images take on a disk: each layer compressed, and unpacked on top of the same layers below it
/// twice as much, as the document counts it.
fn bytes_on_disk(contents: &[&Content]) -> u128 {
    let mut compressed: HashMap<&str, u128> = HashMap::new();
    let mut unpacked: HashMap<(usize, &str), usize> = HashMap::new();
    let mut bytes = 0;
    for content in contents {
        bytes += u128::from(content.config);
        let mut below = 0;
        for layer in &content.layers {
            let size = u128::from(layer.bytes);
            compressed.insert(&layer.digest, size);
            let next = unpacked.len() + 1;
            below = match unpacked.entry((below, &layer.digest)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    bytes += 2 * size;
                    *new.insert(next)
                }
            };
        }
    }
    bytes + compressed.values().sum::<u128>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::Layer;

    const MIB: u64 = 1 << 20;

    fn image(layers: &[(&str, u64)]) -> Content {
        let layers = layers.iter().map(|(digest, bytes)| Layer {
            digest: (*digest).to_owned(),
            bytes: *bytes,
        });
        Content {
            config: 0,
            layers: layers.collect(),
        }
    }

    #[test]
    fn a_volume_has_room_for_thrice_the_compressed_bytes_below_the_threshold_and_for_the_system() {
        let ten = image(&[("a", 10 * 1024 * MIB)]);
        // 30 GiB are 85 % of 35.3, and 4 beside them.
        assert_eq!(needed_gib(&[&ten], 85), 40);
        assert_eq!(needed_gib(&[&ten], 100), 34);
        assert_eq!(needed_gib(&[], 85), 20);
        assert_eq!(needed_gib(&[&image(&[("a", MIB)])], 85), 20);
    }

    #[test]
    fn the_same_image_twice_takes_its_room_once() {
        let ten = image(&[("a", 10 * 1024 * MIB)]);
        assert_eq!(needed_gib(&[&ten, &ten.clone()], 85), 40);
    }

    #[test]
    fn a_base_that_images_share_takes_its_room_once_and_a_layer_on_another_base_is_unpacked_again() {
        let one = image(&[("base", 100), ("one", 1)]);
        let two = image(&[("base", 100), ("two", 1)]);
        assert_eq!(bytes_on_disk(&[&one, &two]), 300 + 3 + 3);
        let other = image(&[("other", 10), ("one", 1)]);
        assert_eq!(bytes_on_disk(&[&one, &other]), 300 + 3 + 30 + 2);
    }

    proptest! {
        #[test]
        fn no_images_take_more_than_thrice_their_sum_nor_less_than_the_largest_of_them(
            images in prop::collection::vec(prop::collection::vec(("[a-d]", Just(7_u64)), 0..4), 1..5),
        ) {
            let images: Vec<Content> = images
                .iter()
                .map(|layers| image(&layers.iter().map(|(digest, bytes)| (digest.as_str(), *bytes)).collect::<Vec<_>>()))
                .collect();
            let all: Vec<&Content> = images.iter().collect();
            let sum: u128 = images.iter().map(|image| u128::from(image.bytes())).sum();
            prop_assert!(bytes_on_disk(&all) <= 3 * sum);
            for fewer in 1..all.len() {
                prop_assert!(bytes_on_disk(&all[..fewer]) <= bytes_on_disk(&all));
            }
        }
    }
}
