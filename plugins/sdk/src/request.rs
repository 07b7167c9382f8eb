//! Requests and answers, put together and taken apart.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{permanent, transient};
use crate::{Failure, Request, Response, text};

impl Request {
    /// A request without headers and body. The host refuses it unless the operator allowed the URL's origin.
    pub fn new(method: &str, url: impl Into<String>) -> Request {
        Request {
            method: method.to_owned(),
            url: url.into(),
            headers: Vec::new(),
            body: None,
            credential: None,
            timeout_ms: None,
        }
    }

    pub fn get(url: impl Into<String>) -> Request {
        Request::new("GET", url)
    }

    pub fn post(url: impl Into<String>) -> Request {
        Request::new("POST", url)
    }

    pub fn put(url: impl Into<String>) -> Request {
        Request::new("PUT", url)
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Request {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// `value` as the body, with the content type that belongs to it.
    pub fn json(mut self, value: &impl Serialize) -> Result<Request, Failure> {
        let body = serde_json::to_vec(value)
            .map_err(|error| permanent(format!("the body cannot be written: {error}")))?;
        self.body = Some(body);
        Ok(self.header("content-type", "application/json"))
    }

    /// The host signs with the credential of this name, and the guest never sees the secret. None = unsigned.
    #[must_use]
    pub fn credential(mut self, name: Option<&str>) -> Request {
        self.credential = name.map(str::to_owned);
        self
    }
}

impl Response {
    /// The first header of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON. Anything else (a proxy's web page, say) is a passing failure that quotes its start.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let mut deserializer = serde_json::Deserializer::from_slice(&self.body);
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let start = String::from_utf8_lossy(&self.body[..self.body.len().min(80)]);
            transient(format!(
                "the answer does not fit at `{}`: {}: {:?}",
                error.path(),
                text::line(&error.inner().to_string(), 200),
                text::line(&start, 80)
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FailureKind;

    fn answer(body: &str) -> Response {
        Response {
            status: 200,
            headers: vec![("ETag".to_owned(), "x".to_owned())],
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn an_answer_is_parsed_or_the_place_is_named() {
        assert_eq!(answer("[1, 2]").json::<Vec<u8>>().unwrap(), [1, 2]);
        assert_eq!(answer("").header("etag"), Some("x"));
        let failure = answer("[1, \"a\"]").json::<Vec<u8>>().unwrap_err();
        assert!(failure.message.contains("`[1]`"), "{}", failure.message);
        let failure = answer("<html>\u{1b}[31m").json::<Vec<u8>>().unwrap_err();
        assert_eq!(failure.kind, Some(FailureKind::Transient));
        assert!(
            failure.message.ends_with("\"<html>[31m\""),
            "{}",
            failure.message
        );
    }
}
