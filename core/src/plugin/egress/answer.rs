//! What came back: bodies within their limit, and statuses and errors turned into failures that say what to do.

use std::error::Error as _;
use std::time::Duration;

use reqwest::Response;
use weir_model::observation::FailureKind;

use super::rule::Origin;
use super::{Failure, HttpResponse, too_large, transient};
use crate::plugin::text::printable;

/// How much of an answer's body `fetch` quotes in a failure.
const QUOTE_BYTES_MAX: usize = 512;
/// Read beyond the quote, so that a secret that is cut at its end never shows.
const QUOTE_MARGIN: usize = 8 * 1024;

/// Reads an answer of at most `max` bytes.
pub(super) async fn read(mut response: Response, max: u64) -> Result<HttpResponse, Failure> {
    let over = || too_large(format!("the answer has more than {max} bytes"));
    if response.content_length().is_some_and(|length| length > max) {
        return Err(over());
    }
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        })
        .collect();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(connection_failure)? {
        if (body.len() + chunk.len()) as u64 > max {
            return Err(over());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(HttpResponse {
        status,
        headers,
        body,
    })
}

pub(super) fn status_failure(
    response: &HttpResponse,
    now: jiff::Timestamp,
    redact: impl Fn(&str) -> String,
) -> Failure {
    let kind = match response.status {
        408 | 425 | 429 | 500.. => FailureKind::Transient,
        401 | 403 => FailureKind::Misconfigured,
        404 | 410 => FailureKind::NotFound,
        _ => FailureKind::Permanent,
    };
    // Cut after secrets were taken out of it, or half of one might stay.
    let start = &response.body[..response.body.len().min(QUOTE_BYTES_MAX + QUOTE_MARGIN)];
    let quote = redact(&String::from_utf8_lossy(start));
    let quote = printable(&quote, QUOTE_BYTES_MAX);
    let retry_after = response
        .headers
        .iter()
        .find(|(name, _)| name == "retry-after")
        .and_then(|(_, value)| retry_after(value, now))
        .filter(|_| kind == FailureKind::Transient);
    Failure {
        message: format!("status {}: {quote}", response.status),
        kind: Some(kind),
        retry_after,
    }
}

/// Seconds or an HTTP date; at most a day, whatever the far side says.
fn retry_after(value: &str, now: jiff::Timestamp) -> Option<Duration> {
    let wait = match value.trim().parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
            Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
        }
    };
    Some(wait.min(Duration::from_secs(24 * 60 * 60)))
}

pub(super) fn connection_failure(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    if error.is_timeout() && error.is_connect() {
        return transient("connect", "no connection within `http_connect`".into());
    }
    let mut causes = Vec::new();
    let mut source = error.source();
    let mut tls = false;
    while let Some(cause) = source {
        tls |= is_tls(cause);
        causes.push(cause.to_string());
        source = cause.source();
    }
    let word = match () {
        () if error.is_timeout() => "timeout",
        () if tls => "tls",
        () if error.is_connect() => "connect",
        () => "protocol",
    };
    causes.dedup();
    let detail = causes.last().cloned().unwrap_or_else(|| error.to_string());
    transient(word, printable(&detail, QUOTE_BYTES_MAX))
}

/// With whom it failed, behind its cause; nothing of the path, which may hold a secret.
pub(super) fn at(origin: &Origin, mut failure: Failure) -> Failure {
    if let Some((cause, detail)) = failure.message.split_once(": ") {
        failure.message = format!("{cause}: {origin}: {detail}");
    }
    failure
}

/// An io::Error does not name what it carries as its source, and may carry another one.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    error.is::<rustls::Error>()
        || io
            .and_then(|io| io.get_ref())
            .is_some_and(|inner| is_tls(inner))
}
