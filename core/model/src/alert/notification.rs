//! Notifications: one message to one receiver about one group of alerts (the model of Alertmanager's webhook v4).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Error,
    Critical,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertStatus {
    Firing,
    Resolved,
}

/// One alert as a receiver is shown it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotifiedAlert {
    /// Identity of the alert: the hash of its labels.
    pub fingerprint: String,
    pub status: AlertStatus,
    pub severity: Severity,
    pub title: String,
    pub body: String,
    pub labels: Vec<(String, String)>,
    pub annotations: Vec<(String, String)>,
    pub since: Timestamp,
    pub ends: Option<Timestamp>,
    /// How often it happened since it fired.
    pub count: u32,
    /// Executions it is about, newest first.
    pub executions: Vec<String>,
    pub url: Option<String>,
}

/// One message. `deliver` in `wit/plugin.wit` takes exactly this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// One message: new for every update and resolve, the same for its retries.
    pub id: String,
    /// The group's whole life at this receiver: what `prior` belongs to.
    pub key: String,
    /// The worst of `alerts`.
    pub severity: Severity,
    /// One line, ready to send.
    pub title: String,
    /// Plain text, ready to send.
    pub text: String,
    /// Sent by `weir receiver test`.
    pub test: bool,
    pub receiver: String,
    pub status: AlertStatus,
    pub group_labels: Vec<(String, String)>,
    pub common_labels: Vec<(String, String)>,
    pub common_annotations: Vec<(String, String)>,
    pub alerts: Vec<NotifiedAlert>,
    /// Alerts left out because the group is too large.
    pub truncated: u32,
    pub external_url: Option<String>,
}
