//! Requests to the function, by the state machine, by an event of one of its executions, or on a schedule.

use prefetch::{
    bake::Architecture,
    fields::{FieldError, Fields},
};
use serde_json::Value;

const MAX_KEEP: u32 = 100;
/// Names the statuses of an execution that has ended (Step Functions developer guide).
const ENDED: [&str; 4] = ["FAILED", "TIMED_OUT", "ABORTED", "SUCCEEDED"];
const KINDS: &str = r#"{"prune": {"keep": 3, "execution": "arn:…"}}, {"cleanUp": {"execution": "arn:…", "architecture": "x86_64"}}, a "Step Functions Execution Status Change" of aws.states, or a "Scheduled Event" of aws.events"#;

/// Tells what is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// To remove what executions have left behind.
    Sweep {
        /// The execution that has just ended.
        ended: Option<Ended>,
    },
    /// To remove, beside that, snapshots that are no longer wanted.
    Prune {
        /// The number of snapshots of each architecture that stay.
        keep: usize,
        /// The execution that asks, as its last step: what it has not published by now it never will.
        execution: String,
    },
    /// To remove what an execution that goes on has left behind for one architecture, where it failed.
    CleanUp {
        /// The execution that asks.
        execution: String,
        /// The architecture.
        architecture: Architecture,
    },
}

/// An execution that has ended, by its own event; DescribeExecution may lag behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its ARN.
    pub execution: String,
    /// The number of its redrives by then: one that was redriven since is running again.
    pub redrives: i32,
}

impl Request {
    /// Reads what is asked for.
    ///
    /// # Errors
    /// Every field that is not accepted.
    pub fn parse(payload: Value) -> Result<Self, Vec<FieldError>> {
        let is = |name: &str, value: &str| payload[name] == value;
        if payload.get("prune").is_some() {
            return parse_prune(asking(payload, "prune")?);
        }
        if payload.get("cleanUp").is_some() {
            return parse_clean_up(asking(payload, "cleanUp")?);
        }
        if is("source", "aws.events") && is("detail-type", "Scheduled Event") {
            return Ok(Self::Sweep { ended: None });
        }
        if is("source", "aws.states") && is("detail-type", "Step Functions Execution Status Change") {
            return parse_ended(&payload["detail"]);
        }
        Err(vec![FieldError::new("the request", Some(payload), KINDS)])
    }
}

/// Takes the fields of what the state machine asks for by one word.
fn asking(payload: Value, word: &str) -> Result<Fields, Vec<FieldError>> {
    let fields = match payload.get(word) {
        Some(Value::Object(fields)) => Fields::new(fields.clone()),
        other => return Err(vec![FieldError::new(word, other.cloned(), KINDS)]),
    };
    if let Value::Object(payload) = payload {
        Fields::new(payload).finish(&[word])?;
    }
    Ok(fields)
}

fn parse_prune(mut fields: Fields) -> Result<Request, Vec<FieldError>> {
    let keep = required(&mut fields, "keep", |fields| fields.whole("keep", 1..=MAX_KEEP));
    let execution = execution(&mut fields);
    finish(fields, "prune", &["keep", "execution"])?;
    Ok(Request::Prune {
        keep: keep.unwrap_or(MAX_KEEP) as usize,
        execution: execution.unwrap_or_default(),
    })
}

fn parse_clean_up(mut fields: Fields) -> Result<Request, Vec<FieldError>> {
    let execution = execution(&mut fields);
    let architecture = required(&mut fields, "architecture", |fields| {
        let is_one = |text: &str| text.parse::<Architecture>().is_ok();
        fields.text("architecture", "x86_64 or arm64", is_one)
    });
    finish(fields, "cleanUp", &["execution", "architecture"])?;
    let architecture = architecture.unwrap_or_default().parse();
    Ok(Request::CleanUp {
        execution: execution.unwrap_or_default(),
        architecture: architecture.map_err(|_| vec![FieldError::new("cleanUp", None, KINDS)])?,
    })
}

fn execution(fields: &mut Fields) -> Option<String> {
    required(fields, "execution", |fields| {
        fields.text("execution", "an execution's ARN", is_execution)
    })
}

/// Reads a field that has to be there.
fn required<T>(fields: &mut Fields, name: &str, read: impl FnOnce(&mut Fields) -> Option<T>) -> Option<T> {
    if fields.get(name).is_none() {
        fields.refuse(name, None, KINDS);
    }
    read(fields)
}

fn finish(fields: Fields, word: &str, known: &[&str]) -> Result<(), Vec<FieldError>> {
    let within = |error: FieldError| FieldError {
        field: format!("{word}.{}", error.field),
        ..error
    };
    fields
        .finish(known)
        .map_err(|errors| errors.into_iter().map(within).collect())
}

fn parse_ended(detail: &Value) -> Result<Request, Vec<FieldError>> {
    let Value::Object(detail) = detail else {
        return Err(vec![FieldError::new("detail", Some(detail.clone()), "an object")]);
    };
    let mut errors = Vec::new();
    let mut text = |name: &str, accepted: &str, is_accepted: &dyn Fn(&str) -> bool| {
        let value = detail.get(name);
        let text = value.and_then(Value::as_str).filter(|text| is_accepted(text));
        if text.is_none() {
            errors.push(FieldError::new(format!("detail.{name}"), value.cloned(), accepted));
        }
        text.unwrap_or_default().to_owned()
    };
    let execution = text("executionArn", "an execution's ARN", &is_execution);
    text("status", &ENDED.join(", "), &|status| ENDED.contains(&status));
    if !errors.is_empty() {
        return Err(errors);
    }
    let redrives = detail.get("redriveCount").and_then(Value::as_i64).unwrap_or_default();
    let redrives = i32::try_from(redrives).unwrap_or_default();
    Ok(Request::Sweep {
        ended: Some(Ended { execution, redrives }),
    })
}

/// Returns true where a text is shaped like the ARN of an execution.
fn is_execution(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(7, ':').collect();
    matches!(parts[..], ["arn", _, "states", _, _, "execution", name] if !name.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const EXECUTION: &str =
        "arn:aws:states:eu-central-1:123456789012:execution:eks-image-prefetch-bake-snapshot:0b9d4c1e";

    fn parse(event: &str) -> Result<Request, Vec<FieldError>> {
        Request::parse(serde_json::from_str(event).unwrap())
    }

    #[test]
    fn the_state_machine_asks_to_prune_or_to_clean_up_and_events_ask_to_sweep() {
        let execution = EXECUTION.to_owned();
        assert_eq!(
            parse(include_str!("../../../events/bake-sweep.prune.json")),
            Ok(Request::Prune {
                keep: 3,
                execution: execution.clone()
            })
        );
        assert_eq!(
            parse(include_str!("../../../events/bake-sweep.clean-up.json")),
            Ok(Request::CleanUp {
                execution: execution.clone(),
                architecture: Architecture::X86,
            })
        );
        assert_eq!(
            parse(include_str!("../../../events/bake-sweep.schedule.json")),
            Ok(Request::Sweep { ended: None })
        );
        assert_eq!(
            parse(include_str!("../../../events/bake-sweep.execution-failed.json")),
            Ok(Request::Sweep {
                ended: Some(Ended { execution, redrives: 0 })
            })
        );
    }

    #[test]
    fn what_is_nothing_of_the_kind_is_refused_by_the_field_that_is_wrong() {
        let status = |status: Value| {
            json!({"source": "aws.states", "detail-type": "Step Functions Execution Status Change",
                "detail": {"executionArn": EXECUTION, "status": status}})
        };
        for (request, field) in [
            (json!(null), "the request"),
            (json!([]), "the request"),
            (json!({}), "the request"),
            (json!({"source": "aws.ec2"}), "the request"),
            (json!({"prune": 3}), "prune"),
            (json!({"prune": {}}), "prune.keep"),
            (json!({"prune": {"keep": 0, "execution": EXECUTION}}), "prune.keep"),
            (json!({"prune": {"keep": 101, "execution": EXECUTION}}), "prune.keep"),
            (json!({"prune": {"keep": 3}}), "prune.execution"),
            (json!({"prune": {"keep": 3, "execution": "x"}}), "prune.execution"),
            (
                json!({"prune": {"keep": 3, "execution": EXECUTION, "all": true}}),
                "prune.all",
            ),
            (
                json!({"prune": {"keep": 3, "execution": EXECUTION}, "force": true}),
                "force",
            ),
            (json!({"cleanUp": null}), "cleanUp"),
            (json!({"cleanUp": {"execution": EXECUTION}}), "cleanUp.architecture"),
            (
                json!({"cleanUp": {"execution": EXECUTION, "architecture": "amd64"}}),
                "cleanUp.architecture",
            ),
            (json!({"cleanUp": {"architecture": "arm64"}}), "cleanUp.execution"),
            (status(json!("RUNNING")), "detail.status"),
            (status(json!(null)), "detail.status"),
            (
                json!({"source": "aws.states", "detail-type": "Step Functions Execution Status Change"}),
                "detail",
            ),
        ] {
            assert_eq!(
                Request::parse(request.clone()).unwrap_err()[0].field,
                field,
                "{request}"
            );
        }
    }

    proptest! {
        #[test]
        fn nobody_who_names_no_whole_number_of_snapshots_prunes(keep in "\\PC{0,4}") {
            let request = json!({"prune": {"keep": keep, "execution": EXECUTION}});
            prop_assert!(Request::parse(request).is_err());
        }
    }
}
