//! What ntfy gets for a notification, and when it counts as delivered.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it should be"
)]

use std::cell::RefCell;

use ntfy::message::{Config, Ntfy};
use weir_handler::{Alert, Handler, Notification, Severity, Status};
use weir_sdk::{Failure, FailureKind, Far, Level, Request, Response, config};

struct Server {
    answer: Result<Response, Failure>,
    seen: RefCell<Vec<Request>>,
}

impl Far for Server {
    fn now(&self) -> u64 {
        0
    }
    fn log(&self, _level: Level, _message: &str) {}
    fn fetch(&self, request: Request) -> Result<Response, Failure> {
        self.send(request)
    }
    fn send(&self, request: Request) -> Result<Response, Failure> {
        self.seen.borrow_mut().push(request);
        self.answer.clone()
    }
}

fn server(answer: Result<&str, Failure>) -> Server {
    let answer = answer.map(|body| Response {
        status: 200,
        headers: Vec::new(),
        body: body.as_bytes().to_vec(),
    });
    Server {
        answer,
        seen: RefCell::default(),
    }
}

fn ntfy(json: &str) -> Result<Ntfy, Failure> {
    Ntfy::new(config::parse::<Config>(json)?)
}

fn notification() -> Notification {
    Notification {
        id: "n1".to_owned(),
        key: "k".to_owned(),
        severity: Severity::Error,
        title: "portrait failed – žluť".to_owned(),
        text: "portrait failed\nRuntimeError: out of memory".to_owned(),
        test: false,
        receiver: "phone".to_owned(),
        status: Status::Firing,
        group_labels: Vec::new(),
        common_labels: Vec::new(),
        common_annotations: Vec::new(),
        alerts: vec![Alert {
            fingerprint: "f".to_owned(),
            status: Status::Firing,
            severity: Severity::Error,
            title: "t".to_owned(),
            body: "b".to_owned(),
            labels: Vec::new(),
            annotations: Vec::new(),
            since: 0,
            ends: None,
            count: 1,
            executions: Vec::new(),
            url: Some("https://weir.example.net/executions/1".to_owned()),
        }],
        truncated: 0,
        external_url: Some("https://weir.example.net/".to_owned()),
    }
}

fn published(config: &str, notification: &Notification) -> serde_json::Value {
    let server = server(Ok("{}"));
    ntfy(config)
        .unwrap()
        .deliver(&server, notification, None)
        .unwrap();
    let seen = server.seen.borrow();
    serde_json::from_slice(seen[0].body.as_ref().unwrap()).unwrap()
}

#[test]
fn a_notification_is_posted_as_json_to_the_root_of_the_server() {
    let server = server(Ok("{}"));
    let config = r#"{"url": "https://ntfy.example.net/push/my-topic", "credential": "token", "tags": ["studio"]}"#;
    ntfy(config)
        .unwrap()
        .deliver(&server, &notification(), None)
        .unwrap();
    let seen = server.seen.borrow();
    let request = &seen[0];
    assert_eq!(
        (request.method.as_str(), request.url.as_str()),
        ("POST", "https://ntfy.example.net/push/")
    );
    assert_eq!(request.credential.as_deref(), Some("token"));
    assert!(
        request
            .headers
            .iter()
            .all(|(name, value)| name.is_ascii() && value.is_ascii())
    );
    let body: serde_json::Value = serde_json::from_slice(request.body.as_ref().unwrap()).unwrap();
    assert_eq!(
        body,
        serde_json::json!({
            "topic": "my-topic", "title": "portrait failed – žluť", "message": "portrait failed\nRuntimeError: out of memory",
            "priority": 4, "tags": ["x", "studio"], "click": "https://weir.example.net/executions/1",
        })
    );
}

#[test]
fn priority_follows_severity_unless_configured() {
    let plain = r#"{"url": "https://ntfy.sh/t"}"#;
    for (severity, expected) in [
        (Severity::Info, 2),
        (Severity::Warning, 3),
        (Severity::Error, 4),
        (Severity::Critical, 5),
    ] {
        let notification = Notification {
            severity,
            ..notification()
        };
        assert_eq!(published(plain, &notification)["priority"], expected);
        assert_eq!(
            published(
                r#"{"url": "https://ntfy.sh/t", "priority": 1}"#,
                &notification
            )["priority"],
            1
        );
    }
    let resolved = Notification {
        status: Status::Resolved,
        ..notification()
    };
    assert_eq!(published(plain, &resolved)["tags"][0], "white_check_mark");
}

#[test]
fn a_long_message_is_cut_at_a_line_and_says_how_much_is_missing() {
    let text: Vec<String> = (0..300)
        .map(|n| format!("alert {n}: {}", "ě".repeat(20)))
        .collect();
    let long = Notification {
        text: text.join("\n"),
        truncated: 7,
        ..notification()
    };
    let message = published(r#"{"url": "https://ntfy.sh/t"}"#, &long)["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.len() <= 4096 && message.len() > 3900,
        "{}",
        message.len()
    );
    let (shown, more) = message.rsplit_once('\n').unwrap();
    assert_eq!(more, format!("+{} more", 307 - shown.lines().count()));

    let one = Notification {
        text: "ě".repeat(5000),
        ..notification()
    };
    let message = published(r#"{"url": "https://ntfy.sh/t"}"#, &one)["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(message.len() <= 4096 && message.ends_with('…'));
    let none = Notification {
        text: String::new(),
        ..notification()
    };
    assert_eq!(
        published(r#"{"url": "https://ntfy.sh/t"}"#, &none)["message"],
        "portrait failed – žluť"
    );
}

#[test]
fn a_click_leads_only_to_http() {
    let mut odd = notification();
    odd.alerts[0].url = Some("javascript:alert(1)".to_owned());
    assert!(
        published(r#"{"url": "https://ntfy.sh/t"}"#, &odd)
            .get("click")
            .is_none()
    );
}

#[test]
fn a_failure_of_the_server_is_no_delivery() {
    let deliver = |status, headers| {
        let answer = Ok(Response {
            status,
            headers,
            body: br#"{"code":42901,"http":429,"error":"limit reached"}"#.to_vec(),
        });
        let server = Server {
            answer,
            ..server(Ok(""))
        };
        ntfy(r#"{"url": "https://ntfy.sh/t"}"#)
            .unwrap()
            .deliver(&server, &notification(), None)
            .unwrap_err()
    };
    let later = deliver(429, vec![("retry-after".to_owned(), "30".to_owned())]);
    assert_eq!(
        (later.kind, later.retry_after_ms),
        (Some(FailureKind::Transient), Some(30_000))
    );
    assert!(later.message.contains("limit reached"), "{}", later.message);
    // A wrong address is the operator's, and no message is given up for it.
    for status in [301, 403, 404] {
        let kind = deliver(status, vec![]).kind;
        assert_eq!(kind, Some(FailureKind::Misconfigured), "{status}");
    }
}

#[test]
fn check_tells_an_ntfy_from_anything_else() {
    let ntfy = ntfy(r#"{"url": "https://ntfy.sh/t"}"#).unwrap();
    assert_eq!(
        ntfy.check(&server(Ok(r#"{"healthy":true}"#))).unwrap(),
        "ntfy at https://ntfy.sh, topic t"
    );
    assert!(
        ntfy.check(&server(Ok("<html>")))
            .unwrap_err()
            .message
            .contains("does not answer as ntfy does")
    );
    assert!(ntfy.check(&server(Ok(r#"{"healthy":false}"#))).is_err());
}

#[test]
fn a_wrong_configuration_is_refused_by_name() {
    for (json, expected) in [
        ("{}", "config: missing field `url`"),
        (
            r#"{"url": "https://ntfy.sh/"}"#,
            "config.url: the last part must be the topic",
        ),
        (
            r#"{"url": "ntfy.sh/t"}"#,
            "config.url: expected an absolute http:// or https:// URL",
        ),
        (
            r#"{"url": "https://ntfy.sh/t", "priority": 9}"#,
            "config.priority: expected 1",
        ),
        (
            r#"{"url": "https://ntfy.sh/t", "topic": "t"}"#,
            "config.topic: unknown field `topic`",
        ),
    ] {
        let message = ntfy(json).unwrap_err().message;
        assert!(message.starts_with(expected), "{message}");
    }
}
