//! Boot lists, as a push leaves them.

use std::sync::{Arc, Mutex};

use aws_sdk_ssm::{Client, operation::send_command::SendCommandOutput, types::Command};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use prefetch::{
    boot::{BootList, BootLists},
    ecr::NewestImages,
    image::Image,
    mocks::{
        Calls,
        ecr::{Registry, RegistryImage, ecr},
        note_named, note_use,
        parameters::{Parameters, parameters},
        ran,
    },
    sender::Sender,
    settings::Mode,
    usage::day,
};
use serde_json::{Value, json};

use super::cloud::{REGISTRY, UsageTable, now, registries, rule_images, settings};
use crate::handler::ImagePush;

const PATH: &str = "/eks-image-prefetch/boot";
const ALL: &str = r#"[{"name": "all", "repositories": ["team/*", "other"]}]"#;

#[tokio::test]
async fn a_push_brings_its_image_into_the_list_once_and_asks_for_no_other_repository() {
    let cloud = Cloud::new(&[("team/app", &["v1", "v2"]), ("other", &["v1"])]);
    cloud.list(
        ALL,
        &[image("other", "v1"), image("team/app", "v1"), image("zoo", "v1")],
    );
    let answer = cloud.push(ALL).await;
    assert_eq!(
        answer["boot"],
        json!([{"rule": "all", "decision": "written", "images": 3, "leftOut": 0}])
    );
    let listed = [image("other", "v1"), image("team/app", "v2"), image("zoo", "v1")];
    assert_eq!(cloud.listed("all"), listed);
    assert_eq!(
        cloud.calls(),
        ["SendCommand", "DescribeImages", "GetParameters", "PutParameter"]
    );
    let again = cloud.push(ALL).await;
    assert_eq!(again["boot"][0]["decision"], "unchanged");
    assert_eq!(cloud.calls(), ["SendCommand", "DescribeImages", "GetParameters"]);
}

#[tokio::test]
async fn a_first_push_or_one_that_finds_no_list_of_ours_writes_its_own_image() {
    for before in [None, Some("no list")] {
        let cloud = Cloud::new(&[("team/app", &["v2"])]);
        if let Some(text) = before {
            cloud.state.lock().unwrap().parameters.put(&format!("{PATH}/all"), text);
        }
        cloud.push(ALL).await;
        assert_eq!(cloud.listed("all"), [image("team/app", "v2")]);
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_kept_fails_no_push() {
    for (call, code) in [
        ("DescribeImages", "ThrottlingException"),
        ("GetParameters", "AccessDeniedException"),
        ("PutParameter", "ThrottlingException"),
        ("PutParameter", "TooManyUpdates"),
    ] {
        let cloud = Cloud::new(&[("team/app", &["v2"])]);
        cloud.state.lock().unwrap().calls.fail(call, 0, code);
        let answer = cloud.push(ALL).await;
        assert_eq!(
            (&answer["decision"], &answer["boot"][0]["decision"]),
            (&json!("sent"), &json!("failed"))
        );
        assert_eq!(cloud.state.lock().unwrap().parameters.held.len(), 0);
    }
}

#[tokio::test]
async fn where_pushes_meet_the_list_is_written_once_more_from_all_that_ecr_has() {
    let cloud = Cloud::new(&[("team/app", &["v2"]), ("team/web", &["v9"])]);
    cloud.list(ALL, &[image("team/app", "v1"), image("team/web", "v8")]);
    let other = text(ALL, &[image("team/app", "v1"), image("team/web", "v9")]);
    cloud.state.lock().unwrap().parameters.meanwhile = Some((format!("{PATH}/all"), other));
    cloud.push(ALL).await;
    assert_eq!(cloud.listed("all"), [image("team/app", "v2"), image("team/web", "v9")]);
    assert_eq!(cloud.calls().iter().filter(|call| **call == "PutParameter").count(), 2);
}

#[tokio::test]
async fn each_rule_that_wants_the_image_has_its_own_list_and_the_others_are_left_alone() {
    let rules = r#"[{"name": "a"}, {"name": "b", "newest": 2}, {"name": "c", "repositories": ["x"]}]"#;
    let cloud = Cloud::new(&[("team/app", &["v1", "v2"])]);
    cloud.push(rules).await;
    assert_eq!(cloud.listed("a"), [image("team/app", "v2")]);
    assert_eq!(cloud.listed("b"), [image("team/app", "v2"), image("team/app", "v1")]);
    assert!(
        !cloud
            .state
            .lock()
            .unwrap()
            .parameters
            .held
            .contains_key(&format!("{PATH}/c"))
    );
    assert_eq!(
        cloud.calls().iter().filter(|call| **call == "DescribeImages").count(),
        1
    );
}

#[tokio::test]
async fn where_the_stack_observes_no_list_is_read_or_written() {
    let cloud = Cloud::new(&[("team/app", &["v2"])]);
    let lists = BootLists::new(cloud.ssm(), PATH.to_owned(), Mode::Observe);
    let push = ImagePush {
        boot: Some(lists),
        ..cloud.image_push(ALL)
    };
    let answer = push.handle(event(), now()).await.unwrap();
    assert_eq!(json!(answer)["boot"], json!([{"rule": "all", "decision": "observed"}]));
    assert_eq!(cloud.calls(), ["SendCommand"]);
}

/// Notes what nodes of the rule `all` run today.
fn run(cloud: &Cloud, image: &str, nodes: usize) {
    let mut table = cloud.table.lock().unwrap();
    note_use(&mut table.1, "all", &ran(image, nodes, day(now())));
}

#[tokio::test]
async fn what_a_rule_names_itself_stays_first_whatever_is_pushed() {
    const NAMING: &str = r#"[{"name": "all", "repositories": ["team/*", "other"], "images": ["team/app:v0"]}]"#;
    let cloud = Cloud::new(&[("team/app", &["v1", "v2"]), ("other", &["v1"])]);
    let named = image("team/app", "v0");
    note_named(&mut cloud.table.lock().unwrap().1, "all", "team/app:v0", &named);
    cloud.list(
        NAMING,
        &[&named, &image("other", "v1"), &image("team/app", "v1")].map(Clone::clone),
    );
    cloud.push(NAMING).await;
    assert_eq!(
        cloud.listed("all"),
        [named, image("other", "v1"), image("team/app", "v2")]
    );
}

#[tokio::test]
async fn what_neighbours_run_stays_first_whatever_is_pushed() {
    let cloud = Cloud::new(&[("team/app", &["v1", "v2"]), ("other", &["v1"])]);
    let sidecar = format!("public.ecr.aws/mesh/proxy:v1@{}", digest("v1"));
    run(&cloud, &sidecar, 2);
    run(&cloud, &image("team/app", "v1"), 1);
    cloud.list(
        ALL,
        &[&sidecar, &image("team/app", "v1"), &image("other", "v1")].map(Clone::clone),
    );
    cloud.push(ALL).await;
    let expected = [
        sidecar,
        image("team/app", "v1"),
        image("other", "v1"),
        image("team/app", "v2"),
    ];
    assert_eq!(cloud.listed("all"), expected);
}

#[tokio::test]
async fn where_pushes_meet_the_list_has_what_neighbours_run_and_the_newest_of_what_is_used() {
    let cloud = Cloud::new(&[("team/app", &["v1", "v2"]), ("team/web", &["v9"]), ("other", &["v1"])]);
    let sidecar = format!("public.ecr.aws/mesh/proxy:v1@{}", digest("v1"));
    run(&cloud, &sidecar, 1);
    run(&cloud, &image("team/app", "v1"), 2);
    cloud.list(ALL, &[image("team/app", "v1")]);
    let other = text(ALL, &[image("team/web", "v9")]);
    cloud.state.lock().unwrap().parameters.meanwhile = Some((format!("{PATH}/all"), other));
    cloud.push(ALL).await;
    let expected = [image("team/app", "v1"), sidecar, image("team/app", "v2")];
    assert_eq!(cloud.listed("all"), expected);
}

#[tokio::test]
async fn a_list_stays_as_it_was_where_it_cannot_be_told_what_nodes_run() {
    let cloud = Cloud::new(&[("team/app", &["v2"])]);
    cloud.list(ALL, &[image("team/app", "v1")]);
    for _ in 0..2 {
        let mut table = cloud.table.lock().unwrap();
        table.0.fail("Query", 0, "AccessDeniedException");
    }
    let answer = cloud.push(ALL).await;
    assert_eq!(
        (&answer["decision"], &answer["boot"][0]["decision"]),
        (&json!("sent"), &json!("incomplete"))
    );
    assert_eq!(cloud.listed("all"), [image("team/app", "v1")]);
}

#[derive(Default)]
struct Services {
    calls: Calls,
    parameters: Parameters,
    registry: Registry,
}

struct Cloud {
    state: Arc<Mutex<Services>>,
    table: UsageTable,
}

impl Cloud {
    /// Makes a cloud of repositories with the tags of their images, oldest first.
    fn new(repositories: &[(&str, &[&str])]) -> Self {
        let mut state = Services::default();
        for (name, tags) in repositories {
            let images = (0..).zip(*tags);
            let images = images.map(|(place, tag)| RegistryImage::new(&digest(tag), &[*tag], place));
            state.registry.repositories.insert((*name).to_owned(), images.collect());
        }
        Self {
            state: Arc::new(Mutex::new(state)),
            table: UsageTable::default(),
        }
    }

    async fn push(&self, rules: &str) -> Value {
        let answer = self.image_push(rules).handle(event(), now()).await;
        json!(answer.unwrap())
    }

    fn image_push(&self, rules: &str) -> ImagePush {
        let (settings, ecr) = (settings(rules), self.ecr());
        ImagePush {
            sender: Sender::sending(self.ssm()),
            images: rule_images(
                NewestImages::with_client(ecr.clone(), "eu-central-1".to_owned(), &settings),
                &self.table,
            ),
            registries: registries(ecr, "", || unreachable!("no central registry is named")),
            boot: Some(BootLists::new(self.ssm(), PATH.to_owned(), Mode::Send)),
            settings,
        }
    }

    fn list(&self, rules: &str, images: &[String]) {
        let text = text(rules, images);
        self.state.lock().unwrap().parameters.put(&format!("{PATH}/all"), &text);
    }

    fn listed(&self, rule: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let (text, _) = &state.parameters.held[&format!("{PATH}/{rule}")];
        let value: Value = serde_json::from_str(text).unwrap();
        value["images"]
            .as_str()
            .unwrap()
            .split(' ')
            .map(str::to_owned)
            .collect()
    }

    fn calls(&self) -> Vec<&'static str> {
        let calls = self.state.lock().unwrap().calls.take();
        calls
            .into_iter()
            .filter(|call| *call != "DescribeRepositories")
            .collect()
    }

    fn ssm(&self) -> Client {
        let state = Arc::clone(&self.state);
        let send = mock!(Client::send_command).then_compute_response(move |_| {
            state.lock().unwrap().calls.note("SendCommand");
            let command = Command::builder().command_id("command-1").build();
            MockResponse::Output(SendCommandOutput::builder().command(command).build())
        });
        let [get, by_path, put, delete] = parameters(&self.state, |state| (&mut state.calls, &mut state.parameters));
        mock_client!(
            aws_sdk_ssm,
            RuleMode::MatchAny,
            [&send, &get, &by_path, &put, &delete],
            |config| config.retry_config(aws_sdk_ssm::config::retry::RetryConfig::disabled())
        )
    }

    fn ecr(&self) -> aws_sdk_ecr::Client {
        ecr(&self.state, |state| (&mut state.calls, &mut state.registry))
    }
}

fn text(rules: &str, images: &[String]) -> String {
    let settings = settings(rules);
    let images: Vec<Image> = images.iter().map(|image| image.parse().unwrap()).collect();
    BootList::new(&settings, &settings.rules[0], &images).text
}

fn event() -> Value {
    serde_json::from_str(include_str!("../../../../../events/image-push.tagged.json")).unwrap()
}

fn digest(tag: &str) -> String {
    format!("sha256:{:0<64}", tag.trim_start_matches('v'))
}

fn image(repository: &str, tag: &str) -> String {
    format!("{REGISTRY}/{repository}:{tag}@{}", digest(tag))
}
