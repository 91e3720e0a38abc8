//! Volumes: how large one is that holds all images.

use prefetch::{
    bake::MIN_GIB,
    manifest::{Content, bytes_on_disk},
};

/// Counts the bytes of a GiB.
const GIB: u128 = 1 << 30;
/// Counts the GiB on a data volume beside images.
const HEADROOM_GIB: u128 = 4;

/// Tells how large a volume must be, in GiB, so that no pull fills it above the threshold, in percent, above which the
/// document takes nothing more.
pub fn needed_gib(contents: &[&Content], threshold: i32) -> u128 {
    let bytes = u128::from(bytes_on_disk(contents.iter().copied())) * 100 / u128::from(threshold.unsigned_abs().max(1));
    (bytes.div_ceil(GIB) + HEADROOM_GIB).max(u128::from(MIN_GIB))
}

#[cfg(test)]
mod tests {
    use prefetch::manifest::Layer;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn image(layers: &[(&str, u64)]) -> Content {
        let layers = layers.iter().map(|(digest, bytes)| Layer {
            digest: (*digest).to_owned(),
            bytes: *bytes,
            unpacked: 2 * bytes,
            ..Layer::default()
        });
        Content {
            layers: layers.collect(),
            ..Content::default()
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
}
