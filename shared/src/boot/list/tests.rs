use proptest::prelude::*;

use super::*;
use crate::rule::parse_rules;

const REGISTRY: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn rule(fields: &str) -> Rule {
    parse_rules(&format!(r#"[{{"name": "a"{fields}}}]"#)).unwrap().remove(0)
}

fn settings() -> Settings {
    Settings::read(|name| {
        Some(match name {
            "MODE" => "send".to_owned(),
            "RULES" => r#"[{"name": "a"}]"#.to_owned(),
            "DELIVERY_TIMEOUT_SECONDS" | "EXECUTION_TIMEOUT_SECONDS" => "600".to_owned(),
            "IMAGE_GC_HIGH_THRESHOLD_PERCENT" => "85".to_owned(),
            "MAX_PARALLEL_IMAGE_PULLS" | "MAX_CONNECTIONS" => "2".to_owned(),
            "LAUNCH_MAX_CONNECTIONS" => "20".to_owned(),
            "MAX_BANDWIDTH_MIB" => "0".to_owned(),
            "REGISTRY_ENDPOINT" => return None,
            _ => "text".to_owned(),
        })
    })
    .unwrap()
}

fn image(repository: &str, tag: &str) -> Image {
    Image::new(REGISTRY, repository, Some(tag), &format!("sha256:{}", "0".repeat(64))).unwrap()
}

fn images(repositories: &[&str]) -> Vec<Image> {
    repositories.iter().map(|repository| image(repository, "v1")).collect()
}

fn repositories(images: &[Image]) -> Vec<&str> {
    images.iter().map(Image::repository).collect()
}

#[test]
fn a_list_holds_what_a_launch_sends_but_for_what_does_not_fit() {
    let list = BootList::new(
        &settings(),
        &rule(r#", "keep": 2, "pin": true, "maxImageGiB": 9"#),
        &images(&["app"]),
    );
    let image = image("app", "v1");
    assert_eq!(
        list.text,
        format!(
            r#"{{"images":"{image}","parameters":{{"executionTimeout":"600","imageGCHighThresholdPercent":"85","keep":"3","maxBandwidthMiB":"0","maxConnections":"20","maxImageGiB":"9","maxParallelImagePulls":"2","pin":"true"}}}}"#
        )
    );
    assert_eq!((list.more, list.images, list.left_out), (None, 1, 0));
    let list = BootList::new(&settings(), &rule(""), &vec![image; 100]);
    assert_eq!(list.images + list.left_out, 100);
    assert!(list.images > 40);
}

#[test]
fn what_the_first_parameter_has_no_room_for_is_in_a_second_list_which_a_node_can_run_by_itself() {
    let names: Vec<String> = (0..60).map(|k| format!("app-{k:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let rule = rule(r#", "keep": 2"#);
    let list = BootList::new(&settings(), &rule, &images(&names));
    let more = list.more.unwrap();
    let [first, second] = [&list.text, &more].map(|text| images_of(text).unwrap());
    assert_eq!(
        [repositories(&first), repositories(&second)].concat(),
        names[..list.images]
    );
    let parameters = |text: &str| text.split_once(r#","parameters":"#).unwrap().1.to_owned();
    assert_eq!(parameters(&list.text), parameters(&more));
}

#[test]
fn what_is_no_list_of_ours_names_nothing() {
    for text in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"images": "app:v1", "parameters": {}}"#,
        r#"{"images": 1, "parameters": {}}"#,
    ] {
        assert_eq!(images_of(text), None, "{text}");
    }
}

#[test]
fn a_repository_comes_where_a_launch_names_it() {
    let rules = [
        (rule(""), ["b", "d", "f"], "c", ["b", "c", "d", "f"]),
        (rule(""), ["b", "d", "f"], "g", ["b", "d", "f", "g"]),
        (
            rule(r#", "repositories": ["f", "b", "d", "c"]"#),
            ["f", "b", "d"],
            "c",
            ["f", "b", "d", "c"],
        ),
        (
            rule(r#", "repositories": ["c", "f", "b", "d"]"#),
            ["f", "b", "d"],
            "c",
            ["c", "f", "b", "d"],
        ),
    ];
    for (rule, listed, repository, expected) in rules {
        let all = merged(
            &rule,
            &images(&listed),
            &[],
            (&image(repository, "v2"), images(&[repository])),
        );
        assert_eq!(repositories(&all), expected);
    }
}

#[test]
fn a_push_to_another_registry_leaves_this_ones_repository_of_the_same_name_as_it_is() {
    let central = |repository: &str, tag: &str| {
        let registry = "210987654321.dkr.ecr.eu-west-1.amazonaws.com";
        Image::new(registry, repository, Some(tag), image(repository, tag).digest()).unwrap()
    };
    let (own, pushed) = (image("c", "v1"), central("c", "v2"));
    let push = |listed: &[Image]| merged(&rule(""), listed, &[], (&pushed, vec![pushed.clone()]));
    assert_eq!(push(std::slice::from_ref(&own)), [own.clone(), pushed.clone()]);
    let [before, after] = ["b", "d"].map(|name| central(name, "v1"));
    let expected = [own.clone(), before.clone(), pushed.clone(), after.clone()];
    assert_eq!(push(&[own.clone(), before.clone(), after.clone()]), expected);
    assert_eq!(push(&[own.clone(), before, central("c", "v1"), after]), expected);
}

#[test]
fn what_neighbours_run_stays_first_and_a_push_renews_only_what_is_newest_of_its_repository() {
    let listed = ["z:v1", "c:v1", "b:v1", "c:v2", "d:v1"].map(|name| {
        let (repository, tag) = name.split_once(':').unwrap();
        image(repository, tag)
    });
    let neighbours = [image("c", "v1"), image("z", "v1"), image("not-listed", "v1")];
    let names = |all: &[Image]| -> Vec<String> {
        let name = |image: &Image| format!("{}:{}", image.repository(), image.tag().unwrap());
        all.iter().map(name).collect()
    };
    let push = |repository: &str, tag: &str| {
        names(&merged(
            &rule(""),
            &listed,
            &neighbours,
            (&image(repository, tag), vec![image(repository, tag)]),
        ))
    };
    assert_eq!(push("c", "v3"), ["z:v1", "c:v1", "b:v1", "c:v3", "d:v1"]);
    assert_eq!(push("c", "v1"), ["z:v1", "c:v1", "b:v1", "d:v1"]);
    assert_eq!(push("a", "v1"), ["z:v1", "c:v1", "a:v1", "b:v1", "c:v2", "d:v1"]);
}

proptest! {
    #[test]
    fn a_list_is_never_larger_than_what_is_free_and_leaves_out_only_what_does_not_fit(
        names in prop::collection::vec("[a-z]{1,120}", 0..60),
    ) {
        let images: Vec<Image> = names.iter().map(|name| image(name, name)).collect();
        let list = BootList::new(&settings(), &rule(""), &images);
        let texts: Vec<&String> = [&list.text].into_iter().chain(&list.more).collect();
        let mut listed = Vec::new();
        for (place, text) in texts.iter().enumerate() {
            let of_text = images_of(text).unwrap();
            prop_assert!(text.len() <= MAX_CHARACTERS && of_text.len() <= MAX_IMAGES);
            prop_assert_eq!(of_text.is_empty(), images.is_empty() && place == 0);
            listed.extend(of_text);
            if let Some(next) = images.get(listed.len()).filter(|_| listed.len() < [MAX_IMAGES, MAX_LISTED][place]) {
                prop_assert!(text.len() + next.to_string().len() + 1 > MAX_CHARACTERS);
            }
        }
        prop_assert!(listed.len() <= MAX_LISTED);
        prop_assert_eq!(&listed, &images[..list.images]);
        prop_assert_eq!(list.images + list.left_out, images.len());
        prop_assert!(texts.len() == 2 || list.left_out == 0);
    }

    #[test]
    fn a_push_leaves_the_others_as_they_are_and_brings_its_repository_once(
        listed in prop::collection::vec("[a-e]", 0..12),
        repository in "[a-f]",
        tags in prop::collection::vec("v[0-9]", 0..3),
        running in prop::collection::vec("[a-f]", 0..4),
    ) {
        let listed: Vec<Image> = listed.iter().map(|name| image(name, "v1")).collect();
        let newest: Vec<Image> = tags.iter().map(|tag| image(&repository, tag)).collect();
        let neighbours: Vec<Image> = running.iter().map(|name| image(name, "v1")).collect();
        let runs = |images: &[Image]| -> (Vec<Image>, Vec<Image>) {
            images.iter().cloned().partition(|image| neighbours.contains(image))
        };
        let pushed = image(&repository, "pushed");
        let all = merged(&rule(""), &listed, &neighbours, (&pushed, newest.clone()));
        let split = |images: &[Image]| -> (Vec<Image>, Vec<Image>) {
            images.iter().cloned().partition(|image| image.repository() == repository)
        };
        let (first, rest) = all.split_at(runs(&listed).0.len());
        prop_assert_eq!(first, runs(&listed).0);
        let newest: Vec<Image> = newest.into_iter().filter(|image| !first.contains(image)).collect();
        prop_assert_eq!(split(rest), (newest.clone(), split(&runs(&listed).1).1));
        let again = merged(&rule(""), &all, first, (&pushed, newest));
        prop_assert_eq!(again, all);
    }
}
