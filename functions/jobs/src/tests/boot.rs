//! Boot lists: what a reconcile makes of them.

use prefetch::settings::Mode;
use serde_json::{Value, json};

use crate::tests::cloud::{BOOT_PATH, Cloud, RULES, image};

const TWO: &str = r#"[
    {"name": "a", "used": false, "neighbours": false},
    {"name": "b", "nodes": {"team": ["b"]}, "used": false, "neighbours": false}
]"#;
const RECONCILE: &str = r#"{"reconcile": true}"#;

fn keeping(rules: &'static str) -> Cloud {
    let mut cloud = Cloud::with(rules, "false");
    cloud.keep_boot_lists();
    cloud
}

async fn reconcile(cloud: &Cloud, seconds: i64) -> Value {
    let answer = cloud.invoke(serde_json::from_str(RECONCILE).unwrap(), seconds).await;
    answer.unwrap()["boot"].take()
}

fn listed(cloud: &Cloud, rule: &str) -> Option<Vec<String>> {
    let text = cloud
        .state(|state| state.parameters.held.get(&format!("{BOOT_PATH}/{rule}")).cloned())?
        .0;
    let value: Value = serde_json::from_str(&text).unwrap();
    Some(
        value["images"]
            .as_str()
            .unwrap()
            .split(' ')
            .map(str::to_owned)
            .collect(),
    )
}

fn count(calls: &[&str], name: &str) -> usize {
    calls.iter().filter(|call| **call == name).count()
}

#[tokio::test]
async fn a_reconcile_writes_what_a_launch_would_send_and_only_what_differs() {
    let cloud = keeping(RULES);
    let written = json!([{"rule": "default", "decision": "written", "images": 2, "leftOut": 0}]);
    assert_eq!(reconcile(&cloud, 0).await, written);
    let images = vec![image("team/app", "v2"), image("team/web", "v1")];
    assert_eq!(listed(&cloud, "default"), Some(images.clone()));
    assert_eq!(cloud.sent()[0].1, images);
    let calls = cloud.calls();
    assert_eq!(
        (count(&calls, "GetParametersByPath"), count(&calls, "PutParameter")),
        (1, 1)
    );
    // While what was sent runs, too.
    assert_eq!(reconcile(&cloud, 3600).await[0]["decision"], "unchanged");
    let calls = cloud.calls();
    assert_eq!((count(&calls, "GetParameters"), count(&calls, "PutParameter")), (0, 0));
    cloud.state(|state| state.push("team/app", "v3"));
    assert_eq!(reconcile(&cloud, 7200).await[0]["decision"], "written");
    let images = vec![image("team/app", "v3"), image("team/web", "v1")];
    assert_eq!(listed(&cloud, "default"), Some(images));
}

#[tokio::test]
async fn the_lists_of_rules_that_are_no_more_go_and_what_is_none_stays() {
    let cloud = keeping(RULES);
    cloud.state(|state| {
        for k in 0..25 {
            state.parameters.put(&format!("{BOOT_PATH}/old-{k}"), "{}");
        }
        for other in ["Upper", "x86_64", "x86_64/snapshot", "old/deeper"] {
            state.parameters.put(&format!("{BOOT_PATH}/{other}"), "{}");
        }
        state.parameters.put("/eks-image-prefetch/booty", "{}");
    });
    let answer = reconcile(&cloud, 0).await;
    assert_eq!(answer[1], json!({"rule": "old-0", "decision": "removed"}));
    let left = cloud.state(|state| state.parameters.held.keys().cloned().collect::<Vec<_>>());
    let expected =
        ["Upper", "default", "old/deeper", "x86_64", "x86_64/snapshot"].map(|name| format!("{BOOT_PATH}/{name}"));
    assert_eq!(left[..5], expected);
    assert_eq!(left.len(), 6);
}

#[tokio::test]
async fn a_rule_that_names_no_image_has_no_list() {
    let cloud = keeping(RULES);
    reconcile(&cloud, 0).await;
    cloud.state(|state| state.registry.repositories.clear());
    assert_eq!(reconcile(&cloud, 3600).await[0]["decision"], "removed");
    assert_eq!(listed(&cloud, "default"), None);
    assert_eq!(reconcile(&cloud, 7200).await[0]["decision"], "no-images");
}

#[tokio::test]
async fn a_rule_has_a_second_list_as_long_as_the_first_has_no_room_for_all() {
    let cloud = keeping(r#"[{"name": "all", "used": false, "neighbours": false}]"#);
    let names: Vec<String> = (0..35).map(|k| format!("team/app-{k:02}")).collect();
    let has_second = || listed(&cloud, "all.more").is_some();
    reconcile(&cloud, 0).await;
    assert!(!has_second());
    for name in &names {
        cloud.state(|state| state.push(name, "v1"));
    }
    let answer = reconcile(&cloud, 3600).await;
    assert_eq!(
        (&answer[0]["decision"], &answer[0]["leftOut"]),
        (&json!("written"), &json!(0))
    );
    let all = [listed(&cloud, "all").unwrap(), listed(&cloud, "all.more").unwrap()].concat();
    assert_eq!(all.len(), answer[0]["images"]);
    assert!(names.iter().all(|name| all.contains(&image(name, "v1"))));
    cloud.calls();
    assert_eq!(reconcile(&cloud, 7200).await[0]["decision"], "unchanged");
    cloud.state(|state| state.registry.repositories.retain(|name, _| !names.contains(name)));
    assert_eq!(reconcile(&cloud, 10_800).await[0]["decision"], "written");
    assert!(!has_second());
}

#[tokio::test]
async fn of_a_rule_that_is_no_more_both_lists_go_and_so_does_a_second_one_that_is_left_alone() {
    let cloud = keeping(RULES);
    cloud.state(|state| {
        for name in ["old", "old.more", "gone.more", "default.more"] {
            state.parameters.put(&format!("{BOOT_PATH}/{name}"), "{}");
        }
    });
    let answer = reconcile(&cloud, 0).await;
    let decided = |place: usize| (answer[place]["rule"].clone(), answer[place]["decision"].clone());
    assert_eq!(decided(0), (json!("default"), json!("written")));
    assert_eq!(decided(1), (json!("gone"), json!("removed")));
    assert_eq!(decided(2), (json!("old"), json!("removed")));
    let left = cloud.state(|state| state.parameters.held.keys().cloned().collect::<Vec<_>>());
    assert_eq!(left, [format!("{BOOT_PATH}/default")]);
}

#[tokio::test]
async fn what_a_push_writes_while_ecr_is_asked_is_not_undone() {
    let cloud = keeping(TWO);
    reconcile(&cloud, 0).await;
    let changed = format!("{BOOT_PATH}/b");
    cloud.state(|state| {
        state.push("team/app", "v3");
        state.parameters.meanwhile = Some((changed.clone(), "a push's".to_owned()));
    });
    let answer = reconcile(&cloud, 3600).await;
    assert_eq!(
        (&answer[0]["decision"], &answer[1]["decision"]),
        (&json!("written"), &json!("overtaken"))
    );
    assert_eq!(
        cloud.state(|state| state.parameters.held[&changed].0.clone()),
        "a push's"
    );
}

#[tokio::test]
async fn a_list_stays_while_ecr_does_not_name_all_images() {
    let cloud = keeping(RULES);
    reconcile(&cloud, 0).await;
    let before = listed(&cloud, "default");
    cloud.state(|state| state.push("team/app", "v3"));
    for _ in 0..2 {
        cloud.fail("DescribeImages", 1, "ThrottlingException");
    }
    reconcile(&cloud, 3600).await;
    assert_eq!(listed(&cloud, "default"), before);
}

#[tokio::test]
async fn a_list_that_cannot_be_kept_fails_the_reconcile_once_all_was_sent() {
    for call in ["GetParametersByPath", "GetParameters", "PutParameter"] {
        let cloud = keeping(TWO);
        cloud.fail(call, 0, "AccessDeniedException");
        let error = cloud
            .invoke(serde_json::from_str(RECONCILE).unwrap(), 0)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("boot list of a"), "{error}");
        assert_eq!(cloud.sent().len(), 2);
        assert_eq!(listed(&cloud, "b").is_some(), call != "GetParametersByPath");
        assert_eq!(reconcile(&cloud, 60).await[0]["decision"], "written");
    }
}

#[tokio::test]
async fn where_the_stack_observes_or_keeps_none_no_parameter_is_touched() {
    for observes in [true, false] {
        let mut cloud = Cloud::with(RULES, "false");
        if observes {
            cloud.turn(Mode::Observe);
            cloud.keep_boot_lists();
        }
        let expected = if observes {
            json!([{"rule": "default", "decision": "observed"}])
        } else {
            Value::Null
        };
        assert_eq!(reconcile(&cloud, 0).await, expected);
        assert!(!cloud.calls().iter().any(|call| call.contains("Parameter")));
    }
}
