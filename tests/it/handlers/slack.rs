//! Slack, as a bot that keeps one message up to date and as an incoming webhook.

#[expect(dead_code, reason = "the plugin's own tests use the rest of it")]
#[path = "../../../plugins/slack/tests/data/answers.rs"]
mod answers;

use super::{Refusals, life, receipts, refused, secret};
use crate::services::{Asked, Reply, Service, busy, reply};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const ESCAPED: &str = "&lt;b&gt;@everyone&lt;/b&gt; &lt;!channel&gt; &lt;@1&gt; &amp; *x* _y_ `z` [a](http://b) \u{17e}\u{1f600} \
                       {{ secret:key}} {{ secret:key}}";

/// The Web API, as far as a bot uses it: every message has its `ts`, and only those can be edited or replied to.
fn api() -> impl Fn(&Asked) -> Reply + Send + Sync {
    let count = AtomicU64::new(0);
    let at = |number: u64| format!("1503435956.{number:06}");
    let posted = move |ts: &str| reply(200, &answers::POSTED.replace(&at(247), ts));
    move |asked| {
        let no = |error: &str| reply(200, &answers::not_ok(error));
        if asked.headers.get("authorization").map(String::as_str) != Some("Bearer xoxb-canary") {
            return no("invalid_auth");
        }
        let known = |ts: &str| (0..count.load(Ordering::SeqCst)).any(|number| at(number) == ts);
        let refers = ["ts", "thread_ts"];
        let refers = refers.iter().filter_map(|name| asked.body[*name].as_str());
        if !refers.into_iter().all(known) {
            return no("message_not_found");
        }
        match asked.target.as_str() {
            "/api/auth.test" => reply(200, answers::WHO),
            "/api/chat.update" => posted(asked.body["ts"].as_str().unwrap_or_default()),
            "/api/chat.postMessage" => posted(&at(count.fetch_add(1, Ordering::SeqCst))),
            _ => no("unknown_method"),
        }
    }
}

fn bot(folder: &Path, url: &str) -> String {
    let file = secret(folder, "xoxb-canary");
    format!(
        r##"(name: "ops", handler: "slack", config: {{ "channel": "#ops", "credential": "key", "api_url": "{url}/api" }},
             credentials: {{ "key": Bearer(file: "{file}", origins: ["{url}"]) }})"##
    )
}

#[actix_web::test]
async fn a_slack_bot_keeps_one_message_and_a_thread_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let slack = Service::start(api());
    let rows = life(&bot(folder.path(), &slack.url())).await;
    let receipt = r#"{"channel":"C024BE91L","ts":"1503435956.000000"}"#;
    assert_eq!(receipts(&rows), [receipt; 3]);
    assert_eq!(
        slack.lines(),
        [
            "POST /api/auth.test",
            "POST /api/chat.postMessage",
            "POST /api/auth.test",
            "POST /api/chat.update",
            "POST /api/chat.postMessage",
            "POST /api/auth.test",
            "POST /api/chat.update",
            "POST /api/chat.postMessage",
        ]
    );
    let asked = slack.asked();
    assert_eq!(asked[1].body["channel"], "#ops");
    let blocks = &asked[1].body["attachments"][0]["blocks"];
    let text = blocks[0]["text"]["text"].as_str().unwrap();
    assert!(text.contains(ESCAPED), "{text}");
    for (edit, reply) in [(3, 4), (6, 7)] {
        assert_eq!(asked[edit].body["channel"], "C024BE91L");
        assert_eq!(asked[edit].body["ts"], "1503435956.000000");
        assert_eq!(asked[reply].body["thread_ts"], "1503435956.000000");
    }
    let title = asked[6].body["text"].as_str().unwrap();
    assert!(title.starts_with('\u{2705}'), "{title}");
    assert!(asked.iter().all(|asked| !asked.text.contains("canary")));
    slack.stop().await;
}

/// The address is the secret.
const HOOK: &str = "/services/T0001/B0001/canaryXXXXXXXXXXXXXXXXXXXX";

fn webhook() -> Service {
    Service::start(
        |asked| match (asked.method.as_str(), asked.target.as_str()) {
            ("POST", HOOK) => reply(200, answers::WEBHOOK_TAKEN),
            _ => reply(404, "no_service"),
        },
    )
}

fn hook(folder: &Path, url: &str) -> String {
    let file = secret(folder, &format!("{url}{HOOK}"));
    format!(
        r#"(name: "ops", handler: "slack", config: {{ "credential": "key" }},
            credentials: {{ "key": Url(file: "{file}") }})"#
    )
}

#[actix_web::test]
async fn an_incoming_webhook_of_slack_gets_a_message_for_each_notice() {
    let folder = tempfile::tempdir().unwrap();
    let slack = webhook();
    let rows = life(&hook(folder.path(), &slack.url())).await;
    // A webhook tells nothing that could be edited later.
    assert_eq!(receipts(&rows), [""; 3]);
    assert_eq!(slack.lines(), vec![format!("POST {HOOK}"); 3]);
    let asked = slack.asked();
    let blocks = &asked[0].body["attachments"][0]["blocks"];
    let text = blocks[0]["text"]["text"].as_str().unwrap();
    assert!(text.contains(ESCAPED), "{text}");
    let colors: Vec<&str> = asked
        .iter()
        .map(|asked| asked.body["attachments"][0]["color"].as_str().unwrap())
        .collect();
    assert_eq!(colors, ["#d0342c", "#d0342c", "#2eb867"]);
    slack.stop().await;
}

#[actix_web::test]
async fn what_slack_refuses_waits_is_given_up_or_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let slack = webhook();
    let of = |(status, body): (u16, &str)| reply(status, body);
    let no = Refusals {
        busy: busy(30, answers::WEBHOOK_BUSY),
        wait: Duration::from_secs(30),
        permanent: of(answers::WEBHOOK_PERMANENT[0]),
        misconfigured: of(answers::WEBHOOK_MISCONFIGURED[3]),
    };
    refused(&hook(folder.path(), &slack.url()), &slack, no).await;
    slack.stop().await;
    // The Web API says it within a 200, but for the rate.
    let slack = Service::start(api());
    let no = Refusals {
        busy: busy(30, &answers::not_ok("ratelimited")),
        wait: Duration::from_secs(30),
        permanent: reply(200, &answers::not_ok(answers::API_PERMANENT[0])),
        misconfigured: reply(200, &answers::not_ok("not_in_channel")),
    };
    refused(&bot(folder.path(), &slack.url()), &slack, no).await;
    slack.stop().await;
}
