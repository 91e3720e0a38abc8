//! SSM's agent on a node: its state, and the likely cause where commands do not reach it.

use std::time::Duration;

use aws_sdk_ec2::types::{Instance, InstanceStateName, PlatformValues};
use aws_sdk_ssm::types::InstanceInformation;
use chrono::{DateTime, SecondsFormat, Utc};
use prefetch::{
    instance::is_auto_mode,
    reachability::{Unreachable, connection},
};
use serde::Serialize;

/// Sets for how long after its launch a node is given time to register: 30 seconds are the rule, several minutes are seen
/// (aws-cli#4006).
const STARTS_WITHIN: Duration = Duration::from_mins(5);
/// The oldest agent that runs the document: the first that knows schema 2.2 and its preconditions (amazon-ssm-agent, release
/// notes and history). That parameters come as environment variables takes 3.3.2746.0, and the bootstrap does without.
const OLDEST: [u32; 4] = [2, 0, 822, 0];
const OLDEST_TEXT: &str = "2.0.822.0";

/// Describes SSM's agent on a node.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Tells if commands reach the node.
    pub state: AgentState,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<AgentCause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "agentVersion")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_ping_at: Option<DateTime<Utc>>,
}

/// Tells if commands reach a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentState {
    /// They do.
    Online,
    /// They did.
    Offline,
    /// They never did.
    NeverRegistered,
    /// They never will.
    Unsupported,
}

/// Names the likely cause for which commands do not reach a node, or are not understood there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum AgentCause {
    /// It was launched a moment ago.
    Starting,
    /// Nothing lets its agent speak to SSM.
    NoInstanceProfile,
    /// Its role does not let its agent speak to SSM, or it does not reach SSM, or no agent runs.
    RoleOrNetwork,
    /// Its agent has ceased to speak to SSM.
    AgentStopped,
    /// Its agent does not know such documents.
    AgentTooOld,
    /// EKS Auto Mode lets nobody in.
    AutoMode,
    /// The document is for Linux.
    NotLinux,
}

impl Agent {
    /// Tells the state from what EC2 and SSM say.
    pub fn of(instance: &Instance, managed: Option<&InstanceInformation>, now: DateTime<Utc>) -> Self {
        let (state, cause) = state(instance, managed, now);
        let last_ping_at = managed.and_then(|node| node.last_ping_date_time()).and_then(moment);
        Self {
            state,
            cause: cause.as_ref().map(|(cause, _)| *cause),
            message: cause.map(|(_, message)| message),
            version: managed.and_then(|node| node.agent_version()).map(str::to_owned),
            last_ping_at,
        }
    }
}

fn state(
    instance: &Instance,
    managed: Option<&InstanceInformation>,
    now: DateTime<Utc>,
) -> (AgentState, Option<(AgentCause, String)>) {
    let because = |cause, why: Unreachable| Some((cause, why.to_string()));
    match (unreachable(instance, managed), managed) {
        (Some(why @ Unreachable::AutoMode), _) => (AgentState::Unsupported, because(AgentCause::AutoMode, why)),
        (Some(why @ Unreachable::NotLinux), _) => (AgentState::Unsupported, because(AgentCause::NotLinux, why)),
        (Some(Unreachable::ConnectionLost), Some(node)) => (AgentState::Offline, Some(offline(instance, node, now))),
        (Some(Unreachable::NotRegistered | Unreachable::ConnectionLost), _) | (None, None) => {
            (AgentState::NeverRegistered, Some(never_registered(instance, now)))
        }
        (None, Some(node)) if node.agent_version().is_some_and(is_too_old) => {
            let message = format!("its agent does not know the document: that takes {OLDEST_TEXT} or later");
            (AgentState::Online, Some((AgentCause::AgentTooOld, message)))
        }
        (None, Some(_)) => (AgentState::Online, None),
    }
}

fn unreachable(instance: &Instance, managed: Option<&InstanceInformation>) -> Option<Unreachable> {
    if is_auto_mode(instance) {
        Some(Unreachable::AutoMode)
    } else if instance.platform() == Some(&PlatformValues::Windows) {
        Some(Unreachable::NotLinux)
    } else {
        connection(managed).err()
    }
}

fn never_registered(instance: &Instance, now: DateTime<Utc>) -> (AgentCause, String) {
    let (cause, message) = if instance.iam_instance_profile().is_none() {
        (
            AgentCause::NoInstanceProfile,
            "it has no instance profile; SSM takes one with AmazonSSMManagedInstanceCore, or Default Host Management",
        )
    } else if is_starting(instance, now) {
        (AgentCause::Starting, "it was launched less than five minutes ago")
    } else {
        (
            AgentCause::RoleOrNetwork,
            "its role lacks AmazonSSMManagedInstanceCore, it does not reach SSM's endpoints, or no agent runs on it",
        )
    };
    (cause, message.to_owned())
}

fn offline(instance: &Instance, node: &InstanceInformation, now: DateTime<Utc>) -> (AgentCause, String) {
    let pinged_at = node.last_ping_date_time().and_then(moment);
    if is_starting(instance, now) && pinged_at < launched_at(instance) {
        let message = "it was started again less than five minutes ago";
        return (AgentCause::Starting, message.to_owned());
    }
    let since = pinged_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
    let since = since.map_or_else(String::new, |since| format!(" since {since}"));
    (
        AgentCause::AgentStopped,
        format!("SSM has heard nothing of its agent{since}"),
    )
}

fn is_starting(instance: &Instance, now: DateTime<Utc>) -> bool {
    let is_pending = instance.state().and_then(|state| state.name()) == Some(&InstanceStateName::Pending);
    let age = launched_at(instance).map(|launched_at| (now - launched_at).to_std().unwrap_or_default());
    is_pending || age.is_some_and(|age| age < STARTS_WITHIN)
}

fn launched_at(instance: &Instance) -> Option<DateTime<Utc>> {
    instance.launch_time().and_then(moment)
}

/// Returns true for a version older than the oldest that knows the document, false for a text that is no version.
fn is_too_old(version: &str) -> bool {
    let numbers: Result<Vec<u32>, _> = version.split('.').map(str::parse).collect();
    numbers.is_ok_and(|numbers| numbers.as_slice() < OLDEST.as_slice())
}

/// Reads a moment as AWS gives it.
pub fn moment(time: &aws_sdk_ec2::primitives::DateTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(time.to_millis().ok()?)
}
