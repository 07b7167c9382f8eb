//! Requests to Vertex AI and Cloud Logging, and what a refusal means.
//!
//! There are two kinds of `429`. A request rate passes: it comes with a wait, and nobody may ask again before it is
//! over. A quota of machines does not pass by itself: asking again is of no use until somebody raises it.

use std::cell::Cell;

use serde::de::DeserializeOwned;
use weir_sdk::lenient::Lenient;
use weir_sdk::{Failure, FailureKind, Far, Request, Response, text};

use crate::config::Config;
use crate::job::is_quota;
use crate::kind::Kind;
use crate::name::Name;
use crate::time::{self, SECOND};
use crate::wire::{Duration, ErrorBody, ErrorDetail, Resource};

const MESSAGE_MAX: usize = 600;
const EXCERPT_MAX: usize = 120;
/// The host allows 32 requests in a call.
const REQUESTS_MAX: u32 = 24;
/// The host allows 30 s for a call: a request begins before this, and ends within its own limit.
const CALL_MAX: u64 = 10 * SECOND;
const REQUEST_TIMEOUT: u32 = 14_000;

/// No usable answer.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// Nothing came back, or the host refused to ask.
    NoAnswer(Failure),
    /// More than the host takes.
    TooLarge(String),
    Refused(Refusal),
    /// A success whose body is no answer of Google's.
    Garbage(String),
}

/// A status of 300 or more.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub status: u16,
    pub message: String,
    /// Google's own JSON, not a page of something in between.
    pub is_api: bool,
    pub why: Why,
    pub retry_after: Option<u64>,
    pub content_type: String,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Too many requests; it passes.
    Rate,
    /// A quota of machines; it does not.
    Quota,
    Other,
}

impl Trouble {
    pub fn message(&self) -> &str {
        match self {
            Trouble::NoAnswer(failure) => &failure.message,
            Trouble::TooLarge(message) | Trouble::Garbage(message) => message,
            Trouble::Refused(refusal) => &refusal.message,
        }
    }

    pub fn kind(&self) -> FailureKind {
        match self {
            Trouble::NoAnswer(failure) => failure.kind.unwrap_or(FailureKind::Transient),
            // The next answer may be smaller, or better.
            Trouble::TooLarge(_) | Trouble::Garbage(_) => FailureKind::Transient,
            Trouble::Refused(refusal) => refusal.kind(),
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Trouble::Refused(refusal) if refusal.status == 404 && refusal.is_api)
    }

    /// How long nobody may ask again, if the far side spoke of a request rate.
    pub fn rate_wait(&self) -> Option<Option<u64>> {
        match self {
            Trouble::Refused(refusal) if refusal.why == Why::Rate => Some(refusal.retry_after),
            _ => None,
        }
    }

    pub fn failure(&self, context: &str) -> Failure {
        let retry_after = match self {
            Trouble::NoAnswer(failure) => failure.retry_after_ms.map(u64::from),
            Trouble::Refused(refusal) => refusal.retry_after,
            _ => None,
        };
        Failure {
            message: format!("{context}: {}", self.message()),
            kind: Some(self.kind()),
            retry_after_ms: retry_after.map(|wait| u32::try_from(wait).unwrap_or(u32::MAX)),
        }
    }
}

impl Refusal {
    fn kind(&self) -> FailureKind {
        match (self.status, self.why) {
            (_, Why::Quota) => FailureKind::Permanent,
            (408 | 425 | 429 | 500.., _) => FailureKind::Transient,
            (401 | 403, _) => FailureKind::Misconfigured,
            (404 | 410, _) => FailureKind::NotFound,
            _ => FailureKind::Permanent,
        }
    }
}

/// The way to the provider within one call.
#[derive(Debug)]
pub struct Client<'a, F> {
    pub far: &'a F,
    pub config: &'a Config,
    began: u64,
    spent: Cell<u32>,
    /// The provider's clock less ours, as its last answer had it.
    skew: Cell<Option<i64>>,
}

impl<'a, F: Far> Client<'a, F> {
    pub fn new(far: &'a F, config: &'a Config) -> Client<'a, F> {
        Client {
            far,
            config,
            began: far.now(),
            spent: Cell::new(0),
            skew: Cell::new(None),
        }
    }

    /// Whether this call may ask once more.
    pub fn has_room(&self) -> bool {
        self.spent.get() < REQUESTS_MAX && self.far.now().saturating_sub(self.began) < CALL_MAX
    }

    /// A time of ours as the provider's clock shows it; a local clock that is off moves no window.
    pub fn at_provider(&self, time: u64) -> u64 {
        time.saturating_add_signed(self.skew.get().unwrap_or(0))
    }

    pub fn get<T: DeserializeOwned>(&self, url: String) -> Result<T, Trouble> {
        let response = self.send("GET", url, None)?;
        parse(&response)
    }

    pub fn post<T: DeserializeOwned>(
        &self,
        url: String,
        body: &serde_json::Value,
    ) -> Result<T, Trouble> {
        let response = self.send("POST", url, Some(body))?;
        parse(&response)
    }

    /// The answer to a request that succeeded.
    pub fn send(
        &self,
        method: &str,
        url: String,
        body: Option<&serde_json::Value>,
    ) -> Result<Response, Trouble> {
        self.spent.set(self.spent.get() + 1);
        let mut headers = vec![("accept".to_owned(), "application/json".to_owned())];
        if body.is_some() {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        // Only these start machines.
        let is_create = method == "POST" && url.ends_with("Jobs");
        let request = Request {
            method: method.to_owned(),
            url,
            headers,
            body: body.map(|body| body.to_string().into_bytes()),
            credential: self.config.credential.clone(),
            timeout_ms: Some(REQUEST_TIMEOUT),
        };
        let response = self.far.send(request).map_err(|failure| {
            if failure.message.contains("too-large") {
                Trouble::TooLarge(failure.message)
            } else {
                Trouble::NoAnswer(failure)
            }
        })?;
        self.note_clock(&response);
        if (200..300).contains(&response.status) {
            return Ok(response);
        }
        let refusal = refusal(self.config, is_create, response, self.far.now());
        Err(Trouble::Refused(refusal))
    }

    fn note_clock(&self, response: &Response) {
        if let Some(date) = header(response, "date").and_then(time::http_date) {
            // The header has whole seconds and the answer was under way: less than that is no difference.
            let skew =
                i64::try_from(date).unwrap_or(0) - i64::try_from(self.far.now()).unwrap_or(0);
            self.skew.set(Some(skew).filter(|skew| skew.abs() > 20_000));
        }
    }

    pub fn resource_url(&self, name: &Name) -> String {
        format!("{}/v1/{name}", self.config.base(&name.location))
    }

    /// The whole resource; of a pipeline with its tasks.
    pub fn resource(&self, name: &Name) -> Result<Resource, Trouble> {
        self.get(self.resource_url(name))
    }
}

pub fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let mut headers = response.headers.iter();
    headers
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// Parses a body, with a message that tells a half answer from another server's page.
pub fn parse<T: DeserializeOwned>(response: &Response) -> Result<T, Trouble> {
    let garbage = |what: &str| {
        Trouble::Garbage(format!(
            "answered {}, but the answer {what}{}",
            response.status,
            excerpt(&response.body)
        ))
    };
    // Every answer is an object; serde would read a list as one without names.
    if response.body.trim_ascii_start().first() != Some(&b'{') {
        return Err(garbage("is no JSON of Google's"));
    }
    serde_json::from_slice(&response.body).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => garbage("ended in the middle of the JSON"),
        _ => garbage(&format!(
            "is no JSON of Google's ({})",
            text::line(&error.to_string(), EXCERPT_MAX)
        )),
    })
}

fn refusal(config: &Config, is_create: bool, response: Response, now: u64) -> Refusal {
    let body: ErrorBody = serde_json::from_slice(&response.body).unwrap_or_default();
    let error = body.error.0;
    let is_api = error.is_some();
    let error = error.unwrap_or_default();
    let reason = first(&error, |info| info.reason.0.clone());
    let hint = first(&error, |info| info.retry_delay.0);
    let retry_after = header(&response, "retry-after")
        .and_then(|value| time::retry_after(value, now))
        .or(hint.map(|Duration(delay)| delay));
    let said = error.message.0.as_deref().unwrap_or_default();
    let why = match response.status {
        429 if is_create && is_machine_quota(reason.as_deref(), retry_after, said) => Why::Quota,
        429 => Why::Rate,
        _ => Why::Other,
    };
    let mut message = format!("answered {}", response.status);
    match (&error.status.0, said.is_empty()) {
        (Some(status), false) => message.push_str(&format!(
            " {}: {}",
            text::line(status, 64),
            text::line(said, MESSAGE_MAX)
        )),
        (None, false) => message.push_str(&format!(": {}", text::line(said, MESSAGE_MAX))),
        (Some(status), true) => message.push_str(&format!(" {}", text::line(status, 64))),
        (None, true) => message.push_str(&excerpt(&response.body)),
    }
    if let Some(hint) = advice(config, &response, &error, why) {
        message.push_str(&format!(" ({hint})"));
    }
    Refusal {
        status: response.status,
        message,
        is_api,
        why,
        retry_after,
        content_type: header(&response, "content-type")
            .unwrap_or("application/octet-stream")
            .to_owned(),
        body: response.body,
    }
}

/// Only what starts machines can meet their quota, and its refusal names no wait and no rate.
fn is_machine_quota(reason: Option<&str>, wait: Option<u64>, said: &str) -> bool {
    let is_rate = reason == Some("RATE_LIMIT_EXCEEDED")
        || wait.is_some()
        || said.contains("per minute")
        || said.contains("requests");
    is_quota(said) || !is_rate && !said.is_empty()
}

fn first<T>(error: &ErrorDetail, of: impl Fn(&crate::wire::ErrorInfo) -> Option<T>) -> Option<T> {
    let details = error.details.0.as_ref()?;
    details.good.iter().find_map(of)
}

/// What an operator can do about it.
fn advice(config: &Config, response: &Response, error: &ErrorDetail, why: Why) -> Option<String> {
    let credential = config.credential.as_deref().unwrap_or("none");
    match response.status {
        300..=399 => Some("a redirect is not followed".to_owned()),
        401 => Some(format!("credential `{credential}` was not accepted")),
        403 => {
            let permission = |metadata: &Lenient<crate::wire::ErrorMetadata>| {
                metadata.0.as_ref()?.permission.0.clone()
            };
            let missing = first(error, |info| permission(&info.metadata))?;
            Some(format!("missing permission: {}", text::line(&missing, 100)))
        }
        429 if why == Why::Quota => Some(
            "a quota of machines: asking again soon is of no use, raise it or use another region"
                .to_owned(),
        ),
        _ => None,
    }
}

fn excerpt(body: &[u8]) -> String {
    let start = String::from_utf8_lossy(&body[..body.len().min(4096)]).into_owned();
    let lower = start.to_ascii_lowercase();
    if lower.contains("<html") || lower.trim_start().starts_with("<!doctype") {
        let title = lower.find("<title>").map(|at| at + 7).and_then(|at| {
            let end = lower[at..].find("</title>")? + at;
            start.get(at..end)
        });
        return match title {
            Some(title) => format!(": an HTML page, {:?}", text::line(title, EXCERPT_MAX)),
            None => ": an HTML page".to_owned(),
        };
    }
    let start = text::line(&start, EXCERPT_MAX);
    if start.is_empty() {
        ": empty body".to_owned()
    } else {
        format!(": {start}")
    }
}

/// The permission that a request needs, for messages that do not name it.
pub fn permission(kind: Kind, verb: &str) -> String {
    format!("aiplatform.{}.{verb}", kind.collection())
}

/// `text` as the value of a query's field.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
