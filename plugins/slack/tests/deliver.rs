//! What Slack gets for a notification, and what its answers mean.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it should be"
)]

#[path = "data/answers.rs"]
mod answers;

use answers::{POSTED, not_ok};
use slack::Slack;
use weir_handler::testing::{Answer, Cassette, answer, huge, notification, resolved};
use weir_handler::{Handler, open};
use weir_sdk::{Failure, FailureKind};

const BOT: &str = r##"{"channel": "#ops"}"##;
const RECEIPT: &str = r#"{"channel":"C024BE91L","ts":"1503435956.000247"}"#;

fn slack(json: &str) -> Slack {
    open(json).unwrap()
}

/// A webhook's answer to one message.
fn webhook(answer: Answer) -> Result<Option<String>, Failure> {
    let far = Cassette::new([answer]);
    slack("{}").deliver(&far, &notification(), None)
}

fn bot(answer: Answer) -> Failure {
    let far = Cassette::new([answer]);
    slack(BOT).deliver(&far, &notification(), None).unwrap_err()
}

#[test]
fn a_webhook_gets_one_message() {
    let far = Cassette::new([answer(200, answers::WEBHOOK_TAKEN)]);
    let done = slack("{}").deliver(&far, &notification(), None);
    assert_eq!(done.unwrap(), None);
    let seen = far.seen().remove(0);
    assert_eq!(far.lines(), ["POST credential:"]);
    assert_eq!(seen.credential.as_deref(), Some("slack"));
    assert_eq!(
        seen.body,
        serde_json::json!({
            "text": "❌ *portrait failed*",
            "attachments": [{
                "color": "#d0342c",
                "blocks": [
                    {"type": "section", "text": {"type": "mrkdwn", "verbatim": true,
                        "text": "portrait failed on studio\nRuntimeError: CUDA out of memory"}},
                    {"type": "section", "fields": [
                        {"type": "mrkdwn", "verbatim": true, "text": "*rule*\nfailed"},
                        {"type": "mrkdwn", "verbatim": true, "text": "*source*\nstudio"},
                        {"type": "mrkdwn", "verbatim": true, "text": "*workflow*\nportrait"},
                    ]},
                    {"type": "context", "elements": [{"type": "mrkdwn", "verbatim": true,
                        "text": "<https://weir.example.net/executions/0198|Open in weir>"}]},
                ],
            }],
            "unfurl_links": false,
            "unfurl_media": false,
        })
    );
}

#[test]
fn a_bot_posts_then_edits_and_replies() {
    let far = Cassette::new([answer(200, POSTED)]);
    let first = slack(BOT).deliver(&far, &notification(), None).unwrap();
    assert_eq!(first.as_deref(), Some(RECEIPT));
    assert_eq!(far.lines(), ["POST https://slack.com/api/chat.postMessage"]);
    assert_eq!(far.seen()[0].body["channel"], "#ops");

    let far = Cassette::new([answer(200, POSTED), answer(200, POSTED)]);
    let again = slack(BOT)
        .deliver(&far, &resolved(), first.as_deref())
        .unwrap();
    assert_eq!(again, first);
    assert_eq!(
        far.lines(),
        [
            "POST https://slack.com/api/chat.update",
            "POST https://slack.com/api/chat.postMessage"
        ]
    );
    let (edit, reply) = (&far.seen()[0].body, &far.seen()[1].body);
    assert_eq!(
        (edit["channel"].as_str(), edit["ts"].as_str()),
        (Some("C024BE91L"), Some("1503435956.000247"))
    );
    assert_eq!(reply["thread_ts"], "1503435956.000247");
    assert!(reply.get("ts").is_none() && edit.get("thread_ts").is_none());
    assert_eq!(edit["text"], "✅ *portrait works again*");
    assert_eq!(edit["attachments"][0]["color"], "#2eb867");
}

#[test]
fn without_a_thread_the_first_message_is_only_edited() {
    let far = Cassette::new([answer(200, POSTED)]);
    slack(r#"{"channel": "C1", "thread": false}"#)
        .deliver(&far, &resolved(), Some(RECEIPT))
        .unwrap();
    assert_eq!(far.lines(), ["POST https://slack.com/api/chat.update"]);
}

#[test]
fn a_message_that_is_gone_is_posted_anew_and_an_old_one_is_replied_to() {
    let gone = not_ok("message_not_found");
    let anew = POSTED.replace("1503435956.000247", "1600000000.000001");
    let far = Cassette::new([answer(200, &gone), answer(200, &anew)]);
    let done = slack(BOT)
        .deliver(&far, &resolved(), Some(RECEIPT))
        .unwrap();
    assert!(done.unwrap().contains("1600000000.000001"));
    assert!(far.seen()[1].body.get("thread_ts").is_none());

    let frozen = not_ok("edit_window_closed");
    let far = Cassette::new([answer(200, &frozen), answer(200, POSTED)]);
    slack(BOT)
        .deliver(&far, &resolved(), Some(RECEIPT))
        .unwrap();
    assert_eq!(far.seen()[1].body["thread_ts"], "1503435956.000247");
}

#[test]
fn a_failed_reply_is_a_failed_delivery() {
    let busy = answer(429, &not_ok("ratelimited")).header("Retry-After", "30");
    let far = Cassette::new([answer(200, POSTED), busy]);
    let failure = slack(BOT)
        .deliver(&far, &resolved(), Some(RECEIPT))
        .unwrap_err();
    assert_eq!(failure.kind, Some(FailureKind::Transient));
    assert_eq!(failure.retry_after_ms, Some(30_000));
}

#[test]
fn slacks_refusals_of_a_webhook_are_told_apart() {
    for (refusals, kind) in [
        (answers::WEBHOOK_PERMANENT, FailureKind::Permanent),
        (answers::WEBHOOK_MISCONFIGURED, FailureKind::Misconfigured),
        (answers::WEBHOOK_TRANSIENT, FailureKind::Transient),
    ] {
        for (status, body) in refusals {
            let failure = webhook(answer(*status, body)).unwrap_err();
            assert_eq!(failure.kind, Some(kind), "{status} {body}: {failure:?}");
        }
    }
    let busy = webhook(answer(429, answers::WEBHOOK_BUSY).header("Retry-After", "1")).unwrap_err();
    assert_eq!(
        (busy.kind, busy.retry_after_ms),
        (Some(FailureKind::Transient), Some(1000))
    );
}

#[test]
fn two_hundred_with_ok_false_is_no_delivery() {
    for (names, kind) in [
        (answers::API_MISCONFIGURED, FailureKind::Misconfigured),
        (answers::API_PERMANENT, FailureKind::Permanent),
        (answers::API_TRANSIENT, FailureKind::Transient),
    ] {
        for name in names {
            let failure = bot(answer(200, &not_ok(name)));
            assert_eq!(failure.kind, Some(kind), "{failure:?}");
            assert!(failure.message.contains(name), "{}", failure.message);
        }
    }
    let scope =
        r#"{"ok":false,"error":"missing_scope","needed":"chat:write","provided":"identify"}"#;
    let failure = bot(answer(200, scope));
    assert!(
        failure.message.contains("chat:write"),
        "{}",
        failure.message
    );
}

#[test]
fn limits_are_kept_and_nothing_is_a_mention() {
    let far = Cassette::new([answer(200, answers::WEBHOOK_TAKEN)]);
    slack("{}").deliver(&far, &huge(500), None).unwrap();
    let body = far.seen().remove(0).body;
    let blocks = body["attachments"][0]["blocks"].as_array().unwrap();
    let text = blocks[0]["text"]["text"].as_str().unwrap();
    assert!(blocks.len() <= 50);
    assert!(text.encode_utf16().count() <= 3000 && text.len() > 2500);
    let last = text.lines().last().unwrap();
    let shown = text.lines().count() - 1;
    let more = format!(
        "<https://weir.example.net/executions/0198|+{} more>",
        507 - shown
    );
    assert_eq!(last, more);
    let fields = blocks[1]["fields"].as_array().unwrap();
    assert!(fields.len() <= 10);
    for field in fields {
        assert!(field["text"].as_str().unwrap().encode_utf16().count() <= 2000);
    }
    // Every `<` of a text came out as an entity: what is left are our own links.
    let all = body.to_string();
    assert!(!all.contains("<!") && !all.contains("<@") && !all.contains("<b>"));
    assert!(body["text"].as_str().unwrap().encode_utf16().count() <= 310);
}

#[test]
fn check_asks_a_bot_who_it_is() {
    let far = Cassette::new([answer(200, answers::WHO)]);
    assert_eq!(
        slack(BOT).check(&far).unwrap(),
        "Slack team Studio, bot weir, channel #ops"
    );
    assert_eq!(far.lines(), ["POST https://slack.com/api/auth.test"]);
    let far = Cassette::new([answer(200, &not_ok("invalid_auth"))]);
    let failure = slack(BOT).check(&far).unwrap_err();
    assert_eq!(failure.kind, Some(FailureKind::Misconfigured));
    let far = Cassette::new([]);
    assert!(
        slack("{}").check(&far).is_ok(),
        "a webhook is not posted to"
    );
}

#[test]
fn a_wrong_configuration_is_refused_by_name() {
    for (json, expected) in [
        (r#"{"chanel": "x"}"#, "config.chanel: unknown field"),
        (r#"{"channel": ""}"#, "config.channel: expected an id"),
        (r#"{"channel": 7}"#, "config.channel: invalid type"),
        (r#"{"thread": true}"#, "config.thread: an incoming webhook"),
        (r#"{"credential": ""}"#, "config.credential: expected"),
        (
            r#"{"channel": "c", "api_url": "slack.com"}"#,
            "config.api_url: expected an absolute",
        ),
    ] {
        let message = open::<Slack>(json).unwrap_err().message;
        assert!(message.starts_with(expected), "{message}");
    }
    let schema: serde_json::Value = serde_json::from_str(Slack::CONFIG_SCHEMA).unwrap();
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn a_receipt_that_is_none_is_no_receipt() {
    for prior in ["", "{}", "null", "x", r#"{"channel":1}"#] {
        let far = Cassette::new([answer(200, POSTED)]);
        slack(BOT).deliver(&far, &resolved(), Some(prior)).unwrap();
        assert_eq!(far.lines(), ["POST https://slack.com/api/chat.postMessage"]);
    }
    // Delivered, whatever else it says.
    let far = Cassette::new([answer(200, r#"{"ok":true,"channel":{},"ts":5}"#)]);
    let done = slack(BOT).deliver(&far, &notification(), None).unwrap();
    assert_eq!(done, None);
}

#[test]
fn a_link_that_is_too_long_is_left_out() {
    let mut far_away = huge(500);
    far_away.alerts[0].url = Some(format!("https://h/{}", "a&".repeat(900)));
    let far = Cassette::new([answer(200, answers::WEBHOOK_TAKEN)]);
    slack("{}").deliver(&far, &far_away, None).unwrap();
    let body = far.seen().remove(0).body;
    let text = body["attachments"][0]["blocks"][0]["text"]["text"]
        .as_str()
        .unwrap();
    assert!(text.encode_utf16().count() <= 3000 && text.ends_with(" more"));
}
