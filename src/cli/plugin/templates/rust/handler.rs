//! Alert handler {{name}}: posts each notification as JSON.
//!
//! ```ron
//! config: { "url": "https://chat.example.net/hook" }
//! ```

use serde::Deserialize;
use serde_json::json;
use weir_sdk::plugin::{AlertHandler, Context, Notification, Plugin, Status};
use weir_sdk::{Failure, Far, Request, config};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    url: String,
    credential: Option<String>,
}

pub struct Handler(Config);

impl Plugin for Handler {
    type Config = Config;
    const NAME: &'static str = "{{name}}";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CONFIG_SCHEMA: Option<&'static str> = Some(
        r#"{
  "type": "object", "additionalProperties": false, "required": ["url"],
  "properties": {
    "url": {"type": "string", "description": "Where messages are posted"},
    "credential": {"type": "string", "description": "Name of a credential of this receiver"}
  }
}"#,
    );

    fn open(config: Config, _context: Context) -> Result<Handler, Failure> {
        config::split_url("url", &config.url)?;
        Ok(Handler(config))
    }

    fn check(&self, _far: &impl Far) -> Result<String, Failure> {
        // Reach the far side if that can be done without sending anything.
        Ok(format!("posts to {}", self.0.url))
    }
}

impl AlertHandler for Handler {
    fn deliver(
        &self,
        far: &impl Far,
        notification: &Notification,
        _prior: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let message = json!({
            "title": notification.title,
            "text": notification.text,
            "resolved": notification.status == Status::Resolved,
            "more": notification.truncated,
        });
        let request = Request::post(&self.0.url).json(&message)?;
        // An answer of 300 or more is a failure: Ok means delivered.
        far.fetch(request.credential(self.0.credential.as_deref()))?;
        // What is returned comes back as `prior` with the next notification of the same `key`.
        Ok(None)
    }
}

weir_sdk::alert_handler!(Handler);
