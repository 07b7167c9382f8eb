//! Answers of a service, told apart: passing, for good, or a thing that the operator must mend.

use weir_sdk::{Failure, FailureKind, Far, Request, Response, failure, text};

/// How much of an answer a message quotes, in bytes.
const QUOTE_MAX: usize = 300;
/// Nobody waits longer, whatever the far side says.
const WAIT_MAX_MS: f64 = 24.0 * 3600.0 * 1000.0;

/// A POST, or whatever `method` is, of a JSON body.
pub fn json_request(
    method: &str,
    url: String,
    credential: Option<&str>,
    body: &impl serde::Serialize,
) -> Result<Request, Failure> {
    let body = serde_json::to_vec(body).map_err(|error| failure::permanent(error.to_string()))?;
    Ok(Request {
        method: method.to_owned(),
        url,
        headers: vec![(
            "content-type".to_owned(),
            "application/json; charset=utf-8".to_owned(),
        )],
        body: Some(body),
        credential: credential.map(str::to_owned),
        timeout_ms: None,
    })
}

/// A GET.
pub fn get_request(url: String, credential: Option<&str>) -> Request {
    Request {
        method: "GET".to_owned(),
        url,
        headers: Vec::new(),
        body: None,
        credential: credential.map(str::to_owned),
        timeout_ms: None,
    }
}

/// The failure that a status of 300 or more is where the service says nothing better: 408, 425, 429 and 5xx pass,
/// 401, 403, 404, 405 and 410 are the operator's (a receiver has one address, and it is wrong), a redirect too.
pub fn refused(far: &impl Far, response: &Response, what: &str) -> Failure {
    let message = said(response.status, what);
    match response.status {
        408 | 425 | 429 | 500.. => Failure {
            retry_after_ms: retry_after(far, response),
            ..failure::transient(message)
        },
        300..=399 | 401 | 403 | 404 | 405 | 407 | 410 => failure::misconfigured(message),
        _ => failure::permanent(message),
    }
}

/// The far side took it if it answered below 300; else why not, in its own words.
pub fn accepted(far: &impl Far, response: &Response) -> Result<(), Failure> {
    if response.status < 300 {
        return Ok(());
    }
    Err(refused(far, response, &quote(&response.body)))
}

/// `status 404: Unknown Webhook`.
pub fn said(status: u16, what: &str) -> String {
    let what = text::line(what, QUOTE_MAX);
    if what.is_empty() {
        format!("status {status}")
    } else {
        format!("status {status}: {what}")
    }
}

/// The start of a body, as one line that is safe to show.
pub fn quote(body: &[u8]) -> String {
    let start = &body[..body.len().min(4 * QUOTE_MAX)];
    text::line(&String::from_utf8_lossy(start), QUOTE_MAX)
}

/// Milliseconds of `Retry-After`: seconds, whole or not, or an HTTP date.
pub fn retry_after(far: &impl Far, response: &Response) -> Option<u32> {
    let value = response
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))
        .map(|(_, value)| value.trim())?;
    if let Ok(seconds) = value.parse::<f64>() {
        return wait_seconds(seconds);
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    let now = i64::try_from(far.now()).ok()?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds of this century are exact in f64"
    )]
    let seconds = at.as_millisecond().saturating_sub(now) as f64 / 1000.0;
    wait_seconds(seconds.max(0.0))
}

/// Milliseconds of a number of seconds that a service sent; none if it is no wait.
pub fn wait_seconds(seconds: f64) -> Option<u32> {
    if !seconds.is_finite() || seconds < 0.0 {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and a day's milliseconds"
    )]
    Some((seconds * 1000.0).ceil().min(WAIT_MAX_MS) as u32)
}

/// Whether a failure asks the operator.
pub fn is_misconfigured(failure: &Failure) -> bool {
    failure.kind == Some(FailureKind::Misconfigured)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_sdk::Level;

    struct Clock;

    impl Far for Clock {
        fn now(&self) -> u64 {
            1_445_412_420_000
        }
        fn log(&self, _level: Level, _message: &str) {}
        fn send(&self, _request: Request) -> Result<Response, Failure> {
            Err(failure::permanent("nothing is sent here"))
        }
        fn fetch(&self, request: Request) -> Result<Response, Failure> {
            self.send(request)
        }
    }

    fn answered(status: u16, header: Option<&str>) -> Failure {
        let response = Response {
            status,
            headers: header
                .map(|value| ("Retry-After".to_owned(), value.to_owned()))
                .into_iter()
                .collect(),
            body: Vec::new(),
        };
        refused(&Clock, &response, "because")
    }

    #[test]
    fn statuses_are_told_apart() {
        for (status, kind) in [
            (302, FailureKind::Misconfigured),
            (400, FailureKind::Permanent),
            (401, FailureKind::Misconfigured),
            (404, FailureKind::Misconfigured),
            (408, FailureKind::Transient),
            (413, FailureKind::Permanent),
            (429, FailureKind::Transient),
            (500, FailureKind::Transient),
            (599, FailureKind::Transient),
        ] {
            assert_eq!(answered(status, None).kind, Some(kind), "{status}");
        }
        assert_eq!(answered(503, None).message, "status 503: because");
    }

    #[test]
    fn a_wait_is_read_in_seconds_or_as_a_date_and_bounded() {
        for (value, expected) in [
            ("30", Some(30_000)),
            ("0.65", Some(650)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(60_000)),
            ("Wed, 21 Oct 2015 07:00:00 GMT", Some(0)),
            ("99999999999", Some(86_400_000)),
            ("-1", None),
            ("NaN", None),
            ("soon", None),
        ] {
            assert_eq!(
                answered(429, Some(value)).retry_after_ms,
                expected,
                "{value}"
            );
        }
        assert_eq!(answered(400, Some("30")).retry_after_ms, None);
    }
}
