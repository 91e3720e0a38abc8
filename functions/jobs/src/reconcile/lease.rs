//! The lease of a rule: who sends its images, and what is noted of it.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::{
    operation::update_item::{UpdateItemError, builders::UpdateItemFluentBuilder},
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use chrono::{DateTime, TimeDelta, Utc};
use prefetch::{
    lease::{is_live, stamp},
    rows::Key,
    rule::Rule,
};
use serde::{Deserialize, Serialize};
use serde_dynamo::to_attribute_value;

use crate::store::{Store, StoreError};

/// Sets within which time a run is Lambda's next try of one whose listing lacked images, and sends only those: a minute
/// after its end, and two after that one's. Whatever runs later is the next reconcile.
const TRIES: TimeDelta = TimeDelta::minutes(15);

/// Sets for how long the rest of a run whose time was up is gone on with: nodes that came since lack what was sent before.
const GOING_ON: TimeDelta = TimeDelta::hours(6);

/// Holds what is known of a rule's last reconcile.
#[derive(Debug, Deserialize)]
pub struct RuleRow {
    #[serde(default)]
    pub commands: Vec<String>,
    pub started_at: DateTime<Utc>,
    /// Tells when the first of the runs began that have sent it.
    pub began_at: Option<DateTime<Utc>>,
    /// The marks of the images that its commands carry, where something is left.
    #[serde(default)]
    pub sent: BTreeSet<String>,
    /// None in a row of an earlier release.
    state: Option<RuleState>,
}

/// Tells how far a rule's reconcile is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleState {
    /// Somebody sends.
    Working,
    /// The time was up, or SSM took nothing: the next run goes on there.
    Stopped,
    /// ECR did not name all images, or SSM did not take all: Lambda's next try sends those.
    Partial,
    /// All was sent.
    Whole,
}

/// Tells how a rule's last reconcile stands to this one.
#[derive(Debug, PartialEq, Eq)]
pub enum RuleStanding {
    /// Another sends now.
    Taken,
    /// All was sent: this one begins anew once that has ended.
    Whole,
    /// The rest is to be sent, and nothing is waited for.
    Left,
}

impl RuleRow {
    /// Tells how the reconcile stands to one that begins now.
    pub fn standing(&self, now: DateTime<Utc>) -> RuleStanding {
        let age = now - self.began_at.unwrap_or(self.started_at);
        match self.state {
            None if !self.commands.is_empty() => RuleStanding::Whole,
            // Whoever began it is at work, or died.
            None | Some(RuleState::Working) if is_live(self.started_at, now) => RuleStanding::Taken,
            None | Some(RuleState::Working | RuleState::Stopped) if age < GOING_ON => RuleStanding::Left,
            Some(RuleState::Partial) if age < TRIES => RuleStanding::Left,
            _ => RuleStanding::Whole,
        }
    }
}

/// Tells what was sent of a rule's reconcile, by this run and those whose rest it sends.
#[derive(Debug, Default)]
pub struct RuleProgress {
    /// Tells when the first of them began; none where this one does.
    pub began_at: Option<DateTime<Utc>>,
    pub commands: Vec<String>,
    pub sent: BTreeSet<String>,
}

/// Gives the right to send a rule's images, until another takes it.
pub struct RuleLease<'a> {
    store: &'a Store,
    key: Key,
    pub now: DateTime<Utc>,
}

impl<'a> RuleLease<'a> {
    /// Reads what is known of a rule's last reconcile.
    ///
    /// # Errors
    /// [`StoreError`] where it could not be read or understood.
    pub async fn read(store: &Store, rule: &Rule) -> Result<Option<RuleRow>, StoreError> {
        let key = Key::reconcile(&rule.name);
        let rows = store.read(&[key.clone()].into()).await?;
        Ok(rows.get(&key)?)
    }

    /// Takes it, where nobody has since its row was read.
    ///
    /// # Errors
    /// [`StoreError::Update`] where it could not be written.
    pub async fn take(
        store: &'a Store,
        rule: &Rule,
        before: Option<DateTime<Utc>>,
        progress: &RuleProgress,
        now: DateTime<Utc>,
    ) -> Result<Option<Self>, StoreError> {
        let key = Key::reconcile(&rule.name);
        let lease = Self { store, key, now };
        let condition = if before.is_some() {
            "started_at = :before"
        } else {
            "attribute_not_exists(pk)"
        };
        let request = lease
            .update(progress, RuleState::Working)
            .condition_expression(condition)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let request = match before {
            Some(before) => request.expression_attribute_values(":before", AttributeValue::S(stamp(before))),
            None => request,
        };
        let Err(error) = request.send().await else {
            return Ok(Some(lease));
        };
        match error.as_service_error() {
            // It may have been written at the SDK's first try, whose answer was lost.
            Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                let started_at = failed.item().and_then(|row| row.get("started_at"));
                Ok((started_at == Some(&AttributeValue::S(stamp(now)))).then_some(lease))
            }
            _ => Err(StoreError::Update(Box::new(error))),
        }
    }

    /// Notes what was sent so far, in the row that nobody else has taken since.
    ///
    /// # Errors
    /// [`StoreError::Update`] where it could not be written.
    pub async fn note(&self, progress: &RuleProgress, state: RuleState) -> Result<(), StoreError> {
        let request = self.update(progress, state).condition_expression("started_at = :now");
        let answer = request.send().await;
        answer.map(drop).map_err(|error| StoreError::Update(Box::new(error)))
    }

    fn update(&self, progress: &RuleProgress, state: RuleState) -> UpdateItemFluentBuilder {
        let began_at = progress.began_at.unwrap_or(self.now);
        self.store
            .update(&self.key)
            .update_expression(
                "SET started_at = :now, began_at = :began, commands = :commands, sent = :sent, #state = :state, expires_at = :expires",
            )
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":now", AttributeValue::S(stamp(self.now)))
            .expression_attribute_values(":began", AttributeValue::S(stamp(began_at)))
            .expression_attribute_values(":commands", list(&progress.commands))
            .expression_attribute_values(":sent", list(&progress.sent))
            .expression_attribute_values(":state", to_attribute_value(state).expect("it is a word"))
            .expression_attribute_values(":expires", self.store.expires_at(self.now))
    }
}

fn list<'a>(texts: impl IntoIterator<Item = &'a String>) -> AttributeValue {
    AttributeValue::L(texts.into_iter().cloned().map(AttributeValue::S).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_reconcile_is_gone_on_with_for_some_time_since_its_first_run() {
        let now = DateTime::from_timestamp_secs(1_000_000).unwrap();
        for (state, began, started, standing) in [
            (RuleState::Working, 90, 30, RuleStanding::Taken),
            (RuleState::Working, 90, 61, RuleStanding::Left),
            (RuleState::Working, 7 * 3600, 61, RuleStanding::Whole),
            (RuleState::Stopped, 3600, 5, RuleStanding::Left),
            (RuleState::Stopped, 6 * 3600, 5, RuleStanding::Whole),
            (RuleState::Partial, 14 * 60, 60, RuleStanding::Left),
            (RuleState::Partial, 15 * 60, 60, RuleStanding::Whole),
            (RuleState::Whole, 60, 60, RuleStanding::Whole),
        ] {
            let row = RuleRow {
                commands: Vec::new(),
                started_at: now - TimeDelta::seconds(started),
                began_at: Some(now - TimeDelta::seconds(began)),
                sent: BTreeSet::new(),
                state: Some(state),
            };
            assert_eq!(row.standing(now), standing, "{state:?} {began} {started}");
        }
    }
}
