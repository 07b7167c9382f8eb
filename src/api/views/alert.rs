//! Alerts, their deliveries and mutes as clients see them.

use super::{Time, object};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;
use weir_core::journal::{AlertRow, OutboxRow};
use weir_model::alert::mute::{Mute, MuteScope};
use weir_model::alert::notification::{AlertStatus, Severity};

#[derive(Debug, Serialize)]
pub struct AlertView {
    pub id: Uuid,
    pub fingerprint: String,
    pub rule: String,
    pub severity: &'static str,
    pub status: &'static str,
    pub title: String,
    pub body: String,
    pub labels: Map<String, Value>,
    pub annotations: Map<String, Value>,
    pub since: Time,
    pub ends: Option<Time>,
    pub updated_at: Time,
    pub count: i64,
    /// Newest first.
    pub executions: Vec<Uuid>,
    pub acknowledged_by: Option<String>,
    pub acknowledged_at: Option<Time>,
    pub deliveries: Vec<DeliveryView>,
    pub url: String,
}

#[derive(Debug, Serialize)]
pub struct DeliveryView {
    pub id: i64,
    pub receiver: String,
    pub state: &'static str,
    pub attempts: u32,
    pub created_at: Time,
    pub updated_at: Time,
    pub next_attempt_at: Option<Time>,
    pub answer: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct MuteView {
    pub id: String,
    pub receiver: Option<String>,
    /// A workflow's key.
    pub workflow: Option<String>,
    pub source: Option<String>,
    pub until: Time,
    pub by: String,
    pub comment: Option<String>,
}

/// Between who muted and why.
const SIGNATURE: &str = " – ";

pub fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
        Severity::Critical => "critical",
    }
}

pub fn alert_status(status: AlertStatus) -> &'static str {
    match status {
        AlertStatus::Firing => "firing",
        AlertStatus::Resolved => "resolved",
    }
}

impl AlertView {
    pub fn new(row: &AlertRow, deliveries: Vec<DeliveryView>, base_url: &str) -> AlertView {
        AlertView {
            id: row.uuid,
            fingerprint: row.fingerprint.clone(),
            rule: row.rule.clone(),
            severity: severity(row.severity),
            status: alert_status(row.status),
            title: row.title.clone(),
            body: row.body.clone(),
            labels: object(&row.labels),
            annotations: object(&row.annotations),
            since: row.since.into(),
            ends: row.ends.map(Time),
            updated_at: row.updated_at.into(),
            count: row.count,
            executions: row.executions.clone(),
            acknowledged_by: row.acknowledged_by.clone(),
            acknowledged_at: row.acknowledged_at.map(Time),
            deliveries,
            url: format!("{base_url}/alerts/{}", row.uuid),
        }
    }
}

impl DeliveryView {
    pub fn new(row: &OutboxRow) -> DeliveryView {
        DeliveryView {
            id: row.id,
            receiver: row.receiver.clone(),
            state: row.state.as_str(),
            attempts: row.attempts,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            next_attempt_at: row.next_attempt_at.map(Time),
            answer: row.answer.clone(),
        }
    }
}

impl MuteView {
    pub fn new(mute: &Mute) -> MuteView {
        let (by, comment) = match mute.created_by.split_once(SIGNATURE) {
            Some((by, comment)) => (by, Some(comment.to_owned())),
            None => (mute.created_by.as_str(), None),
        };
        let mut view = MuteView {
            id: mute.id.clone(),
            receiver: None,
            workflow: None,
            source: None,
            until: mute.until.into(),
            by: by.to_owned(),
            comment,
        };
        match &mute.scope {
            MuteScope::Receiver(name) => view.receiver = Some(name.clone()),
            MuteScope::Workflow(key) => view.workflow = Some(key.clone()),
            MuteScope::Source(name) => view.source = Some(name.clone()),
        }
        view
    }

    /// Who muted and why, as a mute keeps it.
    pub fn signed(by: String, comment: Option<String>) -> String {
        match comment {
            Some(comment) => format!("{}{SIGNATURE}{comment}", by.replace(SIGNATURE, " - ")),
            None => by,
        }
    }

    /// As mutes are written: `receiver=phone`.
    pub fn scope(&self) -> String {
        let named = [
            ("receiver", &self.receiver),
            ("workflow", &self.workflow),
            ("source", &self.source),
        ];
        let named = named
            .into_iter()
            .filter_map(|(what, name)| name.as_ref().map(|name| format!("{what}={name}")));
        named.collect::<Vec<_>>().join(", ")
    }
}
