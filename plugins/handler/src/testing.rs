//! For native tests: a service that answers from a list, and a notification to send it.

use std::cell::RefCell;
use std::collections::VecDeque;

use weir_sdk::{Failure, FailureKind, Far, Level, Request, Response, failure};

use crate::{Alert, Notification, Severity, Status};

/// One recorded answer.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// An answer without headers of interest.
pub fn answer(status: u16, body: &str) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: body.to_owned(),
    }
}

impl Answer {
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// One request as the service got it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub credential: Option<String>,
    /// Null where the body is no JSON.
    pub body: serde_json::Value,
    /// The length of the body, in bytes.
    pub len: usize,
}

/// Answers in order and remembers what it was asked. Asked too often it refuses, which fails the test.
#[derive(Debug, Default)]
pub struct Cassette {
    answers: RefCell<VecDeque<Answer>>,
    seen: RefCell<Vec<Seen>>,
}

impl Cassette {
    pub fn new(answers: impl IntoIterator<Item = Answer>) -> Cassette {
        Cassette {
            answers: RefCell::new(answers.into_iter().collect()),
            seen: RefCell::default(),
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// `POST https://host/path`, one for each request.
    pub fn lines(&self) -> Vec<String> {
        self.seen
            .borrow()
            .iter()
            .map(|seen| format!("{} {}", seen.method, seen.url))
            .collect()
    }

    /// Every answer was asked for.
    pub fn is_played(&self) -> bool {
        self.answers.borrow().is_empty()
    }
}

impl Far for Cassette {
    fn now(&self) -> u64 {
        1_795_337_231_096
    }

    fn log(&self, _level: Level, _message: &str) {}

    fn send(&self, request: Request) -> Result<Response, Failure> {
        let body = request.body.unwrap_or_default();
        self.seen.borrow_mut().push(Seen {
            method: request.method,
            url: request.url,
            headers: request.headers,
            credential: request.credential,
            body: serde_json::from_slice(&body).unwrap_or_default(),
            len: body.len(),
        });
        let answer = self.answers.borrow_mut().pop_front();
        let answer = answer.ok_or_else(|| failure::permanent("nothing more is recorded"))?;
        Ok(Response {
            status: answer.status,
            headers: answer.headers,
            body: answer.body.into_bytes(),
        })
    }

    /// As the host does it.
    fn fetch(&self, request: Request) -> Result<Response, Failure> {
        let response = self.send(request)?;
        if response.status < 300 {
            return Ok(response);
        }
        let kind = match response.status {
            408 | 425 | 429 | 500.. => FailureKind::Transient,
            401 | 403 => FailureKind::Misconfigured,
            404 | 410 => FailureKind::NotFound,
            _ => FailureKind::Permanent,
        };
        Err(Failure {
            message: format!(
                "status {}: {}",
                response.status,
                crate::answer::quote(&response.body)
            ),
            kind: Some(kind),
            retry_after_ms: None,
        })
    }
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// A failed render, as weir tells it.
pub fn notification() -> Notification {
    Notification {
        id: "c0ffee-19aa-1-ops".to_owned(),
        key: "c0ffee-19aa".to_owned(),
        severity: Severity::Error,
        title: "portrait failed".to_owned(),
        text: "portrait failed on studio\nRuntimeError: CUDA out of memory".to_owned(),
        test: false,
        receiver: "ops".to_owned(),
        status: Status::Firing,
        group_labels: vec![pair("workflow", "portrait")],
        common_labels: vec![
            pair("rule", "failed"),
            pair("severity", "error"),
            pair("source", "studio"),
            pair("workflow", "portrait"),
        ],
        common_annotations: vec![],
        alerts: vec![Alert {
            fingerprint: "c0ffee".to_owned(),
            status: Status::Firing,
            severity: Severity::Error,
            title: "portrait failed".to_owned(),
            body: "RuntimeError: CUDA out of memory".to_owned(),
            labels: vec![pair("rule", "failed"), pair("workflow", "portrait")],
            annotations: vec![],
            since: 1_795_337_231_096,
            ends: None,
            count: 1,
            executions: vec!["0198".to_owned()],
            url: Some("https://weir.example.net/executions/0198".to_owned()),
        }],
        truncated: 0,
        external_url: Some("https://weir.example.net/".to_owned()),
    }
}

/// The same, over.
pub fn resolved() -> Notification {
    let mut resolved = notification();
    resolved.id = "c0ffee-19aa-end-ops".to_owned();
    resolved.status = Status::Resolved;
    resolved.title = "portrait works again".to_owned();
    resolved.text = "portrait works again".to_owned();
    resolved.alerts[0].status = Status::Resolved;
    resolved.alerts[0].ends = Some(1_795_337_291_000);
    resolved
}

/// Text of `lines` lines that holds everything a service might act upon, and seven alerts left out.
pub fn huge(lines: usize) -> Notification {
    let line =
        |n: usize| format!("{n}: <b>@everyone</b> <!channel> <@1> & *x* _y_ `z` [a](http://b) ž😀");
    let text: Vec<String> = (0..lines).map(line).collect();
    Notification {
        title: format!("<!here> @everyone *{}* & <b>", "t".repeat(4000)),
        text: text.join("\n"),
        truncated: 7,
        common_labels: (0..60)
            .map(|n| (format!("label_{n}"), "<v>&*".repeat(400)))
            .collect(),
        ..notification()
    }
}
