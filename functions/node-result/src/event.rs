//! What a message says: a command that ended, on a node or as a whole, or a further try that has waited.

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use chrono::{DateTime, Utc};
use prefetch::{command::is_command_id, event::Event, node::is_managed_id, retry::Retry};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    decision::{Decision, Reason},
    retry::Waiting,
};

const SOURCE: &str = "aws.ssm";
const OF_NODE: &str = "EC2 Command Invocation Status-change Notification";
const OF_COMMAND: &str = "EC2 Command Status-change Notification";

/// The statuses after which others follow (Run Command, command statuses).
const NOT_ENDED: [&str; 4] = ["Pending", "InProgress", "Delayed", "Cancelling"];

/// What the function was called with.
#[derive(Debug)]
pub enum Call {
    /// A batch from the result queue.
    Batch(Vec<Message>),
    /// One message as it is.
    Event(Message),
    /// The schedule: it is time to look for what no event told.
    Sweep,
}

/// One message.
#[derive(Debug)]
pub struct Message {
    /// The message's id in the queue; the event's where it comes as it is.
    pub id: String,
    /// Whether somebody may have begun to settle it: the queue has handed it out before, or it does not say.
    pub redelivered: bool,
    /// What it says, or what is decided where it says nothing.
    pub said: Result<Said, Decision>,
}

/// What a message says.
#[derive(Debug)]
pub enum Said {
    /// A command ended.
    Ended(Ended),
    /// It is time for a further try.
    Due(Retry),
}

/// A command that ended on a node, or as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ended {
    /// The command's id.
    pub command: String,
    /// The node's id, which is `mi-…` where it is none of EC2's; none for the command as a whole.
    pub node: Option<String>,
    /// When the command was sent.
    pub requested_at: DateTime<Utc>,
    /// When the event was raised.
    pub time: DateTime<Utc>,
    /// Whether the sweep asks, because no event came in time.
    pub overdue: bool,
}

impl Ended {
    /// Writes the event that would have told it, with `overdue` in its detail: what the sweep puts into the queue.
    pub fn event(&self, document: &str) -> String {
        let detail_type = if self.node.is_some() { OF_NODE } else { OF_COMMAND };
        json!({
            "source": SOURCE,
            "detail-type": detail_type,
            "time": self.time,
            "detail": {
                "command-id": self.command,
                "document-name": document,
                "instance-id": self.node,
                "requested-date-time": self.requested_at,
                "status": "TimedOut",
                "overdue": self.overdue,
            },
        })
        .to_string()
    }
}

/// Tells a batch of SQS from an event, and the schedule's from SSM's.
pub fn call(payload: Value, document: &str) -> Call {
    if payload.get("Records").is_none() {
        return if payload["source"] == "aws.events" && payload["detail-type"] == "Scheduled Event" {
            Call::Sweep
        } else {
            Call::Event(Message {
                id: payload["id"].as_str().unwrap_or("unknown").to_owned(),
                redelivered: true,
                said: said(payload, document),
            })
        };
    }
    match serde_json::from_value::<SqsEvent>(payload) {
        Ok(batch) => Call::Batch(
            batch
                .records
                .into_iter()
                .map(|record| message(record, document))
                .collect(),
        ),
        Err(error) => Call::Event(Message {
            id: "unknown".to_owned(),
            redelivered: true,
            said: Err(malformed(&error)),
        }),
    }
}

fn message(record: SqsMessage, document: &str) -> Message {
    let received = record.attributes.get("ApproximateReceiveCount");
    Message {
        id: record.message_id.unwrap_or_default(),
        redelivered: received.is_none_or(|times| times != "1"),
        said: serde_json::from_str(&record.body.unwrap_or_default())
            .map_err(|error| malformed(&error))
            .and_then(|body| said(body, document)),
    }
}

/// Tells a further try from SSM's events.
fn said(body: Value, document: &str) -> Result<Said, Decision> {
    if body.get("retry").is_some() {
        due(body).map(Said::Due)
    } else {
        ended(body, document).map(Said::Ended)
    }
}

/// Reads the further try that has waited.
fn due(body: Value) -> Result<Retry, Decision> {
    let Waiting { retry } = serde_json::from_value(body).map_err(|error| malformed(&error))?;
    let check = retry.check();
    check.map_err(|error| Decision::handed_back(Reason::Malformed, error.to_string()))?;
    Ok(retry)
}

/// What SSM says of a command, on a node or as a whole.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Detail {
    command_id: String,
    document_name: String,
    instance_id: Option<String>,
    requested_date_time: Option<String>,
    status: String,
    #[serde(default)]
    overdue: bool,
}

/// Reads what ended out of an event by which SSM tells it.
fn ended(event: Value, document: &str) -> Result<Ended, Decision> {
    let event: Event = serde_json::from_value(event).map_err(|error| malformed(&error))?;
    let is_of_node = is_of_node(&event)?;
    let detail: Detail = serde_json::from_value(event.detail).map_err(|error| malformed(&error))?;
    check_ended(&detail, document)?;
    let command = usable("command-id", Some(detail.command_id), is_command_id)?;
    let node = is_of_node.then(|| usable("instance-id", detail.instance_id, is_managed_id));
    let requested_at = detail.requested_date_time.as_deref().and_then(moment);
    // Either stands for the other: SSM itself is asked when the command ended.
    let time = event.time.or(requested_at).ok_or_else(|| unusable("time", None))?;
    Ok(Ended {
        command,
        node: node.transpose()?,
        requested_at: requested_at.unwrap_or(time),
        time,
        overdue: detail.overdue,
    })
}

fn is_of_node(event: &Event) -> Result<bool, Decision> {
    match (event.source.as_str(), event.detail_type.as_str()) {
        (SOURCE, OF_NODE) => Ok(true),
        (SOURCE, OF_COMMAND) => Ok(false),
        (source, detail_type) => {
            let message = format!("{detail_type:?} from {source:?} is no event by which a command ends");
            Err(Decision::handed_back(Reason::NotAResult, message))
        }
    }
}

fn check_ended(detail: &Detail, document: &str) -> Result<(), Decision> {
    if detail.document_name != document {
        let message = format!("it is a command of document {:?}", detail.document_name);
        Err(Decision::handed_back(Reason::NotAResult, message))
    } else if NOT_ENDED.contains(&detail.status.as_str()) {
        Err(Decision::ignored(
            Reason::NotEnded,
            format!("its status is {}", detail.status),
        ))
    } else {
        Ok(())
    }
}

fn usable(field: &str, value: Option<String>, is_usable: impl Fn(&str) -> bool) -> Result<String, Decision> {
    match value {
        Some(value) if is_usable(&value) => Ok(value),
        value => Err(unusable(field, value)),
    }
}

/// Reads a moment as SSM writes it (RFC 3339).
pub fn moment(text: &str) -> Option<DateTime<Utc>> {
    text.parse().ok()
}

fn malformed(error: &serde_json::Error) -> Decision {
    Decision::handed_back(Reason::Malformed, error.to_string())
}

fn unusable(field: &str, value: Option<String>) -> Decision {
    let value = value.unwrap_or_default();
    Decision::handed_back(Reason::Malformed, format!("the field {field} is not usable: {value:?}"))
}
