//! Metrics, in CloudWatch's embedded format: lines of a log that CloudWatch counts.

use chrono::{DateTime, SecondsFormat, Utc};
use metrique_writer::{
    Entry, EntryWriter, MetricFlags, Observation, Value, ValueWriter,
    format::Format,
    unit::{NegativeScale, PositiveScale},
};
use metrique_writer_format_emf::{Emf, MetricDefinition, MetricDirective};

use crate::command::Trigger;

pub use metrique_writer::Unit;

const NAMESPACE: &str = "EKSImagePrefetch";
/// The unit of durations.
pub const SECONDS: Unit = Unit::Second(NegativeScale::One);
/// The unit of sizes.
pub const BYTES: Unit = Unit::Byte(PositiveScale::One);
/// How many values one metric of a line takes (CloudWatch, embedded metric format specification).
pub const MAX_VALUES: usize = 100;

/// One line of metrics with its dimensions.
#[derive(Debug)]
pub struct Line<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// The rule's name.
    pub rule: &'a str,
    /// What made the job necessary.
    pub trigger: Trigger,
    /// The job's id.
    pub job: &'a str,
    /// The node's instance id, of a line that is about one.
    pub node: Option<&'a str>,
    /// The reason for which nodes are skipped or failed.
    pub reason: Option<&'a str>,
    /// The least severe level that the function logs.
    pub level: &'a str,
    /// The moment.
    pub now: DateTime<Utc>,
    /// The metrics.
    pub metrics: Vec<Metric>,
}

/// A metric's name, values and unit.
#[derive(Debug)]
pub struct Metric(pub &'static str, pub Vec<f64>, pub Unit);

impl Line<'_> {
    /// Counts one.
    pub fn count(&mut self, name: &'static str) {
        self.metrics.push(Metric(name, vec![1.0], Unit::Count));
    }

    /// Writes the line; nothing where nothing is counted.
    ///
    /// # Panics
    /// Where a metric's name or value is none.
    #[must_use]
    pub fn text(&self) -> String {
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
        writer.value("level", self.level);
        writer.value("ClusterName", self.cluster);
        writer.value("Rule", self.rule);
        writer.value("Trigger", &self.trigger.to_string());
        writer.value("Reason", &self.reason);
        writer.value("job.id", self.job);
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
