//! Reconcile: every rule's newest images to every node in its scope, whatever became of events.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::{
    operation::update_item::{UpdateItemError, builders::UpdateItemFluentBuilder},
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use aws_sdk_ssm::types::Command;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures_util::{StreamExt, future::join_all, stream};
use prefetch::{
    aws,
    boot::Kept,
    command::{Comment, Destination, Trigger, images_of_commands, is_unsent_id},
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
use serde_dynamo::to_attribute_value;
use thiserror::Error;
use tracing::{error, info, warn};

use crate::{
    boot::{self, BootTurn},
    clusters::{NoNodes, no_nodes},
    handler::Jobs,
    idempotency::hash,
    store::StoreError,
};

/// After which time whoever reconciles a rule is dead: the function may run for 60 seconds, and Lambda's next try begins a
/// minute after its end.
const PATIENCE: TimeDelta = TimeDelta::seconds(60);

/// How long ECR is asked for all rules' newest images, of the function's 60 seconds.
const LISTING: Duration = Duration::from_secs(30);

/// How many commands are sent side by side, or asked about: fewer than the ten that SSM takes in a second.
const AT_ONCE: usize = 6;

/// What is left of the function's time when no more is sent: for the calls that are on their way, and to note them.
const SPARED: Duration = Duration::from_secs(10);

/// What of that is left to note what was sent.
const NOTING: Duration = Duration::from_secs(3);

/// Within which time a run is Lambda's next try of one whose listing lacked images, and sends only those: a minute after its
/// end, and two after that one's. Whatever runs later is the next reconcile.
const TRIES: TimeDelta = TimeDelta::minutes(15);

/// For how long the rest of a run whose time was up is gone on with: nodes that came since lack what was sent before.
const GOING_ON: TimeDelta = TimeDelta::hours(6);

/// Of how many of a run's last commands it is asked whether they have ended: those before end before them.
const ASKED: usize = 30;

/// What was decided of every rule, and that the cluster has no nodes, where it has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reconciliation {
    rules: Vec<Reconciled>,
    /// Tells what became of the rules' boot lists, where the stack keeps them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    boot: Vec<Kept>,
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

impl Reconciled {
    /// Names the rule where it failed.
    fn failed(&self) -> Option<String> {
        matches!(self.decision, Decision::Failed { .. }).then(|| self.rule.clone())
    }
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
    #[error("there is no time left, and not all was sent")]
    TooSlow,
}

/// What is known of a rule's last reconcile.
#[derive(Debug, Deserialize)]
struct Row {
    #[serde(default)]
    commands: Vec<String>,
    started_at: DateTime<Utc>,
    /// When the first of the runs began that have sent it.
    began_at: Option<DateTime<Utc>>,
    /// The images that its commands carry, by [`mark`], where something is left.
    #[serde(default)]
    sent: BTreeSet<String>,
    /// None in a row of an earlier release.
    state: Option<State>,
}

/// How far a rule's reconcile is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Somebody sends.
    Working,
    /// The time was up, or SSM took nothing: the next run goes on there.
    Stopped,
    /// ECR did not name all images, or SSM did not take all: Lambda's next try sends those.
    Partial,
    /// All was sent.
    Whole,
}

/// How a rule's last reconcile stands to this one.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// Another sends now.
    Taken,
    /// All was sent: this one begins anew once that has ended.
    Whole,
    /// The rest is to be sent, and nothing is waited for.
    Left,
}

impl Row {
    fn standing(&self, now: DateTime<Utc>) -> Standing {
        let age = now - self.began_at.unwrap_or(self.started_at);
        match self.state {
            None if !self.commands.is_empty() => Standing::Whole,
            // Whoever began it is at work, or died.
            None | Some(State::Working) if now - self.started_at < PATIENCE => Standing::Taken,
            None | Some(State::Working | State::Stopped) if age < GOING_ON => Standing::Left,
            Some(State::Partial) if age < TRIES => Standing::Left,
            _ => Standing::Whole,
        }
    }
}

/// Reconciles every rule; one that fails does not keep the others from theirs. A rule of which ECR names only some images is
/// sent those, and has failed.
///
/// A rule for which the time does not suffice has failed too, and the next run goes on there; rules of which something is left
/// come first, and then the one that was reconciled longest ago.
///
/// Costs one BatchGetItem, and per rule, beside what ECR is asked, two UpdateItems, a ListCommands for each command of the
/// last time, one SendCommand for as many images as fit and an UpdateItem for six of them: whatever the number of nodes. One
/// DescribeInstances tells whether the cluster has any.
///
/// # Errors
/// [`ReconcileError`] where a rule failed, after all were tried.
pub async fn reconcile(jobs: &Jobs, now: DateTime<Utc>) -> Result<Reconciliation, ReconcileError> {
    let rules = &jobs.settings.shared.rules;
    let images = jobs.images.anew(LISTING);
    let boot = BootTurn::begin(jobs).await;
    let mut turns = Vec::with_capacity(rules.len());
    for (place, rule) in rules.iter().enumerate() {
        turns.push((place, rule, read(jobs, rule).await));
    }
    turns.sort_by_key(|(_, _, last)| match last {
        Ok(Some(last)) => (last.standing(now) == Standing::Whole, Some(last.started_at)),
        _ => (false, None),
    });
    let mut reconciled = Vec::with_capacity(rules.len());
    for (place, rule, last) in turns {
        let decision = match last {
            Ok(last) => reconcile_rule(jobs, rule, last, &images, now).await,
            Err(error) => Err(error.into()),
        };
        let decision = decision.unwrap_or_else(|cause| {
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
        let rule = rule.name.clone();
        reconciled.push((place, Reconciled { rule, decision }));
    }
    reconciled.sort_by_key(|(place, _)| *place);
    let reconciled: Vec<Reconciled> = reconciled.into_iter().map(|(_, reconciled)| reconciled).collect();
    let boot = boot.end(jobs, &images, now).await;
    let no_nodes = warn_of_no_nodes(jobs).await;
    let of_rules = reconciled.iter().filter_map(Reconciled::failed);
    let failed: Vec<String> = of_rules.chain(boot.iter().filter_map(boot::failed)).collect();
    if failed.is_empty() {
        Ok(Reconciliation {
            rules: reconciled,
            boot,
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

/// Reads what is known of a rule's last reconcile.
async fn read(jobs: &Jobs, rule: &Rule) -> Result<Option<Row>, StoreError> {
    let key = Key::reconcile(&rule.name);
    let rows = table::read(&jobs.dynamodb, &jobs.settings.table, &[key.clone()].into()).await?;
    Ok(rows.get(&key)?)
}

async fn reconcile_rule(
    jobs: &Jobs,
    rule: &Rule,
    last: Option<Row>,
    images: &NewestImages,
    now: DateTime<Utc>,
) -> Result<Decision, RuleError> {
    let mut known = Known::default();
    let before = last.as_ref().map(|last| last.started_at);
    if let Some(last) = last {
        match last.standing(now) {
            Standing::Taken => return Ok(Decision::StillRunning),
            Standing::Whole if is_running(jobs, &last, now).await? => return Ok(Decision::StillRunning),
            Standing::Whole => {}
            Standing::Left => {
                known = Known {
                    began_at: last.began_at.or(Some(last.started_at)),
                    commands: last.commands,
                    sent: last.sent,
                };
            }
        }
    }
    let Newest { images, missing } = images.known_of_rule(rule, SystemTime::from(now)).await?;
    if images.is_empty() {
        return match missing {
            Some(cause) => Err(cause.into()),
            None => Ok(Decision::NoImages),
        };
    }
    let turn = Turn {
        jobs,
        key: Key::reconcile(&rule.name),
        now,
    };
    if aws::left().is_some_and(|left| left <= SPARED) {
        // Its row stays, so that its turn comes sooner.
        return Err(RuleError::TooSlow);
    }
    if !turn.take(before, &known).await? {
        return Ok(Decision::StillRunning);
    }
    let (mut state, mut failed) = send(&turn, rule, &images, &mut known).await;
    if state == State::Whole
        && let Some(cause) = missing
    {
        (state, failed) = (State::Partial, Some(cause.into()));
    }
    if state == State::Whole {
        // The next run begins anew.
        known.sent.clear();
    }
    let noted = turn.note(&known, state).await;
    failed.map_or(Ok(()), Err)?;
    noted?;
    let commands = known.commands;
    Ok(if jobs.sender.observes() {
        Decision::Observed { commands }
    } else {
        Decision::Sent { commands }
    })
}

/// Whether what was sent the last time has not ended; costs at most [`ASKED`] ListCommands.
async fn is_running(jobs: &Jobs, last: &Row, now: DateTime<Utc>) -> Result<bool, SsmError> {
    // What was observed never ran.
    let ids = last.commands.iter().rev().filter(|id| !is_unsent_id(id)).take(ASKED);
    let asked = stream::iter(ids.map(|id| ssm::command(&jobs.ssm, id)));
    let mut asked = std::pin::pin!(asked.buffer_unordered(AT_ONCE));
    while let Some(command) = asked.next().await {
        match command {
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

/// What was sent of a rule's reconcile, by this run and those whose rest it sends.
#[derive(Debug, Default)]
struct Known {
    /// When the first of them began; none where this one does.
    began_at: Option<DateTime<Utc>>,
    commands: Vec<String>,
    sent: BTreeSet<String>,
}

/// The right to send a rule's images, until another takes it.
struct Turn<'a> {
    jobs: &'a Jobs,
    key: Key,
    now: DateTime<Utc>,
}

impl Turn<'_> {
    /// Takes it, where nobody has since its row was read.
    async fn take(&self, before: Option<DateTime<Utc>>, known: &Known) -> Result<bool, StoreError> {
        let condition = if before.is_some() {
            "started_at = :before"
        } else {
            "attribute_not_exists(pk)"
        };
        let request = self
            .update(known, State::Working)
            .condition_expression(condition)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let request = match before {
            Some(before) => request.expression_attribute_values(":before", AttributeValue::S(text(before))),
            None => request,
        };
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                // It may have been written at the SDK's first try, whose answer was lost.
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                    let started_at = failed.item().and_then(|row| row.get("started_at"));
                    Ok(started_at == Some(&AttributeValue::S(text(self.now))))
                }
                _ => Err(StoreError::Update(Box::new(error))),
            },
        }
    }

    /// Notes what was sent so far, in the row that nobody else has taken since.
    async fn note(&self, known: &Known, state: State) -> Result<(), StoreError> {
        let request = self.update(known, state).condition_expression("started_at = :now");
        let answer = request.send().await;
        answer.map(drop).map_err(|error| StoreError::Update(Box::new(error)))
    }

    fn update(&self, known: &Known, state: State) -> UpdateItemFluentBuilder {
        self.jobs
            .dynamodb
            .update_item()
            .table_name(&self.jobs.settings.table)
            .set_key(Some(self.key.item()))
            .update_expression(
                "SET started_at = :now, began_at = :began, commands = :commands, sent = :sent, #state = :state, expires_at = :expires",
            )
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":now", AttributeValue::S(text(self.now)))
            .expression_attribute_values(":began", AttributeValue::S(text(known.began_at.unwrap_or(self.now))))
            .expression_attribute_values(":commands", list(&known.commands))
            .expression_attribute_values(":sent", list(&known.sent))
            .expression_attribute_values(":state", to_attribute_value(state).expect("it is a word"))
            .expression_attribute_values(":expires", expires_at(self.jobs, self.now))
    }
}

/// Sends those of a rule's images that are not known as sent to all its nodes, as many as fit by one command and some commands
/// side by side, and notes each: what was sent counts even where the rest was not.
///
/// Tells how far it came, with the first error: where SSM takes none of what is sent side by side, or the time is up, the rest
/// is left.
async fn send(turn: &Turn<'_>, rule: &Rule, images: &[Image], known: &mut Known) -> (State, Option<RuleError>) {
    let observes = turn.jobs.sender.observes();
    let mark = |image: &Image| mark(rule, image, observes);
    let left = images.iter().filter(|image| !known.sent.contains(&mark(image)));
    let left: Vec<Image> = left.cloned().collect();
    let commands: Vec<&[Image]> = images_of_commands(&left).collect();
    let mut groups = commands.chunks(AT_ONCE).peekable();
    let mut failed = None;
    while let Some(together) = groups.next() {
        if aws::left().is_some_and(|left| left <= SPARED) {
            return (State::Stopped, failed.or(Some(RuleError::TooSlow)));
        }
        let sends = together.iter().map(|images| send_one(turn, rule, images));
        let outcomes = aws::sparing(NOTING, join_all(sends)).await;
        let before = known.commands.len();
        for (outcome, images) in outcomes.into_iter().zip(together) {
            match outcome {
                Ok(command) => {
                    known.commands.push(command);
                    known.sent.extend(images.iter().map(&mark));
                }
                Err(error) => failed = failed.or(Some(error.into())),
            }
        }
        // What came last is noted with how it ended.
        if groups.peek().is_some() {
            if known.commands.len() == before {
                return (State::Stopped, failed);
            }
            if let Err(error) = turn.note(known, State::Working).await {
                return (State::Stopped, Some(error.into()));
            }
        }
    }
    let state = if failed.is_some() { State::Partial } else { State::Whole };
    (state, failed)
}

async fn send_one(turn: &Turn<'_>, rule: &Rule, images: &[Image]) -> Result<String, SendError> {
    let Turn { jobs, now, .. } = turn;
    let settings = &jobs.settings.shared;
    let order = Order {
        rule,
        comment: &Comment::first(Trigger::Reconcile, rule),
        images,
        destination: Destination::Selected(NodeSelector::new(&settings.cluster, rule)),
        occasion: &text(*now),
    };
    let command = jobs.sender.send(settings, order, *now).await?;
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
    Ok(command)
}

/// What an image is known by in a rule's row, which has room for 20,000 of them: 48 bits of its hash, with the nodes that it
/// went to and whether that was observed only.
fn mark(rule: &Rule, image: &Image, observes: bool) -> String {
    let nodes = format!("{:?}", rule.nodes);
    let mut hash = hash(&[&image.to_string(), &nodes, if observes { "observed" } else { "sent" }]);
    hash.truncate(8);
    hash
}

fn list<'a>(texts: impl IntoIterator<Item = &'a String>) -> AttributeValue {
    AttributeValue::L(texts.into_iter().cloned().map(AttributeValue::S).collect())
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
    fn the_rest_of_a_reconcile_is_gone_on_with_for_some_time_since_its_first_run() {
        let now = DateTime::from_timestamp_secs(1_000_000).unwrap();
        for (state, began, started, standing) in [
            (State::Working, 90, 30, Standing::Taken),
            (State::Working, 90, 61, Standing::Left),
            (State::Working, 7 * 3600, 61, Standing::Whole),
            (State::Stopped, 3600, 5, Standing::Left),
            (State::Stopped, 6 * 3600, 5, Standing::Whole),
            (State::Partial, 14 * 60, 60, Standing::Left),
            (State::Partial, 15 * 60, 60, Standing::Whole),
            (State::Whole, 60, 60, Standing::Whole),
        ] {
            let row = Row {
                commands: Vec::new(),
                started_at: now - TimeDelta::seconds(started),
                began_at: Some(now - TimeDelta::seconds(began)),
                sent: BTreeSet::new(),
                state: Some(state),
            };
            assert_eq!(row.standing(now), standing, "{state:?} {began} {started}");
        }
    }

    #[test]
    fn what_went_to_other_nodes_or_was_observed_only_is_not_known_as_sent() {
        let rules = |nodes| prefetch::rule::parse_rules(&format!(r#"[{{"name": "a", "nodes": {nodes}}}]"#)).unwrap();
        let digest = format!("sha256:{}", "0".repeat(64));
        let image = Image::new("registry.example", "app", Some("v1"), &digest).unwrap();
        let marks = [
            mark(&rules("{}")[0], &image, false),
            mark(&rules("{}")[0], &image, true),
            mark(&rules(r#"{"team": ["ml"]}"#)[0], &image, false),
        ];
        assert_eq!(marks.iter().collect::<BTreeSet<_>>().len(), 3);
    }

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
