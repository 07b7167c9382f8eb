//! What the Bot API answers: `ok`, and where it is false a sentence and parameters.

use serde_json::Value;
use weir_handler::answer::{quote, refused, said, wait_seconds};
use weir_sdk::{Failure, Far, Response, failure};

/// A message or a chat, as far as it is of use.
#[derive(Debug, Default)]
pub struct Done {
    pub message_id: Option<i64>,
    /// Of a chat: its title, else who it is with.
    pub name: Option<String>,
}

impl Done {
    /// What is done is done, whatever its description looks like.
    fn of(result: &Value) -> Done {
        let name = ["title", "username", "first_name"];
        Done {
            message_id: result["message_id"].as_i64(),
            name: name
                .iter()
                .find_map(|name| result[*name].as_str())
                .map(str::to_owned),
        }
    }
}

/// The sentence, in lower case, and what it means.
#[derive(Debug)]
pub struct Refusal {
    description: String,
    failure: Failure,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal {
            description: String::new(),
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
    /// An edit to what it says already: a retry.
    pub fn is_unchanged(&self) -> bool {
        self.description.contains("message is not modified")
    }

    /// The message was deleted, or cannot be edited any more.
    pub fn is_gone(&self) -> bool {
        [
            "message to edit not found",
            "message can't be edited",
            "message_id_invalid",
        ]
        .iter()
        .any(|sentence| self.description.contains(sentence))
    }
}

/// Sentences of 400 that are about the chat or the bot, not about this message.
const ADDRESS: &[&str] = &[
    "chat not found",
    "chat_id is empty",
    "message thread not found",
    "topic_closed",
    "topic_deleted",
    "not enough rights",
    "have no rights",
    "need administrator rights",
    "chat_write_forbidden",
    "group chat was deactivated",
    "peer_id_invalid",
    "user not found",
];

/// Done, or why not.
pub fn read(far: &impl Far, response: &Response) -> Result<Done, Refusal> {
    let json = serde_json::from_slice::<Value>(&response.body).ok();
    let json = json.filter(|json| json["ok"].is_boolean());
    let answer = match json {
        Some(answer) if answer["ok"] == true && response.status < 300 => {
            return Ok(Done::of(&answer["result"]));
        }
        Some(answer) => answer,
        None if response.status < 300 => {
            let what = quote(&response.body);
            return Err(
                failure::transient(format!("this is not the Bot API's answer: {what}")).into(),
            );
        }
        None => serde_json::json!({ "description": quote(&response.body) }),
    };
    let what = answer["description"].as_str().unwrap_or_default();
    let description = what.to_lowercase();
    let code = answer["error_code"].as_u64();
    let response = Response {
        status: code
            .and_then(|code| u16::try_from(code).ok())
            .filter(|code| (300..600).contains(code))
            .unwrap_or(response.status),
        ..response.clone()
    };
    let told = said(response.status, what);
    let parameters = &answer["parameters"];
    let mut failure = if let Some(chat) = parameters["migrate_to_chat_id"].as_i64() {
        failure::misconfigured(format!("{told}: set config.chat_id to {chat}"))
    } else if response.status == 401 || response.status == 404 {
        failure::misconfigured(format!("{told}: is the bot's token right?"))
    } else if response.status == 403 || ADDRESS.iter().any(|part| description.contains(part)) {
        failure::misconfigured(format!(
            "{told}: is config.chat_id right, and may the bot write there?"
        ))
    } else if response.status < 300 {
        failure::permanent(told)
    } else {
        refused(far, &response, what)
    };
    if response.status == 429
        && let Some(wait) = parameters["retry_after"].as_f64().and_then(wait_seconds)
    {
        failure.retry_after_ms = Some(wait);
    }
    Err(Refusal {
        description,
        failure,
    })
}
