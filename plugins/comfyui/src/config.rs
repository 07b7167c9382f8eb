//! The operator's configuration of one ComfyUI server.

use std::collections::BTreeMap;

use serde::Deserialize;
use weir_sdk::{Failure, config, failure};

pub const CONFIG_SCHEMA: &str = r#"{
  "type": "object", "additionalProperties": false, "required": ["url"],
  "properties": {
    "url": {"type": "string", "description": "The server, with a path prefix where a proxy has one: http://127.0.0.1:8188"},
    "workflow": {"type": "string", "description": "Workflow of prompts that name none; else the source's own name"},
    "stream": {"type": "boolean", "default": true, "description": "Listen to the server's WebSocket: news at once, and progress of prompts that have no client id or weir's own"},
    "stalled_minutes": {"type": "integer", "minimum": 0, "default": 30, "description": "A running prompt without a sign of life for so long is told to be stalled, with the evidence; 0 = never"},
    "logs": {"type": "boolean", "default": false, "description": "Offer the server's terminal, through an address that ComfyUI calls internal"},
    "history": {"type": "integer", "minimum": 0, "maximum": 500, "default": 100, "description": "How many finished prompts to import at first contact"},
    "headers": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Headers put on every request"},
    "credential": {"type": "string", "description": "Name of a credential of this source, for a proxy that asks for one"}
  }
}"#;

const HISTORY_MAX: usize = 500;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    url: String,
    workflow: Option<String>,
    history: Option<usize>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    credential: Option<String>,
    stream: Option<bool>,
    stalled_minutes: Option<u64>,
    logs: Option<bool>,
}

/// A configuration that was checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Origin and path prefix, no `/` at the end.
    pub base: String,
    pub workflow: Option<String>,
    /// Finished prompts to import at first contact.
    pub history: usize,
    pub headers: Vec<(String, String)>,
    pub credential: Option<String>,
    /// Listen to the WebSocket.
    pub stream: bool,
    /// Offer the terminal.
    pub logs: bool,
    /// Milliseconds without a sign of life after which that is told; none = never.
    pub stalled_after: Option<u64>,
}

impl Config {
    /// Parses the JSON that the host hands over.
    pub fn parse(json: &str) -> Result<Config, Failure> {
        let raw: RawConfig = config::parse(json)?;
        let (origin, prefix) = config::split_url("url", &raw.url)?;
        let history = raw.history.unwrap_or(100);
        if history > HISTORY_MAX {
            return Err(failure::misconfigured(format!(
                "config.history: expected 0 to {HISTORY_MAX}, found {history}"
            )));
        }
        if raw
            .workflow
            .as_ref()
            .is_some_and(|workflow| workflow.trim().is_empty())
        {
            return Err(failure::misconfigured(
                "config.workflow: expected a name; leave it out to use the source's own",
            ));
        }
        if raw
            .headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case("origin"))
        {
            // ComfyUI refuses foreign origins; without the header any client passes.
            return Err(failure::misconfigured(
                "config.headers: `Origin` makes ComfyUI refuse the request",
            ));
        }
        Ok(Config {
            base: format!("{origin}{prefix}"),
            workflow: raw.workflow,
            history,
            headers: raw.headers.into_iter().collect(),
            credential: raw.credential,
            stream: raw.stream.unwrap_or(true),
            logs: raw.logs.unwrap_or(false),
            stalled_after: match raw.stalled_minutes.unwrap_or(30) {
                0 => None,
                minutes => Some(minutes.saturating_mul(60_000)),
            },
        })
    }
}
