//! Receiver `slack`: through an incoming webhook, or as a bot that keeps one message up to date and replies in its thread.

pub mod answer;
pub mod message;

use serde::{Deserialize, Serialize};
use weir_handler::answer::json_request;
use weir_handler::{Handler, Notification};
use weir_sdk::{Failure, Far, config, failure, text};

use crate::answer::{Done, Refusal, read};
use crate::message::Message;

const CONFIG_SCHEMA: &str = r#"{
  "type": "object", "additionalProperties": false,
  "properties": {
    "credential": {"type": "string", "default": "slack", "description": "Name of a credential of this receiver: Url(...) of an incoming webhook, or, with a channel, Bearer(...) of a bot token (xoxb-, scope chat:write)"},
    "channel": {"type": "string", "description": "Where a bot posts: an id (C0123456789), or a name (#ops) of a public channel. Without it the credential is an incoming webhook"},
    "thread": {"type": "boolean", "default": true, "description": "A bot replies to its first message with every update and with the end; false: it only edits that message, which alarms nobody"},
    "api_url": {"type": "string", "default": "https://slack.com/api", "description": "Where a bot finds Slack's API"}
  }
}"#;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default = "default_credential")]
    credential: String,
    channel: Option<String>,
    thread: Option<bool>,
    #[serde(default = "default_api")]
    api_url: String,
}

fn default_credential() -> String {
    "slack".to_owned()
}

fn default_api() -> String {
    "https://slack.com/api".to_owned()
}

/// One webhook, or one channel of a bot.
#[derive(Debug)]
pub struct Slack {
    credential: String,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Webhook,
    Bot {
        api: String,
        channel: String,
        thread: bool,
    },
}

/// The first message about a group.
#[derive(Debug, Serialize, Deserialize)]
struct Receipt {
    channel: String,
    ts: String,
}

/// A message of a bot: to a channel, into a thread of it, or in place of one that is there.
#[derive(Serialize)]
struct Post<'a> {
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_ts: Option<&'a str>,
    #[serde(flatten)]
    message: &'a Message,
}

impl Handler for Slack {
    const NAME: &'static str = "slack";
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;
    type Config = Config;

    fn new(config: Config) -> Result<Slack, Failure> {
        let (origin, path) = config::split_url("api_url", &config.api_url)?;
        if config.credential.is_empty() {
            return Err(failure::misconfigured(
                "config.credential: expected the name of a credential of this receiver",
            ));
        }
        let way = match config.channel {
            Some(channel) if channel.trim().is_empty() => {
                return Err(failure::misconfigured(
                    "config.channel: expected an id such as C0123456789, or a name such as #ops",
                ));
            }
            Some(channel) => Way::Bot {
                api: format!("{origin}{path}"),
                channel,
                thread: config.thread.unwrap_or(true),
            },
            None if config.thread.is_some() => {
                return Err(failure::misconfigured(
                    "config.thread: an incoming webhook cannot reply; that needs a bot token and config.channel",
                ));
            }
            None => Way::Webhook,
        };
        Ok(Slack {
            credential: config.credential,
            way,
        })
    }

    fn check(&self, far: &impl Far) -> Result<String, Failure> {
        let Way::Bot { channel, .. } = &self.way else {
            return Ok(
                "posts to an incoming webhook; `weir receiver test` sends a message".to_owned(),
            );
        };
        let who = self.call(far, "auth.test", &serde_json::json!({}))?;
        Ok(format!(
            "Slack team {}, bot {}, channel {}",
            text::line(&who.team.unwrap_or_default(), 80),
            text::line(&who.user.unwrap_or_default(), 80),
            text::line(channel, 80)
        ))
    }

    fn deliver(
        &self,
        far: &impl Far,
        notification: &Notification,
        prior: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let message = Message::of(notification);
        let Way::Bot {
            channel, thread, ..
        } = &self.way
        else {
            let request = json_request(
                "POST",
                "credential:".to_owned(),
                Some(&self.credential),
                &message,
            )?;
            read(far, &far.send(request)?)?;
            return Ok(None);
        };
        let first = prior.and_then(|prior| serde_json::from_str::<Receipt>(prior).ok());
        if let Some(first) = first
            && self.update(far, &first, &message, *thread)?
        {
            return receipt(&first);
        }
        let sent = self.call(
            far,
            "chat.postMessage",
            &Post {
                channel,
                ts: None,
                thread_ts: None,
                message: &message,
            },
        )?;
        match (sent.channel, sent.ts) {
            (Some(channel), Some(ts)) => receipt(&Receipt { channel, ts }),
            // It is delivered all the same; the next message stands alone.
            _ => Ok(None),
        }
    }
}

impl Slack {
    /// Brings the first message up to date and replies to it. False: it is not there any more.
    ///
    /// The edit comes first: repeated after a failed reply it does no harm.
    fn update(
        &self,
        far: &impl Far,
        first: &Receipt,
        message: &Message,
        thread: bool,
    ) -> Result<bool, Failure> {
        let edit = Post {
            channel: &first.channel,
            ts: Some(&first.ts),
            thread_ts: None,
            message,
        };
        match self.call(far, "chat.update", &edit) {
            Ok(_) => {}
            Err(refusal) if refusal.is_gone() => return Ok(false),
            // Too old to be edited in this workspace: a reply still finds it.
            Err(refusal) if refusal.is_frozen() && thread => {}
            Err(refusal) if refusal.is_frozen() => return Ok(false),
            Err(refusal) => return Err(refusal.into()),
        }
        if !thread {
            return Ok(true);
        }
        let reply = Post {
            channel: &first.channel,
            ts: None,
            thread_ts: Some(&first.ts),
            message,
        };
        match self.call(far, "chat.postMessage", &reply) {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.is_gone() => Ok(false),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn call(&self, far: &impl Far, method: &str, body: &impl Serialize) -> Result<Done, Refusal> {
        let api = match &self.way {
            Way::Bot { api, .. } => api.as_str(),
            Way::Webhook => "",
        };
        let request = json_request(
            "POST",
            format!("{api}/{method}"),
            Some(&self.credential),
            body,
        )?;
        read(far, &far.send(request)?)
    }
}

fn receipt(receipt: &Receipt) -> Result<Option<String>, Failure> {
    serde_json::to_string(receipt)
        .map(Some)
        .map_err(|error| failure::permanent(error.to_string()))
}

weir_handler::export!(Slack);
