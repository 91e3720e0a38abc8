//! The function with the services around it.

use std::sync::Arc;

use aws_sdk_ssm::operation::send_command::SendCommandInput;
use aws_smithy_mocks::Rule as Mock;
use prefetch::{mocks::ecr::ecr, sender::Sender};
use serde_json::Value;

use super::{
    inputs::{LaunchTable, launches, now, received, rule_images, settings},
    services::{Node, RegistryState, ec2, registry, ssm},
};
use crate::node_launch::NodeLaunch;

/// The function before mocked AWS services that answer of these nodes.
pub struct Cloud {
    pub launch: NodeLaunch,
    pub describe_instances: Mock,
    pub describe_nodes: Mock,
    pub registry: RegistryState,
    pub table: LaunchTable,
    pub sent: Arc<std::sync::Mutex<Vec<SendCommandInput>>>,
}

impl Cloud {
    pub fn with(nodes: Vec<Node>) -> Self {
        Self::new(nodes, r#"[{"name": "default", "repositories": ["team/app"]}]"#)
    }

    pub fn new(nodes: Vec<Node>, rules: &str) -> Self {
        let nodes = Arc::new(nodes);
        let (describe_instances, ec2) = ec2(&nodes);
        let registry = registry();
        let ecr = ecr(&registry, |(calls, registry)| (calls, registry));
        let (describe_nodes, ssm, sent) = ssm(&nodes);
        let table = LaunchTable::default();
        let launch = NodeLaunch {
            ec2,
            launches: launches(&table),
            sender: Sender::sending(ssm.clone()),
            ssm,
            images: rule_images(ecr, &table, rules),
            settings: settings(rules),
            max_receives: 30,
        };
        Self {
            launch,
            describe_instances,
            describe_nodes,
            registry,
            table,
            sent,
        }
    }

    pub async fn answer(&self, event: &str) -> Value {
        let answer = self
            .launch
            .handle_at(serde_json::from_str(event).unwrap(), now())
            .await
            .unwrap();
        serde_json::to_value(answer).unwrap()
    }

    /// Returns the number of messages of one launch that were received so often are handed back.
    pub async fn handed_back(&self, receives: &[u32]) -> usize {
        let answer = self.answer(&received(receives)).await;
        answer["batchItemFailures"].as_array().unwrap().len()
    }

    pub fn inputs(&self) -> Vec<SendCommandInput> {
        self.sent.lock().unwrap().clone()
    }

    pub fn sent(&self) -> Vec<Vec<String>> {
        self.inputs()
            .iter()
            .map(|input| input.instance_ids().to_vec())
            .collect()
    }

    /// Counts the calls of DescribeImages since it was asked last.
    pub fn images_described(&self) -> usize {
        let calls = self.registry.lock().unwrap().0.take();
        calls.iter().filter(|call| **call == "DescribeImages").count()
    }

    /// Calls of DescribeInstances, DescribeInstanceInformation and SendCommand that succeeded.
    pub fn calls(&self) -> (usize, usize, usize) {
        (
            self.describe_instances.num_calls(),
            self.describe_nodes.num_calls(),
            self.inputs().len(),
        )
    }
}
