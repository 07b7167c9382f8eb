//! The payload of Alertmanager's webhook, version 4, and the request that carries it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_handler::{Alert, Handler, Notification, answer, words};
use weir_sdk::{Failure, Far, Request, config, failure, text};

const CONFIG_SCHEMA: &str = r#"{
  "type": "object", "additionalProperties": false, "required": ["url"],
  "properties": {
    "url": {"type": "string", "description": "Where to POST to"},
    "headers": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Headers put on every request"},
    "credential": {"type": "string", "description": "Name of a credential of this receiver: StandardWebhooks(...) signs every message, Bearer(...) and others log in"}
  }
}"#;

/// What Alertmanager writes for an alert that has not ended.
const NO_END: &str = "0001-01-01T00:00:00Z";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    credential: Option<String>,
}

/// One URL that takes notifications.
#[derive(Debug)]
pub struct Webhook {
    config: Config,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    version: &'static str,
    group_key: &'a str,
    truncated_alerts: u32,
    status: &'static str,
    receiver: &'a str,
    group_labels: BTreeMap<&'a str, &'a str>,
    common_labels: BTreeMap<&'a str, &'a str>,
    common_annotations: BTreeMap<&'a str, &'a str>,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    alerts: Vec<PayloadAlert<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PayloadAlert<'a> {
    status: &'static str,
    labels: BTreeMap<&'a str, &'a str>,
    annotations: BTreeMap<&'a str, &'a str>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
    fingerprint: &'a str,
}

impl Handler for Webhook {
    const NAME: &'static str = "webhook";
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;
    type Config = Config;

    fn new(config: Config) -> Result<Webhook, Failure> {
        // Webhook addresses may carry a query (a key of the receiver), but no fragment and no password.
        let plain = config.url.split('?').next().unwrap_or_default();
        config::split_url("url", plain)?;
        if config.url.contains('#')
            || config
                .url
                .chars()
                .any(|c| c.is_whitespace() || c.is_control())
        {
            return Err(failure::misconfigured(
                "config.url: neither a fragment nor white space has a place here",
            ));
        }
        Ok(Webhook { config })
    }

    /// A webhook cannot be asked without posting to it, so this says only where the messages go.
    fn check(&self, _far: &impl Far) -> Result<String, Failure> {
        let plain = self.config.url.split('?').next().unwrap_or_default();
        Ok(format!(
            "posts to {}; `weir receiver test` sends a message",
            text::line(plain, 200)
        ))
    }

    /// Delivered means: the server answered below 300.
    fn deliver(
        &self,
        far: &impl Far,
        notification: &Notification,
        _prior: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let body = serde_json::to_vec(&payload(notification))
            .map_err(|error| failure::permanent(error.to_string()))?;
        let mut headers = vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("webhook-id".to_owned(), header_id(&notification.id)),
        ];
        let own = |name: &str| {
            ["content-type", "webhook-id"]
                .iter()
                .any(|ours| name.eq_ignore_ascii_case(ours))
        };
        headers.extend(
            self.config
                .headers
                .iter()
                .filter(|(name, _)| !own(name))
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        let response = far.send(Request {
            method: "POST".to_owned(),
            url: self.config.url.clone(),
            headers,
            body: Some(body),
            credential: self.config.credential.clone(),
            timeout_ms: None,
        })?;
        answer::accepted(far, &response)?;
        Ok(None)
    }
}

/// The id as a header can carry it: receivers may have names of any letters.
fn header_id(id: &str) -> String {
    let mut out = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'%' | 0..=0x20 | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

fn payload(notification: &Notification) -> Payload<'_> {
    Payload {
        version: "4",
        group_key: &notification.key,
        truncated_alerts: notification.truncated,
        status: words::status(notification.status),
        receiver: &notification.receiver,
        group_labels: map(&notification.group_labels),
        common_labels: map(&notification.common_labels),
        common_annotations: map(&notification.common_annotations),
        external_url: notification.external_url.as_deref().unwrap_or_default(),
        alerts: notification.alerts.iter().map(alert).collect(),
    }
}

fn alert(alert: &Alert) -> PayloadAlert<'_> {
    let mut labels = map(&alert.labels);
    labels
        .entry("severity")
        .or_insert(words::severity(alert.severity));
    let mut annotations = map(&alert.annotations);
    // The names that Alertmanager's own templates use.
    annotations.entry("summary").or_insert(&alert.title);
    if !alert.body.is_empty() {
        annotations.entry("description").or_insert(&alert.body);
    }
    PayloadAlert {
        status: words::status(alert.status),
        labels,
        annotations,
        starts_at: time(alert.since),
        ends_at: alert.ends.map_or_else(|| NO_END.to_owned(), time),
        generator_url: alert.url.as_deref().unwrap_or_default(),
        fingerprint: &alert.fingerprint,
    }
}

fn map(labels: &[(String, String)]) -> BTreeMap<&str, &str> {
    labels
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// A time that no calendar holds is given as no end.
fn time(milliseconds: u64) -> String {
    words::time(milliseconds).unwrap_or_else(|| NO_END.to_owned())
}
