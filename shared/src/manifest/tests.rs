use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    read::{MAX_PART, MAX_TOTAL},
    *,
};
use crate::image::CONFIGURATIONS;

const MIB: u64 = 1 << 20;
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn digest(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

fn parse(manifest: &Value) -> Manifest {
    Manifest::parse(manifest.to_string().as_bytes()).unwrap()
}

fn content(manifest: &Value) -> Content {
    match parse(manifest) {
        Manifest::Image(content) => content,
        Manifest::Index(_) => panic!("an index"),
    }
}

fn index(text: &str) -> Index {
    match Manifest::parse(text.as_bytes()).unwrap() {
        Manifest::Index(index) => index,
        Manifest::Image(_) => panic!("no index"),
    }
}

fn image(layers: &Value) -> Value {
    json!({"config": {"mediaType": CONFIGURATIONS[0], "digest": digest('c'), "size": 7}, "layers": layers})
}

/// Returns what containerd takes of an index on a node of an architecture, by the first digit of its digest.
fn taken(index: &Index, architecture: &str) -> Option<char> {
    let entry = index.entry_for(&PlatformMatcher::linux(architecture))?;
    entry.digest.chars().nth("sha256:".len())
}

#[test]
fn an_image_has_the_size_of_its_configuration_and_layers() {
    let content = content(&image(&json!([
        {"digest": digest('a'), "mediaType": LAYER, "size": 100},
        {"digest": digest('b'), "mediaType": format!("{LAYER}+zstd"), "size": 20},
    ])));
    assert_eq!((content.bytes(), content.bytes_with_unpacked()), (127, 127 + 100 + 40));
    assert_eq!((content.config, content.runtime), (digest('c'), Runtime::Any));
}

#[test]
fn a_size_that_is_not_told_or_not_believed_counts_nothing() {
    for size in [
        json!(null),
        json!("1"),
        json!(-1),
        json!(1.5),
        json!(MAX_PART),
        json!(u64::MAX),
        json!([{"size": 1}]),
        json!({"a": {}}),
    ] {
        let layers = json!([{"digest": digest('a'), "size": size}, {"size": 3}]);
        assert_eq!(content(&json!({"layers": layers})).bytes(), 3, "{size}");
    }
    let many = vec![json!({"size": MAX_PART - 1}); 500];
    let content = content(&json!({ "layers": many }));
    assert_eq!((content.bytes(), content.bytes_with_unpacked()), (MAX_TOTAL, MAX_TOTAL));
}

#[test]
fn an_estargz_layer_tells_its_unpacked_size() {
    let told = |size: Value| {
        let annotations = json!({"io.containers.estargz.uncompressed-size": size, "other": 1});
        content(&image(
            &json!([{"mediaType": format!("{LAYER}+gzip"), "size": 10, "annotations": annotations}]),
        ))
    };
    assert_eq!(told(json!("35")).layers[0].unpacked, 35);
    for size in [json!("many"), json!("-1"), json!(35), json!("99999999999999999999")] {
        assert_eq!(told(size.clone()).layers[0].unpacked, 20, "{size}");
    }
}

#[test]
fn of_an_index_the_first_image_for_linux_on_the_architecture_is_taken() {
    let index = index(
        &json!({"manifests": [
            {"digest": digest('0'), "platform": {"os": "unknown", "architecture": "unknown"}},
            {"digest": digest('1'), "platform": {"os": "windows", "architecture": "amd64"}},
            {"digest": digest('2'), "artifactType": "application/vnd.amazon.soci.index.v2+json",
                "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": "sha256:../../etc", "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": digest('3'), "platform": {"os": "linux", "architecture": "386"}},
            {"digest": digest('4'), "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": digest('5'), "platform": {"os": "linux", "architecture": "amd64", "variant": "v3"}},
            {"digest": digest('6'), "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}},
            {"digest": digest('7'), "platform": {"os": "linux", "architecture": "aarch64"}},
            {"digest": digest('8')},
        ]})
        .to_string(),
    );
    assert_eq!((taken(&index, "amd64"), taken(&index, "arm64")), (Some('4'), Some('7')));
    assert_eq!(taken(&index, "riscv64"), Some('8'));
    let fewer = Index {
        entries: index.entries[..3].to_vec(),
    };
    assert_eq!((taken(&fewer, "amd64"), taken(&fewer, "arm64")), (Some('3'), None));
}

#[test]
fn indexes_from_the_field_are_read_as_containerd_reads_them() {
    let variants = index(include_str!("tests/index-amd64-v2-v3-only.json"));
    assert_eq!(
        (taken(&variants, "amd64"), taken(&variants, "arm64")),
        (None, Some('3'))
    );
    let capital = index(include_str!("tests/index-os-Linux-capital.json"));
    assert_eq!((taken(&capital, "amd64"), taken(&capital, "arm64")), (Some('1'), None));
}

#[test]
fn manifests_from_the_field_say_what_can_run_them() {
    let content = |text: &str| content(&serde_json::from_str(text).unwrap());
    assert_eq!(
        content(include_str!("tests/manifest-nydus.json")).runtime,
        Runtime::Nydus
    );
    let Runtime::None(why) = content(include_str!("tests/manifest-modelpack.json")).runtime else {
        panic!("a model is no image");
    };
    assert_eq!(
        why,
        "it is no image that a node can run: its configuration is application/vnd.cncf.model.config.v1+json"
    );
    let chunked = content(include_str!("tests/manifest-zstd-chunked.json"));
    assert_eq!(
        (chunked.runtime, chunked.layers[0].unpacked),
        (Runtime::Any, 8_000_000_000)
    );
}

#[test]
fn what_no_node_can_run_is_told() {
    for manifest in [
        json!({"schemaVersion": 1, "fsLayers": [{"blobSum": digest('a')}]}),
        json!({"config": {"mediaType": "application/vnd.cncf.helm.config.v1+json"}, "layers": [{"mediaType": LAYER}]}),
        image(&json!([{"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json"}])),
        image(&json!([{"mediaType": "application/vnd.in-toto+json"}])),
        image(&json!([])),
        json!({"config": {"mediaType": "a\n\u{1b}[0m"}}),
        json!({}),
    ] {
        let Runtime::None(why) = content(&manifest).runtime else {
            panic!("{manifest}");
        };
        assert!(why.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{why}");
    }
}

#[test]
fn a_configuration_tells_its_platform_and_its_unpacked_layers() {
    let parse = |text: &Value| Configuration::parse(text.to_string().as_bytes()).unwrap();
    let rootfs = json!({"type": "layers", "diff_ids": [digest('a'), digest('b'), "md5:1", digest('c')]});
    let told = parse(&json!({"os": "Linux", "architecture": "x86_64", "rootfs": rootfs, "history": [{}]}));
    assert_eq!(told.platform, Some(Platform::new("linux", "amd64", "")));
    assert_eq!(told.diff_ids, [digest('a'), digest('b')]);
    for text in [
        json!({"os": "linux", "architecture": "amd64"}),
        json!({"os": "linux", "rootfs": rootfs}),
        json!({"os": "linux", "architecture": "", "rootfs": rootfs}),
        json!({"model": "llm"}),
    ] {
        assert_eq!(parse(&text).platform, None, "{text}");
    }
}

#[test]
fn a_snapshot_is_named_for_its_layer_and_all_below_it() {
    // By the definition: sha256 of "<below> <diff id>".
    let ids = [digest('a'), digest('b'), digest('c')];
    let chain = chain_ids(&ids);
    assert_eq!(chain[0], ids[0]);
    assert_eq!(
        chain[1],
        "sha256:ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c"
    );
    assert_eq!(chain.len(), 3);
}

#[test]
fn what_is_no_manifest_is_refused() {
    for text in [
        "",
        "[]",
        "null",
        "{\"manifests\": 1}",
        "{\"layers\": {}}",
        "<html>",
        "{\"layers\": [1]}",
    ] {
        assert!(Manifest::parse(text.as_bytes()).is_err(), "{text}");
    }
    let endless = format!("{{\"layers\": [{}{{}}]}}", "{},".repeat(100_000));
    assert!(Manifest::parse(endless.as_bytes()).is_err());
    let deep = format!("{{\"x\": {}", "[".repeat(1_000_000));
    assert!(Manifest::parse(deep.as_bytes()).is_err());
    assert!(matches!(
        Manifest::parse(&vec![b' '; MAX_BYTES + 1]),
        Err(ManifestError::TooLong(_))
    ));
}

fn of_layers(layers: &[(&str, u64)]) -> Content {
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
fn a_base_that_images_share_takes_its_room_once_and_a_layer_on_another_base_is_unpacked_again() {
    let one = of_layers(&[("base", 100), ("one", 1)]);
    let two = of_layers(&[("base", 100), ("two", 1)]);
    assert_eq!(bytes_on_disk([&one, &two]), 300 + 3 + 3);
    let with_config = Content {
        config: digest('c'),
        config_bytes: 7,
        ..one.clone()
    };
    assert_eq!(bytes_on_disk([&with_config, &with_config.clone()]), 310);
    let other = of_layers(&[("other", 10), ("one", 1)]);
    assert_eq!(bytes_on_disk([&one, &other]), 300 + 3 + 30 + 2);
}

#[test]
fn only_what_is_missing_of_an_image_takes_room() {
    let image = of_layers(&[("unpacked", MIB), ("there", 10), ("missing", 1)]);
    let chain = ["first", "second"].map(str::to_owned);
    let missing = |chain: &[String]| missing_bytes(&image, chain, |key| key == "first", |blob| blob == "there");
    assert_eq!(missing(&chain), 20 + 3);
    assert_eq!(missing(&[]), 3 * MIB + 20 + 3);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        Manifest::parse(&bytes).ok();
        Configuration::parse(&bytes).ok();
    }

    #[test]
    fn any_json_is_read_or_refused(
        text in "(\\{(\"(config|layers|manifests|rootfs|diff_ids|platform|os|architecture|size|annotations)\":[\\[{]?)?){1,4}[\\[\\]{}\":,a-z0-9]{0,40}"
    ) {
        if let Ok(Manifest::Image(content)) = Manifest::parse(text.as_bytes()) {
            prop_assert!(content.bytes() <= content.bytes_with_unpacked());
        }
        Configuration::parse(text.as_bytes()).ok();
    }

    #[test]
    fn sums_never_pass_the_largest(sizes in prop::collection::vec(any::<u64>(), 0..50)) {
        let layers: Vec<Value> = sizes.iter().map(|size| json!({ "size": size })).collect();
        let content = content(&json!({ "layers": layers }));
        prop_assert!(content.bytes() <= MAX_TOTAL && content.bytes_with_unpacked() <= MAX_TOTAL);
        prop_assert!(bytes_on_disk([&content, &content]) <= MAX_TOTAL);
        prop_assert!(missing_bytes(&content, &[], |_| false, |_| false) <= content.bytes_with_unpacked());
    }

    #[test]
    fn an_images_snapshots_begin_with_those_of_what_is_below(ids in prop::collection::vec("sha256:[0-9a-f]{64}", 0..6)) {
        let chain = chain_ids(&ids);
        prop_assert_eq!(chain.len(), ids.len());
        for fewer in 0..ids.len() {
            prop_assert_eq!(&chain_ids(&ids[..fewer])[..], &chain[..fewer]);
        }
    }

    #[test]
    fn no_images_take_more_than_their_sum_nor_less_than_fewer_of_them(
        images in prop::collection::vec(prop::collection::vec(("[a-d]", Just(7_u64)), 0..4), 1..5),
    ) {
        let image = |layers: &Vec<(String, u64)>| {
            of_layers(&layers.iter().map(|(digest, bytes)| (digest.as_str(), *bytes)).collect::<Vec<_>>())
        };
        let images: Vec<Content> = images.iter().map(image).collect();
        let sum: u64 = images.iter().map(Content::bytes_with_unpacked).sum();
        prop_assert!(bytes_on_disk(&images) <= sum);
        for fewer in 1..images.len() {
            prop_assert!(bytes_on_disk(&images[..fewer]) <= bytes_on_disk(&images));
        }
    }
}
