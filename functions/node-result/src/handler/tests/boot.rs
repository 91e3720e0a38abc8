//! Boots, whose reports later commands of their nodes bring along.

use prefetch::command::unsent_id;

use super::*;

const BEGAN: i64 = 1_794_794_000;
const ENDED: i64 = BEGAN + 42;

/// Writes a line of a boot of a rule, as the program prints it.
fn line_of_boot(rule: &str, image: &str, status: &str, reason: &str) -> String {
    let mut said: Value = serde_json::from_str(&line(image, status, reason)).unwrap();
    said["boot"] = json!({"rule": rule, "began": BEGAN, "ended": ENDED});
    format!("{said}\n")
}

/// Names the job of the first node's boot with a rule's list.
fn boot_of(rule: &str) -> String {
    unsent_id(&["boot", &node_id(1), rule, &BEGAN.to_string(), &ENDED.to_string()])
}

/// Makes a cloud whose command finds the first image, and brings this along.
fn bringing(lines: &[String]) -> Cloud {
    let report = line(&image(1), "cached", "") + &lines.concat();
    Cloud::where_the_node(Invocation {
        exit_code: 0,
        status: "Success".into(),
        details: "Success".to_owned(),
        ..Invocation::reporting(report)
    })
}

#[tokio::test]
async fn a_boot_is_a_job_of_its_own_that_is_done_with_and_the_command_keeps_its_own() {
    let cloud = bringing(&[
        line_of_boot("default", &image(1), "pulled", ""),
        line_of_boot("default", &image(2), "pulled", ""),
    ]);
    let answer = cloud.answer(SUCCESS).await;
    assert_eq!((&answer["job"], &answer["status"]), (&json!(COMMAND), &json!("cached")));
    assert_eq!((&cloud.job()["cached"], &cloud.job()["pulled"]), (&json!(1), &json!(0)));
    let id = boot_of("default");
    let job = cloud.row(&Key::job(&id)).unwrap();
    assert_eq!((&job["trigger"], &job["rule"]), (&json!("boot"), &json!("default")));
    assert_eq!(
        (&job["targets"], &job["images"]),
        (&json!(1), &json!([image(1), image(2)]))
    );
    assert_eq!((&job["pulled"], &job["slowest_seconds"]), (&json!(1), &json!(42)));
    let node = cloud.row(&Key::node(&id, &node_id(1))).unwrap();
    assert_eq!((&node["status"], &node["command"]), (&json!("pulled"), &json!(COMMAND)));
    let totals = cloud.row(&Key::totals(Trigger::Boot)).unwrap();
    assert_eq!((&totals["jobs"], &totals["pulled"]), (&json!(1), &json!(1)));
    let of_boot = cloud.records().into_iter().filter(|record| record["job"] == id).count();
    assert_eq!(of_boot, 2);
    let inventory = cloud.row(&Key::inventory(&node_id(1))).unwrap();
    assert!(inventory.to_string().contains(&image(2)), "{inventory}");
}

#[tokio::test]
async fn whichever_commands_bring_a_report_it_is_one_job() {
    let cloud = bringing(&[line_of_boot("gpu", &image(2), "pulled", "")]);
    let again = Invocation::reporting(line(&image(1), "cached", "") + &line_of_boot("gpu", &image(3), "pulled", ""));
    cloud.send(2, "reconcile rule=default attempt=1", &[1], [(1, again)]);
    for event in [event_of(1, 1), event_of(2, 1), event_of(1, 1)] {
        assert!(cloud.batch(&[event], 1).await.is_empty());
    }
    let id = boot_of("gpu");
    assert_eq!(cloud.row(&Key::job(&id)).unwrap()["pulled"], 1);
    let node = cloud.row(&Key::node(&id, &node_id(1))).unwrap();
    assert_eq!(node["images"].as_object().unwrap().len(), 2);
    assert_eq!(cloud.row(&Key::totals(Trigger::Boot)).unwrap()["jobs"], 1);
}

#[tokio::test]
async fn what_a_boot_could_not_bring_is_counted_and_not_retried() {
    let cloud = bringing(&[line_of_boot("default", &image(2), "failed", "registry")]);
    assert_eq!(cloud.answer(SUCCESS).await["status"], "cached");
    assert_eq!(cloud.row(&Key::job(&boot_of("default"))).unwrap()["failed"], 1);
    assert!(cloud.retries().is_empty());
}

#[tokio::test]
async fn a_command_that_was_sent_by_hand_brings_a_report_too() {
    let cloud = Cloud::new();
    let ended =
        Invocation::reporting(line(&image(1), "cached", "") + &line_of_boot("default", &image(2), "pulled", ""));
    cloud.send(1, "trying it out", &[1], [(1, ended)]);
    assert_eq!(cloud.answer(SUCCESS).await["reason"], "by-hand");
    assert_eq!(cloud.row(&Key::job(&boot_of("default"))).unwrap()["pulled"], 1);
    assert!(cloud.row(&Key::job(COMMAND)).is_none());
}

#[tokio::test]
async fn a_boot_that_cannot_be_written_hands_the_event_back() {
    for place in 0..2 {
        let cloud = bringing(&[line_of_boot("default", &image(2), "pulled", "")]);
        cloud.fail("TransactWriteItems", place, THROTTLED);
        assert_eq!(cloud.answer(SUCCESS).await["decision"], "handed-back", "{place}");
        assert_eq!(cloud.answer(SUCCESS).await["decision"], "settled", "{place}");
        assert_eq!(cloud.row(&Key::job(&boot_of("default"))).unwrap()["pulled"], 1);
        assert_eq!(cloud.job()["cached"], 1);
    }
}

#[tokio::test]
async fn a_clock_that_cannot_be_right_and_a_rule_that_is_none_are_not_believed() {
    let mut early: Value = serde_json::from_str(&line_of_boot("default", &image(2), "pulled", "")).unwrap();
    early["boot"]["began"] = json!(0);
    early["boot"]["ended"] = json!(4_000_000_000_i64);
    let garbled = line_of_boot("no name", &image(3), "pulled", "");
    let cloud = bringing(&[format!("{early}\n"), garbled]);
    assert_eq!(cloud.answer(SUCCESS).await["decision"], "settled");
    let id = unsent_id(&["boot", &node_id(1), "default", "0", "4000000000"]);
    let job = cloud.row(&Key::job(&id)).unwrap();
    assert_eq!(job["requested_at"], "2026-11-09T01:54:44.049Z");
    let node = cloud.row(&Key::node(&id, &node_id(1))).unwrap();
    assert_eq!(node["ended_at"], "2026-11-16T01:54:44.049Z");
    assert_eq!(cloud.row(&Key::totals(Trigger::Boot)).unwrap()["jobs"], 1);
}
