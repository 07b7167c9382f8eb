//! Tapes: what a guest asked over http during a call, recorded and played back, so that it can be tested without its far side.
//!
//! A request is taped as the guest made it, before a credential is added: a tape holds names of credentials, no secret.
//! What the far side sent back is taped with every known secret replaced by its name.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_model::observation::FailureKind;

use super::Failure;
use super::egress::{HttpRequest, HttpResponse};

/// Headers of an answer that no guest needs and that may give something away.
const UNTAPED_HEADERS: [&str; 4] = ["set-cookie", "authorization", "www-authenticate", "date"];

/// One request of a guest, and what it got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    pub request: TapedRequest,
    pub answer: TapedAnswer,
}

/// A request as the guest made it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TapedRequest {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<TapedBody>,
    /// The name of the credential.
    pub credential: Option<String>,
}

/// A body, in the form that people read best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TapedBody {
    /// Of requests only: it is compared as JSON, whatever the order of its fields.
    Json(Value),
    Text(String),
    Base64(String),
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TapedAnswer {
    Response {
        status: u16,
        headers: Vec<(String, String)>,
        body: TapedBody,
    },
    Failure {
        message: String,
        kind: Option<FailureKind>,
        retry_after_ms: Option<u64>,
    },
}

/// Stands on one entry's way out. `load` what belongs to the next call, make it, then `take` or `differences`.
#[derive(Debug)]
pub struct Tape {
    plays: bool,
    side: Mutex<Side>,
}

#[derive(Debug, Default)]
struct Side {
    now_ms: Option<u64>,
    exchanges: Vec<Exchange>,
    /// The next one to be played.
    at: usize,
    differences: Vec<String>,
}

impl Tape {
    /// Lets every request through and remembers it.
    pub fn recorder() -> Tape {
        Tape {
            plays: false,
            side: Mutex::default(),
        }
    }

    /// Lets no request through: each gets the answer that was recorded in its place.
    pub fn player() -> Tape {
        Tape {
            plays: true,
            side: Mutex::default(),
        }
    }

    /// Begins a call, at this time of the host's clock.
    pub fn load(&self, now_ms: u64, exchanges: Vec<Exchange>) {
        *self.side() = Side {
            now_ms: Some(now_ms),
            exchanges,
            ..Side::default()
        };
    }

    /// What was recorded since `load`.
    pub fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.side().exchanges)
    }

    /// How the requests since `load` differed from the recorded ones.
    pub fn differences(&self) -> Vec<String> {
        let mut side = self.side();
        let unasked = side.exchanges.len().saturating_sub(side.at);
        let mut differences = std::mem::take(&mut side.differences);
        if unasked > 0 {
            let next = &side.exchanges[side.at].request;
            let (method, url) = (&next.method, &next.url);
            differences.push(format!(
                "{unasked} recorded requests were not made, the first one {method} {url}"
            ));
        }
        differences
    }

    /// The time that the guest is told.
    pub(super) fn now_ms(&self) -> Option<u64> {
        self.side().now_ms
    }

    /// The recorded answer; none where this tape only records.
    pub(super) fn play(&self, request: &HttpRequest) -> Option<Result<HttpResponse, Failure>> {
        if !self.plays {
            return None;
        }
        let made = TapedRequest::of(request, &str::to_owned);
        let mut side = self.side();
        let number = side.at + 1;
        let Some(recorded) = side.exchanges.get(side.at).cloned() else {
            let difference = format!(
                "request {number} was not recorded: {} {}",
                made.method, made.url
            );
            side.differences.push(difference.clone());
            return Some(Err(Failure::new(FailureKind::Permanent, difference)));
        };
        side.at += 1;
        let differences = made.differences(&recorded.request);
        side.differences.extend(
            differences
                .into_iter()
                .map(|what| format!("request {number}: {what}")),
        );
        Some(recorded.answer.given())
    }

    pub(super) fn record(
        &self,
        request: TapedRequest,
        result: &Result<HttpResponse, Failure>,
        redact: &impl Fn(&str) -> String,
    ) {
        if !self.plays {
            let answer = TapedAnswer::of(result, redact);
            self.side().exchanges.push(Exchange { request, answer });
        }
    }

    fn side(&self) -> MutexGuard<'_, Side> {
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TapedRequest {
    /// `redact`: the guest knows no secret, but its operator may have put one into its configuration.
    pub(super) fn of(request: &HttpRequest, redact: &impl Fn(&str) -> String) -> TapedRequest {
        TapedRequest {
            method: request.method.clone(),
            url: redact(&request.url),
            headers: taped_headers(&request.headers, redact),
            body: request
                .body
                .as_ref()
                .map(|body| match serde_json::from_slice::<Value>(body) {
                    Ok(value) if !redact(&value.to_string()).contains("[secret ") => {
                        TapedBody::Json(value)
                    }
                    _ => TapedBody::of(body, redact),
                }),
            credential: request.credential.clone(),
        }
    }

    fn differences(&self, recorded: &TapedRequest) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, made: String, recorded: String| {
            if made != recorded {
                found.push(format!("{what} was {recorded}, is {made}"));
            }
        };
        compare("method", self.method.clone(), recorded.method.clone());
        compare("url", self.url.clone(), recorded.url.clone());
        compare(
            "credential",
            format!("{:?}", self.credential),
            format!("{:?}", recorded.credential),
        );
        let headers = |request: &TapedRequest| {
            let mut headers = request.headers.clone();
            headers.sort();
            format!("{headers:?}")
        };
        compare("headers", headers(self), headers(recorded));
        let body = |request: &TapedRequest| match &request.body {
            None => "none".to_owned(),
            Some(TapedBody::Json(value)) => value.to_string(),
            Some(TapedBody::Text(text) | TapedBody::Base64(text)) => text.clone(),
        };
        compare("body", body(self), body(recorded));
        found
    }
}

impl TapedBody {
    fn of(body: &[u8], redact: &impl Fn(&str) -> String) -> TapedBody {
        match std::str::from_utf8(body) {
            Ok(text) => TapedBody::Text(redact(text)),
            Err(_) => TapedBody::Base64(STANDARD.encode(body)),
        }
    }

    fn bytes(&self) -> Result<Vec<u8>, Failure> {
        match self {
            TapedBody::Json(value) => Ok(value.to_string().into_bytes()),
            TapedBody::Text(text) => Ok(text.clone().into_bytes()),
            TapedBody::Base64(text) => STANDARD.decode(text).map_err(|error| {
                Failure::new(FailureKind::Permanent, format!("the tape's body: {error}"))
            }),
        }
    }
}

impl TapedAnswer {
    fn of(result: &Result<HttpResponse, Failure>, redact: &impl Fn(&str) -> String) -> TapedAnswer {
        match result {
            Ok(response) => TapedAnswer::Response {
                status: response.status,
                headers: taped_headers(&response.headers, redact)
                    .into_iter()
                    .filter(|(name, _)| !UNTAPED_HEADERS.contains(&name.as_str()))
                    .collect(),
                body: TapedBody::of(&response.body, redact),
            },
            Err(failure) => TapedAnswer::Failure {
                message: redact(&failure.message),
                kind: failure.kind,
                retry_after_ms: failure
                    .retry_after
                    .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            },
        }
    }

    fn given(self) -> Result<HttpResponse, Failure> {
        match self {
            TapedAnswer::Response {
                status,
                headers,
                body,
            } => Ok(HttpResponse {
                status,
                headers,
                body: body.bytes()?,
            }),
            TapedAnswer::Failure {
                message,
                kind,
                retry_after_ms,
            } => Err(Failure {
                message,
                kind,
                retry_after: retry_after_ms.map(Duration::from_millis),
            }),
        }
    }
}

fn taped_headers(
    headers: &[(String, String)],
    redact: &impl Fn(&str) -> String,
) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), redact(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str) -> HttpRequest {
        HttpRequest {
            method: "POST".into(),
            url: "http://h/canary".into(),
            headers: vec![("X-Token".into(), "canary".into())],
            body: Some(body.as_bytes().to_vec()),
            ..HttpRequest::default()
        }
    }

    fn redact(text: &str) -> String {
        text.replace("canary", "[secret c]")
    }

    #[test]
    fn no_known_secret_gets_onto_a_tape() {
        let tape = Tape::recorder();
        tape.load(7, vec![]);
        assert_eq!(tape.now_ms(), Some(7));
        for body in ["{\"a\": \"canary\"}", "canary", "{\"a\": 1}"] {
            let response = HttpResponse {
                status: 200,
                headers: vec![
                    ("set-cookie".into(), "s=1".into()),
                    ("x".into(), "canary".into()),
                ],
                body: b"echo canary".to_vec(),
            };
            let taped = TapedRequest::of(&request(body), &redact);
            assert!(tape.play(&request(body)).is_none());
            tape.record(taped, &Ok(response), &redact);
        }
        let exchanges = tape.take();
        let text = serde_json::to_string(&exchanges).unwrap();
        assert_eq!(exchanges.len(), 3);
        assert!(
            !text.contains("canary") && !text.contains("set-cookie"),
            "{text}"
        );
        let back: Vec<Exchange> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, exchanges);
    }

    #[test]
    fn a_played_call_is_compared_with_the_recorded_one() {
        let same = |text: &str| text.to_owned();
        let response = HttpResponse {
            status: 503,
            headers: vec![],
            body: vec![0xff, 0],
        };
        let exchange = Exchange {
            request: TapedRequest::of(&request("{\"a\": 1, \"b\": 2}"), &same),
            answer: TapedAnswer::of(&Ok(response.clone()), &same),
        };
        let tape = Tape::player();
        tape.load(7, vec![exchange.clone(), exchange.clone()]);
        let answer = tape.play(&request("{\"b\":2,\"a\":1}")).unwrap();
        assert_eq!(answer.unwrap(), response);
        let differences = tape.differences();
        assert_eq!(differences.len(), 1);
        assert!(
            differences[0].starts_with("1 recorded requests were not made"),
            "{differences:?}"
        );

        tape.load(7, vec![exchange]);
        assert!(tape.play(&request("{\"a\": 3}")).unwrap().is_ok());
        assert!(tape.play(&request("{}")).unwrap().is_err());
        let differences = tape.differences();
        assert_eq!(
            differences,
            [
                "request 1: body was {\"a\":1,\"b\":2}, is {\"a\":3}",
                "request 2 was not recorded: POST http://h/canary"
            ]
        );
    }
}
