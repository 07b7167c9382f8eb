//! What an Apprise API server gets for a notification, and what its answers mean.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it should be"
)]

use apprise::Apprise;
use weir_handler::testing::{Answer, Cassette, answer, huge, notification, resolved};
use weir_handler::{Handler, Notification, Severity, open};
use weir_sdk::{Failure, FailureKind};

const CONFIG: &str = r#"{"url": "http://apprise.local:8000/", "key": "renders"}"#;

fn apprise(json: &str) -> Apprise {
    open(json).unwrap()
}

fn refusal(answer: Answer) -> Failure {
    let far = Cassette::new([answer]);
    apprise(CONFIG)
        .deliver(&far, &notification(), None)
        .unwrap_err()
}

#[test]
fn a_message_goes_to_the_services_of_a_key() {
    let far = Cassette::new([answer(200, r#"{"error": "", "details": []}"#)]);
    apprise(r#"{"url": "http://apprise.local:8000/", "key": "renders", "tag": "ops", "credential": "door"}"#)
        .deliver(&far, &notification(), None)
        .unwrap();
    let seen = far.seen().remove(0);
    assert_eq!(
        far.lines(),
        ["POST http://apprise.local:8000/notify/renders"]
    );
    assert_eq!(seen.credential.as_deref(), Some("door"));
    assert_eq!(
        seen.body,
        serde_json::json!({
            "title": "portrait failed",
            "body": "portrait failed on studio\nRuntimeError: CUDA out of memory\nhttps://weir.example.net/executions/0198",
            "type": "failure",
            "format": "text",
            "tag": "ops",
        })
    );
}

#[test]
fn or_to_urls_that_are_a_secret() {
    let far = Cassette::new([answer(200, "Notification(s) sent.")]);
    apprise(r#"{"url": "http://apprise.local:8000", "urls_credential": "services"}"#)
        .deliver(&far, &notification(), None)
        .unwrap();
    assert_eq!(far.lines(), ["POST http://apprise.local:8000/notify"]);
    assert_eq!(far.seen()[0].body["urls"], "{{secret:services}}");
}

#[test]
fn the_type_follows_what_happened() {
    for (severity, word) in [
        (Severity::Info, "info"),
        (Severity::Warning, "warning"),
        (Severity::Error, "failure"),
        (Severity::Critical, "failure"),
    ] {
        let far = Cassette::new([answer(200, "")]);
        let told = Notification {
            severity,
            ..notification()
        };
        apprise(CONFIG).deliver(&far, &told, None).unwrap();
        assert_eq!(far.seen()[0].body["type"], word);
    }
    let far = Cassette::new([answer(200, "")]);
    apprise(CONFIG).deliver(&far, &resolved(), None).unwrap();
    assert_eq!(far.seen()[0].body["type"], "success");
}

#[test]
fn the_servers_refusals_are_told_apart() {
    let error = |details: &str| {
        let body = format!(
            r#"{{"error": "One or more notification could not be sent", "details": {details}}}"#
        );
        refusal(answer(424, &body))
    };
    let none = error("[]");
    assert_eq!(none.kind, Some(FailureKind::Misconfigured));
    let some = error(
        r#"[["INFO","2026-01-02 03:04:05","Sent ntfy notification to https://ntfy.sh/x."],["WARNING","2026-01-02 03:04:05","Failed to send Discord notification: error=404."]]"#,
    );
    assert_eq!(some.kind, Some(FailureKind::Permanent));
    assert!(some.message.contains("Failed to send Discord") && !some.message.contains("ntfy.sh"));
    let all = error(r#"[["WARNING","t","A Connection error occurred sending Discord"]]"#);
    assert_eq!(all.kind, Some(FailureKind::Transient));
    for (status, body, kind) in [
        (
            424,
            "One or more notification could not be sent.",
            FailureKind::Transient,
        ),
        (204, "", FailureKind::Misconfigured),
        (400, "Bad FORM Payload provided.", FailureKind::Permanent),
        (401, "", FailureKind::Misconfigured),
        (403, "", FailureKind::Misconfigured),
        (404, "", FailureKind::Misconfigured),
        (500, "", FailureKind::Transient),
    ] {
        assert_eq!(refusal(answer(status, body)).kind, Some(kind), "{status}");
    }
}

#[test]
fn a_long_message_says_what_is_missing_and_where_it_is() {
    let far = Cassette::new([answer(200, "")]);
    apprise(CONFIG).deliver(&far, &huge(5000), None).unwrap();
    let body = far.seen().remove(0).body;
    let text = body["body"].as_str().unwrap();
    assert!(text.len() <= 8 * 1024, "{}", text.len());
    let shown = text.lines().count() - 1;
    assert_eq!(
        text.lines().last().unwrap(),
        format!(
            "+{} more: https://weir.example.net/executions/0198",
            5007 - shown
        )
    );
    assert!(body["title"].as_str().unwrap().len() <= 250);
}

#[test]
fn check_asks_for_the_status() {
    for (status, ok) in [
        (200, true),
        (417, true),
        (404, true),
        (401, false),
        (500, false),
    ] {
        let far = Cassette::new([answer(status, "OK")]);
        assert_eq!(apprise(CONFIG).check(&far).is_ok(), ok, "{status}");
        assert_eq!(far.lines(), ["GET http://apprise.local:8000/status"]);
    }
}

#[test]
fn a_wrong_configuration_is_refused_by_name() {
    for (json, expected) in [
        ("{}", "config: missing field `url`"),
        (r#"{"url": "http://h"}"#, "config: give `key` or"),
        (
            r#"{"url": "http://h", "key": "a", "urls_credential": "b"}"#,
            "config: give `key` or",
        ),
        (
            r#"{"url": "http://h", "key": "a/b"}"#,
            "config.key: expected letters",
        ),
        (
            r#"{"url": "http://h", "urls_credential": "b", "tag": "x"}"#,
            "config.tag: only services",
        ),
        (r#"{"url": "h", "key": "a"}"#, "config.url: expected"),
        (
            r#"{"url": "http://h", "key": "a", "tags": []}"#,
            "config.tags: unknown field",
        ),
    ] {
        let message = open::<Apprise>(json).unwrap_err().message;
        assert!(message.starts_with(expected), "{message}");
    }
    assert!(serde_json::from_str::<serde_json::Value>(Apprise::CONFIG_SCHEMA).is_ok());
}
