//! Receiver `telegram`: a bot's message, kept up to date, with replies to it as the alert goes on.

pub mod answer;
pub mod message;

use serde::{Deserialize, Serialize};
use weir_handler::answer::json_request;
use weir_handler::{Handler, Notification, Status};
use weir_sdk::{Failure, Far, config, failure, text};

use crate::answer::{Done, Refusal, read};

const CONFIG_SCHEMA: &str = r#"{
  "type": "object", "additionalProperties": false, "required": ["chat_id"],
  "properties": {
    "chat_id": {"type": ["integer", "string"], "description": "The chat: a number (groups are negative), or @name of a public channel"},
    "credential": {"type": "string", "default": "telegram", "description": "Name of a credential of this receiver: Secret(...) of the bot's token"},
    "topic": {"type": "integer", "description": "message_thread_id of a forum topic"},
    "thread": {"type": "boolean", "default": true, "description": "Updates and the end are replies to the first message; false: it is only edited, which alarms nobody"},
    "api_url": {"type": "string", "default": "https://api.telegram.org", "description": "Where the Bot API is"}
  }
}"#;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    chat_id: Chat,
    #[serde(default = "default_credential")]
    credential: String,
    topic: Option<i64>,
    #[serde(default = "default_thread")]
    thread: bool,
    #[serde(default = "default_api")]
    api_url: String,
}

/// As the API takes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number such as -1001234567890, or a name such as \"@channel\""
)]
enum Chat {
    Number(i64),
    Name(String),
}

fn default_credential() -> String {
    "telegram".to_owned()
}

fn default_thread() -> bool {
    true
}

fn default_api() -> String {
    "https://api.telegram.org".to_owned()
}

/// One chat of one bot.
#[derive(Debug)]
pub struct Telegram {
    /// `https://api.telegram.org/bot{{secret:telegram}}`: the host puts the token there.
    base: String,
    config: Config,
}

/// The first message about a group.
#[derive(Debug, Serialize, Deserialize)]
struct Receipt {
    chat: Chat,
    message: i64,
}

#[derive(Serialize)]
struct Send<'a> {
    chat_id: &'a Chat,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_thread_id: Option<i64>,
    text: &'a str,
    parse_mode: &'static str,
    link_preview_options: Preview,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_notification: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_parameters: Option<Reply>,
}

#[derive(Serialize)]
struct Preview {
    is_disabled: bool,
}

#[derive(Serialize)]
struct Reply {
    message_id: i64,
    /// A message that somebody deleted is no reason to say nothing.
    allow_sending_without_reply: bool,
}

impl Handler for Telegram {
    const NAME: &'static str = "telegram";
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;
    type Config = Config;

    fn new(mut config: Config) -> Result<Telegram, Failure> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if config.credential.is_empty() || !config.credential.chars().all(is_name) {
            return Err(failure::misconfigured(
                "config.credential: expected the name of a credential of this receiver",
            ));
        }
        if let Chat::Name(name) = &config.chat_id {
            // A number in quotes is a number.
            if let Ok(number) = name.parse::<i64>() {
                config.chat_id = Chat::Number(number);
            } else if !name.starts_with('@') || name.len() < 2 {
                return Err(failure::misconfigured(
                    "config.chat_id: expected a number such as -1001234567890, or a name such as \"@channel\"",
                ));
            }
        }
        let (origin, path) = config::split_url("api_url", &config.api_url)?;
        Ok(Telegram {
            base: format!("{origin}{path}/bot{{{{secret:{}}}}}", config.credential),
            config,
        })
    }

    /// The token is good and the bot knows the chat; nothing is sent.
    fn check(&self, far: &impl Far) -> Result<String, Failure> {
        let body = serde_json::json!({ "chat_id": self.config.chat_id });
        let chat = self.call(far, "getChat", &body)?;
        let name = text::line(&chat.name.unwrap_or_default(), 80);
        Ok(format!("Telegram chat {name}"))
    }

    fn deliver(
        &self,
        far: &impl Far,
        notification: &Notification,
        prior: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let text = message::html(notification);
        let first = prior
            .and_then(|prior| serde_json::from_str::<Receipt>(prior).ok())
            // Of another chat it is of no use here.
            .filter(|first| first.chat == self.config.chat_id);
        let quiet = notification.status == Status::Resolved;
        let Some(first) = first else {
            return self.send(far, &text, None, quiet);
        };
        // The edit comes first: repeated after a failed reply it does no harm.
        let edit = Send {
            message_id: Some(first.message),
            ..self.message(&text)
        };
        let there = match self.call(far, "editMessageText", &edit) {
            Ok(_) => true,
            Err(refusal) if refusal.is_unchanged() => true,
            Err(refusal) if refusal.is_gone() => false,
            Err(refusal) => return Err(refusal.into()),
        };
        if there && !self.config.thread {
            return receipt(&first);
        }
        if !there && !self.config.thread {
            return self.send(far, &text, None, quiet);
        }
        let sent = self.send(far, &text, Some(first.message), quiet)?;
        // The thread hangs on its first message as long as there is one.
        if there { receipt(&first) } else { Ok(sent) }
    }
}

impl Telegram {
    fn message<'a>(&'a self, text: &'a str) -> Send<'a> {
        Send {
            chat_id: &self.config.chat_id,
            message_id: None,
            message_thread_id: None,
            text,
            parse_mode: "HTML",
            link_preview_options: Preview { is_disabled: true },
            disable_notification: None,
            reply_parameters: None,
        }
    }

    fn send(
        &self,
        far: &impl Far,
        text: &str,
        reply_to: Option<i64>,
        quiet: bool,
    ) -> Result<Option<String>, Failure> {
        let message = Send {
            message_thread_id: self.config.topic,
            disable_notification: quiet.then_some(true),
            reply_parameters: reply_to.map(|message_id| Reply {
                message_id,
                allow_sending_without_reply: true,
            }),
            ..self.message(text)
        };
        match self.call(far, "sendMessage", &message)?.message_id {
            Some(message) => receipt(&Receipt {
                chat: self.config.chat_id.clone(),
                message,
            }),
            // It is delivered all the same; the next message stands alone.
            None => Ok(None),
        }
    }

    fn call(&self, far: &impl Far, method: &str, body: &impl Serialize) -> Result<Done, Refusal> {
        let request = json_request("POST", format!("{}/{method}", self.base), None, body)?;
        read(far, &far.send(request)?)
    }
}

fn receipt(receipt: &Receipt) -> Result<Option<String>, Failure> {
    serde_json::to_string(receipt)
        .map(Some)
        .map_err(|error| failure::permanent(error.to_string()))
}

weir_handler::export!(Telegram);
