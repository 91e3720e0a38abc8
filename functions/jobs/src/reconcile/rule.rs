//! One rule's reconcile.

use std::time::SystemTime;

use aws_sdk_ssm::{Client, types::Command};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use prefetch::{
    command::is_unsent_id,
    ecr::{ImagesError, Newest},
    rule::Rule,
    rule_images::RuleImages,
    sender::Sender,
    settings::Settings,
    ssm::{self, SsmError},
};

use crate::{
    reconcile::{
        decision::RuleDecision,
        lease::{RuleLease, RuleProgress, RuleRow, RuleStanding, RuleState},
        names::NamedImageFinder,
        send::{RuleError, RuleSender, is_late},
    },
    store::Store,
};

/// Limits for how many commands SSM is asked side by side.
const AT_ONCE: usize = 6;
/// Limits for how many of a run's last commands SSM is asked if they have ended: those before end before them.
const MAX_COMMANDS: usize = 30;

/// Holds what one rule is reconciled with.
#[derive(Clone, Copy)]
pub struct RuleReconciler<'a> {
    pub sender: &'a Sender,
    pub ssm: &'a Client,
    pub store: &'a Store,
    pub settings: &'a Settings,
    pub names: NamedImageFinder<'a>,
}

impl RuleReconciler<'_> {
    /// Sends a rule's newest images, where nothing of its last reconcile is under way, and where it is known what its nodes run if
    /// it takes only what they use; `unresolved` is what went wrong with those that it names itself.
    ///
    /// # Errors
    /// [`RuleError`] where not all was sent.
    pub async fn reconcile(
        &self,
        rule: &Rule,
        (last, unresolved): (Option<RuleRow>, Option<ImagesError>),
        images: &RuleImages,
        now: DateTime<Utc>,
    ) -> Result<RuleDecision, RuleError> {
        let before = last.as_ref().map(|last| last.started_at);
        let Some(progress) = self.left(last, now).await? else {
            return Ok(RuleDecision::StillRunning);
        };
        let used = images.known_use(rule, SystemTime::from(now)).await?;
        // A stack that observes never hears of it, and tells what it would do where nothing is known.
        let is_unknown = rule.used && !used.is_known() && !self.sender.observes();
        let mut newest = if is_unknown {
            images.named_alone(rule, SystemTime::from(now)).await?
        } else {
            images.newest(rule, &used, SystemTime::from(now)).await?
        };
        newest.missing = newest.missing.or(unresolved);
        if newest.images.is_empty() {
            if is_unknown && newest.missing.is_none() {
                return Ok(RuleDecision::UsageUnknown);
            }
            return match newest.missing {
                Some(cause) => Err(cause.into()),
                None => Ok(RuleDecision::NoImages),
            };
        }
        if is_late() {
            // Its row stays, so that its turn comes sooner.
            return Err(RuleError::TooSlow);
        }
        match RuleLease::take(self.store, rule, before, &progress, now).await? {
            Some(lease) => self.send(rule, &lease, newest, progress).await,
            None => Ok(RuleDecision::StillRunning),
        }
    }

    /// Tells what was sent of the reconcile that goes on; none where the last one is under way.
    async fn left(&self, last: Option<RuleRow>, now: DateTime<Utc>) -> Result<Option<RuleProgress>, SsmError> {
        let Some(last) = last else {
            return Ok(Some(RuleProgress::default()));
        };
        Ok(match last.standing(now) {
            RuleStanding::Taken => None,
            RuleStanding::Whole if is_running(self.ssm, &last, now).await? => None,
            RuleStanding::Whole => Some(RuleProgress::default()),
            RuleStanding::Left => Some(RuleProgress {
                began_at: last.began_at.or(Some(last.started_at)),
                commands: last.commands,
                sent: last.sent,
            }),
        })
    }

    async fn send(
        &self,
        rule: &Rule,
        lease: &RuleLease<'_>,
        newest: Newest,
        mut progress: RuleProgress,
    ) -> Result<RuleDecision, RuleError> {
        let Newest { images, missing } = newest;
        let sender = RuleSender {
            sender: self.sender,
            settings: self.settings,
            lease,
            rule,
        };
        let (mut state, mut failed) = sender.send(&images, &mut progress).await;
        if state == RuleState::Whole
            && let Some(cause) = missing
        {
            (state, failed) = (RuleState::Partial, Some(cause.into()));
        }
        if state == RuleState::Whole {
            // The next run begins anew.
            progress.sent.clear();
        }
        let noted = lease.note(&progress, state).await;
        failed.map_or(Ok(()), Err)?;
        noted?;
        let commands = progress.commands;
        Ok(if self.sender.observes() {
            RuleDecision::Observed { commands }
        } else {
            RuleDecision::Sent { commands }
        })
    }
}

/// Returns true where what was sent the last time has not ended; costs at most [`MAX_COMMANDS`] ListCommands.
async fn is_running(ssm: &Client, last: &RuleRow, now: DateTime<Utc>) -> Result<bool, SsmError> {
    // What was observed never ran.
    let ids = last
        .commands
        .iter()
        .rev()
        .filter(|id| !is_unsent_id(id))
        .take(MAX_COMMANDS);
    let commands = stream::iter(ids.map(|id| ssm::command(ssm, id)));
    let mut commands = std::pin::pin!(commands.buffer_unordered(AT_ONCE));
    while let Some(command) = commands.next().await {
        match command {
            Ok(command) if ssm::has_ended(&command) || has_expired(&command, now) => {}
            Ok(_) => return Ok(true),
            Err(SsmError::NoCommand) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Returns true once SSM hands the command to nobody any more, whatever status it shows.
fn has_expired(command: &Command, now: DateTime<Utc>) -> bool {
    let expires_after = command.expires_after().and_then(|time| time.to_millis().ok());
    expires_after.is_some_and(|expires_after| expires_after < now.timestamp_millis())
}
