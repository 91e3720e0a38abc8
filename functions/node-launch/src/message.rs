//! What a message says: an instance that was launched, or why there is none.

use std::sync::LazyLock;

use aws_lambda_events::{eventbridge::EventBridgeEvent, sqs::SqsEvent};
use regex_lite::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::decision::{Reason, Why};

/// The shape of an EC2 instance's id.
static INSTANCE_ID: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^i-(?:[0-9a-f]{8}|[0-9a-f]{17})$").expect("the pattern is a constant"));

/// What the function was called with.
#[derive(Debug)]
pub enum Call {
    /// A batch from the node queue: message ids, each with its instance or why it has none.
    Batch(Vec<(String, Launched)>),
    /// An event of EventBridge as it is, its id before it.
    Event(String, Launched),
}

/// The id of a launched instance, or why the event names none.
pub type Launched = Result<String, Why>;

/// Tells a batch of SQS from an event.
pub fn call(payload: Value) -> Call {
    if payload.get("Records").is_none() {
        return Call::Event(event_id(&payload), launched_instance(payload));
    }
    match serde_json::from_value::<SqsEvent>(payload) {
        Ok(batch) => Call::Batch(
            batch
                .records
                .into_iter()
                .map(|record| (record.message_id.unwrap_or_default(), launched_in_body(record.body)))
                .collect(),
        ),
        Err(error) => Call::Event(
            "unknown".to_owned(),
            Err(Why::new(Reason::Malformed, error.to_string())),
        ),
    }
}

fn launched_in_body(body: Option<String>) -> Launched {
    serde_json::from_str(&body.unwrap_or_default())
        .map_err(|error| Why::new(Reason::Malformed, error.to_string()))
        .and_then(launched_instance)
}

/// Reads the instance out of an event by which one was launched: EC2 state-change `running`, Auto Scaling launch, or the
/// launch's lifecycle action.
fn launched_instance(event: Value) -> Launched {
    #[derive(Deserialize)]
    struct StateChange {
        #[serde(rename = "instance-id")]
        instance_id: String,
        state: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct AutoScaling {
        #[serde(rename = "EC2InstanceId")]
        instance_id: String,
    }
    let malformed = |error: serde_json::Error| Why::new(Reason::Malformed, error.to_string());
    let event: EventBridgeEvent = serde_json::from_value(event).map_err(malformed)?;
    let id = match (event.source.as_str(), event.detail_type.as_str()) {
        ("aws.ec2", "EC2 Instance State-change Notification") => {
            let change: StateChange = serde_json::from_value(event.detail).map_err(malformed)?;
            if change.state != "running" {
                let message = format!("{} is {}, not running", change.instance_id, change.state);
                return Err(Why::new(Reason::NotRunning, message));
            }
            change.instance_id
        }
        ("aws.autoscaling", "EC2 Instance Launch Successful" | "EC2 Instance-launch Lifecycle Action") => {
            let launch: AutoScaling = serde_json::from_value(event.detail).map_err(malformed)?;
            launch.instance_id
        }
        (source, detail_type) => {
            let message = format!("{detail_type:?} from {source:?} is no event by which a node is launched");
            return Err(Why::new(Reason::NotALaunch, message));
        }
    };
    if INSTANCE_ID.is_match(&id) {
        Ok(id)
    } else {
        Err(Why::new(Reason::Malformed, format!("{id:?} is no instance id")))
    }
}

fn event_id(event: &Value) -> String {
    event["id"].as_str().unwrap_or("unknown").to_owned()
}
