//! Bakes of what nodes run.

use serde_json::{Value, json};

use super::{
    cloud::Cloud,
    manifests::{MIB, REGISTRY, cluster, digest, single},
};

const RULES: &str = r#"[{"name": "default", "repositories": ["team/*"], "maxImageGiB": 1}]"#;
const PROXY: &str = "public.ecr.aws/mesh/proxy:v1";

fn event() -> String {
    json!({"input": {"architectures": ["x86_64"]}, "cluster": cluster()}).to_string()
}

fn elsewhere(name: &str) -> String {
    format!("{name}@{}", digest(name))
}

fn image(name: &str) -> String {
    format!("{REGISTRY}/{name}@{}", digest(name))
}

fn images(plan: &Value) -> Vec<&str> {
    let images = plan["bakes"][0]["images"].as_array().unwrap();
    images.iter().map(|baked| baked["image"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_nodes_run_is_baked_before_the_newest_of_what_they_use() {
    let cloud = Cloud::with(RULES, "{}");
    cloud.push("team/app", "v2", &single(&[("new", 200)]));
    cloud.push("team/unused", "v1", &single(&[("unused", 5)]));
    cloud.run("default", &elsewhere(PROXY), 9, 30 * MIB);
    cloud.run("default", &image("team/app:v1"), 2, 100 * MIB);
    let plan = cloud.plan(&event()).await.unwrap();
    assert_eq!(
        plan["bakes"][0]["images"],
        json!([
            {"image": elsewhere(PROXY), "bytes": 30 * MIB, "named": false, "elsewhere": true},
            {"image": image("team/app:v1"), "bytes": 100 * MIB, "named": false},
            {"image": image("team/app:v2"), "bytes": 200 * MIB, "named": false},
        ])
    );
    assert!(!cloud.calls().contains(&"DescribeRepositories"));
}

#[tokio::test]
async fn what_nodes_run_is_left_off_where_it_is_too_large_or_ecr_has_it_no_more() {
    let cloud = Cloud::with(RULES, "{}");
    let gone = format!("{REGISTRY}/team/app:v0@{}", digest("gone"));
    let of_none = format!("{REGISTRY}/none:v0@{}", digest("none"));
    cloud.run("default", &elsewhere(PROXY), 1, 2048 * MIB);
    cloud.run("default", &gone, 1, MIB);
    cloud.run("default", &of_none, 1, MIB);
    let plan = cloud.plan(&event()).await.unwrap();
    assert_eq!(images(&plan), [image("team/app:v1")]);
    assert_eq!(plan["bakes"][0]["leftOff"], json!([of_none, gone, elsewhere(PROXY)]));
}

#[tokio::test]
async fn the_volume_has_room_for_what_other_registries_have_as_nodes_say_how_large_it_is() {
    let rules = r#"[{"name": "default", "repositories": ["team/*"]}]"#;
    let cloud = Cloud::with(rules, "{}");
    cloud.run("default", &elsewhere(PROXY), 1, 10 * 1024 * MIB);
    let plan = cloud.plan(&event()).await.unwrap();
    // 30 GiB are 85 % of 35.3, and 4 beside them.
    assert_eq!(plan["bakes"][0]["volume"]["VolumeSize"], 40);
}

#[tokio::test]
async fn what_nodes_tell_to_be_larger_than_is_believed_is_left_off_where_the_rule_sets_no_limit() {
    let rules = r#"[{"name": "default", "repositories": ["team/*"]}]"#;
    let cloud = Cloud::with(rules, "{}");
    cloud.run("default", &image("team/app:v1"), 1, MIB);
    cloud.run("default", &elsewhere(PROXY), 1, 100 * 1024 * MIB + 1);
    let plan = cloud.plan(&event()).await.unwrap();
    assert_eq!(images(&plan), [image("team/app:v1")]);
    assert_eq!(plan["bakes"][0]["leftOff"], json!([elsewhere(PROXY)]));
}

#[tokio::test]
async fn where_no_volume_has_room_for_all_that_nodes_run_what_fewest_run_is_left_off() {
    let rules = r#"[{"name": "default", "repositories": ["team/*"]}, {"name": "other", "repositories": ["none"]}]"#;
    let cloud = Cloud::with(rules, "{}");
    cloud.run("default", &image("team/app:v1"), 1, MIB);
    // Each takes 353 GiB of a volume, and the largest has 16,384.
    let name = |k: usize| elsewhere(&format!("public.ecr.aws/app-{k:02}:v1"));
    for k in 0..50 {
        let rule = ["default", "other"][k % 2];
        cloud.run(rule, &name(k), 1 + k, 100 * 1024 * MIB);
    }
    let plan = cloud.plan(&event()).await.unwrap();
    let left_off: Vec<String> = (0..4).map(name).collect();
    let mut told: Vec<&str> = plan["bakes"][0]["leftOff"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    told.sort_unstable();
    assert_eq!(told, left_off);
    assert!(images(&plan).contains(&&*image("team/app:v1")) && images(&plan).contains(&&*name(4)));
    assert!(plan["bakes"][0]["volume"]["VolumeSize"].as_u64().unwrap() <= 16_384);
}

#[tokio::test]
async fn where_a_plan_is_too_large_for_the_state_machine_what_fewest_nodes_run_is_left_off() {
    let rules = r#"[{"name": "default", "repositories": ["team/*"]}, {"name": "other", "repositories": ["none"]}]"#;
    let cloud = Cloud::with(rules, "{}");
    cloud.run("default", &image("team/app:v1"), 90, MIB);
    let name = |k: usize| elsewhere(&format!("public.ecr.aws/{}{k:03}:{}", "r".repeat(200), "t".repeat(128)));
    for k in 0..160 {
        cloud.run(["default", "other"][k % 2], &name(k), 1 + k / 3, MIB);
    }
    let two = json!({"input": {"architectures": ["x86_64", "arm64"]}, "cluster": cluster()});
    let plan = cloud.plan(&two.to_string()).await.unwrap();
    let baked = images(&plan);
    let left_off = plan["bakes"][0]["leftOff"].as_array().unwrap().len();
    assert!(plan.to_string().len() <= 200_000 && left_off > 0, "{left_off}");
    assert_eq!(baked.len() + left_off, 161);
    assert!(baked.contains(&&*name(159)) && !baked.contains(&&*name(0)) && baked.contains(&&*image("team/app:v1")));
}

#[tokio::test]
async fn an_image_that_is_the_newest_too_has_to_be_there() {
    let cloud = Cloud::with(RULES, "{}");
    cloud.run("default", &image("team/app:v1"), 1, MIB);
    cloud.state(|state| state.registry.manifests.clear());
    let (error, message) = cloud.refused(&event()).await;
    assert_eq!(error, "AwsError");
    assert!(message.contains("ImageNotFound"), "{message}");
}

#[tokio::test]
async fn images_that_are_named_are_baked_whatever_nodes_run_and_without_a_table_there_is_no_plan() {
    let cloud = Cloud::with(RULES, "{}");
    cloud.run("default", &elsewhere(PROXY), 1, MIB);
    let named = json!({"input": {"images": ["team/app:v1"], "architectures": ["x86_64"]}, "cluster": cluster()});
    let plan = cloud.plan(&named.to_string()).await.unwrap();
    assert_eq!(images(&plan), [image("team/app:v1")]);
    cloud.table.lock().unwrap().0.fail("Query", 0, "AccessDeniedException");
    assert_eq!(cloud.refused(&event()).await.0, "AwsError");
}

#[tokio::test]
async fn an_image_of_another_registry_that_the_input_names_by_tag_has_to_come_by_the_digest_that_a_node_tells() {
    let cloud = Cloud::with(RULES, "{}");
    cloud.tags.lock().unwrap().push(PROXY, &digest(PROXY));
    let event = |image: &str| {
        json!({"input": {"architectures": ["x86_64"], "images": [image]}, "cluster": cluster()}).to_string()
    };
    let plan = cloud.plan(&event(PROXY)).await.unwrap();
    assert_eq!(
        plan["bakes"][0]["images"],
        json!([{"image": elsewhere(PROXY), "bytes": 4096 * MIB, "named": true}])
    );
    let refused = cloud.plan(&event("public.ecr.aws/mesh/proxy:none")).await.unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("images[0]"), "{refused}");
}

#[tokio::test]
async fn the_newest_of_a_central_registry_is_baked_as_its_own_ecr_tells() {
    let cloud = Cloud::with(RULES, "{}");
    let central = "210987654321.dkr.ecr.eu-central-1.amazonaws.com/team/app";
    let digest = cloud.push_central("team/app", "v9", &single(&[("central", 300)]));
    cloud.run("default", &format!("{central}:v9@{digest}"), 1, MIB);
    let plan = cloud.plan(&event()).await.unwrap();
    assert_eq!(
        plan["bakes"][0]["images"],
        json!([{"image": format!("{central}:v9@{digest}"), "bytes": 300 * MIB, "named": false, "elsewhere": true}])
    );
}
