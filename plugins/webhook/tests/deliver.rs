//! What a webhook gets for a notification, and when it counts as delivered.

use std::cell::RefCell;

use webhook::payload::{Config, Webhook};
use weir_handler::{Alert, Handler, Notification, Severity, Status};
use weir_sdk::{Failure, Far, Level, Request, Response, config, failure};

#[derive(Default)]
struct Server {
    failure: Option<Failure>,
    seen: RefCell<Vec<Request>>,
}

impl Far for Server {
    fn now(&self) -> u64 {
        0
    }
    fn log(&self, _level: Level, _message: &str) {}
    fn send(&self, _request: Request) -> Result<Response, Failure> {
        Err(failure::permanent("a receiver uses fetch"))
    }
    fn fetch(&self, request: Request) -> Result<Response, Failure> {
        self.seen.borrow_mut().push(request);
        self.failure.clone().map_or(
            Ok(Response {
                status: 200,
                headers: Vec::new(),
                body: Vec::new(),
            }),
            Err,
        )
    }
}

fn webhook(json: &str) -> Result<Webhook, Failure> {
    Webhook::new(config::parse::<Config>(json)?)
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn notification() -> Notification {
    Notification {
        id: "0198c0de".to_owned(),
        key: "failed/portrait".to_owned(),
        severity: Severity::Error,
        title: "portrait failed".to_owned(),
        text: "portrait failed".to_owned(),
        test: false,
        receiver: "ops".to_owned(),
        status: Status::Firing,
        group_labels: vec![pair("workflow", "portrait")],
        common_labels: vec![pair("alertname", "failed"), pair("workflow", "portrait")],
        common_annotations: vec![],
        alerts: vec![Alert {
            fingerprint: "c0ffee".to_owned(),
            status: Status::Firing,
            severity: Severity::Error,
            title: "portrait failed".to_owned(),
            body: "RuntimeError: ž".to_owned(),
            labels: vec![pair("alertname", "failed"), pair("workflow", "portrait")],
            annotations: vec![],
            since: 1_795_337_231_096,
            ends: None,
            count: 1,
            executions: vec!["e".to_owned()],
            url: Some("http://127.0.0.1:8000/executions/e".to_owned()),
        }],
        truncated: 2,
        external_url: Some("http://127.0.0.1:8000/".to_owned()),
    }
}

#[test]
fn the_payload_is_alertmanagers_version_4() {
    let server = Server::default();
    webhook(r#"{"url": "http://127.0.0.1:9100/hook?key=1", "headers": {"x-team": "ops", "Webhook-Id": "mine"}}"#)
        .unwrap()
        .deliver(&server, &notification(), None)
        .unwrap();
    let seen = server.seen.borrow();
    assert_eq!(
        (seen[0].method.as_str(), seen[0].url.as_str()),
        ("POST", "http://127.0.0.1:9100/hook?key=1")
    );
    assert_eq!(
        seen[0].headers,
        [
            pair("content-type", "application/json"),
            pair("webhook-id", "0198c0de"),
            pair("x-team", "ops")
        ]
    );
    let body: serde_json::Value = serde_json::from_slice(seen[0].body.as_ref().unwrap()).unwrap();
    assert_eq!(
        body,
        serde_json::json!({
            "version": "4",
            "groupKey": "failed/portrait",
            "truncatedAlerts": 2,
            "status": "firing",
            "receiver": "ops",
            "groupLabels": {"workflow": "portrait"},
            "commonLabels": {"alertname": "failed", "workflow": "portrait"},
            "commonAnnotations": {},
            "externalURL": "http://127.0.0.1:8000/",
            "alerts": [{
                "status": "firing",
                "labels": {"alertname": "failed", "severity": "error", "workflow": "portrait"},
                "annotations": {"description": "RuntimeError: ž", "summary": "portrait failed"},
                "startsAt": "2026-11-22T08:47:11.096Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://127.0.0.1:8000/executions/e",
                "fingerprint": "c0ffee",
            }],
        })
    );
}

#[test]
fn an_ended_alert_has_its_end_and_absurd_times_do_no_harm() {
    let server = Server::default();
    let mut resolved = notification();
    resolved.status = Status::Resolved;
    resolved.alerts[0].status = Status::Resolved;
    resolved.alerts[0].since = u64::MAX;
    resolved.alerts[0].ends = Some(1_795_337_231_000);
    webhook(r#"{"url": "http://h/"}"#)
        .unwrap()
        .deliver(&server, &resolved, None)
        .unwrap();
    let body: serde_json::Value =
        serde_json::from_slice(server.seen.borrow()[0].body.as_ref().unwrap()).unwrap();
    assert_eq!(body["status"], "resolved");
    assert_eq!(body["alerts"][0]["endsAt"], "2026-11-22T08:47:11.000Z");
    assert_eq!(body["alerts"][0]["startsAt"], "0001-01-01T00:00:00Z");
}

#[test]
fn a_failure_of_the_receiver_is_no_delivery() {
    let failure = Failure {
        retry_after_ms: Some(1500),
        ..failure::transient("503 Service Unavailable")
    };
    let server = Server {
        failure: Some(failure),
        ..Server::default()
    };
    let error = webhook(r#"{"url": "http://h/"}"#)
        .unwrap()
        .deliver(&server, &notification(), None)
        .unwrap_err();
    assert_eq!(
        (error.message.as_str(), error.retry_after_ms),
        ("503 Service Unavailable", Some(1500))
    );
}

#[test]
fn a_wrong_configuration_is_refused_and_a_key_in_the_url_stays_hidden() {
    for (json, expected) in [
        (
            r#"{"url": "h:9100"}"#,
            "config.url: expected an absolute http:// or https:// URL",
        ),
        (r#"{"url": "http://h/#x"}"#, "config.url: "),
        (
            r#"{"url": "http://h/", "headers": {"a": 1}}"#,
            "config.headers.a: invalid type",
        ),
        (
            r#"{"url": "http://h/", "header": {}}"#,
            "config.header: unknown field `header`",
        ),
    ] {
        let message = webhook(json).unwrap_err().message;
        assert!(message.starts_with(expected), "{message}");
    }
    let said = webhook(r#"{"url": "http://h/x?key=s3cret"}"#)
        .unwrap()
        .check(&Server::default())
        .unwrap();
    assert!(
        said.contains("http://h/x") && !said.contains("s3cret"),
        "{said}"
    );
}

#[test]
fn an_id_of_any_letters_fits_into_its_header_and_stays_one_of_its_own() {
    let server = Server::default();
    let mut named = notification();
    named.id = "c0ffee-1-caf\u{e9} %".to_owned();
    webhook(r#"{"url": "http://h/", "credential": "signing"}"#)
        .unwrap()
        .deliver(&server, &named, None)
        .unwrap();
    let seen = server.seen.borrow();
    assert_eq!(
        seen[0].headers[1],
        pair("webhook-id", "c0ffee-1-caf%C3%A9%20%25")
    );
    assert_eq!(seen[0].credential.as_deref(), Some("signing"));
}

#[test]
fn a_fallback_says_why_in_its_annotations() {
    let server = Server::default();
    let mut handed_over = notification();
    let reason = pair(
        "fallback_reason",
        "phone could not deliver this (status 400).",
    );
    handed_over.common_annotations.push(reason.clone());
    handed_over.alerts[0].annotations.push(reason);
    webhook(r#"{"url": "http://h/"}"#)
        .unwrap()
        .deliver(&server, &handed_over, None)
        .unwrap();
    let body: serde_json::Value =
        serde_json::from_slice(server.seen.borrow()[0].body.as_ref().unwrap()).unwrap();
    for pointer in ["/commonAnnotations", "/alerts/0/annotations"] {
        let told = body.pointer(pointer).unwrap()["fallback_reason"].as_str();
        assert_eq!(told, Some("phone could not deliver this (status 400)."));
    }
}
