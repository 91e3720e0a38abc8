use std::sync::{Arc, Mutex};

use aws_sdk_ssm::{operation::send_command::SendCommandOutput, types::Command};
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    command::{Trigger, is_observed_id},
    image::RegistryEndpoint,
    mocks::{self, Calls, Table},
    node::{Cluster, NodeSelector},
    rows::{Key, OBSERVED},
    rule::parse_rules,
};

const TRIGGERS: [Trigger; 5] = [
    Trigger::Push,
    Trigger::Launch,
    Trigger::Job,
    Trigger::Schedule,
    Trigger::Reconcile,
];
const JOB: &str = "e8d3c0e4-71f7-4491-898f-c9b35bee5f3b";

#[test]
fn where_the_stack_observes_whatever_is_due_becomes_one_row_and_the_same_again_none() {
    proptest!(|(
        trigger in prop::sample::select(&TRIGGERS[..]),
        attempt in 1..=6_u8,
        images in 1..=30_usize,
        ids in prop::option::of(1..=50_usize),
        occasion in ".{0,8}",
    )| {
        let cloud = Cloud::new();
        let images: Vec<Image> = (0..images).map(image).collect();
        let comment = Comment { attempt, job: (attempt > 1).then(|| JOB.to_owned()), ..Comment::first(trigger, cloud.rule()) };
        let destination = ids.map_or_else(selected, |count| Destination::Instances((0..count).map(|k| format!("i-{k:017x}")).collect()));
        let order = Order { rule: cloud.rule(), comment: &comment, images: &images, destination: destination.clone(), occasion: &occasion };
        let first = cloud.send(order.clone(), 0);
        prop_assert!(is_observed_id(&first));
        let row = cloud.row(&Key::job(&first));
        let expected = json!({
            "pk": format!("job#{first}"), "sk": "job", "mode": "observe", "trigger": trigger, "rule": "gpu",
            "requested_at": now(0), "images": images, "destination": destination, "attempt": attempt,
            "expires_at": now(0).timestamp() + 30 * 86_400,
        });
        let mut known = row.clone();
        let (targets, retry_of) = (known.as_object_mut().unwrap().remove("targets"), known.as_object_mut().unwrap().remove("retry_of"));
        prop_assert_eq!(known, expected);
        prop_assert_eq!(targets, ids.map(|count| json!(count)));
        prop_assert_eq!(retry_of, comment.job.as_ref().map(|job| json!(job)));
        // It is delivered again a minute later.
        prop_assert_eq!(&cloud.send(order.clone(), 60), &first);
        prop_assert_eq!(cloud.row(&Key::job(&first)), row);
        prop_assert_eq!(cloud.listed(), vec![format!("2026-11-16T01:54:34.049Z#{first}")]);
        // On another occasion it is another job.
        let other = format!("{occasion} again");
        let second = cloud.send(Order { occasion: &other, ..order }, 60);
        prop_assert_ne!(&second, &first);
        prop_assert_eq!(cloud.listed().len(), 2);
    });
}

#[test]
fn what_differs_in_anything_is_another_job() {
    let cloud = Cloud::new();
    let (push, again) = (comment(Trigger::Push, 1), comment(Trigger::Push, 2));
    let launch = comment(Trigger::Launch, 1);
    let (one, two) = ([image(1)], [image(1), image(2)]);
    let usual = Order {
        rule: cloud.rule(),
        comment: &push,
        images: &one,
        destination: selected(),
        occasion: "event",
    };
    let others = [
        Order {
            comment: &again,
            ..usual.clone()
        },
        Order {
            comment: &launch,
            ..usual.clone()
        },
        Order {
            images: &two,
            ..usual.clone()
        },
        Order {
            destination: Destination::Instances(vec!["i-1".to_owned()]),
            ..usual.clone()
        },
        Order {
            occasion: "other",
            ..usual.clone()
        },
    ];
    let mut ids: Vec<String> = others
        .into_iter()
        .chain([usual])
        .map(|order| cloud.send(order, 0))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

#[test]
fn what_cannot_be_recorded_is_an_error_and_worth_another_try() {
    let cloud = Cloud::new();
    let comment = comment(Trigger::Push, 1);
    let images = [image(1)];
    let order = Order {
        rule: cloud.rule(),
        comment: &comment,
        images: &images,
        destination: selected(),
        occasion: "event",
    };
    for code in ["TransactionConflict", "InternalServerError"] {
        cloud.state.lock().unwrap().0.fail("TransactWriteItems", 0, code);
        let error = cloud.sent(order.clone(), 0).unwrap_err();
        assert_eq!(error.to_string(), "what would have been sent could not be recorded");
    }
    // The answer of the first was lost, and the SDK's own retries are off.
    cloud.state.lock().unwrap().0.fail("TransactWriteItems", 0, "Lost");
    assert!(cloud.sent(order.clone(), 0).is_err());
    assert!(is_observed_id(&cloud.send(order, 1)));
    assert_eq!(cloud.listed().len(), 1);
}

#[test]
fn where_the_stack_sends_the_command_goes_to_ssm() {
    let ssm = mock!(aws_sdk_ssm::Client::send_command)
        .match_requests(|input| input.comment() == Some("push rule=gpu attempt=1"))
        .then_output(|| {
            let command = Command::builder().command_id(JOB).build();
            SendCommandOutput::builder().command(command).build()
        });
    let sender = Sender::sending(mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&ssm]));
    let (settings, comment, images) = (settings(), comment(Trigger::Push, 1), [image(1)]);
    let order = Order {
        rule: &settings.rules[0],
        comment: &comment,
        images: &images,
        destination: selected(),
        occasion: "event",
    };
    assert_eq!(run(sender.send(&settings, order, now(0))).unwrap(), JOB);
    assert_eq!(ssm.num_calls(), 1);
}

/// A sender that observes, and its table.
struct Cloud {
    sender: Sender,
    settings: Settings,
    state: Arc<Mutex<(Calls, Table)>>,
}

impl Cloud {
    fn new() -> Self {
        let state = Arc::new(Mutex::new((Calls::default(), Table::default())));
        let outcomes = Outcomes {
            table: "outcomes".to_owned(),
            retention: std::time::Duration::from_hours(720),
        };
        let sender = Sender::observing(mocks::dynamodb(&state, |(calls, table)| (calls, table)), outcomes);
        assert!(sender.observes());
        Self {
            sender,
            settings: settings(),
            state,
        }
    }

    fn rule(&self) -> &Rule {
        &self.settings.rules[0]
    }

    fn sent(&self, order: Order<'_>, seconds: i64) -> Result<String, SendError> {
        run(self.sender.send(&self.settings, order, now(seconds)))
    }

    fn send(&self, order: Order<'_>, seconds: i64) -> String {
        self.sent(order, seconds).unwrap()
    }

    fn row(&self, key: &Key) -> serde_json::Value {
        self.state.lock().unwrap().1.row(key).unwrap()
    }

    /// The sort keys of the rows that list jobs.
    fn listed(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let rows = state.1.rows.keys().filter(|key| key.pk == OBSERVED);
        rows.map(|key| key.sk.clone()).collect()
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

fn comment(trigger: Trigger, attempt: u8) -> Comment {
    Comment {
        trigger,
        rule: "gpu".to_owned(),
        attempt,
        job: None,
    }
}

fn selected() -> Destination {
    let settings = settings();
    Destination::Selected(NodeSelector::new(&settings.cluster, &settings.rules[0]))
}

fn image(k: usize) -> Image {
    let text = format!("123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/app:v{k}@sha256:{k:064x}");
    text.parse().unwrap()
}

fn now(seconds: i64) -> DateTime<Utc> {
    let now: DateTime<Utc> = "2026-11-16T01:54:34.049Z".parse().unwrap();
    now + chrono::TimeDelta::seconds(seconds)
}

fn settings() -> Settings {
    Settings {
        mode: Mode::Observe,
        cluster: Cluster {
            name: "prod".to_owned(),
            tag_key: "aws:eks:cluster-name".to_owned(),
        },
        document: "prefetch-images".to_owned(),
        rules: parse_rules(r#"[{"name": "gpu", "nodes": {"team": ["ml"]}}]"#).unwrap(),
        registry_endpoint: RegistryEndpoint::Standard,
        delivery_timeout: 600,
        execution_timeout: 3600,
        image_gc_high_threshold: 85,
        max_parallel_image_pulls: 2,
    }
}
