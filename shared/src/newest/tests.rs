use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::rule::parse_rules;

fn rule(fields: &str) -> Rule {
    parse_rules(&format!(r#"[{{"name": "a"{fields}}}]"#)).unwrap().remove(0)
}

fn pushed(digest: &str, minutes: u64, tags: &[&str]) -> Pushed {
    Pushed {
        registry_id: "123456789012".to_owned(),
        digest: digest.to_owned(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        arrived: SystemTime::UNIX_EPOCH + Duration::from_mins(minutes),
        is_index: false,
    }
}

/// Returns the names of what a rule chooses.
fn chosen<'a>(rule: &Rule, images: impl IntoIterator<Item = &'a Pushed>) -> Vec<Vec<String>> {
    let mut shortlist = Shortlist::new(rule, "app", Seen::default());
    images.into_iter().for_each(|image| shortlist.add(image));
    let names = |candidate: &Candidate| candidate.names.clone();
    shortlist.choose(|_| true).into_iter().map(names).collect()
}

/// Returns the images of an answer of DescribeImages.
fn answered(answer: &str) -> Vec<Pushed> {
    let answer: Value = serde_json::from_str(answer).unwrap();
    let details = answer["imageDetails"].as_array().unwrap();
    let image = |detail: &Value| Pushed {
        registry_id: "123456789012".to_owned(),
        digest: detail["imageDigest"].as_str().unwrap().to_owned(),
        tags: serde_json::from_value(detail["imageTags"].clone()).unwrap(),
        arrived: detail["imagePushedAt"]
            .as_str()
            .unwrap()
            .parse::<chrono::DateTime<chrono::Utc>>()
            .unwrap()
            .into(),
        is_index: false,
    };
    details.iter().map(image).collect()
}

#[test]
fn a_digest_with_a_thousand_tags_is_one_image_with_five_names() {
    let tags: Vec<String> = (0..1000).map(|k| format!("main-{k:04}")).collect();
    let mut tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    assert_eq!(
        chosen(&rule(""), [&pushed("a", 1, &tags)]),
        [["main-0000", "main-0001", "main-0002", "main-0003", "main-0004"]]
    );
    tags.extend(["v1.9.0", "1.10", "stable"]);
    let names = chosen(&rule(r#", "tags": ["*", "stable"]"#), [&pushed("a", 1, &tags)]);
    assert_eq!(names, [["stable", "1.10", "v1.9.0", "main-0000", "main-0001"]]);
}

#[test]
fn a_back_port_is_newest_by_its_push_and_the_highest_version_by_order() {
    let images = answered(include_str!("backport-after-release.json"));
    assert_eq!(chosen(&rule(""), &images), [["4.9.17"]]);
    assert_eq!(chosen(&rule(r#", "order": "version""#), &images), [["5.1.0"]]);
}

#[test]
fn the_same_image_for_each_architecture_is_one_of_the_newest() {
    let images = answered(include_str!("tag-per-architecture.json"));
    assert_eq!(chosen(&rule(""), &images), [["1.8.0-arm64"], ["1.8.0-amd64"]]);
    let older = pushed("old", 1, &["1.7.0-amd64"]);
    assert_eq!(chosen(&rule(""), images.iter().chain([&older])).len(), 2);
    let index = Pushed {
        is_index: true,
        ..pushed("index", 40_000_000, &["1.8.0"])
    };
    assert_eq!(chosen(&rule(""), images.iter().chain([&index])), [["1.8.0"]]);
    // An image that is no index is one architecture's own.
    let single = pushed("single", 40_000_000, &["1.8.0"]);
    assert_eq!(chosen(&rule(""), images.iter().chain([&single])).len(), 3);
}

#[test]
fn a_signature_with_a_word_before_it_is_never_newest() {
    let images = answered(include_str!("prefixed-signature-is-newest.json"));
    assert_eq!(chosen(&rule(""), &images), [["4.2.0"]]);
}

#[test]
fn an_old_image_with_a_tag_that_the_rule_names_is_brought_beside_the_newest() {
    let old = pushed("old", 1, &["v1", "prod"]);
    let newer: Vec<String> = (2..100).map(|k| format!("v{k}")).collect();
    let newer: Vec<Pushed> = (2..100).zip(&newer).map(|(k, tag)| pushed(tag, k, &[tag])).collect();
    let images = || [&old].into_iter().chain(&newer);
    assert_eq!(chosen(&rule(r#", "tags": ["*"]"#), images()), [["v99"]]);
    let named = chosen(&rule(r#", "tags": ["*", "prod"]"#), images());
    assert_eq!(named, [vec!["v99"], vec!["prod", "v1"]]);
    let excluded = chosen(&rule(r#", "tags": ["*", "prod", "!prod"]"#), images());
    assert_eq!(excluded, [["v99"]]);
}

#[test]
fn what_is_no_image_makes_room_for_the_next() {
    let rule = rule("");
    let mut shortlist = Shortlist::new(&rule, "app", Seen::default());
    shortlist.add(&pushed("cache", 2, &["buildcache"]));
    shortlist.add(&pushed("image", 1, &["v1"]));
    let chosen = shortlist.choose(|candidate| candidate.digest != "cache");
    assert_eq!(chosen[0].names, ["v1"]);
}

#[test]
fn what_may_be_a_caches_layers_takes_no_room_from_images_and_what_a_rule_names_is_none() {
    let tags: Vec<String> = (0..1000).map(|k| format!("{k:064}")).collect();
    let layers: Vec<Pushed> = (2..).zip(&tags).map(|(k, tag)| pushed(tag, k, &[tag])).collect();
    let image = pushed("image", 1, &["v1"]);
    let images = || layers.iter().chain([&image]);
    let of = |rule: &Rule, is_image: bool| {
        let mut shortlist = Shortlist::new(rule, "app", Seen::default());
        images().for_each(|image| shortlist.add(image));
        let chosen = shortlist.choose(|candidate| is_image || !candidate.needs_manifest());
        chosen
            .into_iter()
            .map(|image| image.names[0].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&rule(""), false), ["v1"]);
    assert_eq!(of(&rule(""), true), [tags[999].as_str()]);
    let named = rule(&format!(r#", "tags": ["*", "{}"]"#, tags[5]));
    assert_eq!(of(&named, false), [tags[5].as_str()]);
    let mut cache = Shortlist::new(&named, "ci/app/cache", Seen::default());
    images().for_each(|image| cache.add(image));
    assert_eq!(cache.choose(|_| true)[0].names, [tags[5].as_str()]);
}

#[test]
fn versions_are_read_as_people_write_them() {
    let mut tags = [
        "1.4",
        "v1.4.1-rc.1",
        "1.4.1-arm64",
        "v2.0.0-beta",
        "2026.01.05",
        "linux-amd64-1.4.2",
    ];
    tags.sort_by_key(|tag| version(tag).unwrap());
    assert_eq!(
        tags,
        [
            "1.4",
            "v1.4.1-rc.1",
            "1.4.1-arm64",
            "linux-amd64-1.4.2",
            "v2.0.0-beta",
            "2026.01.05"
        ]
    );
    for tag in [
        "1234567",
        "v2",
        "main",
        "1.2.3.4",
        "1.x",
        "latest",
        "",
        "-",
        "1.2-",
        "v",
        "1..2",
        "20260105.1",
        "1.2_",
        "app-",
        "release-20260105.12",
        "1.2.3rc1",
        "99999999999999999999.1",
    ] {
        assert_eq!(version(tag), None, "{tag}");
    }
}

#[test]
fn the_higher_version_is_newer_however_it_is_written() {
    for ascending in [
        &[
            "1.4.0-20251129.0830",
            "1.4.0-20251129.0931",
            "1.4.0-20251129.1015",
            "1.4.0",
        ][..],
        &[
            "1.4.0-rc_1",
            "1.4.0-rc_2",
            "1.4.0-rc_10",
            "1.4.0",
            "1.4.0_4",
            "1.4.0_12",
            "1.4.1",
        ],
        &["release-1.2.2", "app-v1.2.3", "release-1.10.0"],
        &["20260105.1", "v5.1.0"],
        &[
            "1.2.3-rc.1",
            "1.2.3-rc.1-2-gabc1234",
            "1.2.3",
            "1.2.3-9-gabc1234",
            "1.2.3-45-gabc1234",
            "1.2.4-rc.1",
        ],
        &["1.4.0-000", "1.4.0-00.1", "1.4.0-a..1"],
    ] {
        for pair in ascending.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
    }
}

#[test]
fn an_architecture_is_a_word_of_its_own() {
    for (tag, without) in [
        ("1.4-amd64", "1.4"),
        ("arm64-1.4", "1.4"),
        ("1.4_aarch64", "1.4"),
        ("1.4-linux-x86_64-alpine", "1.4-alpine"),
        ("1.4.arm64v8", "1.4"),
        ("1.4-charm64", "1.4-charm64"),
        ("amd64", ""),
    ] {
        assert_eq!(without_architecture(tag), without);
    }
}

proptest! {
    #[test]
    fn a_version_is_one_whatever_word_stands_before_it_and_pre_release_follows(
        word in "([a-z]{1,5}-){0,2}v?",
        core in "[0-9]{1,4}\\.[0-9]{1,4}\\.[0-9]{1,4}",
        pre in "[A-Za-z0-9][A-Za-z0-9._-]{0,12}",
    ) {
        prop_assume!(!has_architecture(&format!("{word}{core}-{pre}")));
        let plain = version(&core).unwrap();
        let told = version(&format!("{word}{core}-{pre}")).unwrap();
        prop_assert_eq!((told.major, told.minor, told.patch), (plain.major, plain.minor, plain.patch));
    }
}

fn any_images() -> impl Strategy<Value = Vec<Pushed>> {
    let tag = "(v?[0-3]\\.[0-3](-rc1)?|main|prod|stable)(-amd64|-arm64)?";
    let image = (0..500_u64, prop::collection::btree_set(tag, 1..4), any::<bool>());
    prop::collection::vec(image, 0..150).prop_map(|images| {
        let image = |(k, (minutes, tags, is_index)): (usize, (u64, std::collections::BTreeSet<String>, bool))| Pushed {
            tags: tags.into_iter().collect(),
            is_index,
            ..pushed(&format!("{k:03}"), minutes, &[])
        };
        images.into_iter().enumerate().map(image).collect()
    })
}

proptest! {
    #[test]
    fn the_choice_does_not_depend_on_the_order_in_which_images_are_told(
        (images, shuffled) in any_images().prop_flat_map(|images| (Just(images.clone()), Just(images).prop_shuffle())),
        newest in 1..4_usize,
        order in prop::sample::select(vec!["pushed", "version"]),
    ) {
        let rule = rule(&format!(r#", "newest": {newest}, "order": "{order}", "tags": ["*", "prod", "!stable*"]"#));
        prop_assert_eq!(chosen(&rule, &images), chosen(&rule, &shuffled));
    }

    #[test]
    fn the_newest_and_every_image_that_the_rule_names_are_chosen_with_few_names(
        images in any_images(),
        newest in 1..4_usize,
    ) {
        let rule = rule(&format!(r#", "newest": {newest}, "tags": ["*", "prod", "!stable*"]"#));
        let chosen = chosen(&rule, &images);
        prop_assert!(chosen.iter().all(|names| (1..=MAX_NAMES).contains(&names.len())));
        let takes = |image: &&Pushed| image.tags.iter().any(|tag| rule.tags.matches(tag));
        let last = images.iter().filter(takes).max_by_key(|image| (image.arrived, &image.digest));
        if let Some(last) = last {
            // An index may stand for it.
            let version = |tags: &[String]| tags.iter().filter(|tag| rule.tags.matches(tag)).map(|tag| without_architecture(tag)).collect::<Vec<_>>();
            let last = version(&last.tags);
            prop_assert!(chosen.iter().flatten().any(|name| last.contains(&without_architecture(name))));
        }
        for image in images.iter().filter(|image| image.tags.iter().any(|tag| tag == "prod")) {
            prop_assert!(chosen.iter().any(|names| names[0] == "prod" && image.tags.contains(&names[names.len() - 1])));
        }
    }
}
