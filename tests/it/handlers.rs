//! The bundled alert handlers, as they are in the binary, against services that answer as theirs are documented to.

use crate::corridor::{Bench, until};
use crate::delivery::{ends, ledger, with_bench};
use crate::services::{Asked, Reply, Service, ok};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use weir_core::journal::OutboxState;
use weir_core::model::observation::JobState;
use weir_core::{Monitor, MonitorHandle};

/// A secret in a file of its own, as `file:` wants it.
fn secret(folder: &Path, text: &str) -> String {
    let path = folder.join("secret");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A workflow fails, fails again a while later, and works: three messages about one group.
async fn life(receiver: &str) -> MonitorHandle {
    let bench = Arc::new(Bench::default());
    let alerts = format!(
        r#"rules: [(name: "failed", when: ExecutionFailed, notify_resolved: true)],
           receivers: [{receiver}], route: (receiver: "ops")"#
    );
    let monitor = Monitor::start(with_bench(&alerts, &bench)).await.unwrap();
    let sent = |count: usize| {
        move |monitor: &MonitorHandle| {
            let rows = ledger(monitor, "ops");
            rows.len() == count && rows.iter().all(|row| row.state == OutboxState::Sent)
        }
    };
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    until(&monitor, "the first", sent(1)).await;
    monitor.clock().advance(Duration::from_secs(301));
    ends(&monitor, &bench, "b", "portrait", JobState::Failed).await;
    until(&monitor, "the second", sent(2)).await;
    ends(&monitor, &bench, "c", "portrait", JobState::Completed).await;
    until(&monitor, "the end", sent(3)).await;
    monitor
}

/// Slack's Web API, as far as a bot uses it: every message has its `ts`, and only those can be edited or replied to.
fn slack_api() -> impl Fn(&Asked) -> Reply + Send + Sync {
    let count = AtomicU64::new(0);
    move |asked| {
        if asked.headers.get("authorization").map(String::as_str) != Some("Bearer xoxb-canary") {
            return ok(&json!({"ok": false, "error": "invalid_auth"}));
        }
        let known = |ts: &str| {
            let number = ts.strip_prefix("1700000000.").and_then(|n| n.parse().ok());
            number.is_some_and(|number: u64| number < count.load(Ordering::SeqCst))
        };
        let refers = ["ts", "thread_ts"];
        let refers = refers.iter().filter_map(|name| asked.body[*name].as_str());
        if !refers.into_iter().all(known) {
            return ok(&json!({"ok": false, "error": "message_not_found"}));
        }
        match asked.target.as_str() {
            "/api/auth.test" => ok(&json!({"ok": true, "team": "Studio", "user": "weir"})),
            "/api/chat.update" => {
                ok(&json!({"ok": true, "channel": "C1", "ts": asked.body["ts"], "text": ""}))
            }
            "/api/chat.postMessage" => {
                let number = count.fetch_add(1, Ordering::SeqCst);
                ok(&json!({"ok": true, "channel": "C1", "ts": format!("1700000000.{number:06}")}))
            }
            _ => ok(&json!({"ok": false, "error": "unknown_method"})),
        }
    }
}

#[actix_web::test]
async fn a_slack_bot_keeps_one_message_and_a_thread_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let slack = Service::start(slack_api());
    let (url, file) = (slack.url(), secret(folder.path(), "xoxb-canary"));
    let monitor = life(&format!(
        r##"(name: "ops", handler: "slack", config: {{ "channel": "#ops", "api_url": "{url}/api" }},
             credentials: {{ "slack": Bearer(file: "{file}", origins: ["{url}"]) }})"##
    ))
    .await;
    assert_eq!(
        slack.lines(),
        [
            "POST /api/auth.test",
            "POST /api/chat.postMessage",
            "POST /api/chat.update",
            "POST /api/chat.postMessage",
            "POST /api/chat.update",
            "POST /api/chat.postMessage",
        ]
    );
    let asked = slack.asked();
    assert_eq!(asked[1].body["channel"], "#ops");
    assert!(asked[1].text.contains("CUDA out of memory"));
    for (edit, reply) in [(2, 3), (4, 5)] {
        assert_eq!(asked[edit].body["channel"], "C1");
        assert_eq!(asked[edit].body["ts"], "1700000000.000000");
        assert_eq!(asked[reply].body["thread_ts"], "1700000000.000000");
    }
    let title = asked[4].body["text"].as_str().unwrap();
    assert!(title.starts_with('✅'), "{title}");
    assert!(asked.iter().all(|asked| !asked.text.contains("canary")));
    monitor.shutdown().await;
    slack.stop().await;
}

#[actix_web::test]
async fn an_apprise_server_gets_a_message_for_each_notice() {
    let apprise = Service::start(|asked| match asked.target.as_str() {
        "/status" => (200, Vec::new(), "OK".to_owned()),
        "/notify/renders" => ok(&json!({"error": "", "details": []})),
        _ => (404, Vec::new(), String::new()),
    });
    let url = apprise.url();
    let monitor = life(&format!(
        r#"(name: "ops", handler: "apprise", config: {{ "url": "{url}", "key": "renders", "tag": "ops" }})"#
    ))
    .await;
    assert_eq!(
        apprise.lines(),
        [
            "GET /status",
            "POST /notify/renders",
            "POST /notify/renders",
            "POST /notify/renders"
        ]
    );
    let asked = apprise.asked();
    let kinds: Vec<_> = asked[1..]
        .iter()
        .map(|asked| asked.body["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["failure", "failure", "success"]);
    assert_eq!(asked[1].body["tag"], "ops");
    assert_eq!(asked[1].headers["accept"], "application/json");
    monitor.shutdown().await;
    apprise.stop().await;
}
