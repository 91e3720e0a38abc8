//! Events: what the function is called with, be it that a command ended, on a node or as a whole, that a retry is due, or
//! that it is time to sweep.

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use chrono::{DateTime, Utc};
use prefetch::{command::is_command_id, event::Event, node::is_managed_id, retry::Retry};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::decision::{Decision, DecisionReason, Explanation};

const SOURCE: &str = "aws.ssm";
const OF_NODE: &str = "EC2 Command Invocation Status-change Notification";
const OF_COMMAND: &str = "EC2 Command Status-change Notification";

/// Lists the statuses after which others follow (Run Command, command statuses).
const NOT_ENDED: [&str; 4] = ["Pending", "InProgress", "Delayed", "Cancelling"];

/// Tells the payloads apart that the function is called with.
#[derive(Debug)]
pub enum Payload {
    /// A batch from the result queue.
    Batch(Vec<Message>),
    /// One message as it is.
    Message(Message),
    /// The schedule's event: it is time to sweep.
    Schedule,
}

/// Carries one event, or why it is none.
#[derive(Debug)]
pub struct Message {
    /// The message's id in the queue; the event's where it comes as it is.
    pub id: String,
    /// True where somebody may have begun to settle it: the queue has handed it out before, or does not say.
    pub redelivered: bool,
    pub body: Body,
}

/// Tells the messages apart.
#[derive(Debug)]
pub enum Body {
    CommandEnded(CommandEnded),
    RetryDue(Retry),
    /// It is neither, or nothing is to be done of it.
    Decided(Decision),
}

/// Tells of a command that ended on a node, or as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommandEnded {
    /// The command's id.
    pub command: String,
    /// The node's id, which is `mi-…` where it is none of EC2's; none for the command as a whole.
    pub node: Option<String>,
    /// Tells when the command was sent.
    pub requested_at: DateTime<Utc>,
    /// Tells when the event was raised.
    pub time: DateTime<Utc>,
    /// True where it is the sweep's, because no event came in time.
    pub overdue: bool,
}

/// Tells of a retry, as it stands in the result queue until it is due.
#[derive(Debug, Serialize, Deserialize)]
pub struct RetryDue {
    pub retry: Retry,
}

impl CommandEnded {
    /// Writes the event as SSM would have, with `overdue` in its detail: the sweep puts it into the queue.
    pub fn to_event(&self, document: &str) -> String {
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

impl Payload {
    /// Tells a batch of SQS from an event, and the schedule's from SSM's.
    pub fn read(payload: Value, document: &str) -> Self {
        if payload.get("Records").is_some() {
            return Self::of_queue(payload, document);
        }
        if payload["source"] == "aws.events" && payload["detail-type"] == "Scheduled Event" {
            return Self::Schedule;
        }
        Self::Message(Message {
            id: payload["id"].as_str().unwrap_or("unknown").to_owned(),
            redelivered: true,
            body: Body::read(payload, document),
        })
    }

    fn of_queue(payload: Value, document: &str) -> Self {
        match serde_json::from_value::<SqsEvent>(payload) {
            Ok(batch) => {
                let messages = batch.records.into_iter().map(|record| message(record, document));
                Self::Batch(messages.collect())
            }
            Err(error) => Self::Message(Message {
                id: "unknown".to_owned(),
                redelivered: true,
                body: Body::handed_back(malformed(&error)),
            }),
        }
    }
}

fn message(record: SqsMessage, document: &str) -> Message {
    let received = record.attributes.get("ApproximateReceiveCount");
    Message {
        id: record.message_id.unwrap_or_default(),
        redelivered: received.is_none_or(|times| times != "1"),
        body: match serde_json::from_str(&record.body.unwrap_or_default()) {
            Ok(body) => Body::read(body, document),
            Err(error) => Body::handed_back(malformed(&error)),
        },
    }
}

impl Body {
    /// Tells a retry from SSM's events.
    fn read(body: Value, document: &str) -> Self {
        let read = if body.get("retry").is_some() {
            retry_due(body).map(Self::RetryDue)
        } else {
            command_ended(body, document)
        };
        read.unwrap_or_else(Self::handed_back)
    }

    fn handed_back(explanation: Explanation) -> Self {
        Self::Decided(Decision::HandedBack(explanation))
    }
}

/// Reads a retry that is due.
fn retry_due(body: Value) -> Result<Retry, Explanation> {
    let RetryDue { retry } = serde_json::from_value(body).map_err(|error| malformed(&error))?;
    let check = retry.check();
    check.map_err(|error| Explanation::new(DecisionReason::Malformed, error.to_string()))?;
    Ok(retry)
}

/// Holds what SSM's event says of a command, on a node or as a whole.
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

/// Reads SSM's event of a command that ended.
fn command_ended(event: Value, document: &str) -> Result<Body, Explanation> {
    let event: Event = serde_json::from_value(event).map_err(|error| malformed(&error))?;
    let is_of_node = is_of_node(&event)?;
    let detail: Detail = serde_json::from_value(event.detail).map_err(|error| malformed(&error))?;
    if detail.document_name != document {
        let message = format!("it is a command of document {:?}", detail.document_name);
        return Err(Explanation::new(DecisionReason::NotAResult, message));
    }
    if NOT_ENDED.contains(&detail.status.as_str()) {
        let message = format!("its status is {}", detail.status);
        let explanation = Explanation::new(DecisionReason::NotEnded, message);
        return Ok(Body::Decided(Decision::Ignored(explanation)));
    }
    let command = usable("command-id", Some(detail.command_id), is_command_id)?;
    let node = is_of_node.then(|| usable("instance-id", detail.instance_id, is_managed_id));
    let requested_at = detail.requested_date_time.as_deref().and_then(moment);
    // Either stands for the other: SSM itself says when the command ended.
    let time = event.time.or(requested_at).ok_or_else(|| unusable("time", None))?;
    Ok(Body::CommandEnded(CommandEnded {
        command,
        node: node.transpose()?,
        requested_at: requested_at.unwrap_or(time),
        time,
        overdue: detail.overdue,
    }))
}

fn is_of_node(event: &Event) -> Result<bool, Explanation> {
    match (event.source.as_str(), event.detail_type.as_str()) {
        (SOURCE, OF_NODE) => Ok(true),
        (SOURCE, OF_COMMAND) => Ok(false),
        (source, detail_type) => {
            let message = format!("{detail_type:?} from {source:?} is no event by which a command ends");
            Err(Explanation::new(DecisionReason::NotAResult, message))
        }
    }
}

fn usable(field: &str, value: Option<String>, is_usable: impl Fn(&str) -> bool) -> Result<String, Explanation> {
    match value {
        Some(value) if is_usable(&value) => Ok(value),
        value => Err(unusable(field, value)),
    }
}

/// Reads a moment as SSM writes it (RFC 3339).
pub fn moment(text: &str) -> Option<DateTime<Utc>> {
    text.parse().ok()
}

fn malformed(error: &serde_json::Error) -> Explanation {
    Explanation::new(DecisionReason::Malformed, error.to_string())
}

fn unusable(field: &str, value: Option<String>) -> Explanation {
    let value = value.unwrap_or_default();
    let message = format!("the field {field} is not usable: {value:?}");
    Explanation::new(DecisionReason::Malformed, message)
}
