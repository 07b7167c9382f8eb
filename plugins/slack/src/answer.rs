//! What Slack answers: 200 with `ok: false` and a name, or a status with a name as its body.

use serde_json::Value;
use weir_handler::answer::{quote, refused, retry_after, said};
use weir_sdk::{Failure, Far, Response, failure, text};

/// What of an answer is of use.
#[derive(Debug, Default)]
pub struct Done {
    pub channel: Option<String>,
    pub ts: Option<String>,
    pub team: Option<String>,
    pub user: Option<String>,
}

/// Slack's own name of what went wrong, where it gave one, and what that means.
#[derive(Debug)]
pub struct Refusal {
    name: String,
    failure: Failure,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal {
            name: String::new(),
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
    /// The message, or the channel it stood in, is not there any more.
    pub fn is_gone(&self) -> bool {
        matches!(
            self.name.as_str(),
            "message_not_found" | "thread_not_found" | "channel_not_found" | "is_archived"
        )
    }

    /// The message is there, and nobody may change it any more.
    pub fn is_frozen(&self) -> bool {
        matches!(
            self.name.as_str(),
            "cant_update_message" | "edit_window_closed" | "is_inactive"
        )
    }
}

/// It will go better in a while.
const PASSING: &[&str] = &[
    "ratelimited",
    "rate_limited",
    "message_limit_exceeded",
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
    "rollup_error",
    "team_added_to_org",
];

/// This message is wrong; the next one may not be.
const FOR_GOOD: &[&str] = &[
    "invalid_blocks",
    "invalid_blocks_format",
    "invalid_attachments",
    "invalid_payload",
    "invalid_arguments",
    "invalid_json",
    "json_not_object",
    "msg_too_long",
    "msg_blocks_too_long",
    "no_text",
    "too_many_attachments",
    "attachment_payload_limit_exceeded",
    "duplicate_message_not_found",
    "missing_text_or_fallback_or_attachments",
];

/// What the operator can do about the rest.
fn help(name: &str) -> &'static str {
    match name {
        "not_in_channel" => "invite the bot: /invite @name in that channel",
        "channel_not_found" => {
            "config.channel: is it the id, and was the bot invited where the channel is private?"
        }
        "is_archived" | "channel_is_archived" => "the channel is archived",
        "missing_scope" => "the bot token needs the scope chat:write",
        "no_service" | "no_service_id" | "no_active_hooks" | "no_team" | "invalid_token" => {
            "the webhook was removed or its URL is wrong: make a new one"
        }
        "invalid_auth" | "not_authed" | "token_revoked" | "token_expired" | "account_inactive" => {
            "the bot token is wrong or was revoked"
        }
        "not_allowed_token_type" => "expected a bot token (xoxb-...)",
        _ => "",
    }
}

/// Done, or why not.
pub fn read(far: &impl Far, response: &Response) -> Result<Done, Refusal> {
    let json = serde_json::from_slice::<Value>(&response.body).ok();
    let json = json.filter(|json| json["ok"].is_boolean());
    let text = |json: &Value, name: &str| json[name].as_str().map(str::to_owned);
    let name = json.as_ref().and_then(|json| text(json, "error"));
    if response.status >= 300 {
        let name = name.unwrap_or_else(|| quote(&response.body));
        return Err(named(far, response, &name, None));
    }
    match json {
        // What is done is done, whatever its description looks like.
        Some(json) if json["ok"] == true => Ok(Done {
            channel: text(&json, "channel"),
            ts: text(&json, "ts"),
            team: text(&json, "team"),
            user: text(&json, "user"),
        }),
        Some(json) => {
            let name = name.unwrap_or_else(|| "nothing of its error".to_owned());
            Err(named(far, response, &name, json["needed"].as_str()))
        }
        // An incoming webhook says `ok` in plain text.
        None if response.body.trim_ascii() == b"ok" => Ok(Done::default()),
        None => Err(failure::transient(format!(
            "this is not Slack's answer: {}",
            quote(&response.body)
        ))
        .into()),
    }
}

fn named(far: &impl Far, response: &Response, name: &str, needed: Option<&str>) -> Refusal {
    let name = text::line(name, 200);
    let mut what = if response.status < 300 {
        format!("Slack says {name}")
    } else {
        said(response.status, &name)
    };
    if let Some(needed) = needed {
        what.push_str(&format!(" ({})", text::line(needed, 80)));
    }
    let help = help(&name);
    if !help.is_empty() {
        what = format!("{what}: {help}");
    }
    let passing = PASSING.contains(&name.as_str());
    let failure = if passing || matches!(response.status, 408 | 425 | 429 | 500..) {
        Failure {
            retry_after_ms: retry_after(far, response),
            ..failure::transient(what)
        }
    } else if FOR_GOOD.contains(&name.as_str()) {
        failure::permanent(what)
    } else if response.status < 300 || !help.is_empty() || name == "action_prohibited" {
        // A refusal that we do not know is about the account more often than about the message, and nothing is lost
        // while the receiver waits.
        failure::misconfigured(what)
    } else {
        refused(far, response, &name)
    };
    Refusal { name, failure }
}
