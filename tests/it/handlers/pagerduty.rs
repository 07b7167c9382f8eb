//! PagerDuty: an incident that is triggered and resolved under one key; the routing key stands in the body.

#[expect(dead_code, reason = "the plugin's own tests use the rest of it")]
#[path = "../../../plugins/pagerduty/tests/data/answers.rs"]
mod answers;

use super::{Refusals, life, receipts, refused, secret};
use crate::services::{Asked, Reply, Service, busy, reply};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const KEY: &str = "canary0123456789abcdef0123456789";

/// Incidents that are open, by their key, after each event.
type Open = Arc<Mutex<Vec<BTreeSet<String>>>>;

/// The Events API, version 2.
fn api(open: Open) -> impl Fn(&Asked) -> Reply + Send + Sync {
    move |asked| {
        if asked.target != "/v2/enqueue" {
            return reply(404, "");
        }
        if asked.body["routing_key"] != KEY {
            return reply(400, answers::WRONG_KEY);
        }
        let key = asked.body["dedup_key"].as_str().unwrap().to_owned();
        let mut open = open.lock().unwrap();
        let mut now = open.last().cloned().unwrap_or_default();
        match asked.body["event_action"].as_str() {
            Some("trigger") => now.insert(key.clone()),
            Some("resolve") => now.remove(&key),
            _ => return reply(answers::PERMANENT[0].0, answers::PERMANENT[0].1),
        };
        open.push(now);
        reply(202, &answers::TAKEN.replace("c0ffee-19aa", &key))
    }
}

fn receiver(folder: &Path, url: &str) -> String {
    let file = secret(folder, KEY);
    format!(
        r#"(name: "ops", handler: "pagerduty", config: {{ "credential": "key", "url": "{url}" }},
            credentials: {{ "key": Secret(file: "{file}", origins: ["{url}"]) }})"#
    )
}

#[actix_web::test]
async fn pagerduty_opens_one_incident_and_closes_it() {
    let folder = tempfile::tempdir().unwrap();
    let open = Open::default();
    let pagerduty = Service::start(api(open.clone()));
    let rows = life(&receiver(folder.path(), &pagerduty.url())).await;
    let asked = pagerduty.asked();
    let actions: Vec<&str> = asked
        .iter()
        .map(|asked| asked.body["event_action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["trigger", "trigger", "resolve"]);
    let open: Vec<usize> = open.lock().unwrap().iter().map(BTreeSet::len).collect();
    assert_eq!(open, [1, 1, 0]);
    let key = asked[0].body["dedup_key"].as_str().unwrap();
    assert_eq!(receipts(&rows), [key; 3]);
    let details = &asked[0].body["payload"]["custom_details"];
    let text = details["text"].as_str().unwrap();
    // PagerDuty shows text as it is; what asked for the key in it got nothing.
    assert!(
        text.contains("<b>@everyone</b> <!channel> <@1> & *x*"),
        "{text}"
    );
    assert!(text.contains("{{ secret:key}} {{ secret:key}}"), "{text}");
    for asked in &asked {
        assert_eq!(asked.text.matches("canary").count(), 1, "{}", asked.text);
    }
    pagerduty.stop().await;
}

#[actix_web::test]
async fn what_pagerduty_refuses_waits_is_given_up_or_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let pagerduty = Service::start(api(Open::default()));
    let of = |(status, body): (u16, &str)| reply(status, body);
    let no = Refusals {
        busy: busy(20, ""),
        wait: Duration::from_secs(20),
        permanent: of(answers::PERMANENT[0]),
        misconfigured: of(answers::MISCONFIGURED[1]),
    };
    refused(&receiver(folder.path(), &pagerduty.url()), &pagerduty, no).await;
    pagerduty.stop().await;
}
