//! What Discord gets for a notification, and what its answers mean.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it should be"
)]

#[path = "data/answers.rs"]
mod answers;

use answers::{BUSY, GONE, POSTED};
use discord::Discord;
use weir_handler::testing::{Answer, Cassette, answer, huge, notification, resolved};
use weir_handler::{Handler, open};
use weir_sdk::{Failure, FailureKind};

const RECEIPT: &str = r#"{"message":"1061733541263966259"}"#;

fn discord(json: &str) -> Discord {
    open(json).unwrap()
}

fn refusal(answer: Answer) -> Failure {
    let far = Cassette::new([answer]);
    discord("{}")
        .deliver(&far, &notification(), None)
        .unwrap_err()
}

#[test]
fn a_message_is_posted_and_then_edited() {
    let far = Cassette::new([answer(200, POSTED)]);
    let first = discord(r#"{"username": "weir"}"#)
        .deliver(&far, &notification(), None)
        .unwrap();
    assert_eq!(first.as_deref(), Some(RECEIPT));
    assert_eq!(far.lines(), ["POST credential:?wait=true"]);
    let seen = far.seen().remove(0);
    assert_eq!(seen.credential.as_deref(), Some("discord"));
    assert_eq!(
        seen.body,
        serde_json::json!({
            "username": "weir",
            "embeds": [{
                "title": "❌ portrait failed",
                "url": "https://weir.example.net/executions/0198",
                "description": "portrait failed on studio\nRuntimeError\\: CUDA out of memory",
                "color": 0xd0_34_2c,
                "fields": [
                    {"name": "rule", "value": "failed", "inline": true},
                    {"name": "source", "value": "studio", "inline": true},
                    {"name": "workflow", "value": "portrait", "inline": true},
                ],
                "timestamp": "2026-11-22T08:47:11.096Z",
            }],
            "allowed_mentions": {"parse": []},
        })
    );

    let far = Cassette::new([answer(200, POSTED)]);
    let again = discord("{}")
        .deliver(&far, &resolved(), first.as_deref())
        .unwrap();
    assert_eq!(again, first);
    assert_eq!(
        far.lines(),
        ["PATCH credential:/messages/1061733541263966259"]
    );
    let body = &far.seen()[0].body;
    assert_eq!(body["embeds"][0]["color"], 0x2e_b8_67);
    assert!(body.get("username").is_none());
    assert_eq!(body["allowed_mentions"]["parse"], serde_json::json!([]));
}

#[test]
fn a_thread_is_named_in_both() {
    let config = r#"{"thread_id": "42", "credential": "hook"}"#;
    let far = Cassette::new([answer(200, POSTED), answer(200, POSTED)]);
    discord(config)
        .deliver(&far, &notification(), None)
        .unwrap();
    discord(config)
        .deliver(&far, &resolved(), Some(RECEIPT))
        .unwrap();
    assert_eq!(
        far.lines(),
        [
            "POST credential:?wait=true&thread_id=42",
            "PATCH credential:/messages/1061733541263966259?thread_id=42"
        ]
    );
}

#[test]
fn updates_may_be_messages_of_their_own() {
    let far = Cassette::new([answer(200, POSTED)]);
    discord(r#"{"updates": "post"}"#)
        .deliver(&far, &resolved(), Some(RECEIPT))
        .unwrap();
    assert_eq!(far.lines(), ["POST credential:?wait=true"]);
}

#[test]
fn a_message_that_was_deleted_is_posted_anew() {
    let far = Cassette::new([answer(404, GONE), answer(200, POSTED)]);
    discord("{}")
        .deliver(&far, &resolved(), Some(RECEIPT))
        .unwrap();
    assert_eq!(far.lines()[1], "POST credential:?wait=true");
    // A receipt is no way into another path.
    for prior in [r#"{"message":"1/../../x"}"#, r#"{"message":""}"#, "x", "{}"] {
        let far = Cassette::new([answer(200, POSTED)]);
        discord("{}")
            .deliver(&far, &resolved(), Some(prior))
            .unwrap();
        assert_eq!(far.lines(), ["POST credential:?wait=true"]);
    }
    let far = Cassette::new([answer(200, r#"{"id":"../x"}"#)]);
    let done = discord("{}").deliver(&far, &notification(), None).unwrap();
    assert_eq!(done, None);
}

#[test]
fn discords_refusals_are_told_apart() {
    for (refusals, kind) in [
        (answers::MISCONFIGURED, FailureKind::Misconfigured),
        (answers::PERMANENT, FailureKind::Permanent),
        (answers::TRANSIENT, FailureKind::Transient),
    ] {
        for (status, body) in refusals {
            let failure = refusal(answer(*status, body));
            assert_eq!(failure.kind, Some(kind), "{failure:?}");
        }
    }
}

#[test]
fn the_wait_is_in_the_body_or_in_the_header() {
    let failure = refusal(answer(429, BUSY).header("Retry-After", "65"));
    assert_eq!(
        (failure.kind, failure.retry_after_ms),
        (Some(FailureKind::Transient), Some(64_570))
    );
    let failure = refusal(answer(429, "error code: 1015").header("Retry-After", "600"));
    assert_eq!(failure.retry_after_ms, Some(600_000));
}

#[test]
fn limits_are_kept_and_nobody_is_mentioned() {
    let far = Cassette::new([answer(200, POSTED)]);
    discord("{}").deliver(&far, &huge(500), None).unwrap();
    let body = far.seen().remove(0).body;
    let embed = &body["embeds"][0];
    let size = |value: &serde_json::Value| value.as_str().unwrap().encode_utf16().count();
    assert!(size(&embed["title"]) <= 256);
    assert!(size(&embed["description"]) <= 4096);
    let fields = embed["fields"].as_array().unwrap();
    assert!(fields.len() <= 25);
    let mut all = size(&embed["title"]) + size(&embed["description"]);
    for field in fields {
        assert!(size(&field["name"]) <= 256 && size(&field["value"]) <= 1024);
        all += size(&field["name"]) + size(&field["value"]);
    }
    assert!(all <= 6000, "{all}");
    let text = embed["description"].as_str().unwrap();
    let shown = text.lines().count() - 1;
    assert_eq!(
        text.lines().last().unwrap(),
        format!(
            "[+{} more](https://weir.example.net/executions/0198)",
            507 - shown
        )
    );
    assert!(
        text.starts_with(r"0\: \<b\>\@everyone\</b\> \<!channel\> \<\@1\> & \*x\* \_y\_ \`z\`")
    );
}

#[test]
fn check_asks_the_webhook_about_itself() {
    let far = Cassette::new([answer(200, answers::HOOK)]);
    assert_eq!(
        discord("{}").check(&far).unwrap(),
        "Discord webhook renders"
    );
    assert_eq!(far.lines(), ["GET credential:"]);
}

#[test]
fn a_wrong_configuration_is_refused_by_name() {
    for (json, expected) in [
        (
            r#"{"thread_id": "x"}"#,
            "config.thread_id: expected a number",
        ),
        (r#"{"thread_id": 7}"#, "config.thread_id: invalid type"),
        (r#"{"updates": "never"}"#, "config.updates: unknown variant"),
        (r#"{"username": ""}"#, "config.username: expected 1 to 80"),
        (r#"{"url": "x"}"#, "config.url: unknown field"),
    ] {
        let message = open::<Discord>(json).unwrap_err().message;
        assert!(message.starts_with(expected), "{message}");
    }
    assert!(serde_json::from_str::<serde_json::Value>(Discord::CONFIG_SCHEMA).is_ok());
}

#[test]
fn a_link_that_is_too_long_is_left_out() {
    let mut far_away = huge(500);
    far_away.alerts[0].url = Some(format!("https://h/{}", "(".repeat(2000)));
    let far = Cassette::new([answer(200, POSTED)]);
    discord("{}").deliver(&far, &far_away, None).unwrap();
    let embed = &far.seen().remove(0).body["embeds"][0];
    assert!(embed.get("url").is_none());
    assert!(embed["description"].as_str().unwrap().ends_with(" more"));
}
