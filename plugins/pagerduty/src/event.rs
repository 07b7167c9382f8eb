//! The event that PagerDuty gets.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_handler::fit::{Style, plain};
use weir_handler::{Alert, Notification, Severity, words};
use weir_sdk::text;

use crate::Place;

const SUMMARY: Style = Style {
    escape: plain,
    units: char::len_utf16,
};
const SUMMARY_MAX: usize = 1024;
const DEDUP_KEY_MAX: usize = 255;
/// Of the whole event; the host puts the key in the place of its name, which is shorter.
const EVENT_BYTES_MAX: usize = 500 * 1024;
/// Of `text` in the details.
const TEXT_BYTES_MAX: usize = 16 * 1024;
const ALERTS_MAX: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Trigger,
    Resolve,
}

#[derive(Debug, Serialize)]
pub struct Event<'a> {
    routing_key: &'a str,
    event_action: Action,
    dedup_key: String,
    client: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_url: Option<&'a str>,
    payload: Payload<'a>,
    links: Vec<Link<'a>>,
}

#[derive(Debug, Serialize)]
struct Payload<'a> {
    summary: String,
    source: String,
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    custom_details: Details,
}

#[derive(Debug, Serialize)]
struct Link<'a> {
    href: &'a str,
    text: &'static str,
}

#[derive(Debug, Default, Serialize)]
struct Details {
    text: String,
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    alerts: Vec<Told>,
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<String>,
}

#[derive(Debug, Serialize)]
struct Told {
    title: String,
    status: &'static str,
    count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

/// PagerDuty's key of an incident: the group's own, shortened where it is too long.
pub fn dedup_key(notification: &Notification) -> String {
    let key = &notification.key;
    if key.chars().count() <= DEDUP_KEY_MAX {
        return key.clone();
    }
    // FNV-1a over what is cut off, so that two long keys stay two.
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let head: String = key.chars().take(DEDUP_KEY_MAX - 17).collect();
    format!("{head}-{hash:016x}")
}

impl<'a> Event<'a> {
    pub fn new(
        routing_key: &'a str,
        place: &'a Place,
        notification: &'a Notification,
        action: Action,
    ) -> Event<'a> {
        let url = words::link(notification);
        let label = |name: &str| {
            let found = notification.common_labels.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| text::line(value, 200))
        };
        let source = place.source.clone().or_else(|| label("source"));
        let mut event = Event {
            routing_key,
            event_action: action,
            dedup_key: dedup_key(notification),
            client: "weir",
            client_url: notification
                .external_url
                .as_deref()
                .filter(|url| words::is_link(url)),
            payload: Payload {
                summary: SUMMARY.line(&text::line(&notification.title, 8192), SUMMARY_MAX),
                // PagerDuty refuses an event without one.
                source: source.unwrap_or_else(|| "weir".to_owned()),
                severity: severity(notification.severity),
                timestamp: notification
                    .alerts
                    .first()
                    .and_then(|alert| words::time(alert.since)),
                component: place.component.as_deref(),
                group: place.group.clone().or_else(|| label("workflow")),
                class: place.class.clone().or_else(|| label("rule")),
                custom_details: details(notification),
            },
            links: url
                .map(|href| Link {
                    href,
                    text: "Open in weir",
                })
                .into_iter()
                .collect(),
        };
        event.shrink(notification);
        event
    }

    /// Leaves alerts out until the event is small enough, and says how many.
    fn shrink(&mut self, notification: &Notification) {
        let all = notification.alerts.len() + notification.truncated as usize;
        loop {
            let details = &mut self.payload.custom_details;
            let missing = all - details.alerts.len();
            details.more = (missing > 0).then(|| format!("+{missing} more"));
            let len = serde_json::to_vec(&self).map_or(0, |json| json.len());
            let details = &mut self.payload.custom_details;
            if len <= EVENT_BYTES_MAX {
                return;
            }
            if details.alerts.is_empty() {
                // Labels and annotations are bounded one by one, not together.
                details.annotations.clear();
                details.labels.clear();
                return;
            }
            let half = details.alerts.len() / 2;
            details.alerts.truncate(half);
        }
    }
}

/// PagerDuty's words are weir's.
fn severity(severity: Severity) -> &'static str {
    words::severity(severity)
}

fn details(notification: &Notification) -> Details {
    let bounded = |pairs: &[(String, String)]| {
        let pairs = pairs.iter().take(100);
        pairs
            .map(|(name, value)| (text::line(name, 200), text::cut(value.clone(), 2000)))
            .collect()
    };
    Details {
        text: text::cut(words::lines(notification).join("\n"), TEXT_BYTES_MAX),
        labels: bounded(&notification.common_labels),
        annotations: bounded(&notification.common_annotations),
        alerts: notification
            .alerts
            .iter()
            .take(ALERTS_MAX)
            .map(told)
            .collect(),
        more: None,
    }
}

fn told(alert: &Alert) -> Told {
    Told {
        title: text::line(&alert.title, 1000),
        status: words::status(alert.status),
        count: alert.count,
        since: words::time(alert.since),
        url: alert.url.clone().filter(|url| words::is_link(url)),
    }
}
