//! Metrics: what became of nodes, as lines for the log.

use chrono::{DateTime, Utc};
use prefetch::{
    command::Trigger,
    metrics::Line,
    outcome::{Status, is_known},
    usage_line::UsageTotals,
};

use crate::{
    node_state::{NodeChange, NodeState, applicable},
    observation::{Job, NodeUsage},
    settings::Settings,
};

/// Writes the metrics of a node's change as a line; nothing where nothing is to be counted.
///
/// A node counts once among pulled, cached, skipped or failed, when no retry is to come; a retry counts when it is
/// queued. A skipped or failed node counts under one reason, that of the worst of its images. One that is none of the
/// job counts nowhere, and none whose command was best effort: it lacks nothing, whatever came of it. `totals` are those of its
/// reports.
pub fn of_node(
    change: &NodeChange,
    is_queued: bool,
    totals: &[UsageTotals],
    settings: &Settings,
    now: DateTime<Utc>,
) -> String {
    let mut line = line(&change.job, settings, now).about("instance.id", &change.node);
    take_pulls(change, &mut line);
    take_usage(totals, &mut line);
    if is_queued {
        line.count("NodesRetried", 1);
    }
    if let Some(end) = new_end(change).filter(|_| !change.job.trigger.is_best_effort()) {
        let name = match end {
            Status::Pulled => "NodesPulled",
            Status::Cached => "NodesCached",
            Status::Skipped => "NodesSkipped",
            Status::Failed => "NodesFailed",
        };
        line.count(name, 1);
        if end.is_warm() {
            let seconds = change.job.seconds_until(change.after.ended_at);
            line.seconds("TimeToWarm", vec![seconds]);
        } else {
            let reason = reason(&change.after).to_owned();
            line.also_by("Reason", reason, &["NodesSkipped", "NodesFailed"]);
        }
    }
    line.text()
}

/// Writes that a job's first command matched no node as a line; nothing where it matched some, or reconciled: a pool that is
/// scaled to nothing is reconciled every hour.
pub fn of_targets(job: &Job, count: u32, settings: &Settings, now: DateTime<Utc>) -> String {
    let mut line = line(job, settings, now);
    if count == 0 && job.trigger != Trigger::Reconcile {
        line.count("CommandsWithoutNodes", 1);
    }
    line.text()
}

/// Writes the metrics of an inventory as a line; nothing where no pod has been made and no image used first.
pub fn of_inventory(usage: &NodeUsage, settings: &Settings, now: DateTime<Utc>) -> String {
    let mut line = line(&usage.job, settings, now).about("instance.id", &usage.node);
    take_usage(usage.totals.as_slice(), &mut line);
    line.text()
}

fn line<'a>(job: &Job, settings: &'a Settings, now: DateTime<Utc>) -> Line<'a> {
    let names = [("Rule", job.rule.clone()), ("Trigger", job.trigger.to_string())];
    settings.metrics.line(now).by(names).about("job.id", &job.id)
}

fn take_pulls(change: &NodeChange, line: &mut Line<'_>) {
    let is_new = |image| change.known(image).is_none_or(|known| known.status != Status::Pulled);
    let pulled = change
        .changed()
        .filter(|(image, outcome)| outcome.status == Status::Pulled && is_new(image));
    #[allow(clippy::cast_precision_loss, reason = "metrics are floats")]
    let (seconds, bytes): (Vec<f64>, Vec<f64>) = pulled
        .map(|(_, outcome)| (outcome.seconds, outcome.bytes as f64))
        .unzip();
    line.seconds("PullSeconds", seconds);
    line.bytes("PulledBytes", bytes);
}

fn take_usage(totals: &[UsageTotals], line: &mut Line<'_>) {
    let pod_images = totals.iter().map(|totals| totals.pod_images).sum();
    if pod_images > 0 {
        line.count("PodImages", pod_images);
        let present = totals.iter().map(|totals| totals.pod_images_present).sum();
        line.count("PodImagesPresent", present);
    }
    let first_used = totals.iter().map(|totals| totals.first_used_bytes);
    #[allow(clippy::cast_precision_loss, reason = "metrics are floats")]
    let first_used = first_used
        .filter(|bytes| *bytes > 0)
        .map(|bytes| bytes as f64)
        .collect();
    line.bytes("FirstUsedBytes", first_used);
}

/// Tells how the node ended, where it had not ended so before; that it is pulled where it was cached is no news, or the reverse.
fn new_end(change: &NodeChange) -> Option<Status> {
    let end = |node: &NodeState| (!node.retrying && !node.is_not_applicable()).then(|| node.status());
    let after = end(&change.after)?;
    let before = change.before.as_ref().and_then(end);
    let is_known = before.is_some_and(|before| before == after || before.is_warm() && after.is_warm());
    (!is_known).then_some(after)
}

/// Gives the reason of the worst of the images that a node can hold, as a dimension: words that no document of ours knows are one.
fn reason(node: &NodeState) -> &str {
    let worst = applicable(&node.images).filter(|outcome| outcome.status == node.status());
    let reason = worst.map(|outcome| outcome.reason.as_str()).min();
    reason.filter(|reason| is_known(reason)).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::{
        cloud::{Cloud, Invocation, event_of, now, totals},
        event::{Body, Payload},
        observation::observe,
    };

    async fn of_inventory_that_says(said: String) -> String {
        let cloud = Cloud::new();
        cloud.send(
            1,
            "inventory rule=gpu attempt=1",
            &[],
            [(1, Invocation::reporting(said))],
        );
        let settings = &cloud.result.settings;
        let event = serde_json::from_str(&event_of(1, 1)).unwrap();
        let Payload::Message(message) = Payload::read(event, &settings.document) else {
            panic!("it is one message")
        };
        let Body::CommandEnded(event) = message.body else {
            panic!("it is the end of a command")
        };
        let observed = observe(&cloud.result.ssm, &BTreeSet::from([event])).await;
        of_inventory(&observed.usage[0], settings, now())
    }

    #[tokio::test]
    async fn an_inventory_counts_the_images_of_pods_by_its_rule() {
        let line: Value = serde_json::from_str(&of_inventory_that_says(totals(4, 0, 0)).await).unwrap();
        let said = ["Rule", "Trigger"].map(|name| line[name].as_str().unwrap());
        assert_eq!(said, ["gpu", "inventory"]);
        assert_eq!((&line["PodImages"], &line["PodImagesPresent"]), (&4.into(), &0.into()));
        assert_eq!(line.get("FirstUsedBytes"), None);
        assert_eq!(of_inventory_that_says(totals(0, 0, 0)).await, "");
    }
}
