//! Senders before SSM, IAM and the table, and what is sent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_ssm::{
    operation::{
        describe_instance_information::DescribeInstanceInformationOutput,
        send_command::{SendCommandError, SendCommandOutput},
    },
    types::{Command, InstanceInformation, PingStatus, error::InvalidInstanceId},
};
use aws_smithy_mocks::{MockResponse, Rule as Mock, RuleMode, mock, mock_client};
use chrono::{DateTime, Utc};

use super::{JOB, Kind};
use crate::{
    command::{Comment, Destination, Trigger},
    image::{Image, RegistryEndpoint},
    mocks::{self, Calls, Table},
    node::{Cluster, NodeSelector},
    rows::{Key, OBSERVED},
    rule::{Rule, parse_rules},
    sender::{Delivery, Order, SendError, Sender},
    settings::{Mode, Outcomes, Settings},
};

/// Returns a sender before SSM and IAM that take instances so; IAM names the other instance, where there is one.
pub(super) fn sender_of(kinds: &BTreeMap<String, Kind>, other: Option<&'static str>) -> (Mock, Sender) {
    let (of_send, of_nodes) = (kinds.clone(), kinds.clone());
    let send = mock!(aws_sdk_ssm::Client::send_command).then_compute_response(move |input| {
        let of_kind = |kind| input.instance_ids().iter().find(|id| of_send[*id] == kind);
        if of_kind(Kind::Offline).or(of_kind(Kind::Invalid)).is_some() {
            let refused = InvalidInstanceId::builder().build();
            return MockResponse::Error(SendCommandError::InvalidInstanceId(refused));
        }
        if let Some(id) = of_kind(Kind::Denied) {
            return MockResponse::Error(mocks::access_denied(other.unwrap_or(id)));
        }
        let command = Command::builder().command_id(JOB).build();
        MockResponse::Output(SendCommandOutput::builder().command(command).build())
    });
    let nodes = mock!(aws_sdk_ssm::Client::describe_instance_information).then_compute_response(move |input| {
        let online = |id: &&String| of_nodes[*id] != Kind::Offline;
        let information = |id: &String| {
            InstanceInformation::builder()
                .instance_id(id)
                .ping_status(PingStatus::Online)
                .build()
        };
        let known = input.filters()[0]
            .values()
            .iter()
            .filter(online)
            .map(information)
            .collect();
        let output = DescribeInstanceInformationOutput::builder().set_instance_information_list(Some(known));
        MockResponse::Output(output.build())
    });
    let sender = Sender::sending(mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&send, &nodes]));
    (send, sender)
}

pub(super) fn deliver(sender: &Sender, ids: Vec<String>) -> Delivery {
    let (settings, comment, images) = (settings(), comment(Trigger::Launch, 1), [image(1)]);
    let order = Order {
        rule: &settings.rules[0],
        comment: &comment,
        images: &images,
        destination: Destination::Instances(ids),
        occasion: "day",
    };
    run(sender.deliver(&settings, order, now(0)))
}

/// A sender that observes, and its table.
pub(super) struct Cloud {
    pub(super) sender: Sender,
    pub(super) settings: Settings,
    pub(super) state: Arc<Mutex<(Calls, Table)>>,
}

impl Cloud {
    pub(super) fn new() -> Self {
        let state = Arc::new(Mutex::new((Calls::default(), Table::default())));
        let sender = Sender::observing(mocks::dynamodb(&state, |(calls, table)| (calls, table)), outcomes());
        assert!(sender.observes());
        Self {
            sender,
            settings: settings(),
            state,
        }
    }

    pub(super) fn rule(&self) -> &Rule {
        &self.settings.rules[0]
    }

    pub(super) fn sent(&self, order: Order<'_>, seconds: i64) -> Result<String, SendError> {
        run(self.sender.send(&self.settings, order, now(seconds)))
    }

    pub(super) fn send(&self, order: Order<'_>, seconds: i64) -> String {
        self.sent(order, seconds).unwrap()
    }

    pub(super) fn row(&self, key: &Key) -> serde_json::Value {
        self.state.lock().unwrap().1.row(key).unwrap()
    }

    /// Returns the sort keys of the rows that list jobs.
    pub(super) fn listed(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let rows = state.1.rows.keys().filter(|key| key.pk == OBSERVED);
        rows.map(|key| key.sk.clone()).collect()
    }
}

pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

pub(super) fn outcomes() -> Outcomes {
    Outcomes {
        table: "outcomes".to_owned(),
        retention: Duration::from_hours(720),
    }
}

pub(super) fn comment(trigger: Trigger, attempt: u8) -> Comment {
    Comment {
        trigger,
        rule: "gpu".to_owned(),
        attempt,
        job: None,
    }
}

pub(super) fn selected() -> Destination {
    let settings = settings();
    Destination::Selected(NodeSelector::new(&settings.cluster, &settings.rules[0]))
}

pub(super) fn image(k: usize) -> Image {
    let text = format!("123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/app:v{k}@sha256:{k:064x}");
    text.parse().unwrap()
}

pub(super) fn now(seconds: i64) -> DateTime<Utc> {
    let now: DateTime<Utc> = "2026-11-16T01:54:34.049Z".parse().unwrap();
    now + chrono::TimeDelta::seconds(seconds)
}

pub(super) fn settings() -> Settings {
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
        max_connections: 3,
        launch_max_connections: 20,
        max_bandwidth_mib: 0,
    }
}
