//! Messages: each asks for images for a node, or tells why it asks for none.

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use prefetch::{event::Event, node::is_instance_id, retry::Retry};
use serde::Deserialize;
use serde_json::Value;

use crate::decision::{DecisionReason, Why};

/// Counts the looks before the last in which an instance that may still become a node is decided of: a message may be received
/// and never looked at, where AWS fails or Lambda is throttled, and is a dead letter where that is the last time.
const LATE: u32 = 5;

/// Tells what the function was called with.
#[derive(Debug)]
pub enum Call {
    /// A batch from the node queue.
    Batch(Vec<Message>),
    /// One message as it is, its id before it.
    Event(String, Result<Request, Why>),
}

/// A message of the node queue.
#[derive(Debug)]
pub struct Message {
    pub id: String,
    pub look: Look,
    pub request: Result<Request, Why>,
}

/// Tells how far a message is from its last receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// It comes again, some times yet.
    Early,
    /// It comes again, five times at most.
    Late,
    /// It does not come again, but goes to the dead letters where it is handed back.
    Last,
}

impl Look {
    fn of(receives: u32, max_receives: u32) -> Self {
        if receives >= max_receives {
            Self::Last
        } else if receives + LATE >= max_receives {
            Self::Late
        } else {
            Self::Early
        }
    }
}

/// Tells what a node is to get.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// An instance was launched: the newest images of its rules.
    Newest(String),
    /// Images are still missing: a retry of these.
    Retry(Retry),
}

impl Request {
    /// Returns the node's instance id.
    pub fn node(&self) -> &str {
        match self {
            Self::Newest(node) => node,
            Self::Retry(retry) => &retry.node,
        }
    }
}

/// Tells a batch of SQS, whose messages come at most so often, from an event.
pub fn call(payload: Value, max_receives: u32) -> Call {
    if payload.get("Records").is_none() {
        return Call::Event(event_id(&payload), request(payload));
    }
    match serde_json::from_value::<SqsEvent>(payload) {
        Ok(batch) => Call::Batch(
            batch
                .records
                .into_iter()
                .map(|record| Message {
                    look: receives(&record).map_or(Look::Early, |receives| Look::of(receives, max_receives)),
                    id: record.message_id.unwrap_or_default(),
                    request: request_in_body(record.body),
                })
                .collect(),
        ),
        Err(error) => Call::Event(
            "unknown".to_owned(),
            Err(Why::new(DecisionReason::Malformed, error.to_string())),
        ),
    }
}

/// Returns the number of times that SQS has delivered a message, this one included.
fn receives(record: &SqsMessage) -> Option<u32> {
    record.attributes.get("ApproximateReceiveCount")?.parse().ok()
}

fn request_in_body(body: Option<String>) -> Result<Request, Why> {
    serde_json::from_str(&body.unwrap_or_default())
        .map_err(malformed)
        .and_then(request)
}

fn request(message: Value) -> Result<Request, Why> {
    if message.get("job").is_some() {
        retry(message).map(Request::Retry)
    } else {
        launched_instance(message).map(Request::Newest)
    }
}

/// Reads a retry out of the message by which `node-result` asks for it.
fn retry(message: Value) -> Result<Retry, Why> {
    let retry: Retry = serde_json::from_value(message).map_err(malformed)?;
    let check = retry.check();
    check.map_err(|error| Why::new(DecisionReason::Malformed, error.to_string()))?;
    Ok(retry)
}

/// An EC2 state change, as far as it matters.
#[derive(Deserialize)]
struct StateChange {
    #[serde(rename = "instance-id")]
    instance_id: String,
    state: String,
}

/// An event of Auto Scaling, as far as it matters.
#[derive(Deserialize)]
struct AutoScaling {
    #[serde(rename = "EC2InstanceId")]
    instance_id: String,
}

/// Reads the instance out of an event by which one was launched: EC2 state-change `running`, Auto Scaling launch, or the
/// launch's lifecycle action.
fn launched_instance(event: Value) -> Result<String, Why> {
    let event: Event = serde_json::from_value(event).map_err(malformed)?;
    let id = match (event.source.as_str(), event.detail_type.as_str()) {
        ("aws.ec2", "EC2 Instance State-change Notification") => {
            let change: StateChange = serde_json::from_value(event.detail).map_err(malformed)?;
            if change.state != "running" {
                let message = format!("{} is {}, not running", change.instance_id, change.state);
                return Err(Why::new(DecisionReason::NotRunning, message));
            }
            change.instance_id
        }
        ("aws.autoscaling", "EC2 Instance Launch Successful" | "EC2 Instance-launch Lifecycle Action") => {
            let launch: AutoScaling = serde_json::from_value(event.detail).map_err(malformed)?;
            launch.instance_id
        }
        (source, detail_type) => {
            let message = format!("{detail_type:?} from {source:?} is no event by which a node is launched");
            return Err(Why::new(DecisionReason::NotALaunch, message));
        }
    };
    checked(&id)?;
    Ok(id)
}

fn checked(id: &str) -> Result<(), Why> {
    if is_instance_id(id) {
        Ok(())
    } else {
        Err(Why::new(DecisionReason::Malformed, format!("{id:?} is no instance id")))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn malformed(error: serde_json::Error) -> Why {
    Why::new(DecisionReason::Malformed, error.to_string())
}

fn event_id(event: &Value) -> String {
    event["id"].as_str().unwrap_or("unknown").to_owned()
}
