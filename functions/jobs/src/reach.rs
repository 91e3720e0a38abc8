//! Reach: which of the nodes that are asked for by id can be sent anything.

use std::collections::HashMap;

use aws_sdk_ec2::types::{Instance, InstanceStateName};
use aws_sdk_ssm::types::{InstanceInformation, PlatformType};
use prefetch::{
    instance::{instances, is_auto_mode, tags},
    node::{Cluster, Membership},
    sender::Refusal,
    ssm,
};
use serde::{Deserialize, Serialize};

use crate::{handler::Jobs, problem::Problem};

/// A node that gets nothing, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The node's instance id.
    pub id: String,
    /// The reason as one word.
    pub reason: Reason,
    /// The reason as a sentence.
    pub message: String,
}

/// The reasons for which a node gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// EC2 knows no such instance.
    Gone,
    /// The instance does not run.
    NotRunning,
    /// The instance is no node of this cluster.
    Foreign,
    /// The node allows no SSM, or is no Linux.
    Unsupported,
    /// SSM cannot reach the node now.
    NotOnline,
    /// IAM does not permit the command on the node.
    AccessDenied,
    /// SSM refuses the node although it is online.
    Refused,
}

impl Refused {
    /// Refuses a node that got no command while others did.
    pub fn at_sending(id: &str, refusal: Refusal) -> Self {
        let (reason, message) = match refusal {
            Refusal::NotOnline => return Self::offline(id),
            Refusal::AccessDenied => (Reason::AccessDenied, "IAM does not permit the command on it"),
            Refusal::Invalid => (Reason::Refused, "SSM refuses it although it is online"),
        };
        Self {
            id: id.to_owned(),
            reason,
            message: message.to_owned(),
        }
    }

    /// Refuses a node that SSM cannot reach.
    pub fn offline(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            reason: Reason::NotOnline,
            message: "SSM has lost the connection to it".to_owned(),
        }
    }
}

/// Parts ids into those of running nodes of the cluster that SSM reaches now, and the others.
///
/// One DescribeInstances for each 200 of them, and one DescribeInstanceInformation for each 50.
///
/// # Errors
/// A 503 where EC2 or SSM cannot be asked.
pub async fn reachable(jobs: &Jobs, ids: &[String]) -> Result<(Vec<String>, Vec<Refused>), Problem> {
    let instances = instances(&jobs.ec2, ids)
        .await
        .map_err(|error| Problem::unavailable(&error))?;
    let mut refused = Vec::new();
    let mut ours = Vec::new();
    for id in ids {
        match check_instance(instances.get(id), &jobs.settings.shared.cluster) {
            Ok(()) => ours.push(id.clone()),
            Err((reason, message)) => refused.push(Refused {
                id: id.clone(),
                reason,
                message,
            }),
        }
    }
    let (online, offline) = online(jobs, &ours).await?;
    refused.extend(offline);
    Ok((online, refused))
}

/// Parts nodes into those that SSM reaches now, and the others.
///
/// # Errors
/// A 503 where SSM cannot be asked.
async fn online(jobs: &Jobs, ids: &[String]) -> Result<(Vec<String>, Vec<Refused>), Problem> {
    let managed = ssm::managed_nodes(&jobs.ssm, ids).await;
    let managed = managed.map_err(|error| Problem::unavailable(&error))?;
    Ok(parted(ids, &managed))
}

fn parted(ids: &[String], managed: &HashMap<String, InstanceInformation>) -> (Vec<String>, Vec<Refused>) {
    let mut online = Vec::new();
    let mut refused = Vec::new();
    for id in ids {
        let (reason, message) = match managed.get(id) {
            None => (Reason::NotOnline, "it has not registered with SSM"),
            Some(node)
                if node
                    .platform_type()
                    .is_some_and(|platform| *platform != PlatformType::Linux) =>
            {
                (Reason::Unsupported, "it is no Linux node")
            }
            Some(node) if ssm::is_online(node) => {
                online.push(id.clone());
                continue;
            }
            Some(_) => {
                refused.push(Refused::offline(id));
                continue;
            }
        };
        refused.push(Refused {
            id: id.clone(),
            reason,
            message: message.to_owned(),
        });
    }
    (online, refused)
}

fn check_instance(instance: Option<&Instance>, cluster: &Cluster) -> Result<(), (Reason, String)> {
    let Some(instance) = instance else {
        return Err((Reason::Gone, "EC2 knows no such instance".to_owned()));
    };
    if cluster.membership(&tags(instance)) != Membership::Ours {
        return Err((
            Reason::Foreign,
            format!("it has no tag {} of {}", cluster.tag_key, cluster.name),
        ));
    }
    let state = instance.state().and_then(|state| state.name());
    if state != Some(&InstanceStateName::Running) {
        let state = state.map_or("in no state", InstanceStateName::as_str);
        return Err((Reason::NotRunning, format!("it is {state}")));
    }
    if is_auto_mode(instance) {
        return Err((
            Reason::Unsupported,
            "EKS Auto Mode manages the instance and allows no SSM".to_owned(),
        ));
    }
    Ok(())
}
