//! What PagerDuty gets for a notification, and what its answers mean.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it should be"
)]

#[path = "data/answers.rs"]
mod answers;

use answers::TAKEN;
use pagerduty::PagerDuty;
use weir_handler::testing::{Answer, Cassette, answer, huge, notification, resolved};
use weir_handler::{Handler, Notification, Severity, open};
use weir_sdk::{Failure, FailureKind};

fn pagerduty(json: &str) -> PagerDuty {
    open(json).unwrap()
}

fn event(notification: &Notification) -> serde_json::Value {
    let far = Cassette::new([answer(202, TAKEN)]);
    pagerduty("{}").deliver(&far, notification, None).unwrap();
    far.seen().remove(0).body
}

fn refusal(answer: Answer) -> Failure {
    let far = Cassette::new([answer]);
    pagerduty("{}")
        .deliver(&far, &notification(), None)
        .unwrap_err()
}

#[test]
fn an_incident_is_triggered_and_resolved_under_one_key() {
    let far = Cassette::new([answer(202, TAKEN)]);
    let receipt = pagerduty("{}")
        .deliver(&far, &notification(), None)
        .unwrap();
    assert_eq!(receipt.as_deref(), Some("c0ffee-19aa"));
    assert_eq!(
        far.lines(),
        ["POST https://events.pagerduty.com/v2/enqueue"]
    );
    let seen = far.seen().remove(0);
    assert_eq!(seen.credential, None);
    assert_eq!(
        seen.body,
        serde_json::json!({
            "routing_key": "{{secret:pagerduty}}",
            "event_action": "trigger",
            "dedup_key": "c0ffee-19aa",
            "client": "weir",
            "client_url": "https://weir.example.net/",
            "payload": {
                "summary": "portrait failed",
                "source": "studio",
                "severity": "error",
                "timestamp": "2026-11-22T08:47:11.096Z",
                "group": "portrait",
                "class": "failed",
                "custom_details": {
                    "text": "portrait failed on studio\nRuntimeError: CUDA out of memory",
                    "labels": {"rule": "failed", "severity": "error", "source": "studio", "workflow": "portrait"},
                    "alerts": [{
                        "title": "portrait failed", "status": "firing", "count": 1,
                        "since": "2026-11-22T08:47:11.096Z",
                        "url": "https://weir.example.net/executions/0198",
                    }],
                },
            },
            "links": [{"href": "https://weir.example.net/executions/0198", "text": "Open in weir"}],
        })
    );
    let end = event(&resolved());
    assert_eq!(end["event_action"], "resolve");
    assert_eq!(end["dedup_key"], "c0ffee-19aa");
}

#[test]
fn severities_are_pagerdutys_own_words() {
    for (severity, word) in [
        (Severity::Info, "info"),
        (Severity::Warning, "warning"),
        (Severity::Error, "error"),
        (Severity::Critical, "critical"),
    ] {
        let told = event(&Notification {
            severity,
            ..notification()
        });
        assert_eq!(told["payload"]["severity"], word);
    }
}

#[test]
fn a_test_leaves_no_incident_open() {
    let far = Cassette::new([answer(202, TAKEN), answer(202, TAKEN)]);
    let test = Notification {
        test: true,
        ..notification()
    };
    pagerduty("{}").deliver(&far, &test, None).unwrap();
    let actions: Vec<_> = far
        .seen()
        .iter()
        .map(|seen| seen.body["event_action"].clone())
        .collect();
    assert_eq!(actions, ["trigger", "resolve"]);
}

#[test]
fn limits_are_kept() {
    let mut large = huge(20_000);
    let alert = large.alerts.remove(0);
    large.alerts = (0..3000)
        .map(|n| weir_handler::Alert {
            title: format!("{n} {}", "\u{1f600}".repeat(2000)),
            url: Some(format!("https://h/{}", "a".repeat(2000))),
            ..alert.clone()
        })
        .collect();
    large.common_annotations = (0..500)
        .map(|n| (format!("a{n}"), "\u{1f600}".repeat(3000)))
        .collect();
    large.key = format!("{}x", "k".repeat(500));
    let far = Cassette::new([answer(202, TAKEN)]);
    pagerduty("{}").deliver(&far, &large, None).unwrap();
    let seen = far.seen().remove(0);
    assert!(seen.len <= 512 * 1024 - 64, "{}", seen.len);
    let payload = &seen.body["payload"];
    let size = |value: &serde_json::Value| value.as_str().unwrap().encode_utf16().count();
    assert!(size(&payload["summary"]) <= 1024);
    assert!(size(&seen.body["dedup_key"]) <= 255);
    let told = payload["custom_details"]["alerts"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(
        payload["custom_details"]["more"],
        format!("+{} more", 3007 - told)
    );
    let other = Notification {
        key: format!("{}y", "k".repeat(500)),
        ..large
    };
    assert_ne!(event(&other)["dedup_key"], seen.body["dedup_key"]);
}

#[test]
fn pagerdutys_refusals_are_told_apart() {
    for (refusals, kind) in [
        (answers::MISCONFIGURED, FailureKind::Misconfigured),
        (answers::PERMANENT, FailureKind::Permanent),
        (answers::TRANSIENT, FailureKind::Transient),
    ] {
        for (status, body) in refusals {
            let failure = refusal(answer(*status, body));
            assert_eq!(failure.kind, Some(kind), "{status} {body}");
        }
    }
    let failure = refusal(answer(400, answers::WRONG_KEY));
    assert!(failure.message.contains("32 characters"));
    let busy = refusal(answer(429, "").header("retry-after", "7"));
    assert_eq!(busy.retry_after_ms, Some(7000));
}

#[test]
fn a_wrong_configuration_is_refused_by_name() {
    for (json, expected) in [
        (
            r#"{"routing_key": "x"}"#,
            "config.routing_key: unknown field",
        ),
        (r#"{"source": 1}"#, "config.source: invalid type"),
        (r#"{"credential": "a b"}"#, "config.credential: expected"),
        (r#"{"url": "x"}"#, "config.url: expected an absolute"),
    ] {
        let message = open::<PagerDuty>(json).unwrap_err().message;
        assert!(message.starts_with(expected), "{message}");
    }
    let eu = pagerduty(r#"{"url": "https://events.eu.pagerduty.com/", "source": "farm"}"#);
    let far = Cassette::new([answer(202, TAKEN)]);
    eu.deliver(&far, &notification(), None).unwrap();
    assert_eq!(
        far.lines(),
        ["POST https://events.eu.pagerduty.com/v2/enqueue"]
    );
    assert_eq!(far.seen()[0].body["payload"]["source"], "farm");
    assert!(serde_json::from_str::<serde_json::Value>(PagerDuty::CONFIG_SCHEMA).is_ok());
}
