//! Reconcile: every rule's newest images to every node in its scope, whatever became of events.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::{
    operation::update_item::UpdateItemError,
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use aws_sdk_ssm::types::Command;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use prefetch::{
    command::{Comment, Destination, Trigger, images_of_commands, is_observed_id},
    ecr::{ImagesError, Newest, NewestImages},
    image::Image,
    node::NodeSelector,
    report::report,
    rows::Key,
    rule::Rule,
    sender::{Order, SendError},
    ssm::{self, SsmError},
    table,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::{error, info, warn};

use crate::{
    clusters::{NoNodes, no_nodes},
    handler::Jobs,
    store::StoreError,
};

/// After which time whoever reconciles a rule is dead: the function may run for 60 seconds, and Lambda's next try begins a
/// minute after its end.
const PATIENCE: TimeDelta = TimeDelta::seconds(60);

/// How long ECR is asked for all rules' newest images, of the function's 60 seconds.
const LISTING: Duration = Duration::from_secs(30);

/// What was decided of every rule, and that the cluster has no nodes, where it has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reconciliation {
    rules: Vec<Reconciled>,
    #[serde(flatten)]
    no_nodes: Option<NoNodes>,
}

/// What was decided of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// The rule's name.
    pub rule: String,
    /// What was decided of it.
    #[serde(flatten)]
    pub decision: Decision,
}

/// What was decided of a rule, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "kebab-case")]
pub enum Decision {
    /// Its newest images were sent.
    Sent {
        /// The commands, one for as many images as fit.
        commands: Vec<String>,
    },
    /// The stack observes: what would have been sent was recorded.
    Observed {
        /// The jobs, one for as many images as fit.
        commands: Vec<String>,
    },
    /// It names no image that exists.
    NoImages,
    /// What was sent last time has not ended, or another sends it now.
    StillRunning,
    /// AWS did not do as it was asked.
    Failed {
        /// Why, without the names of anything.
        cause: String,
    },
}

impl Decision {
    /// Returns why nothing is sent, where nothing is to be: the word by which it is known, and the same in words.
    fn why_nothing_is_sent(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::NoImages => Some(("no-images", "it names no image that exists")),
            Self::StillRunning => Some(("still-running", "what was sent last time has not ended")),
            Self::Sent { .. } | Self::Observed { .. } | Self::Failed { .. } => None,
        }
    }
}

/// A rule's newest images could not be sent.
#[derive(Debug, Error)]
#[error("rules that could not be reconciled: {0}")]
pub struct ReconcileError(String);

/// Why a rule could not be reconciled.
#[derive(Debug, Error)]
enum RuleError {
    #[error(transparent)]
    Images(#[from] ImagesError),
    #[error(transparent)]
    Ssm(#[from] SsmError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is known of a rule's last reconcile.
#[derive(Debug, Deserialize)]
struct Row {
    #[serde(default)]
    commands: Vec<String>,
    started_at: DateTime<Utc>,
}

/// Reconciles every rule; one that fails does not keep the others from theirs. A rule of which ECR names only some images is
/// sent those, and has failed.
///
/// Costs per rule, beside what ECR is asked, one BatchGetItem and one UpdateItem, a ListCommands for each command of the
/// last time, and one SendCommand and UpdateItem for as many images as fit: whatever the number of nodes. One
/// DescribeInstances tells whether the cluster has any.
///
/// # Errors
/// [`ReconcileError`] where a rule failed, after all were tried.
pub async fn reconcile(jobs: &Jobs, now: DateTime<Utc>) -> Result<Reconciliation, ReconcileError> {
    let mut reconciled = Vec::with_capacity(jobs.settings.shared.rules.len());
    let images = jobs.images.anew(LISTING);
    for rule in &jobs.settings.shared.rules {
        let decision = reconcile_rule(jobs, rule, &images, now).await.unwrap_or_else(|cause| {
            error!(
                rule = rule.name,
                reason = "aws-error",
                "rule {}: {}",
                rule.name,
                report(&cause)
            );
            let cause = cause.to_string();
            Decision::Failed { cause }
        });
        if let Some((reason, why)) = decision.why_nothing_is_sent() {
            info!(rule = rule.name, reason, "rule {} is left out: {why}", rule.name);
        }
        reconciled.push(Reconciled {
            rule: rule.name.clone(),
            decision,
        });
    }
    let no_nodes = warn_of_no_nodes(jobs).await;
    let failed: Vec<&str> = reconciled
        .iter()
        .filter(|reconciled| matches!(reconciled.decision, Decision::Failed { .. }))
        .map(|reconciled| reconciled.rule.as_str())
        .collect();
    if failed.is_empty() {
        Ok(Reconciliation {
            rules: reconciled,
            no_nodes,
        })
    } else {
        Err(ReconcileError(failed.join(", ")))
    }
}

/// Says that the cluster has no nodes, which is no fault: they may be scaled to nothing, or its name misspelt.
async fn warn_of_no_nodes(jobs: &Jobs) -> Option<NoNodes> {
    match no_nodes(jobs).await {
        Ok(no_nodes) => no_nodes.inspect(|none| warn!("{none}")),
        Err(error) => {
            warn!("{}", report(&error));
            None
        }
    }
}

async fn reconcile_rule(
    jobs: &Jobs,
    rule: &Rule,
    images: &NewestImages,
    now: DateTime<Utc>,
) -> Result<Decision, RuleError> {
    let key = Key::reconcile(&rule.name);
    let rows = table::read(&jobs.dynamodb, &jobs.settings.table, &[key.clone()].into()).await;
    let last: Option<Row> = rows.map_err(StoreError::Read)?.get(&key).map_err(StoreError::Row)?;
    if let Some(last) = &last
        && is_running(jobs, last, now).await?
    {
        return Ok(Decision::StillRunning);
    }
    let Newest { images, missing } = images.known_of_rule(rule, SystemTime::from(now)).await?;
    if images.is_empty() {
        return match missing {
            Some(cause) => Err(cause.into()),
            None => Ok(Decision::NoImages),
        };
    }
    if !take(jobs, &key, last.as_ref(), now).await? {
        return Ok(Decision::StillRunning);
    }
    let commands = send(jobs, rule, &images, &key, now).await?;
    if let Some(cause) = missing {
        leave(jobs, &key, now).await?;
        return Err(cause.into());
    }
    Ok(if jobs.sender.observes() {
        Decision::Observed { commands }
    } else {
        Decision::Sent { commands }
    })
}

/// Whether what was sent the last time has not ended, or another sends it now.
async fn is_running(jobs: &Jobs, last: &Row, now: DateTime<Utc>) -> Result<bool, SsmError> {
    if last.commands.is_empty() {
        return Ok(now - last.started_at < PATIENCE);
    }
    // What was observed never ran.
    for id in last.commands.iter().filter(|id| !is_observed_id(id)) {
        match ssm::command(&jobs.ssm, id).await {
            Ok(command) if ssm::has_ended(&command) || has_expired(&command, now) => {}
            Ok(_) => return Ok(true),
            Err(SsmError::NoCommand) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Whether SSM hands the command to nobody any more, whatever status it shows.
fn has_expired(command: &Command, now: DateTime<Utc>) -> bool {
    let expires_after = command.expires_after().and_then(|time| time.to_millis().ok());
    expires_after.is_some_and(|expires_after| expires_after < now.timestamp_millis())
}

/// Takes the right to send a rule's images, where nobody has taken it since its row was read.
async fn take(jobs: &Jobs, key: &Key, last: Option<&Row>, now: DateTime<Utc>) -> Result<bool, StoreError> {
    let mut values = HashMap::from([
        (":now".to_owned(), AttributeValue::S(text(now))),
        (":none".to_owned(), AttributeValue::L(Vec::new())),
        (":expires".to_owned(), expires_at(jobs, now)),
    ]);
    let condition = match last {
        None => "attribute_not_exists(pk)",
        Some(last) => {
            values.insert(":last".to_owned(), AttributeValue::S(text(last.started_at)));
            "started_at = :last"
        }
    };
    let request = jobs
        .dynamodb
        .update_item()
        .table_name(&jobs.settings.table)
        .set_key(Some(key.item()))
        .update_expression("SET started_at = :now, commands = :none, expires_at = :expires")
        .condition_expression(condition)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .set_expression_attribute_values(Some(values));
    match request.send().await {
        Ok(_) => Ok(true),
        Err(error) => match error.as_service_error() {
            // It may have been written at the SDK's first try, whose answer was lost.
            Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                let started_at = failed.item().and_then(|row| row.get("started_at"));
                Ok(started_at == Some(&AttributeValue::S(text(now))))
            }
            _ => Err(StoreError::Update(Box::new(error))),
        },
    }
}

/// Sends a rule's images to all its nodes, one command for as many as fit, and notes each: what was sent counts even where
/// the rest was not, and the next run waits for it.
async fn send(
    jobs: &Jobs,
    rule: &Rule,
    images: &[Image],
    key: &Key,
    now: DateTime<Utc>,
) -> Result<Vec<String>, RuleError> {
    let settings = &jobs.settings.shared;
    let comment = Comment::first(Trigger::Reconcile, rule);
    let mut commands = Vec::new();
    for images in images_of_commands(images) {
        let order = Order {
            rule,
            comment: &comment,
            images,
            destination: Destination::Selected(NodeSelector::new(&settings.cluster, rule)),
            occasion: &text(now),
        };
        match jobs.sender.send(settings, order, now).await {
            Ok(command) => {
                if !jobs.sender.observes() {
                    info!(
                        command.id = command,
                        rule = rule.name,
                        images = images.len(),
                        "sent {} images by rule {}",
                        images.len(),
                        rule.name
                    );
                }
                commands.push(command);
            }
            Err(error) => {
                if commands.is_empty() {
                    leave(jobs, key, now).await?;
                }
                return Err(error.into());
            }
        }
        let sent = commands.iter().cloned().map(AttributeValue::S).collect();
        note(jobs, key, "commands", AttributeValue::L(sent), now).await?;
    }
    Ok(commands)
}

/// Leaves a rule to the next try, which does not wait for what was sent: the rest is missing.
async fn leave(jobs: &Jobs, key: &Key, now: DateTime<Utc>) -> Result<(), StoreError> {
    note(jobs, key, "commands", AttributeValue::L(Vec::new()), now).await?;
    let long_ago = AttributeValue::S(text(now - PATIENCE));
    note(jobs, key, "started_at", long_ago, now).await
}

/// Changes the row of a rule that nobody else has taken since.
async fn note(jobs: &Jobs, key: &Key, name: &str, value: AttributeValue, now: DateTime<Utc>) -> Result<(), StoreError> {
    let request = jobs
        .dynamodb
        .update_item()
        .table_name(&jobs.settings.table)
        .set_key(Some(key.item()))
        .update_expression("SET #name = :value")
        .condition_expression("started_at = :now")
        .expression_attribute_names("#name", name)
        .expression_attribute_values(":value", value)
        .expression_attribute_values(":now", AttributeValue::S(text(now)));
    let answer = request.send().await;
    answer.map(drop).map_err(|error| StoreError::Update(Box::new(error)))
}

fn expires_at(jobs: &Jobs, now: DateTime<Utc>) -> AttributeValue {
    AttributeValue::N((now + jobs.settings.retention).timestamp().to_string())
}

/// A moment to the nanosecond: it also tells one run from another.
fn text(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Nanos, true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_sent_is_told_by_the_word_that_the_answer_has_and_in_words() {
        for decision in [Decision::NoImages, Decision::StillRunning] {
            let (reason, why) = decision.why_nothing_is_sent().unwrap();
            assert_eq!(json!(decision), json!({"decision": reason}));
            assert!(why.contains(' ') && !why.ends_with('.'), "{why}");
        }
        let sent = Decision::Sent {
            commands: vec!["e8d3c0e4-71f7-4491-898f-c9b35bee5f3b".to_owned()],
        };
        assert_eq!(sent.why_nothing_is_sent(), None);
    }
}
