//! Observations: what a source saw of the provider's jobs, before weir believes any of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a job is, in the provider's own words mapped onto ours (`job-state` of `wit/plugin.wit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    Pending,
    Queued,
    Initializing,
    Running,
    Completing,
    Paused,
    Cancelling,
    Completed,
    Partial,
    Failed,
    Cancelled,
    Timeout,
}

/// Where a step is (`step-state` of `wit/plugin.wit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    Pending,
    Running,
    Completed,
    Failed,
    Skipped,
    Cancelled,
}

/// One stage of a job: a ComfyUI node, a pipeline task, a training phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobStep {
    /// The provider's id of the step, unique within its job.
    pub id: String,
    pub name: String,
    pub state: StepState,
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    /// Units of work done, of `total`.
    pub done: Option<f64>,
    pub total: Option<f64>,
    pub error: Option<String>,
}

/// The full current view of one job. It replaces what weir knew, so duplicates and reordering are harmless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The provider's own id.
    pub id: String,
    /// Tells two runs under one id apart, where a provider allows that.
    pub run: Option<String>,
    /// Key of the workflow this job is a run of; none = the source's own name.
    pub workflow: Option<String>,
    pub state: JobState,
    pub name: Option<String>,
    /// Place in the provider's queue, 0 = next.
    pub position: Option<u32>,
    pub created: Option<Timestamp>,
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    pub steps: Vec<JobStep>,
    pub error: Option<String>,
    /// Low-cardinality facts: machine, gpu, region, model.
    pub labels: Vec<(String, String)>,
    /// A JSON object of whatever else is worth showing; `{}` for none.
    pub detail: String,
}

/// Progress alone: droppable, the last one per job and step is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobProgress {
    pub id: String,
    pub run: Option<String>,
    pub step: Option<String>,
    pub done: f64,
    pub total: Option<f64>,
    pub note: Option<String>,
}

/// One run of a job at one source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobRef {
    pub id: String,
    pub run: Option<String>,
}

/// A value of the provider's own that rises and falls. It is fit to be a sample of a metric: whoever holds one need not check it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gauge {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// The rule that a gauge broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GaugeError {
    #[error("the name of a gauge is not [a-z][a-z0-9_]*, of at most 100 bytes")]
    Name,
    #[error(
        "the name of a gauge ends as that of another kind of metric (_total, _count, _sum, _bucket)"
    )]
    Suffix,
    #[error("a gauge has more than 8 labels")]
    Labels,
    #[error(
        "a label of a gauge is `source`, is there twice or is not [a-z][a-z0-9_]*, of at most 100 bytes"
    )]
    Label,
    #[error("the value of a gauge's label has more than 200 bytes or control characters")]
    LabelValue,
    #[error("the value of a gauge is not finite")]
    Value,
}

const GAUGE_NAME_BYTES_MAX: usize = 100;
const GAUGE_LABELS_MAX: usize = 8;
const LABEL_VALUE_BYTES_MAX: usize = 200;
/// What the text format of Prometheus puts behind the names of other kinds.
const OTHER_KINDS: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];
/// The label by which weir tells sources apart.
const SOURCE_LABEL: &str = "source";

impl Gauge {
    /// `name`: with its base unit. The order of `labels` means nothing.
    pub fn new(
        name: String,
        mut labels: Vec<(String, String)>,
        value: f64,
    ) -> Result<Gauge, GaugeError> {
        if !is_metric_name(&name) {
            return Err(GaugeError::Name);
        }
        if OTHER_KINDS.iter().any(|suffix| name.ends_with(suffix)) {
            return Err(GaugeError::Suffix);
        }
        if labels.len() > GAUGE_LABELS_MAX {
            return Err(GaugeError::Labels);
        }
        labels.sort();
        let is_twice = labels.windows(2).any(|pair| pair[0].0 == pair[1].0);
        let is_name = |label: &str| is_metric_name(label) && label != SOURCE_LABEL;
        if is_twice || !labels.iter().all(|(label, _)| is_name(label)) {
            return Err(GaugeError::Label);
        }
        let is_value =
            |text: &str| text.len() <= LABEL_VALUE_BYTES_MAX && !text.contains(char::is_control);
        if !labels.iter().all(|(_, text)| is_value(text)) {
            return Err(GaugeError::LabelValue);
        }
        if !value.is_finite() {
            return Err(GaugeError::Value);
        }
        Ok(Gauge {
            name,
            labels,
            value,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sorted by name, each once.
    pub fn labels(&self) -> &[(String, String)] {
        &self.labels
    }

    pub fn value(&self) -> f64 {
        self.value
    }

    /// Whether both are the same series: one replaces the other.
    pub fn is_series_of(&self, other: &Gauge) -> bool {
        self.name == other.name && self.labels == other.labels
    }
}

fn is_metric_name(name: &str) -> bool {
    let is_rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() <= GAUGE_NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(is_rest)
}

/// One thing a source saw.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    Job(Box<Job>),
    Progress(JobProgress),
    /// The provider no longer knows it.
    Gone(JobRef),
    Gauge(Gauge),
}

/// What one page of a poll says about the jobs it did not mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Ask again at once: the round goes on.
    More,
    /// The round is over; jobs that it did not mention are as they were.
    Partial,
    /// The round is over and named every unfinished job.
    Complete,
}

/// What one poll returned.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    pub observations: Vec<Observation>,
    /// Stored once every observation of the page is durable.
    pub cursor: Option<String>,
    pub coverage: Coverage,
}

/// What the host shall do about a failed call, not what went wrong (`failure-kind` of `wit/plugin.wit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Try again with backoff.
    Transient,
    /// This input can never succeed.
    Permanent,
    /// Stop calling until configuration or credentials change.
    Misconfigured,
    /// No such job or alert on the far side.
    NotFound,
    Unsupported,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_fit_to_be_a_sample_of_a_metric_or_it_is_none() {
        let made = |name: &str, labels: &[(&str, &str)], value: f64| {
            let labels = labels
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
            Gauge::new(name.to_owned(), labels.collect(), value)
        };
        let gauge = made(
            "gpu_memory_used_bytes",
            &[("model", "A \"b\""), ("device", "cuda:0")],
            1.5,
        );
        let gauge = gauge.expect("all of it is right");
        assert_eq!(gauge.labels()[0].0, "device", "sorted");
        let other = made(
            "gpu_memory_used_bytes",
            &[("device", "cuda:0"), ("model", "A \"b\"")],
            7.0,
        );
        assert!(gauge.is_series_of(&other.expect("the same labels")));
        let (long, many) = (
            "x".repeat(101),
            ["a", "b", "c", "d", "e", "f", "g", "h", "i"],
        );
        let many: Vec<(&str, &str)> = many.iter().map(|name| (*name, "")).collect();
        type Labels<'a> = &'a [(&'a str, &'a str)];
        let cases: [(&str, Labels<'_>, f64, GaugeError); 14] = [
            ("", &[], 0.0, GaugeError::Name),
            (&long, &[], 0.0, GaugeError::Name),
            ("Gpu_bytes", &[], 0.0, GaugeError::Name),
            ("1_bytes", &[], 0.0, GaugeError::Name),
            ("a\nweir_source_up 1", &[], 0.0, GaugeError::Name),
            ("requests_total", &[], 0.0, GaugeError::Suffix),
            ("x_bucket", &[], 0.0, GaugeError::Suffix),
            ("x_bytes", &many, 0.0, GaugeError::Labels),
            ("x_bytes", &[("source", "b")], 0.0, GaugeError::Label),
            ("x_bytes", &[("__name__", "b")], 0.0, GaugeError::Label),
            ("x_bytes", &[("a", "b"), ("a", "c")], 0.0, GaugeError::Label),
            (
                "x_bytes",
                &[("a", "b\u{1b}[31m")],
                0.0,
                GaugeError::LabelValue,
            ),
            ("x_bytes", &[], f64::NAN, GaugeError::Value),
            ("x_bytes", &[], f64::INFINITY, GaugeError::Value),
        ];
        for (name, labels, value, error) in cases {
            assert_eq!(
                made(name, labels, value),
                Err(error),
                "{name} {labels:?} {value}"
            );
        }
    }
}
