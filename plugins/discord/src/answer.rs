//! What Discord answers: a status, a code of its own, and the wait in the body.

use serde_json::Value;
use weir_handler::answer::{quote, refused, said, wait_seconds};
use weir_sdk::{Failure, Far, Response, failure};

/// What of an answer is of use: of a message, or of a webhook.
#[derive(Debug, Default)]
pub struct Done {
    pub id: Option<String>,
    pub name: Option<String>,
}

const UNKNOWN_MESSAGE: i64 = 10008;
/// The webhook, its channel or its thread: nothing goes through until somebody mends it.
const ADDRESS: &[(i64, &str)] = &[
    (
        10003,
        "the channel or thread is gone: is config.thread_id right?",
    ),
    (10015, "the webhook was deleted: make a new one"),
    (50027, "the webhook's URL is wrong: copy it again"),
    (160_005, "the thread is locked"),
    (
        220_001,
        "this is a forum channel: name a thread in config.thread_id",
    ),
    (
        220_003,
        "the webhook cannot make threads in this forum channel",
    ),
];

/// Discord's own code, and what it means.
#[derive(Debug)]
pub struct Refusal {
    code: Option<i64>,
    failure: Failure,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal {
            code: None,
            failure,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        refusal.failure
    }
}

impl Refusal {
    /// The message is not there any more; the webhook is.
    pub fn is_gone(&self) -> bool {
        self.code == Some(UNKNOWN_MESSAGE)
    }
}

/// Done, or why not.
pub fn read(far: &impl Far, response: &Response) -> Result<Done, Refusal> {
    let json = serde_json::from_slice::<Value>(&response.body).ok();
    let text = |json: &Value, name: &str| json[name].as_str().map(str::to_owned);
    if response.status < 300 {
        return match json {
            // What is done is done, whatever its description looks like.
            Some(json) => Ok(Done {
                id: text(&json, "id"),
                name: text(&json, "name"),
            }),
            None if response.body.is_empty() => Ok(Done::default()),
            None => Err(failure::transient(format!(
                "this is not Discord's answer: {}",
                quote(&response.body)
            ))
            .into()),
        };
    }
    let answer = json.unwrap_or_default();
    let what = text(&answer, "message").unwrap_or_else(|| quote(&response.body));
    let code = answer["code"].as_i64();
    let known = ADDRESS.iter().find(|(known, _)| code == Some(*known));
    let mut failure = match known {
        Some((_, help)) => {
            failure::misconfigured(format!("{}: {help}", said(response.status, &what)))
        }
        None => refused(far, response, &what),
    };
    if response.status == 429
        && let Some(wait) = answer["retry_after"].as_f64().and_then(wait_seconds)
    {
        // The body is exact, the header is rounded; a proxy before Discord has the header alone.
        failure.retry_after_ms = Some(wait);
    }
    Err(Refusal { code, failure })
}
