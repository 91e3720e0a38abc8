//! Launched nodes, by what their neighbours run.

use prefetch::{
    mocks::{note_use, ran},
    rule_images::MAX_NEIGHBOURS,
    usage::day,
};

use super::{
    cloud::Cloud,
    inputs::{DIGEST, ONE, REGISTRY, RUNNING, now},
    services::node,
};

const TEAM: &str = r#"[{"name": "default", "repositories": ["team/*", "other/*"]}]"#;
const PROXY: &str = "public.ecr.aws/mesh/proxy:v1";

/// Makes a node that comes, and neighbours of which so many run each of these.
fn cloud(rules: &str, run: &[(&str, usize)]) -> Cloud {
    let cloud = Cloud::new(vec![node(ONE)], rules);
    for (name, nodes) in run {
        let mut table = cloud.table.lock().unwrap();
        note_use(
            &mut table.1,
            "default",
            &ran(&format!("{name}@{DIGEST}"), *nodes, day(now())),
        );
    }
    cloud
}

/// Names what the node gets, command by command, without registries and digests.
async fn brought(cloud: &Cloud) -> Vec<String> {
    cloud.answer(RUNNING).await;
    let inputs = cloud.inputs();
    let images = inputs
        .iter()
        .map(|input| input.parameters().unwrap()["images"][0].clone());
    let images: Vec<String> = images
        .flat_map(|text| text.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let name = |image: &String| {
        let (name, _) = image.split_once('@').unwrap();
        name.split_once('/').unwrap().1.to_owned()
    };
    images.iter().map(name).collect()
}

#[tokio::test]
async fn a_new_node_gets_what_its_neighbours_run_and_then_the_newest_of_what_they_use() {
    let app = format!("{REGISTRY}/team/app:v1");
    // The mocked ECR fails for other/app, which nobody uses, and is asked for no list of repositories.
    let cloud = cloud(TEAM, &[(PROXY, 2), (&app, 9)]);
    let expected = [
        "team/app:v1",
        "mesh/proxy:v1",
        "team/app:latest",
        "team/app:v3",
        "team/app:v3.0",
    ];
    let mut all = brought(&cloud).await;
    all[2..].sort_unstable();
    assert_eq!(all, expected);
    assert_eq!(
        cloud.table.lock().unwrap().0.take(),
        ["TransactWriteItems", "Query", "TransactWriteItems"]
    );
}

#[tokio::test]
async fn what_only_neighbours_run_goes_first_in_a_command_of_its_own_which_keeps_and_pins_nothing() {
    let rules = r#"[{"name": "default", "repositories": ["team/app"], "tags": ["v3"], "keep": 3, "pin": true}]"#;
    let newest = format!("{REGISTRY}/team/app:v3@{}", DIGEST.replace("7f5b", "0003"));
    let cloud = cloud(rules, &[(PROXY, 2)]);
    let row = ran(&newest, 9, day(now()));
    note_use(&mut cloud.table.lock().unwrap().1, "default", &row);
    // An image that is the rule's as well is no neighbour's: it goes with the launch.
    assert_eq!(brought(&cloud).await, ["mesh/proxy:v1", "team/app:v3"]);
    let sent = cloud.inputs();
    let said = sent.iter().map(|input| {
        let value = |name: &str| input.parameters().unwrap()[name][0].clone();
        (
            input.comment().unwrap().to_owned(),
            value("keep"),
            value("pin"),
            value("maxConnections"),
        )
    });
    let of = |trigger, keep: &str, pin: &str| {
        let comment = format!("{trigger} rule=default attempt=1");
        (comment, keep.to_owned(), pin.to_owned(), "20".to_owned())
    };
    let expected = [of("neighbours", "0", "false"), of("launch", "5", "true")];
    assert_eq!(said.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_node_whose_launch_comes_back_is_not_sent_again_what_only_its_neighbours_run() {
    let rules = r#"[{"name": "default", "repositories": ["other/app"]}]"#;
    let other = format!("{REGISTRY}/other/app:v1");
    let cloud = cloud(rules, &[(PROXY, 2), (&other, 1)]);
    for _ in 0..3 {
        assert_eq!(cloud.answer(RUNNING).await["reason"], "incomplete");
    }
    assert_eq!(cloud.inputs().len(), 1);
}

#[tokio::test]
async fn what_went_as_best_effort_while_ecr_did_not_answer_goes_with_the_launch_once_it_is_the_rules() {
    let rules = r#"[{"name": "default", "repositories": ["team/app"], "tags": ["v3"]}]"#;
    let cloud = cloud(rules, &[(PROXY, 2)]);
    let newest = format!("{REGISTRY}/team/app:v3@{}", DIGEST.replace("7f5b", "0003"));
    note_use(
        &mut cloud.table.lock().unwrap().1,
        "default",
        &ran(&newest, 9, day(now())),
    );
    let readable = |is: bool| {
        let unreadable = &mut cloud.registry.lock().unwrap().1.unreadable;
        unreadable.clear();
        unreadable.extend((!is).then(|| "team/app".to_owned()));
    };
    readable(false);
    assert_eq!(cloud.answer(RUNNING).await["reason"], "incomplete");
    readable(true);
    assert_eq!(cloud.answer(RUNNING).await["decision"], "sent");
    let sent = cloud.inputs();
    let of = |input: &aws_sdk_ssm::operation::send_command::SendCommandInput| {
        let images = input.parameters().unwrap()["images"][0].clone();
        (input.comment().unwrap().to_owned(), images)
    };
    let proxy = format!("{PROXY}@{DIGEST}");
    let expected = [("neighbours", format!("{newest} {proxy}")), ("launch", newest.clone())];
    let expected = expected.map(|(trigger, images)| (format!("{trigger} rule=default attempt=1"), images));
    assert_eq!(sent.iter().map(of).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_rule_without_neighbours_or_that_takes_what_is_not_used_gets_the_rest_alone() {
    let rules =
        |field: &str| format!(r#"[{{"name": "default", "repositories": ["team/app"], "tags": ["v3"], {field}}}]"#);
    for (field, expected) in [
        (r#""neighbours": false"#, vec![]),
        (r#""used": false"#, vec!["mesh/proxy:v1", "team/app:v3"]),
        (r#""used": false, "neighbours": false"#, vec!["team/app:v3"]),
        (r#""used": false, "registries": ["none"]"#, vec!["team/app:v3"]),
    ] {
        let cloud = cloud(&rules(field), &[(PROXY, 1)]);
        assert_eq!(brought(&cloud).await, expected, "{field}");
    }
}

#[tokio::test]
async fn a_node_that_its_rules_bring_nothing_is_told_why() {
    let rules = r#"[{"name": "default", "repositories": ["team/app"], "neighbours": false}]"#;
    let answer = cloud(rules, &[(PROXY, 1)]).answer(RUNNING).await;
    assert_eq!(answer["reason"], "no-images");
    assert_eq!(answer["message"], "rule default names no image that its nodes use");
}

#[tokio::test]
async fn where_the_table_cannot_be_asked_a_node_gets_the_newest_of_all() {
    let rules = r#"[{"name": "default", "repositories": ["team/app"], "tags": ["v3"]}]"#;
    let cloud = cloud(rules, &[(PROXY, 1)]);
    cloud.table.lock().unwrap().0.fail("Query", 0, "AccessDeniedException");
    assert_eq!(brought(&cloud).await, ["team/app:v3"]);
}

#[tokio::test]
async fn what_neighbours_run_is_brought_whatever_ecr_answers() {
    let rules = r#"[{"name": "default", "repositories": ["other/app"]}]"#;
    let other = format!("{REGISTRY}/other/app:v1");
    let cloud = cloud(rules, &[(PROXY, 2), (&other, 1)]);
    assert_eq!(brought(&cloud).await, ["mesh/proxy:v1", "other/app:v1"]);
    assert_eq!(cloud.answer(RUNNING).await["reason"], "incomplete");
}

#[tokio::test]
async fn neighbours_bring_at_most_the_images_of_three_commands() {
    let names: Vec<String> = (0..100).map(|k| format!("public.ecr.aws/app-{k:03}:v1")).collect();
    let run: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let cloud = cloud(r#"[{"name": "default", "repositories": ["none"]}]"#, &run);
    let all = brought(&cloud).await;
    assert_eq!(
        (all.len(), all[MAX_NEIGHBOURS - 1].as_str()),
        (MAX_NEIGHBOURS, "app-089:v1")
    );
    assert_eq!(cloud.inputs().len(), 3);
}
