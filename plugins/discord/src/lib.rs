//! Receiver `discord`: a webhook's message, edited as the alert goes on.

pub mod answer;
pub mod message;

use serde::{Deserialize, Serialize};
use weir_handler::answer::{get_request, json_request};
use weir_handler::{Handler, Notification};
use weir_sdk::{Failure, Far, failure, text};

use crate::answer::{Done, Refusal, read};
use crate::message::Message;

const CONFIG_SCHEMA: &str = r#"{
  "type": "object", "additionalProperties": false,
  "properties": {
    "credential": {"type": "string", "default": "discord", "description": "Name of a credential of this receiver: Url(...) of the webhook"},
    "thread_id": {"type": "string", "pattern": "^[0-9]+$", "description": "A thread of the webhook's channel to post into"},
    "username": {"type": "string", "maxLength": 80, "description": "Who posts, instead of the webhook's own name"},
    "updates": {"enum": ["edit", "post"], "default": "edit", "description": "edit: the first message is kept up to date, which alarms nobody again; post: every update is a message"}
  }
}"#;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default = "default_credential")]
    credential: String,
    thread_id: Option<String>,
    username: Option<String>,
    #[serde(default)]
    updates: Updates,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Updates {
    #[default]
    Edit,
    Post,
}

fn default_credential() -> String {
    "discord".to_owned()
}

/// One webhook.
#[derive(Debug)]
pub struct Discord {
    config: Config,
}

/// The message about a group.
#[derive(Debug, Serialize, Deserialize)]
struct Receipt {
    message: String,
}

/// A number of Discord's, which is all that may go into a path.
fn is_snowflake(id: &str) -> bool {
    (1..=20).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit())
}

impl Handler for Discord {
    const NAME: &'static str = "discord";
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;
    type Config = Config;

    fn new(config: Config) -> Result<Discord, Failure> {
        if config.credential.is_empty() {
            return Err(failure::misconfigured(
                "config.credential: expected the name of a credential of this receiver",
            ));
        }
        if config
            .thread_id
            .as_deref()
            .is_some_and(|id| !is_snowflake(id))
        {
            return Err(failure::misconfigured(
                "config.thread_id: expected a number in quotes, as Copy Thread ID gives it",
            ));
        }
        let is_name = |name: &str| (1..=80).contains(&name.chars().count());
        if config
            .username
            .as_deref()
            .is_some_and(|name| !is_name(name))
        {
            return Err(failure::misconfigured(
                "config.username: expected 1 to 80 characters",
            ));
        }
        Ok(Discord { config })
    }

    /// The webhook tells about itself and posts nothing.
    fn check(&self, far: &impl Far) -> Result<String, Failure> {
        let request = get_request("credential:".to_owned(), Some(&self.config.credential));
        let said = read(far, &far.send(request)?)?;
        Ok(format!(
            "Discord webhook {}",
            text::line(&said.name.unwrap_or_default(), 80)
        ))
    }

    fn deliver(
        &self,
        far: &impl Far,
        notification: &Notification,
        prior: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let first = prior
            .and_then(|prior| serde_json::from_str::<Receipt>(prior).ok())
            .filter(|first| self.config.updates == Updates::Edit && is_snowflake(&first.message));
        if let Some(first) = first {
            let url = format!("credential:/messages/{}{}", first.message, self.query(&[]));
            match self.call(far, "PATCH", url, &Message::edit(notification)) {
                Ok(_) => return receipt(first.message),
                // Somebody deleted it: a new one then.
                Err(refusal) if refusal.is_gone() => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        let message = Message::post(notification, self.config.username.as_deref());
        let url = format!("credential:{}", self.query(&[("wait", "true")]));
        let said = self.call(far, "POST", url, &message)?;
        match said.id.filter(|id| is_snowflake(id)) {
            Some(id) => receipt(id),
            // It is delivered all the same; the next message stands alone.
            None => Ok(None),
        }
    }
}

impl Discord {
    fn query(&self, fixed: &[(&str, &str)]) -> String {
        let thread = self.config.thread_id.as_deref().map(|id| ("thread_id", id));
        let pairs = fixed.iter().copied().chain(thread);
        let parts: Vec<String> = pairs
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if parts.is_empty() {
            String::new()
        } else {
            format!("?{}", parts.join("&"))
        }
    }

    fn call(
        &self,
        far: &impl Far,
        method: &str,
        url: String,
        message: &Message,
    ) -> Result<Done, Refusal> {
        let request = json_request(method, url, Some(&self.config.credential), message)?;
        read(far, &far.send(request)?)
    }
}

fn receipt(message: String) -> Result<Option<String>, Failure> {
    serde_json::to_string(&Receipt { message })
        .map(Some)
        .map_err(|error| failure::permanent(error.to_string()))
}

weir_handler::export!(Discord);
