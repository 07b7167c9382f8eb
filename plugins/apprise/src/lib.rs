//! Receiver `apprise`: a message handed to an Apprise API server, which knows a hundred services.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_handler::answer::{get_request, json_request, quote, refused, said};
use weir_handler::fit::{Style, plain};
use weir_handler::{Handler, Notification, Severity, Status, words};
use weir_sdk::{Failure, Far, Response, config, failure, text};

const CONFIG_SCHEMA: &str = r#"{
  "type": "object", "additionalProperties": false, "required": ["url"],
  "properties": {
    "url": {"type": "string", "description": "The server: http://apprise:8000"},
    "key": {"type": "string", "description": "The configuration kept there: POST /notify/KEY"},
    "tag": {"type": "string", "description": "Only these services of the key: tags, joined by a blank for and, by a comma for or"},
    "urls_credential": {"type": "string", "description": "Instead of a key: name of a credential of this receiver, Secret(...) of the Apprise URLs, sent with each message"},
    "credential": {"type": "string", "description": "Name of a credential of this receiver for the server itself, such as Basic(...)"}
  }
}"#;

/// The server cuts to each service's own limit; this keeps a message readable.
const BODY_MAX: usize = 8 * 1024;
const TITLE_MAX: usize = 250;

const PLAIN: Style = Style {
    escape: plain,
    units: char::len_utf8,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    url: String,
    key: Option<String>,
    tag: Option<String>,
    urls_credential: Option<String>,
    credential: Option<String>,
}

/// One key of one server, or URLs that go with each message.
#[derive(Debug)]
pub struct Apprise {
    server: String,
    /// `/notify` or `/notify/KEY`.
    path: String,
    /// `{{secret:NAME}}`: the host puts them there.
    urls: Option<String>,
    tag: Option<String>,
    credential: Option<String>,
}

#[derive(Serialize)]
struct Notify<'a> {
    title: String,
    body: String,
    r#type: &'static str,
    format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    urls: Option<&'a str>,
}

fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=128).contains(&name.len()) && name.bytes().all(allowed)
}

impl Handler for Apprise {
    const NAME: &'static str = "apprise";
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;
    type Config = Config;

    fn new(config: Config) -> Result<Apprise, Failure> {
        let (origin, path) = config::split_url("url", &config.url)?;
        let server = format!("{origin}{path}");
        let bad = |message: &str| Err(failure::misconfigured(message));
        let (path, urls) = match (config.key, config.urls_credential) {
            (Some(key), None) if is_name(&key) => (format!("/notify/{key}"), None),
            (Some(_), None) => {
                return bad("config.key: expected letters, digits, -, _ and .");
            }
            (None, Some(name)) if is_name(&name) => {
                ("/notify".to_owned(), Some(format!("{{{{secret:{name}}}}}")))
            }
            (None, Some(_)) => {
                return bad(
                    "config.urls_credential: expected the name of a credential of this receiver",
                );
            }
            _ => {
                return bad("config: give `key` or `urls_credential`, one of them");
            }
        };
        if config.tag.is_some() && urls.is_some() {
            return bad("config.tag: only services kept under a key have tags");
        }
        Ok(Apprise {
            server,
            path,
            urls,
            tag: config.tag,
            credential: config.credential,
        })
    }

    fn check(&self, far: &impl Far) -> Result<String, Failure> {
        let request = get_request(
            format!("{}/status", self.server),
            self.credential.as_deref(),
        );
        let response = far.send(request)?;
        match response.status {
            // 417: it is there, and says that it can keep no configuration or no attachments.
            0..300 | 417 => Ok(format!("Apprise API at {}", text::line(&self.server, 200))),
            // Servers before 1.4 have no such page.
            404 => Ok(format!(
                "a server at {}; `weir receiver test` sends a message",
                text::line(&self.server, 200)
            )),
            _ => Err(refused(far, &response, &quote(&response.body))),
        }
    }

    fn deliver(
        &self,
        far: &impl Far,
        notification: &Notification,
        _prior: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let mut request = json_request(
            "POST",
            format!("{}{}", self.server, self.path),
            self.credential.as_deref(),
            &self.notify(notification),
        )?;
        // Else it answers a page for people.
        let accept = ("accept".to_owned(), "application/json".to_owned());
        request.headers.push(accept);
        read(far, &far.send(request)?)?;
        Ok(None)
    }
}

impl Apprise {
    fn notify<'a>(&'a self, notification: &Notification) -> Notify<'a> {
        let link = words::link(notification);
        let more = |missing: usize| match link {
            Some(url) => format!("+{missing} more: {url}"),
            None => format!("+{missing} more"),
        };
        let room = BODY_MAX - link.map_or(0, |url| url.len() + 2);
        let mut body = PLAIN.lines(
            &words::lines(notification),
            room,
            notification.truncated as usize,
            more,
        );
        if let Some(url) = link.filter(|url| !body.ends_with(url)) {
            body = format!("{body}\n{url}");
        }
        Notify {
            title: text::line(&notification.title, TITLE_MAX),
            body,
            r#type: kind(notification),
            format: "text",
            tag: self.tag.as_deref(),
            urls: self.urls.as_deref(),
        }
    }
}

fn kind(notification: &Notification) -> &'static str {
    match (notification.status, notification.severity) {
        (Status::Resolved, _) => "success",
        (Status::Firing, Severity::Info) => "info",
        (Status::Firing, Severity::Warning) => "warning",
        (Status::Firing, Severity::Error | Severity::Critical) => "failure",
    }
}

/// 200 = every service took it. 204: the key holds nothing. 424: some service did not take it, or none was meant.
fn read(far: &impl Far, response: &Response) -> Result<(), Failure> {
    let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let what = answer["error"]
        .as_str()
        .map_or_else(|| quote(&response.body), str::to_owned);
    let told = said(response.status, &what);
    match response.status {
        204 => Err(failure::misconfigured(format!(
            "{told}: the server keeps nothing under config.key"
        ))),
        0..300 => Ok(()),
        424 => Err(not_taken(&told, &answer["details"])),
        _ => Err(refused(far, response, &what)),
    }
}

/// `details` are the lines of the server's log: level, time, text.
fn not_taken(told: &str, details: &Value) -> Failure {
    let Some(lines) = details.as_array() else {
        // An old server does not say which service failed.
        return failure::transient(told);
    };
    let lines: Vec<(&str, &str)> = lines
        .iter()
        .filter_map(|line| Some((line[0].as_str()?, line[2].as_str()?)))
        .collect();
    if lines.is_empty() {
        return failure::misconfigured(format!("{told}: no service of the key has that tag"));
    }
    let failed: Vec<&str> = lines
        .iter()
        .filter(|(level, _)| matches!(*level, "WARNING" | "ERROR" | "CRITICAL"))
        .map(|(_, line)| *line)
        .collect();
    let told = format!("{told}: {}", text::line(&failed.join("; "), 400));
    let taken = lines
        .iter()
        .any(|(level, line)| *level == "INFO" && line.starts_with("Sent "));
    if taken {
        // The others would get it again with every attempt; the fallback is told instead.
        failure::permanent(format!("{told} (other services took it)"))
    } else {
        failure::transient(told)
    }
}

weir_handler::export!(Apprise);
