//! Metrics, in CloudWatch's embedded format: lines of a log that CloudWatch counts.

use chrono::{DateTime, SecondsFormat, Utc};
use metrique_writer::{
    Entry, EntryWriter, MetricFlags, Observation, Unit, Value, ValueWriter,
    format::Format,
    unit::{NegativeScale, PositiveScale},
};
use metrique_writer_format_emf::{Emf, MetricDefinition, MetricDirective};
use prefetch::{
    command::Trigger,
    outcome::{Status, is_known},
};

use crate::{finding::Job, fold::Node, settings::Settings, unit::NodeChange};

const NAMESPACE: &str = "EKSImagePrefetch";
const SECONDS: Unit = Unit::Second(NegativeScale::One);
const BYTES: Unit = Unit::Byte(PositiveScale::One);
/// How many values one metric of a line takes (CloudWatch, embedded metric format specification).
const MAX_VALUES: usize = 100;

/// Writes the metrics of a node's change as a line; nothing where nothing is to be counted.
///
/// A node counts once among pulled, cached, skipped or failed, when no further try is to come; a further try counts when it
/// is queued. A skipped or failed node counts under one reason, that of the worst of its images.
pub fn of_node(change: &NodeChange, is_queued: bool, settings: &Settings, now: DateTime<Utc>) -> String {
    let mut line = Line::new(&change.job, settings, now);
    line.node = Some(&change.node);
    line.take_pulls(change);
    if is_queued {
        line.count("NodesRetried");
    }
    if let Some(end) = new_end(change) {
        line.count(match end {
            Status::Pulled => "NodesPulled",
            Status::Cached => "NodesCached",
            Status::Skipped => "NodesSkipped",
            Status::Failed => "NodesFailed",
        });
        if end.is_warm() {
            let seconds = change.job.seconds_until(change.after.ended_at);
            line.metrics.push(Metric("TimeToWarm", vec![seconds], SECONDS));
        } else {
            line.reason = Some(reason(&change.after));
        }
    }
    line.text()
}

/// Writes that a job's first command matched no node as a line; nothing where it matched some, or reconciled: a pool that is
/// scaled to nothing is reconciled every hour.
pub fn of_targets(job: &Job, count: u32, settings: &Settings, now: DateTime<Utc>) -> String {
    let mut line = Line::new(job, settings, now);
    if count == 0 && job.trigger != Trigger::Reconcile {
        line.count("CommandsWithoutNodes");
    }
    line.text()
}

/// How the node ended, where it had not ended so before; that it is pulled where it was cached is no news, or the reverse.
fn new_end(change: &NodeChange) -> Option<Status> {
    let end = |node: &Node| (!node.retrying).then(|| node.status());
    let after = end(&change.after)?;
    let before = change.before.as_ref().and_then(end);
    let is_known = before.is_some_and(|before| before == after || before.is_warm() && after.is_warm());
    (!is_known).then_some(after)
}

/// The reason of the worst of a node's images, as a dimension: words that no document of ours knows are one.
fn reason(node: &Node) -> &str {
    let worst = node.images.values().filter(|outcome| outcome.status == node.status());
    let reason = worst.map(|outcome| outcome.reason.as_str()).min();
    reason.filter(|reason| is_known(reason)).unwrap_or("other")
}

/// One line of metrics with its dimensions.
struct Line<'a> {
    job: &'a Job,
    settings: &'a Settings,
    now: DateTime<Utc>,
    node: Option<&'a str>,
    reason: Option<&'a str>,
    metrics: Vec<Metric>,
}

/// A metric's name, values and unit.
struct Metric(&'static str, Vec<f64>, Unit);

impl<'a> Line<'a> {
    fn new(job: &'a Job, settings: &'a Settings, now: DateTime<Utc>) -> Self {
        Self {
            job,
            settings,
            now,
            node: None,
            reason: None,
            metrics: Vec::new(),
        }
    }

    fn count(&mut self, name: &'static str) {
        self.metrics.push(Metric(name, vec![1.0], Unit::Count));
    }

    fn take_pulls(&mut self, change: &NodeChange) {
        let is_new = |image| change.known(image).is_none_or(|known| known.status != Status::Pulled);
        let pulled = change
            .changed()
            .filter(|(image, outcome)| outcome.status == Status::Pulled && is_new(image));
        #[allow(clippy::cast_precision_loss, reason = "metrics are floats")]
        let (seconds, bytes): (Vec<f64>, Vec<f64>) = pulled
            .take(MAX_VALUES)
            .map(|(_, outcome)| (outcome.seconds, outcome.bytes as f64))
            .unzip();
        if !seconds.is_empty() {
            self.metrics.push(Metric("PullSeconds", seconds, SECONDS));
            self.metrics.push(Metric("PulledBytes", bytes, BYTES));
        }
    }

    fn text(&self) -> String {
        let mut text = Vec::new();
        if !self.metrics.is_empty() {
            let mut format = format(self.reason.is_some());
            format
                .format(self, &mut text)
                .expect("the line is valid and a buffer takes it");
        }
        String::from_utf8(text).expect("JSON is UTF-8")
    }
}

impl Entry for Line<'_> {
    /// `timestamp` and `level` are Lambda's: without them it takes a line for INFO, and drops it where the function logs
    /// warnings only (Lambda developer guide, log-level filtering).
    fn write<'a>(&'a self, writer: &mut impl EntryWriter<'a>) {
        writer.timestamp(self.now.into());
        writer.value("timestamp", &self.now.to_rfc3339_opts(SecondsFormat::Millis, true));
        writer.value("level", &self.settings.log_level);
        writer.value("ClusterName", &self.settings.cluster);
        writer.value("Rule", &self.job.rule);
        writer.value("Trigger", &self.job.trigger.to_string());
        writer.value("Reason", &self.reason);
        writer.value("job.id", &self.job.id);
        writer.value("instance.id", &self.node);
        for metric in &self.metrics {
            writer.value(metric.0, metric);
        }
    }
}

impl Value for Metric {
    fn write(&self, writer: impl ValueWriter) {
        let Self(_, values, unit) = self;
        let values = values.iter().map(|value| Observation::Floating(*value));
        writer.metric(values, *unit, [], MetricFlags::empty());
    }
}

/// The format: every metric for the cluster, and for the rule and trigger; where a reason is given, nodes by reason.
fn format(with_reason: bool) -> Emf {
    let sets = [&["ClusterName"][..], &["ClusterName", "Rule", "Trigger"]];
    let sets = sets.map(|set| set.iter().map(ToString::to_string).collect());
    let format = Emf::builder(NAMESPACE.to_owned(), sets.to_vec());
    if !with_reason {
        return format.build();
    }
    let metrics = ["NodesSkipped", "NodesFailed"].map(|name| MetricDefinition {
        name,
        unit: Unit::Count,
        storage_resolution: None,
    });
    format
        .directive(MetricDirective {
            dimensions: vec![vec!["ClusterName", "Reason"]],
            metrics: metrics.to_vec(),
            namespace: NAMESPACE,
        })
        .build()
}
