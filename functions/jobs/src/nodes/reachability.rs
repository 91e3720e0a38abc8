//! Reachability: which of the nodes that a request names by id can be sent anything.

use aws_sdk_ec2::types::{Instance, InstanceStateName};
use prefetch::{
    instance::{instances, is_auto_mode, tags},
    node::{Cluster, Membership},
    reachability::{Unreachable, connection},
    sender::Refusal,
    ssm,
};
use serde::{Deserialize, Serialize};

use crate::http::problem::Problem;

/// Names a node that gets nothing, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedNode {
    /// The node's instance id.
    pub id: String,
    /// The reason as one word.
    pub reason: RefusalReason,
    /// The reason as a sentence.
    pub message: String,
}

/// Names the reason for which a node gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
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

impl From<Unreachable> for RefusalReason {
    fn from(why: Unreachable) -> Self {
        match why {
            Unreachable::NotRegistered | Unreachable::ConnectionLost => Self::NotOnline,
            Unreachable::NotLinux | Unreachable::AutoMode => Self::Unsupported,
        }
    }
}

impl RefusedNode {
    fn new(id: &str, reason: RefusalReason, message: impl Into<String>) -> Self {
        Self {
            id: id.to_owned(),
            reason,
            message: message.into(),
        }
    }

    /// Refuses a node that got no command while others did.
    pub fn at_sending(id: &str, refusal: Refusal) -> Self {
        let (reason, message) = match refusal {
            Refusal::NotOnline => return Self::offline(id),
            Refusal::AccessDenied => (RefusalReason::AccessDenied, "IAM does not permit the command on it"),
            Refusal::Invalid => (RefusalReason::Refused, "SSM refuses it although it is online"),
        };
        Self::new(id, reason, message)
    }

    /// Refuses a node that SSM cannot reach.
    pub fn offline(id: &str) -> Self {
        Self::unreachable(id, Unreachable::ConnectionLost)
    }

    fn unreachable(id: &str, why: Unreachable) -> Self {
        Self::new(id, why.into(), why.to_string())
    }
}

/// Parts ids into those of running nodes of the cluster that SSM reaches now, and the others.
///
/// One DescribeInstances for each 200 of them, and one DescribeInstanceInformation for each 50.
///
/// # Errors
/// A 503 where EC2 or SSM cannot be asked.
pub async fn reachable(
    ec2: &aws_sdk_ec2::Client,
    ssm: &aws_sdk_ssm::Client,
    cluster: &Cluster,
    ids: &[String],
) -> Result<(Vec<String>, Vec<RefusedNode>), Problem> {
    let instances = instances(ec2, ids).await.map_err(Problem::unavailable)?;
    let (mut ours, mut refused) = (Vec::new(), Vec::new());
    for id in ids {
        match check_instance(instances.get(id), cluster) {
            Ok(()) => ours.push(id.clone()),
            Err((reason, message)) => refused.push(RefusedNode::new(id, reason, message)),
        }
    }
    let managed = ssm::managed_nodes(ssm, &ours).await.map_err(Problem::unavailable)?;
    let mut online = Vec::new();
    for id in ours {
        match connection(managed.get(&id)) {
            Ok(()) => online.push(id),
            Err(why) => refused.push(RefusedNode::unreachable(&id, why)),
        }
    }
    Ok((online, refused))
}

fn check_instance(instance: Option<&Instance>, cluster: &Cluster) -> Result<(), (RefusalReason, String)> {
    let Some(instance) = instance else {
        return Err((RefusalReason::Gone, "EC2 knows no such instance".to_owned()));
    };
    if cluster.membership(&tags(instance)) != Membership::Ours {
        let message = format!("it has no tag {} of {}", cluster.tag_key, cluster.name);
        return Err((RefusalReason::Foreign, message));
    }
    let state = instance.state().and_then(|state| state.name());
    if state != Some(&InstanceStateName::Running) {
        let state = state.map_or("in no state", InstanceStateName::as_str);
        return Err((RefusalReason::NotRunning, format!("it is {state}")));
    }
    if is_auto_mode(instance) {
        let why = Unreachable::AutoMode;
        return Err((why.into(), why.to_string()));
    }
    Ok(())
}
