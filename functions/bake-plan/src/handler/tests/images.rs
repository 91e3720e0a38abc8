//! The images that are baked, and those that are left off.

use lambda_runtime::Diagnostic;
use prefetch::command::MAX_IMAGES_BYTES;
use serde_json::{Value, json};

use super::{
    cloud::Cloud,
    manifests::{DEFAULTS, MIB, REGISTRY, cluster, digest, index, single},
};

#[tokio::test]
async fn images_that_are_named_are_baked_as_they_are_named_and_each_once() {
    let cloud = Cloud::new();
    cloud.push("team/web", "v1", &single(&[("web", 5)]));
    let names = ["team/web:v1", "team/app:v1", "team/web:v1"];
    let mut event: Value = serde_json::from_str(include_str!("../../../../../events/bake-plan.images.json")).unwrap();
    event["input"]["images"] = json!(names);
    let plan = cloud.plan(&event.to_string()).await.unwrap();
    let image = |name: &str| format!("{REGISTRY}/{name}@{}", digest(name));
    assert_eq!(
        plan["bakes"][0]["images"],
        json!([
            {"image": image("team/web:v1"), "bytes": 5 * MIB, "named": true},
            {"image": image("team/app:v1"), "bytes": 100 * MIB, "named": true},
        ])
    );
    event["input"]["images"] = json!([format!("team/web@{}", digest("team/web:v1"))]);
    let plan = cloud.plan(&event.to_string()).await.unwrap();
    let by_digest = format!("{REGISTRY}/team/web@{}", digest("team/web:v1"));
    assert_eq!(plan["bakes"][0]["images"][0]["image"], by_digest);
}

#[tokio::test]
async fn an_image_that_is_named_and_not_there_or_not_for_an_architecture_is_refused_by_its_place() {
    let cloud = Cloud::new();
    cloud.push("team/web", "v1", &index(&[("amd64", 1), ("s390x", 1)]));
    let event = |images: Value| {
        let input = json!({"images": images, "architectures": ["x86_64", "arm64"]});
        json!({"input": input, "cluster": cluster()}).to_string()
    };
    for (images, expected) in [
        (
            json!(["team/app:v1", "team/app:v9"]),
            r#"images[1]: "team/app:v9" is not accepted: it takes an image that exists"#,
        ),
        (
            json!(["team/none:v1"]),
            r#"images[0]: "team/none:v1" is not accepted: it takes an image of a repository that exists, or one that a node can pull: docker.io/team/none:v1: not-found"#,
        ),
        (
            json!(["team/app:v1", "team/web:v1"]),
            r#"images[1]: "team/web:v1" is not accepted: it takes an image for arm64, which this index has none for"#,
        ),
    ] {
        let (error, message) = cloud.refused(&event(images)).await;
        assert_eq!(error, "BadInput");
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn an_image_that_a_rule_finds_and_that_has_none_for_the_architecture_is_left_off() {
    let cloud = Cloud::new();
    cloud.node("x86_64", |_| {});
    cloud.push("team/web", "v1", &index(&[("arm64", 1), ("unknown", 1)]));
    let plan = cloud.plan(DEFAULTS).await.unwrap();
    let bake = &plan["bakes"][0];
    let image = |name: &str| format!("{REGISTRY}/{name}@{}", digest(name));
    assert_eq!(bake["images"].as_array().unwrap().len(), 1);
    assert_eq!(bake["images"][0]["image"], image("team/app:v1"));
    assert_eq!(bake["leftOff"], json!([image("team/web:v1")]));
}

#[tokio::test]
async fn where_nothing_is_left_to_bake_it_says_so() {
    let cloud = Cloud::new();
    cloud.node("x86_64", |_| {});
    cloud.push("team/app", "v2", &index(&[("arm64", 1)]));
    let (error, message) = cloud.refused(DEFAULTS).await;
    assert_eq!(error, "NoImages");
    assert!(message.contains("is baked for x86_64"), "{message}");
    let cloud = Cloud::with(r#"[{"name": "gpu", "repositories": ["team/none"]}]"#, "{}");
    cloud.node("x86_64", |_| {});
    let refused = cloud.refused(DEFAULTS).await;
    let expected = "the rules gpu name no image that exists".to_owned();
    assert_eq!(refused, ("NoImages".to_owned(), expected));
}

#[tokio::test]
async fn an_image_that_two_rules_name_is_baked_once_and_as_the_more_generous_one_takes_it() {
    let rule = |name: &str, gib: u32| json!({"name": name, "repositories": ["team/app"], "maxImageGiB": gib});
    for (first, second, is_baked) in [(1, 2, false), (1, 3, true), (0, 1, true), (1, 0, true)] {
        let rules = json!([rule("a", first), rule("b", second)]).to_string();
        let cloud = Cloud::with(&rules, "{}");
        cloud.push("team/app", "v2", &single(&[("large", 2049)]));
        let event = json!({"input": {"architectures": ["arm64"]}, "cluster": cluster()}).to_string();
        let plan = cloud.plan(&event).await;
        match plan {
            Ok(plan) => assert_eq!(plan["bakes"][0]["images"].as_array().unwrap().len(), 1),
            Err(error) => assert_eq!(Diagnostic::from(error).error_type, "NoImages"),
        }
        assert_eq!(cloud.plan(&event).await.is_ok(), is_baked, "{rules}");
    }
}

#[tokio::test]
async fn of_two_rules_only_the_one_that_is_named_chooses_images_and_architectures() {
    let rules = json!([
        {"name": "app", "repositories": ["team/app"], "nodes": {"team": ["app"]}},
        {"name": "web", "repositories": ["team/web"], "nodes": {"team": ["web"]}},
    ]);
    let cloud = Cloud::with(&rules.to_string(), "{}");
    cloud.push("team/web", "v1", &single(&[("web", 1)]));
    cloud.node("x86_64", |tags| drop(tags.insert("team".to_owned(), "app".to_owned())));
    cloud.node("arm64", |tags| drop(tags.insert("team".to_owned(), "web".to_owned())));
    let event = json!({"input": {"rules": ["web"]}, "cluster": cluster()}).to_string();
    let plan = cloud.plan(&event).await.unwrap();
    assert_eq!(plan["bakes"].as_array().unwrap().len(), 1);
    assert_eq!(plan["bakes"][0]["architecture"], "arm64");
    let image = format!("{REGISTRY}/team/web:v1@{}", digest("team/web:v1"));
    assert_eq!(plan["bakes"][0]["images"][0]["image"], image);
}

#[tokio::test]
async fn one_digest_under_two_tags_is_two_images_and_takes_its_room_once() {
    let cloud = Cloud::with(r#"[{"name": "default", "repositories": ["team/app"]}]"#, "{}");
    cloud.push("team/app", "v2", &single(&[("base", 10 * 1024)]));
    cloud.tag("team/app", "v2", "latest");
    let event = json!({"input": {"architectures": ["x86_64"]}, "cluster": cluster()}).to_string();
    let plan = cloud.plan(&event).await.unwrap();
    let bake = &plan["bakes"][0];
    let image = |tag: &str| format!("{REGISTRY}/team/app:{tag}@{}", digest("team/app:v2"));
    let images: Vec<&Value> = bake["images"].as_array().unwrap().iter().map(|i| &i["image"]).collect();
    assert_eq!(images, [&json!(image("latest")), &json!(image("v2"))]);
    assert_eq!(bake["volume"]["VolumeSize"], 40);
    assert_eq!(cloud.batches(), [1]);
}

#[tokio::test]
async fn manifests_are_asked_for_a_hundred_at_once_and_images_sent_as_many_at_once_as_have_room_beside_the_document() {
    let rules = r#"[{"name": "default", "repositories": ["team/*"], "newest": 50}]"#;
    let cloud = Cloud::with(rules, "{}");
    for k in 0..49 {
        cloud.push(
            "team/app",
            &format!("x{k}"),
            &index(&[("amd64", k + 1), ("arm64", k + 1)]),
        );
    }
    let event = json!({"input": {"architectures": ["x86_64", "arm64"]}, "cluster": cluster()}).to_string();
    let plan = cloud.plan(&event).await.unwrap();
    assert_eq!(cloud.batches(), [50, 98]);
    let commands = plan["bakes"][1]["commands"].as_array().unwrap();
    for (command, place) in commands.iter().zip(1..) {
        assert_eq!(
            command["comment"],
            format!("bake-snapshot arm64 {place}/{}", commands.len())
        );
        let bytes = command["parameters"]["images"][0].as_str().unwrap().len();
        assert!((1..=MAX_IMAGES_BYTES).contains(&bytes), "{bytes}");
    }
    let sent = commands
        .iter()
        .map(|command| command["parameters"]["images"][0].as_str().unwrap());
    let sent: Vec<&str> = sent.flat_map(|images| images.split(' ')).collect();
    let planned = plan["bakes"][1]["images"].as_array().unwrap().iter();
    let planned: Vec<&str> = planned.map(|image| image["image"].as_str().unwrap()).collect();
    assert_eq!(sent, planned);
    // Tags name as many as a resource has room for.
    assert_eq!(plan["bakes"][0]["tags"].as_array().unwrap().len(), 35);
    assert_eq!(plan["bakes"][0]["tags"][34]["Key"], "bake-snapshot/image-35");
}

#[tokio::test]
async fn images_with_the_longest_names_are_sent_as_many_at_once_as_others() {
    let repository = |k: usize| format!("{}/{k:02}", "r".repeat(252));
    let rules = json!([{"name": "default", "repositories": ["r*"]}]).to_string();
    let cloud = Cloud::with(&rules, "{}");
    for k in 0..31 {
        cloud.push(&repository(k), &"t".repeat(128), &single(&[("app", 1)]));
    }
    let event = json!({"input": {"architectures": ["x86_64"]}, "cluster": cluster()}).to_string();
    let plan = cloud.plan(&event).await.unwrap();
    let commands = plan["bakes"][0]["commands"].as_array().unwrap();
    let images = commands
        .iter()
        .map(|command| command["parameters"]["images"][0].as_str().unwrap().split(' ').count());
    assert_eq!(images.collect::<Vec<_>>(), [30, 1]);
}

#[tokio::test]
async fn more_than_a_hundred_manifests_of_a_repository_take_two_questions() {
    let rules = r#"[{"name": "a", "repositories": ["team/app"], "tags": ["a*"], "newest": 50},
        {"name": "b", "repositories": ["team/app"], "tags": ["b*"], "newest": 50},
        {"name": "c", "repositories": ["team/app"], "tags": ["c*"], "newest": 50}]"#;
    let cloud = Cloud::with(rules, "{}");
    for k in 0..120 {
        let tag = format!("{}{k}", ["a", "b", "c"][k % 3]);
        cloud.push("team/app", &tag, &single(&[(&tag, 1)]));
    }
    let event = json!({"input": {"architectures": ["x86_64"]}, "cluster": cluster()}).to_string();
    let plan = cloud.plan(&event).await.unwrap();
    assert_eq!(plan["bakes"][0]["images"].as_array().unwrap().len(), 120);
    assert_eq!(cloud.batches(), [20, 100]);
}

#[tokio::test]
async fn a_manifest_that_ecr_does_not_give_or_that_is_none_is_named() {
    let cloud = Cloud::new();
    cloud.node("x86_64", |_| {});
    cloud.state(|state| state.registry.manifests.clear());
    let (error, message) = cloud.refused(DEFAULTS).await;
    let name = format!("team/app@{}", digest("team/app:v1"));
    let expected = format!("the manifest {name} could not be read: ImageNotFound");
    assert_eq!((error.as_str(), message), ("AwsError", expected));
    cloud.push("team/app", "v2", &json!([]));
    let (error, message) = cloud.refused(DEFAULTS).await;
    assert_eq!(error, "AwsError");
    assert!(message.contains("cannot be understood: "), "{message}");
}
