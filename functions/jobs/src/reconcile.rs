//! Reconcile: every rule's newest images to every node in its scope, whatever became of events.

mod boot;
mod decision;
mod inventory;
mod lease;
pub mod names;
pub mod rule;
mod send;

use std::time::Duration;

use aws_sdk_ec2::Client;
use chrono::{DateTime, Utc};
use prefetch::{
    boot::BootLists, ecr::ImagesError, error_text::error_text, node::Cluster, rule::Rule, rule_images::RuleImages,
};
use thiserror::Error;
use tracing::{error, info, warn};

use crate::{
    nodes::clusters::{NoNodes, no_nodes},
    reconcile::{
        boot::BootTurn,
        decision::{Reconciled, Reconciliation, RuleDecision},
        inventory::ask_for_inventory,
        lease::{RuleLease, RuleRow, RuleStanding},
        rule::RuleReconciler,
        send::RuleError,
    },
    store::StoreError,
};

/// Sets how long ECR is asked for all rules' newest images, of the function's 60 seconds.
const LISTING: Duration = Duration::from_secs(30);

/// Holds what a reconcile works with.
#[derive(Clone, Copy)]
pub struct Reconciler<'a> {
    pub ec2: &'a Client,
    pub images: &'a RuleImages,
    /// The boot lists, where the stack keeps them.
    pub boot: Option<&'a BootLists>,
    pub rules: RuleReconciler<'a>,
}

/// Names the rules of which not all images could be sent, and why.
#[derive(Debug, Error)]
#[error("rules that could not be reconciled: {0}")]
pub struct ReconcileError(String);

/// Holds a rule, its place among the rules, and what is known of its last reconcile.
type Turn<'a> = (usize, &'a Rule, Result<Option<RuleRow>, StoreError>);

/// Reconciles every rule; one that fails does not keep the others from theirs. A rule of which ECR names only some images is
/// sent those, and has failed.
///
/// A rule for which the time does not suffice has failed too, and the next run goes on there; rules of which something is left
/// come first, and then the one that was reconciled longest ago.
///
/// Costs one BatchGetItem, and per rule, beside what ECR is asked, two UpdateItems, a ListCommands for each command of the
/// last time, one SendCommand for as many images as fit and an UpdateItem for six of them; where the rule goes by what its nodes
/// run, also a SendCommand that has them tell, and a Query: whatever the number of nodes. One DescribeInstances tells whether the
/// cluster has any.
///
/// # Errors
/// [`ReconcileError`] where a rule failed, after all were tried.
pub async fn reconcile(reconciler: &Reconciler<'_>, now: DateTime<Utc>) -> Result<Reconciliation, ReconcileError> {
    let settings = reconciler.rules.settings;
    let images = reconciler.images.anew(LISTING);
    let boot = BootTurn::begin(reconciler.boot).await;
    let mut rules = Vec::with_capacity(settings.rules.len());
    let mut unresolved = reconciler.rules.names.find_all(&settings.rules, now).await;
    for (place, rule, last) in turns(&reconciler.rules, now).await {
        let known = last.map(|last| (last, unresolved.remove(&rule.name)));
        let decision = reconcile_rule(&reconciler.rules, rule, known, &images, now).await;
        let rule = rule.name.clone();
        rules.push((place, Reconciled { rule, decision }));
    }
    rules.sort_by_key(|(place, _)| *place);
    let reconciliation = Reconciliation {
        rules: rules.into_iter().map(|(_, reconciled)| reconciled).collect(),
        boot: boot.end(settings, &images, now).await,
        no_nodes: warn_of_no_nodes(reconciler.ec2, &settings.cluster).await,
    };
    let of_rules = reconciliation.rules.iter().filter_map(Reconciled::failed);
    let of_boot = reconciliation.boot.iter().filter_map(boot::failed);
    let failed: Vec<String> = of_rules.chain(of_boot).collect();
    if failed.is_empty() {
        Ok(reconciliation)
    } else {
        Err(ReconcileError(failed.join(", ")))
    }
}

/// Orders the rules: those of which something is left come first, and then the one that was reconciled longest ago.
async fn turns<'a>(rules: &RuleReconciler<'a>, now: DateTime<Utc>) -> Vec<Turn<'a>> {
    let mut turns = Vec::with_capacity(rules.settings.rules.len());
    for (place, rule) in rules.settings.rules.iter().enumerate() {
        turns.push((place, rule, RuleLease::read(rules.store, rule).await));
    }
    turns.sort_by_key(|(_, _, last)| match last {
        Ok(Some(last)) => (last.standing(now) == RuleStanding::Whole, Some(last.started_at)),
        _ => (false, None),
    });
    turns
}

/// Has a rule's nodes tell what they run, reconciles the rule, and logs why nothing is sent where nothing is.
async fn reconcile_rule(
    rules: &RuleReconciler<'_>,
    rule: &Rule,
    known: Result<(Option<RuleRow>, Option<ImagesError>), StoreError>,
    images: &RuleImages,
    now: DateTime<Utc>,
) -> RuleDecision {
    let asked = ask_for_inventory(rules.sender, rules.settings, rule, now).await;
    let decision = match known {
        Ok(known) => rules.reconcile(rule, known, images, now).await,
        Err(error) => Err(error.into()),
    };
    let decision = decision.unwrap_or_else(|cause| failed(rule, &cause));
    let decision = match asked {
        Ok(()) => decision,
        Err(cause) if decision == RuleDecision::UsageUnknown => failed(rule, &cause.into()),
        Err(cause) => {
            warn!(
                rule = rule.name,
                "rule {}: its nodes were not asked what they run: {}",
                rule.name,
                error_text(&cause)
            );
            decision
        }
    };
    if let Some((reason, why)) = decision.why_nothing_is_sent() {
        info!(rule = rule.name, reason, "rule {} is left out: {why}", rule.name);
    }
    decision
}

fn failed(rule: &Rule, cause: &RuleError) -> RuleDecision {
    error!(
        rule = rule.name,
        reason = cause.reason(),
        "rule {}: {}",
        rule.name,
        error_text(cause)
    );
    RuleDecision::Failed {
        cause: cause.to_string(),
    }
}

/// Says that the cluster has no nodes, which is no fault: they may be scaled to nothing, or its name misspelt.
async fn warn_of_no_nodes(ec2: &Client, cluster: &Cluster) -> Option<NoNodes> {
    match no_nodes(ec2, cluster).await {
        Ok(no_nodes) => no_nodes.inspect(|none| warn!("{none}")),
        Err(error) => {
            warn!("{}", error_text(&error));
            None
        }
    }
}
