//! What the daemon's JSON says, as far as the command line shows it. Unknown fields are ignored, missing ones are none.

use crate::cli::human::Local;
use crate::gauges::Shown;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Execution {
    pub id: String,
    pub execution_seq: u64,
    pub imported: bool,
    pub workflow_name: Option<String>,
    pub execution_number: Option<u64>,
    pub source: Option<String>,
    pub external_id: Option<String>,
    pub run: Option<Value>,
    pub name: Option<String>,
    pub status: String,
    pub stale_since: Option<Timestamp>,
    pub suspect: Option<Value>,
    pub attempt: Option<u64>,
    pub corrected: Option<Value>,
    pub progress: Option<f64>,
    pub estimated: bool,
    pub position: Option<u64>,
    pub note: Option<String>,
    pub first_seen_at: Option<Timestamp>,
    pub created_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub duration: Option<f64>,
    pub queue_wait: Option<f64>,
    pub error_message: Option<String>,
    pub steps_total: Option<u64>,
    pub steps_done: Option<u64>,
    pub url: Option<String>,
    pub step_executions: Vec<Step>,
    pub retried_from: Option<String>,
    pub retried_as: Option<String>,
    pub cancel_requested_at: Option<Timestamp>,
    /// Newest first.
    pub control: Vec<Request>,
}

/// What was asked of a provider, and where that stands.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Request {
    pub id: String,
    pub action: String,
    pub state: String,
    pub settled: bool,
    pub source: Option<String>,
    pub new_execution: Option<String>,
    pub reason: Option<String>,
    pub answer_status: Option<u16>,
}

impl Request {
    /// `refused: this plugin cannot retry`.
    pub fn told(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{}: {reason}", self.state),
            None => self.state.clone(),
        }
    }
}

impl Execution {
    /// Whether something is still expected to happen.
    pub fn is_active(&self) -> bool {
        ACTIVE.contains(&self.status.as_str())
    }

    pub fn is_waiting(&self) -> bool {
        matches!(self.status.as_str(), "pending" | "queued" | "initializing")
    }

    /// `portrait #12`.
    pub fn title(&self) -> String {
        let name = self.workflow_name.as_deref().or(self.name.as_deref());
        let name = name.unwrap_or("unnamed");
        match self.execution_number {
            Some(number) => format!("{name} #{number}"),
            None => name.to_owned(),
        }
    }

    /// What is said about it beside its status: the error, the note, or its place in the queue.
    pub fn remark(&self) -> String {
        let doubt = match (&self.stale_since, &self.suspect) {
            (Some(_), _) => "no contact; ",
            (None, Some(Value::Bool(true) | Value::String(_) | Value::Object(_))) => "in doubt; ",
            _ => "",
        };
        let text = self.error_message.clone().or_else(|| self.note.clone());
        let text = text.or_else(|| {
            let position = self.position.filter(|_| self.is_waiting())?;
            Some(match position {
                0 => "next in the queue".to_owned(),
                ahead => format!("{ahead} ahead in the queue"),
            })
        });
        let text = format!("{doubt}{}", text.unwrap_or_default());
        text.trim_end_matches("; ").to_owned()
    }
}

/// Statuses in which something is still expected to happen.
pub const ACTIVE: [&str; 7] = [
    "running",
    "completing",
    "cancelling",
    "paused",
    "initializing",
    "queued",
    "pending",
];

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Step {
    pub step_id: Option<String>,
    pub index: Option<u64>,
    pub name: Option<String>,
    pub status: String,
    pub progress: Option<f64>,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub duration: Option<f64>,
    pub error_message: Option<String>,
}

impl Step {
    pub fn title(&self) -> String {
        let name = self.name.as_deref().or(self.step_id.as_deref());
        name.unwrap_or("unnamed").to_owned()
    }
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Source {
    pub name: String,
    pub plugin_name: Option<String>,
    pub status: String,
    pub stale_since: Option<Timestamp>,
    pub last_error: Option<String>,
    pub last_poll_at: Option<Timestamp>,
    pub last_ok_at: Option<Timestamp>,
    pub poll_duration: Option<f64>,
    pub open_jobs: Option<u64>,
    pub polls: Option<u64>,
    pub failures: Option<u64>,
    pub control: bool,
    pub rung: Option<String>,
    pub stream: Option<Stream>,
    pub gauges: Vec<Gauge>,
    pub notice: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Gauge {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Gauge {
    pub fn shown(&self) -> Shown<'_> {
        let labels = self.labels.iter();
        Shown {
            name: &self.name,
            labels: labels
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            value: self.value,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Stream {
    pub state: String,
    pub since: Option<Timestamp>,
    pub reconnects: Option<u64>,
    pub frames: Option<u64>,
    pub dropped: Option<u64>,
    pub last_error: Option<String>,
}

impl Stream {
    /// What is wrong with it, if something is.
    pub fn trouble(&self) -> Option<String> {
        if matches!(self.state.as_str(), "connected" | "") {
            return None;
        }
        Some(match &self.last_error {
            Some(error) => format!("stream {}: {error}", self.state),
            None => format!("stream {}", self.state),
        })
    }
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct LogLine {
    pub time: Option<Timestamp>,
    pub origin: String,
    pub text: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Alert {
    pub id: String,
    pub fingerprint: Option<Value>,
    pub rule: Option<String>,
    pub severity: String,
    pub status: String,
    pub title: Option<String>,
    pub body: Option<String>,
    pub since: Option<Timestamp>,
    pub ends: Option<Timestamp>,
    pub count: Option<u64>,
    pub executions: Vec<Value>,
    pub acknowledged_by: Option<String>,
    pub acknowledged_at: Option<Timestamp>,
    pub labels: BTreeMap<String, String>,
    pub deliveries: Vec<Delivery>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Delivery {
    pub receiver: String,
    pub state: String,
    pub attempts: Option<u64>,
    pub next_attempt_at: Option<Timestamp>,
    pub answer: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Mute {
    pub id: Value,
    pub receiver: Option<String>,
    pub workflow: Option<String>,
    pub source: Option<String>,
    pub until: Option<Timestamp>,
    pub by: Option<String>,
    pub comment: Option<String>,
}

impl Mute {
    /// `source studio`.
    pub fn what(&self) -> String {
        let parts = [
            ("receiver", &self.receiver),
            ("workflow", &self.workflow),
            ("source", &self.source),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter_map(|(kind, name)| Some(format!("{kind} {}", name.as_ref()?)))
            .collect();
        if parts.is_empty() {
            "everything".to_owned()
        } else {
            parts.join(", ")
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Event {
    pub seq: u64,
    #[serde(rename = "type")]
    pub kind: String,
    pub time: Option<Timestamp>,
    pub workflow: Option<Named>,
    pub execution: Option<EventExecution>,
    pub step: Option<Named>,
    pub data: Value,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Named {
    pub name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct EventExecution {
    pub id: String,
    pub execution_seq: u64,
    pub external_id: Option<String>,
    pub source: Option<String>,
    pub number: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Status {
    pub version: String,
    pub origin: Option<String>,
    pub started_at: Option<Timestamp>,
    pub uptime: Option<f64>,
    pub now: Option<Timestamp>,
    pub data_dir: Option<String>,
    pub public_url: Option<String>,
    pub journal: Journal,
    pub sources: Vec<Source>,
    pub executions: Counts,
    pub alerts: AlertCounts,
    pub mutes: Vec<Mute>,
    pub reload: Option<Reload>,
    pub warnings: Vec<Warning>,
}

/// What needs an operator.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Warning {
    pub subject: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Journal {
    pub state: String,
    pub reason: Option<String>,
    pub head: u64,
    pub durability: Option<String>,
    pub size_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Counts {
    pub running: u64,
    pub queued: u64,
    pub by_status: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct AlertCounts {
    pub firing: u64,
    pub by_severity: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Reload {
    pub ok: bool,
    pub at: Option<Timestamp>,
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Plugin {
    pub name: String,
    pub plugin: Option<String>,
    pub role: Option<String>,
    pub state: String,
    pub version: Option<String>,
    pub strikes: Option<u64>,
    pub last_crash: Option<Value>,
}

/// Who is told.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Receiver {
    pub name: String,
    pub handler: String,
    pub status: String,
    pub parked: Option<String>,
    pub given_up: u64,
    pub last_failure_at: Option<Timestamp>,
    pub last_failure: Option<String>,
    pub plugin: Option<Value>,
}

impl Receiver {
    /// Why it takes nothing, or what it did not take.
    pub fn trouble(&self, local: &Local) -> Option<String> {
        if let Some(parked) = &self.parked {
            return Some(parked.clone());
        }
        let at = self.last_failure_at?;
        let given_up = match self.given_up {
            0 => String::new(),
            n => format!("{n} given up; "),
        };
        let said = self.last_failure.as_deref().unwrap_or("no reason known");
        Some(format!("{given_up}last failed {}: {said}", local.ago(at)))
    }
}

/// What came of a test of a receiver.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct ReceiverTest {
    pub receiver: String,
    pub delivered: bool,
    pub answer: String,
    pub receipt: Option<String>,
    pub failure: Option<String>,
    pub advice: Option<String>,
    pub retry_after: Option<f64>,
    pub took: Option<f64>,
}
