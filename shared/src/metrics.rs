//! Metrics, in CloudWatch's embedded format: lines of a log that CloudWatch counts.

use chrono::{DateTime, SecondsFormat, Utc};
use metrique_writer::{
    Entry, EntryWriter, MetricFlags, Observation, Unit, Value, ValueWriter,
    format::Format,
    unit::{NegativeScale, PositiveScale},
};
use metrique_writer_format_emf::{Emf, MetricDefinition, MetricDirective};

use crate::log;

const NAMESPACE: &str = "EKSImagePrefetch";
const CLUSTER: &str = "ClusterName";
/// Limits how many values one metric of a line takes (CloudWatch, embedded metric format specification).
const MAX_VALUES: usize = 100;

/// Holds what every line of a function's metrics says.
#[derive(Clone, Debug)]
pub struct Metrics {
    cluster: String,
    level: String,
}

impl Metrics {
    /// Measures for this cluster, in lines of the least severe level that is logged: Lambda drops what is below it.
    #[must_use]
    pub fn new(cluster: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            level: log::level().to_string().to_uppercase(),
        }
    }

    /// Begins a line whose metrics count for the cluster.
    #[must_use]
    pub fn line(&self, now: DateTime<Utc>) -> Line<'_> {
        Line {
            common: self,
            now,
            names: Vec::new(),
            dimensions: vec![vec![CLUSTER]],
            also: Vec::new(),
            metrics: Vec::new(),
        }
    }
}

/// One line of metrics with its dimensions.
#[derive(Debug)]
pub struct Line<'a> {
    common: &'a Metrics,
    now: DateTime<Utc>,
    names: Vec<(&'static str, String)>,
    dimensions: Vec<Vec<&'static str>>,
    also: Vec<(&'static str, &'static [&'static str])>,
    metrics: Vec<Metric>,
}

/// A metric's name, values and unit.
#[derive(Debug)]
struct Metric(&'static str, Vec<f64>, Unit);

impl Line<'_> {
    /// Lets all its metrics count by these names together, beside for the cluster.
    #[must_use]
    pub fn by<const N: usize>(mut self, names: [(&'static str, String); N]) -> Self {
        let dimensions = names.iter().map(|(name, _)| *name);
        self.dimensions.push([CLUSTER].into_iter().chain(dimensions).collect());
        self.names.extend(names);
        self
    }

    /// Lets these of its metrics count by this name, too.
    pub fn also_by(&mut self, name: &'static str, value: String, metrics: &'static [&'static str]) {
        self.also.push((name, metrics));
        self.names.push((name, value));
    }

    /// Names what the line is about, by which nothing is counted.
    #[must_use]
    pub fn about(mut self, name: &'static str, value: &str) -> Self {
        self.names.push((name, value.to_owned()));
        self
    }

    /// Adds a number of things.
    pub fn count(&mut self, name: &'static str, number: u32) {
        self.metrics.push(Metric(name, vec![number.into()], Unit::Count));
    }

    /// Adds times in seconds, the first hundred of them.
    pub fn seconds(&mut self, name: &'static str, seconds: Vec<f64>) {
        self.values(name, seconds, Unit::Second(NegativeScale::One));
    }

    /// Adds sizes in bytes, the first hundred of them.
    pub fn bytes(&mut self, name: &'static str, bytes: Vec<f64>) {
        self.values(name, bytes, Unit::Byte(PositiveScale::One));
    }

    fn values(&mut self, name: &'static str, mut values: Vec<f64>, unit: Unit) {
        values.truncate(MAX_VALUES);
        if !values.is_empty() {
            self.metrics.push(Metric(name, values, unit));
        }
    }

    /// Writes the line, with its end; nothing where nothing is counted.
    ///
    /// # Panics
    /// Where two of its names or metrics are the same.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        if !self.metrics.is_empty() {
            let written = self.format().format(self, &mut text);
            written.expect("the line is valid and a buffer takes it");
        }
        String::from_utf8(text).expect("JSON is UTF-8")
    }

    /// Prints the line: Lambda takes stdout to the log, where CloudWatch counts.
    pub fn print(&self) {
        print!("{}", self.text());
    }

    fn format(&self) -> Emf {
        let owned = |names: &Vec<&str>| names.iter().map(ToString::to_string).collect();
        let mut format = Emf::builder(NAMESPACE.to_owned(), self.dimensions.iter().map(owned).collect());
        for (name, metrics) in &self.also {
            let definition = |name: &&'static str| MetricDefinition {
                name,
                unit: Unit::Count,
                storage_resolution: None,
            };
            format = format.directive(MetricDirective {
                dimensions: vec![vec![CLUSTER, *name]],
                metrics: metrics.iter().map(definition).collect(),
                namespace: NAMESPACE,
            });
        }
        format.build()
    }
}

impl Entry for Line<'_> {
    /// `timestamp` and `level` are Lambda's: without them it takes a line for INFO, and drops it where the function logs
    /// warnings only (Lambda developer guide, log-level filtering).
    fn write<'a>(&'a self, writer: &mut impl EntryWriter<'a>) {
        writer.timestamp(self.now.into());
        writer.value("timestamp", &self.now.to_rfc3339_opts(SecondsFormat::Millis, true));
        writer.value("level", &self.common.level);
        writer.value(CLUSTER, &self.common.cluster);
        for (name, value) in &self.names {
            writer.value(*name, value);
        }
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_line_counts_for_the_cluster_and_by_every_name_it_is_given() {
        let metrics = Metrics::new("prod");
        let names = [("Rule", "gpu".to_owned()), ("Trigger", "push".to_owned())];
        let mut line = metrics.line(now()).by(names).about("job.id", "e8d3c0e4");
        line.count("NodesFailed", 2);
        line.seconds("PullSeconds", vec![0.5, 1.5]);
        line.also_by("Reason", "denied".to_owned(), &["NodesFailed"]);
        let text = line.text();
        assert!(text.ends_with('\n') && text.lines().count() == 1);
        let line: Value = serde_json::from_str(&text).unwrap();
        let count = json!({"Name": "NodesFailed", "Unit": "Count"});
        let expected = json!([
            {"Namespace": "EKSImagePrefetch", "Dimensions": [["ClusterName"], ["ClusterName", "Rule", "Trigger"]],
                "Metrics": [count, {"Name": "PullSeconds", "Unit": "Seconds"}]},
            {"Namespace": "EKSImagePrefetch", "Dimensions": [["ClusterName", "Reason"]], "Metrics": [count]},
        ]);
        assert_eq!(line["_aws"]["CloudWatchMetrics"], expected);
        assert_eq!(line["_aws"]["Timestamp"], 1_763_258_094_000_i64);
        let said = ["ClusterName", "Rule", "Trigger", "Reason", "job.id", "level"].map(|name| line[name].clone());
        assert_eq!(
            json!(said),
            json!(["prod", "gpu", "push", "denied", "e8d3c0e4", "INFO"])
        );
        assert_eq!(line["NodesFailed"], 2);
    }

    #[test]
    fn a_line_that_counts_nothing_is_none() {
        let metrics = Metrics::new("prod");
        let mut line = metrics.line(now());
        line.seconds("PullSeconds", Vec::new());
        assert_eq!(line.text(), "");
        line.count("NodesWarm", 0);
        assert_ne!(line.text(), "");
    }

    #[test]
    fn a_metric_has_as_many_values_as_cloudwatch_takes() {
        let metrics = Metrics::new("prod");
        let mut line = metrics.line(now());
        line.bytes("PulledBytes", (0..200_u32).map(f64::from).collect());
        let line: Value = serde_json::from_str(&line.text()).unwrap();
        let values = &line["PulledBytes"]["Values"];
        assert_eq!(values.as_array().map(Vec::len), Some(MAX_VALUES), "{line}");
    }

    fn now() -> DateTime<Utc> {
        "2025-11-16T01:54:54Z".parse().unwrap()
    }
}
