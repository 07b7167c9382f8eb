//! The message that ntfy gets.
//!
//! Published as JSON to the root of the server, since ntfy's headers carry ASCII only and titles do not.

use serde::{Deserialize, Serialize};
use weir_handler::fit::{Style, plain};
use weir_handler::{Handler, Notification, Severity, Status, answer, words};
use weir_sdk::{Failure, Far, Request, config, failure, text};

const CONFIG_SCHEMA: &str = r#"{
  "type": "object", "additionalProperties": false, "required": ["url"],
  "properties": {
    "url": {"type": "string", "description": "The topic: https://ntfy.sh/my-topic"},
    "credential": {"type": "string", "description": "Name of a credential of this receiver (an access token)"},
    "tags": {"type": "array", "items": {"type": "string"}, "description": "Tags put on every message"},
    "priority": {"type": "integer", "minimum": 1, "maximum": 5, "description": "Instead of the one that follows from the severity"}
  }
}"#;

/// ntfy turns longer messages into attachments.
const MESSAGE_MAX: usize = 4096;
const TITLE_MAX: usize = 250;

/// ntfy counts bytes and shows a message as it is.
const PLAIN: Style = Style {
    escape: plain,
    units: char::len_utf8,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    url: String,
    credential: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    priority: Option<u8>,
}

/// One topic on one server.
#[derive(Debug)]
pub struct Ntfy {
    /// Origin and path prefix of the server.
    server: String,
    topic: String,
    config: Config,
}

#[derive(Serialize)]
struct Publish<'a> {
    topic: &'a str,
    title: String,
    message: String,
    priority: u8,
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    click: Option<&'a str>,
}

impl Handler for Ntfy {
    const NAME: &'static str = "ntfy";
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;
    type Config = Config;

    fn new(config: Config) -> Result<Ntfy, Failure> {
        let (origin, path) = config::split_url("url", &config.url)?;
        let (prefix, topic) = path.rsplit_once('/').unwrap_or(("", ""));
        let is_topic = !topic.is_empty()
            && topic.len() <= 64
            && topic
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !is_topic {
            return Err(failure::misconfigured(
                "config.url: the last part must be the topic (letters, digits, - and _), as in https://ntfy.sh/my-topic",
            ));
        }
        if config
            .priority
            .is_some_and(|priority| !(1..=5).contains(&priority))
        {
            return Err(failure::misconfigured(
                "config.priority: expected 1 (lowest) to 5 (highest)",
            ));
        }
        Ok(Ntfy {
            server: format!("{origin}{prefix}"),
            topic: topic.to_owned(),
            config,
        })
    }

    /// Asks the server whether it is an ntfy that is well; publishes nothing.
    fn check(&self, far: &impl Far) -> Result<String, Failure> {
        let response = far.fetch(self.request("GET", "/v1/health", None))?;
        #[derive(Deserialize)]
        struct Health {
            healthy: bool,
        }
        let health: Health = serde_json::from_slice(&response.body).map_err(|_| {
            failure::transient(format!(
                "{} does not answer as ntfy does: is the URL right?",
                self.server
            ))
        })?;
        if !health.healthy {
            return Err(failure::transient(format!(
                "{} says that it is not healthy",
                self.server
            )));
        }
        Ok(format!("ntfy at {}, topic {}", self.server, self.topic))
    }

    /// Delivered means: the server answered below 300.
    fn deliver(
        &self,
        far: &impl Far,
        notification: &Notification,
        _prior: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let body = serde_json::to_vec(&self.publish(notification))
            .map_err(|error| failure::permanent(error.to_string()))?;
        let response = far.send(self.request("POST", "/", Some(body)))?;
        answer::accepted(far, &response)?;
        Ok(None)
    }
}

impl Ntfy {
    fn publish<'a>(&'a self, notification: &'a Notification) -> Publish<'a> {
        let mut tags = vec![tag(notification).to_owned()];
        tags.extend(self.config.tags.iter().cloned());
        let more = |missing: usize| format!("+{missing} more");
        let message = PLAIN.lines(
            &words::lines(notification),
            MESSAGE_MAX,
            notification.truncated as usize,
            more,
        );
        Publish {
            topic: &self.topic,
            title: text::line(&notification.title, TITLE_MAX),
            message,
            priority: self
                .config
                .priority
                .unwrap_or_else(|| priority(notification)),
            tags,
            click: words::link(notification),
        }
    }

    fn request(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Request {
        let mut headers = Vec::new();
        if body.is_some() {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        Request {
            method: method.to_owned(),
            url: format!("{}{path}", self.server),
            headers,
            body,
            credential: self.config.credential.clone(),
            timeout_ms: None,
        }
    }
}

fn priority(notification: &Notification) -> u8 {
    match (notification.status, notification.severity) {
        (Status::Resolved, _) => 3,
        (Status::Firing, Severity::Info) => 2,
        (Status::Firing, Severity::Warning) => 3,
        (Status::Firing, Severity::Error) => 4,
        (Status::Firing, Severity::Critical) => 5,
    }
}

/// ntfy shows these names as a symbol before the title.
fn tag(notification: &Notification) -> &'static str {
    match (notification.status, notification.severity) {
        (Status::Resolved, _) => "white_check_mark",
        (Status::Firing, Severity::Info) => "information_source",
        (Status::Firing, Severity::Warning) => "warning",
        (Status::Firing, Severity::Error) => "x",
        (Status::Firing, Severity::Critical) => "rotating_light",
    }
}
