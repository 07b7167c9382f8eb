//! Requests to one ComfyUI server, and what is wrong with an answer.

use serde::de::DeserializeOwned;
use weir_sdk::{Failure, FailureKind, Far, Request, Response, failure, text};

use crate::config::Config;
use crate::lenient;

/// How much of an unexpected answer a message shows.
const EXCERPT_MAX: usize = 100;

/// No usable answer.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// Nothing came back, or the host refused to ask.
    NoAnswer(Failure),
    /// More than the host takes.
    TooLarge(Failure),
    /// A status other than 200.
    Status(u16, Failure),
    /// Not what ComfyUI answers.
    Garbage(Failure),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        match trouble {
            Trouble::NoAnswer(failure)
            | Trouble::Status(_, failure)
            | Trouble::Garbage(failure) => failure,
            // The next answer may be smaller, so the source is not done for.
            Trouble::TooLarge(failure) => Failure {
                kind: Some(FailureKind::Transient),
                ..failure
            },
        }
    }
}

#[derive(Debug)]
pub struct Client<'a, F> {
    pub far: &'a F,
    config: &'a Config,
    timeout_ms: Option<u32>,
}

impl<F> Clone for Client<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Client<'_, F> {}

impl<'a, F: Far> Client<'a, F> {
    pub fn new(far: &'a F, config: &'a Config) -> Client<'a, F> {
        Client {
            far,
            config,
            timeout_ms: None,
        }
    }

    /// The same, and an answer that takes longer is no answer.
    pub fn within(self, timeout_ms: u32) -> Client<'a, F> {
        Client {
            timeout_ms: Some(timeout_ms),
            ..self
        }
    }

    /// The JSON that `GET path` answers.
    pub fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        let body = self.get(path)?;
        parse(path, body)
    }

    /// The body of a `200`.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, Trouble> {
        self.expect_ok("GET", path, self.send("GET", path, None)?)
    }

    /// Asks for a change; the body of a `200`.
    pub fn post(&self, path: &str, body: String) -> Result<Vec<u8>, Trouble> {
        let body = Some(("application/json", body.into_bytes()));
        self.expect_ok("POST", path, self.send("POST", path, body)?)
    }

    /// Any answer. `body`: its type and itself.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<Response, Trouble> {
        let mut headers = vec![("accept".to_owned(), "application/json".to_owned())];
        headers.extend(self.config.headers.iter().cloned());
        let body = body.map(|(content_type, body)| {
            headers.push(("content-type".to_owned(), content_type.to_owned()));
            body
        });
        let request = Request {
            method: method.to_owned(),
            url: format!("{}{path}", self.config.base),
            headers,
            body,
            credential: self.config.credential.clone(),
            timeout_ms: self.timeout_ms,
        };
        self.far.send(request).map_err(|failure| {
            let failure = Failure {
                message: format!("{method} {path}: {}", failure.message),
                ..failure
            };
            if failure.message.contains("too-large") {
                Trouble::TooLarge(failure)
            } else {
                Trouble::NoAnswer(failure)
            }
        })
    }

    fn expect_ok(&self, method: &str, path: &str, response: Response) -> Result<Vec<u8>, Trouble> {
        if response.status == 200 {
            return Ok(response.body);
        }
        let hint = match response.status {
            300..=399 => " (a redirect is not followed: put the final address into `url`)",
            401 | 403 | 407 => " (a proxy in front of ComfyUI? see `credential` and `headers`)",
            _ => "",
        };
        let message = format!(
            "{method} {path} answered {}{hint}{}",
            response.status,
            excerpt(&response.body)
        );
        Err(Trouble::Status(
            response.status,
            failure::transient(message),
        ))
    }
}

/// Parses a body, with a message that tells a half answer from another server's page.
pub fn parse<T: DeserializeOwned>(path: &str, mut body: Vec<u8>) -> Result<T, Trouble> {
    let mut result = serde_json::from_slice(&body);
    if result.as_ref().is_err_and(|error| !error.is_eof()) && lenient::repair(&mut body) {
        result = serde_json::from_slice(&body);
    }
    result.map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Eof => "ended in the middle of the JSON".to_owned(),
            _ => format!(
                "is not ComfyUI's JSON ({})",
                text::line(&error.to_string(), 120)
            ),
        };
        Trouble::Garbage(failure::transient(format!(
            "GET {path} answered 200, but the answer {what}{}",
            excerpt(&body)
        )))
    })
}

fn excerpt(body: &[u8]) -> String {
    let start = &body[..body.len().min(8 * EXCERPT_MAX)];
    let start = text::without_paths(&text::line(
        &String::from_utf8_lossy(start),
        4 * EXCERPT_MAX,
    ));
    if start.is_empty() {
        ": empty body".to_owned()
    } else {
        format!(": {}", text::line(&start, EXCERPT_MAX))
    }
}

/// `id` as one segment of a path.
pub fn segment(id: &str) -> String {
    let mut out = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'~')
            || byte == b'.' && !id.trim_matches('.').is_empty()
        {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
