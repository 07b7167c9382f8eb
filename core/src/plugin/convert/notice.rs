//! Notifications on their way into a guest.

use jiff::Timestamp;
use weir_model::alert::notification::{AlertStatus, Notification, NotifiedAlert, Severity};

use super::super::contract::bindings::exports::weir::plugin::alerts;
use super::super::text::clip;

const TEXT_BYTES_MAX: usize = 64 * 1024;

pub(in crate::plugin) fn notification_to_guest(
    notification: &Notification,
) -> alerts::Notification {
    let bounded = |text: &str| clip(text, TEXT_BYTES_MAX).to_owned();
    alerts::Notification {
        id: notification.id.clone(),
        key: notification.key.clone(),
        severity: severity_to_guest(notification.severity),
        title: bounded(&notification.title),
        text: bounded(&notification.text),
        test: notification.test,
        receiver: notification.receiver.clone(),
        status: status_to_guest(notification.status),
        group_labels: notification.group_labels.clone(),
        common_labels: notification.common_labels.clone(),
        common_annotations: notification.common_annotations.clone(),
        alerts: notification.alerts.iter().map(alert_to_guest).collect(),
        truncated: notification.truncated,
        external_url: notification.external_url.clone(),
    }
}

fn alert_to_guest(alert: &NotifiedAlert) -> alerts::Alert {
    alerts::Alert {
        fingerprint: alert.fingerprint.clone(),
        status: status_to_guest(alert.status),
        severity: severity_to_guest(alert.severity),
        title: alert.title.clone(),
        body: alert.body.clone(),
        labels: alert.labels.clone(),
        annotations: alert.annotations.clone(),
        since: time_to_guest(alert.since),
        ends: alert.ends.map(time_to_guest),
        count: alert.count,
        executions: alert.executions.clone(),
        url: alert.url.clone(),
    }
}

fn severity_to_guest(severity: Severity) -> alerts::Severity {
    match severity {
        Severity::Info => alerts::Severity::Info,
        Severity::Warning => alerts::Severity::Warning,
        Severity::Error => alerts::Severity::Error,
        Severity::Critical => alerts::Severity::Critical,
    }
}

fn status_to_guest(status: AlertStatus) -> alerts::Status {
    match status {
        AlertStatus::Firing => alerts::Status::Firing,
        AlertStatus::Resolved => alerts::Status::Resolved,
    }
}

fn time_to_guest(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}
