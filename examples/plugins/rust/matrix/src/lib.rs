//! Alert handler: messages in a Matrix room. An update or a resolve edits the first message instead of sending another.
//!
//! ```ron
//! config: { "homeserver": "https://matrix.example.net", "room": "!abc:example.net", "credential": "matrix" }
//! credentials: { "matrix": Bearer(file: "matrix.token", origins: ["https://matrix.example.net"]) }
//! ```

use serde::Deserialize;
use serde_json::{Value, json};
use weir_sdk::plugin::{AlertHandler, Context, Notification, Plugin, Status};
use weir_sdk::{Failure, Far, Request, config, failure, text};

/// Matrix takes events of 64 KiB; the text is in it twice.
const TEXT_MAX: usize = 16 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    homeserver: String,
    room: String,
    credential: String,
}

#[derive(Debug)]
pub struct Matrix(Config);

impl Plugin for Matrix {
    type Config = Config;
    const NAME: &'static str = "matrix";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CONFIG_SCHEMA: Option<&'static str> = Some(
        r#"{
  "type": "object", "additionalProperties": false, "required": ["homeserver", "room", "credential"],
  "properties": {
    "homeserver": {"type": "string", "description": "https://matrix.example.net"},
    "room": {"type": "string", "description": "The room's id, which begins with !"},
    "credential": {"type": "string", "description": "The credential with the access token"}
  }
}"#,
    );

    fn open(mut config: Config, _context: Context) -> Result<Matrix, Failure> {
        let (origin, path) = config::split_url("homeserver", &config.homeserver)?;
        config.homeserver = format!("{origin}{path}");
        if !config.room.starts_with('!') {
            return Err(failure::misconfigured(
                "config.room: expected the room's id, which begins with ! (in Element: Settings, Advanced)",
            ));
        }
        Ok(Matrix(config))
    }

    fn check(&self, far: &impl Far) -> Result<String, Failure> {
        let url = format!("{}/_matrix/client/v3/account/whoami", self.0.homeserver);
        let answer: Value = far.fetch(self.signed(Request::get(url)))?.json()?;
        let user = answer["user_id"].as_str().unwrap_or("nobody");
        Ok(format!("{} as {}", self.0.room, text::line(user, 200)))
    }
}

impl AlertHandler for Matrix {
    fn deliver(
        &self,
        far: &impl Far,
        notification: &Notification,
        prior: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        // The transaction's id makes a repeated request the same message: the server answers with the first one's id.
        let url = format!(
            "{}/_matrix/client/v3/rooms/{}/send/m.room.message/{}",
            self.0.homeserver,
            escaped(&self.0.room),
            escaped(&notification.id)
        );
        let request = Request::put(url).json(&content(notification, prior))?;
        #[derive(Deserialize)]
        struct Sent {
            event_id: String,
        }
        let sent: Sent = far.fetch(self.signed(request))?.json()?;
        // Later edits name the first message, not the last edit.
        Ok(Some(prior.map_or(sent.event_id, str::to_owned)))
    }
}

impl Matrix {
    fn signed(&self, request: Request) -> Request {
        request.credential(Some(&self.0.credential))
    }
}

fn content(notification: &Notification, prior: Option<&str>) -> Value {
    let sign = match notification.status {
        Status::Firing => "🔥",
        Status::Resolved => "✅",
    };
    let mut body = format!("{sign} {}", text::line(&notification.title, 500));
    if !notification.text.is_empty() && notification.text != notification.title {
        body.push('\n');
        body.push_str(&text::cut(notification.text.clone(), TEXT_MAX));
    }
    if notification.truncated > 0 {
        body.push_str(&format!("\n+{} more", notification.truncated));
    }
    if let Some(url) = &notification.external_url {
        body.push_str(&format!("\n{url}"));
    }
    let message = json!({ "msgtype": "m.text", "body": body });
    match prior {
        None => message,
        Some(first) => json!({
            "msgtype": "m.text",
            "body": format!("* {body}"),
            "m.new_content": message,
            "m.relates_to": { "rel_type": "m.replace", "event_id": first },
        }),
    }
}

/// One segment of a path.
fn escaped(segment: &str) -> String {
    segment
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

weir_sdk::alert_handler!(Matrix);
