//! Query parameters and bodies: strict, bounded, and refused with a suggestion.

use super::errors::{Problem, echo};
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, web};
use futures::StreamExt;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;
use uuid::Uuid;

/// Items of a list where the client does not say.
const LIMIT_DEFAULT: usize = 50;
/// Items of a list at most.
pub(super) const LIMIT_MAX: usize = 100;
/// Bytes of a body.
pub(super) const BODY_LEN_MAX: usize = 64 << 10;
/// Time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Length of one parameter.
const VALUE_LEN_MAX: usize = 4096;

/// The query parameters of a request, each known and given once.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Refuses parameters that are not in `known`.
    pub(super) fn of(request: &HttpRequest, known: &[&'static str]) -> Result<Params, Problem> {
        Params::parse(request.query_string(), known)
    }

    fn parse(query: &str, known: &[&'static str]) -> Result<Params, Problem> {
        let mut given: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&name.as_ref()) {
                return Err(unknown(&name, known));
            }
            if given.iter().any(|(other, _)| *other == name) {
                return Err(Problem::bad_parameter(&name, "given twice"));
            }
            if value.len() > VALUE_LEN_MAX {
                return Err(Problem::bad_parameter(
                    &name,
                    format_args!("longer than {VALUE_LEN_MAX} bytes"),
                ));
            }
            given.push((name.into_owned(), value.into_owned()));
        }
        Ok(Params(given))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn get<T>(&self, name: &str, what: &str) -> Result<Option<T>, Problem>
    where
        T: FromStr,
    {
        self.text(name)
            .map(|text| text.parse().map_err(|_| wrong(name, text, what)))
            .transpose()
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, Problem> {
        self.get(name, "an integer")
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        self.get(name, "true or false")
    }

    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        self.get(name, "a time like 2026-11-22T10:00:00Z")
    }

    /// One of the given words.
    pub(super) fn word<'a>(
        &self,
        name: &str,
        words: &[&'a str],
    ) -> Result<Option<&'a str>, Problem> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match words.iter().find(|word| **word == text) {
            Some(word) => Ok(Some(word)),
            None => Err(wrong(name, text, format!("one of {}", words.join(", ")))),
        }
    }

    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let limit: usize = self
            .get("limit", "a number from 1 to 100")?
            .unwrap_or(LIMIT_DEFAULT);
        if limit == 0 || limit > LIMIT_MAX {
            return Err(wrong("limit", &limit.to_string(), "a number from 1 to 100"));
        }
        Ok(limit)
    }

    /// Where the page before ended. Opaque to clients.
    pub(super) fn cursor(&self) -> Result<Option<i64>, Problem> {
        self.get("cursor", "the `next_cursor` of a page before")
    }
}

fn wrong(name: &str, found: &str, wanted: impl Display) -> Problem {
    Problem::bad_parameter(
        name,
        format_args!("found `{}`, wanted {wanted}", echo(found)),
    )
}

fn unknown(name: &str, known: &[&'static str]) -> Problem {
    let near = known
        .iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(name.get(..64).unwrap_or(name), candidate),
                *candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3).max(1))
        .min();
    match near {
        Some((_, near)) => {
            Problem::bad_parameter(name, format_args!("unknown; did you mean `{near}`?"))
        }
        None if known.is_empty() => {
            Problem::bad_parameter(name, "unknown; this address takes none")
        }
        None => Problem::bad_parameter(
            name,
            format_args!("unknown; there are {}", known.join(", ")),
        ),
    }
}

/// An id in a path: a UUID.
pub(super) fn uuid(text: &str, what: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text)
        .map_err(|_| Problem::not_found(format!("`{}` is no id of {what} (a UUID)", echo(text))))
}

/// The JSON body of a request.
pub(super) async fn body<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<T, Problem> {
    body_within(request, payload, BODY_LEN_MAX).await
}

/// The JSON body of a request, of at most `len_max` bytes.
pub(super) async fn body_within<T: DeserializeOwned>(
    request: &HttpRequest,
    mut payload: web::Payload,
    len_max: usize,
) -> Result<T, Problem> {
    let json = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .eq_ignore_ascii_case("application/json")
        });
    if !json {
        return Err(Problem::unsupported_media_type());
    }
    let mut bytes = web::BytesMut::new();
    let read = async {
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| Problem::bad_request("the body could not be read"))?;
            if bytes.len() + chunk.len() > len_max {
                return Err(Problem::body_too_large(len_max));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(())
    };
    tokio::time::timeout(BODY_TIMEOUT, read)
        .await
        .map_err(|_| Problem::body_too_slow())??;
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::bad_request(format!("the body: {}", echo(&error.to_string()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["source", "workflow_id", "status", "limit", "cursor"];

    fn refusal(query: &str) -> String {
        match Params::parse(query, KNOWN).and_then(|params| params.limit()) {
            Ok(limit) => format!("taken with limit {limit}"),
            Err(problem) => problem.detail().to_owned(),
        }
    }

    #[test]
    fn a_misspelt_parameter_is_refused_with_a_suggestion() {
        assert_eq!(
            refusal("sorce=x"),
            "parameter `sorce`: unknown; did you mean `source`?"
        );
        assert_eq!(
            refusal("zzz=x"),
            "parameter `zzz`: unknown; there are source, workflow_id, status, limit, cursor"
        );
        assert_eq!(
            refusal("source=a&source=b"),
            "parameter `source`: given twice"
        );
    }

    #[test]
    fn a_limit_is_bounded() {
        assert_eq!(refusal(""), "taken with limit 50");
        assert_eq!(refusal("limit=100"), "taken with limit 100");
        assert_eq!(
            refusal("limit=101"),
            "parameter `limit`: found `101`, wanted a number from 1 to 100"
        );
        assert_eq!(
            refusal("limit=-1"),
            "parameter `limit`: found `-1`, wanted a number from 1 to 100"
        );
    }
}
