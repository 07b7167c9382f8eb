//! The message that `weir receiver test` sends.

use jiff::Timestamp;
use uuid::Uuid;
use weir_model::alert::notification::{AlertStatus, Notification, NotifiedAlert, Severity};

/// An alert about nothing, marked as a test in every way that a handler could show.
pub(super) fn notification(receiver: &str, url: &str, now: Timestamp) -> Notification {
    let id = Uuid::now_v7();
    let title = format!("Test from weir to {receiver}");
    let text = format!(
        "This is a test that somebody asked for with `weir receiver test {receiver}`. Nothing is wrong."
    );
    let labels = vec![
        ("rule".to_owned(), "weir_test".to_owned()),
        ("severity".to_owned(), "info".to_owned()),
    ];
    let alert = NotifiedAlert {
        fingerprint: id.simple().to_string(),
        status: AlertStatus::Firing,
        severity: Severity::Info,
        title: title.clone(),
        body: text.clone(),
        labels: labels.clone(),
        annotations: Vec::new(),
        since: now,
        ends: None,
        count: 1,
        executions: Vec::new(),
        url: Some(url.to_owned()),
    };
    Notification {
        id: format!("test-{id}-{receiver}"),
        key: format!("test-{id}"),
        severity: Severity::Info,
        title,
        text,
        test: true,
        receiver: receiver.to_owned(),
        status: AlertStatus::Firing,
        group_labels: Vec::new(),
        common_labels: labels,
        common_annotations: Vec::new(),
        alerts: vec![alert],
        truncated: 0,
        external_url: Some(url.to_owned()),
    }
}
