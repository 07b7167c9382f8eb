//! Receiver `pagerduty`: an incident that is triggered, updated and resolved, by Events API v2.

pub mod event;

use serde::Deserialize;
use serde_json::Value;
use weir_handler::answer::{json_request, quote, refused, said};
use weir_handler::{Handler, Notification, Status};
use weir_sdk::{Failure, Far, Response, config, failure, text};

use crate::event::{Action, Event};

const CONFIG_SCHEMA: &str = r#"{
  "type": "object", "additionalProperties": false,
  "properties": {
    "credential": {"type": "string", "default": "pagerduty", "description": "Name of a credential of this receiver: Secret(...) of the integration key (32 characters) of an Events API v2 integration"},
    "url": {"type": "string", "default": "https://events.pagerduty.com", "description": "In the EU: https://events.eu.pagerduty.com"},
    "source": {"type": "string", "description": "What PagerDuty names as the place, instead of the source of the jobs"},
    "component": {"type": "string"},
    "group": {"type": "string"},
    "class": {"type": "string"}
  }
}"#;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default = "default_credential")]
    credential: String,
    #[serde(default = "default_url")]
    url: String,
    source: Option<String>,
    component: Option<String>,
    group: Option<String>,
    class: Option<String>,
}

/// Where it happened, as PagerDuty groups events.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub source: Option<String>,
    pub component: Option<String>,
    pub group: Option<String>,
    pub class: Option<String>,
}

fn default_credential() -> String {
    "pagerduty".to_owned()
}

fn default_url() -> String {
    "https://events.pagerduty.com".to_owned()
}

/// One integration of one service.
#[derive(Debug)]
pub struct PagerDuty {
    url: String,
    /// `{{secret:pagerduty}}`: the host puts the key there.
    routing_key: String,
    place: Place,
}

impl Handler for PagerDuty {
    const NAME: &'static str = "pagerduty";
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;
    type Config = Config;

    fn new(config: Config) -> Result<PagerDuty, Failure> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if config.credential.is_empty() || !config.credential.chars().all(is_name) {
            return Err(failure::misconfigured(
                "config.credential: expected the name of a credential of this receiver",
            ));
        }
        let (origin, path) = config::split_url("url", &config.url)?;
        Ok(PagerDuty {
            url: format!("{origin}{path}/v2/enqueue"),
            routing_key: format!("{{{{secret:{}}}}}", config.credential),
            place: Place {
                source: config.source,
                component: config.component,
                group: config.group,
                class: config.class,
            },
        })
    }

    /// The Events API answers nothing but events, so this says only where they go.
    fn check(&self, _far: &impl Far) -> Result<String, Failure> {
        Ok(format!(
            "sends events to {}; `weir receiver test` opens an incident and closes it",
            text::line(&self.url, 200)
        ))
    }

    fn deliver(
        &self,
        far: &impl Far,
        notification: &Notification,
        _prior: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let action = match notification.status {
            Status::Firing => Action::Trigger,
            Status::Resolved => Action::Resolve,
        };
        self.enqueue(far, notification, action)?;
        if notification.test && action == Action::Trigger {
            // Nobody shall have to close a test.
            self.enqueue(far, notification, Action::Resolve)?;
        }
        Ok(Some(event::dedup_key(notification)))
    }
}

impl PagerDuty {
    fn enqueue(
        &self,
        far: &impl Far,
        notification: &Notification,
        action: Action,
    ) -> Result<(), Failure> {
        let event = Event::new(&self.routing_key, &self.place, notification, action);
        let request = json_request("POST", self.url.clone(), None, &event)?;
        read(far, &far.send(request)?)
    }
}

/// 202 = taken. 400 is about the event, or about the key.
fn read(far: &impl Far, response: &Response) -> Result<(), Failure> {
    if response.status < 300 {
        return Ok(());
    }
    let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let mut what: Vec<&str> = answer["message"].as_str().into_iter().collect();
    if let Value::Array(errors) = &answer["errors"] {
        what.extend(errors.iter().filter_map(Value::as_str));
    }
    let what = if what.is_empty() {
        quote(&response.body)
    } else {
        what.join(": ")
    };
    if response.status == 400
        && what
            .to_lowercase()
            .replace('_', " ")
            .contains("routing key")
    {
        return Err(failure::misconfigured(format!(
            "{}: is the credential the integration key of an Events API v2 integration?",
            said(400, &what)
        )));
    }
    Err(refused(far, response, &what))
}

weir_handler::export!(PagerDuty);
