//! Telegram: a bot that edits its message and replies to it; its token stands in the path.

#[expect(dead_code, reason = "the plugin's own tests use the rest of it")]
#[path = "../../../plugins/telegram/tests/data/answers.rs"]
mod answers;

use super::{Refusals, life, receipts, refused, secret};
use crate::services::{Asked, Reply, Service, reply};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const TOKEN: &str = "110201543:canaryTcvCH1vGWJxfSeofSAs0K5PALDsaw";
const ESCAPED: &str = "&lt;b&gt;@everyone&lt;/b&gt; &lt;!channel&gt; &lt;@1&gt; &amp; *x* _y_ `z` [a](http://b) \u{17e}\u{1f600} \
                       {{ secret:key}} {{ secret:key}}";

/// The Bot API, as far as it is used: what was sent can be edited and replied to, and nothing else.
fn api() -> impl Fn(&Asked) -> Reply + Send + Sync {
    let last = AtomicI64::new(16);
    let sent = |id: i64| {
        let id = format!(r#""message_id":{id},"#);
        reply(200, &answers::SENT.replace(r#""message_id":17,"#, &id))
    };
    move |asked| {
        let no = |code: u16, said: &str| reply(code, &answers::refusal(code, said));
        // The colon may be written as it is, or not.
        let base = format!("/bot{}/", TOKEN.replace(':', "%3A"));
        let Some(method) = asked.target.strip_prefix(&base) else {
            return no(401, "Unauthorized");
        };
        let known = |id: &serde_json::Value| {
            let id = id.as_i64().unwrap_or_default();
            (17..=last.load(Ordering::SeqCst)).contains(&id)
        };
        let reply_to = &asked.body["reply_parameters"]["message_id"];
        match method {
            "getChat" => reply(200, answers::CHAT),
            "sendMessage" if reply_to.is_null() || known(reply_to) => {
                sent(last.fetch_add(1, Ordering::SeqCst) + 1)
            }
            "editMessageText" if known(&asked.body["message_id"]) => sent(17),
            "editMessageText" => no(400, answers::GONE),
            _ => no(404, "Not Found"),
        }
    }
}

fn receiver(folder: &Path, url: &str) -> String {
    let file = secret(folder, TOKEN);
    format!(
        r#"(name: "ops", handler: "telegram",
            config: {{ "chat_id": -1001234567890, "credential": "key", "api_url": "{url}" }},
            credentials: {{ "key": Secret(file: "{file}", origins: ["{url}"]) }})"#
    )
}

#[actix_web::test]
async fn telegram_keeps_one_message_and_replies_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let telegram = Service::start(api());
    let rows = life(&receiver(folder.path(), &telegram.url())).await;
    assert_eq!(
        receipts(&rows),
        [r#"{"chat":-1001234567890,"message":17}"#; 3]
    );
    let lines = telegram.lines();
    let methods: Vec<&str> = lines
        .iter()
        .map(|line| line.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(
        methods,
        [
            "getChat",
            "sendMessage",
            "getChat",
            "editMessageText",
            "sendMessage",
            "getChat",
            "editMessageText",
            "sendMessage",
        ]
    );
    let asked = telegram.asked();
    let text = asked[1].body["text"].as_str().unwrap();
    assert!(text.contains(ESCAPED), "{text}");
    assert_eq!(asked[1].body["parse_mode"], "HTML");
    for (edit, answer) in [(3, 4), (6, 7)] {
        assert_eq!(asked[edit].body["message_id"], 17);
        assert_eq!(
            asked[answer].body["reply_parameters"],
            json!({"message_id": 17, "allow_sending_without_reply": true})
        );
    }
    // The end makes no sound, and no text of a job was given the token.
    assert_eq!(asked[7].body["disable_notification"], true);
    assert!(asked.iter().all(|asked| !asked.text.contains("canary")));
    telegram.stop().await;
}

#[actix_web::test]
async fn what_telegram_refuses_waits_is_given_up_or_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let telegram = Service::start(api());
    let of = |(code, said): (u16, &str)| reply(code, &answers::refusal(code, said));
    let no = Refusals {
        busy: reply(429, answers::BUSY),
        wait: Duration::from_secs(35),
        permanent: of(answers::PERMANENT[0]),
        misconfigured: of(answers::MISCONFIGURED[5]),
    };
    refused(&receiver(folder.path(), &telegram.url()), &telegram, no).await;
    telegram.stop().await;
}
