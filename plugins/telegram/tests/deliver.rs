//! What Telegram gets for a notification, and what its answers mean.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it should be"
)]

#[path = "data/answers.rs"]
mod answers;

use answers::{BUSY, GONE, SENT};
use telegram::Telegram;
use weir_handler::testing::{Answer, Cassette, answer, huge, notification, resolved};
use weir_handler::{Handler, open};
use weir_sdk::{Failure, FailureKind};

const CONFIG: &str = r#"{"chat_id": -1001234567890}"#;
const RECEIPT: &str = r#"{"chat":-1001234567890,"message":17}"#;
const BASE: &str = "https://api.telegram.org/bot{{secret:telegram}}";

fn telegram(json: &str) -> Telegram {
    open(json).unwrap()
}

fn refusal(answer: Answer) -> Failure {
    let far = Cassette::new([answer]);
    telegram(CONFIG)
        .deliver(&far, &notification(), None)
        .unwrap_err()
}

fn refused(code: u16, description: &str) -> Answer {
    answer(code, &answers::refusal(code, description))
}

#[test]
fn a_message_is_sent_then_edited_and_replied_to() {
    let far = Cassette::new([answer(200, SENT)]);
    let first = telegram(CONFIG)
        .deliver(&far, &notification(), None)
        .unwrap();
    assert_eq!(first.as_deref(), Some(RECEIPT));
    let seen = far.seen().remove(0);
    // The token is the host's to put in, and no credential signs the request.
    assert_eq!(seen.url, format!("{BASE}/sendMessage"));
    assert_eq!(seen.credential, None);
    assert_eq!(
        seen.body,
        serde_json::json!({
            "chat_id": -1_001_234_567_890_i64,
            "text": "❌ <b>portrait failed</b>\nportrait failed on studio\nRuntimeError: CUDA out of memory\n\
                <i>rule: failed · source: studio · workflow: portrait</i>\n\
                <a href=\"https://weir.example.net/executions/0198\">Open in weir</a>",
            "parse_mode": "HTML",
            "link_preview_options": {"is_disabled": true},
        })
    );

    let far = Cassette::new([answer(200, SENT), answer(200, &SENT.replace("17", "18"))]);
    let again = telegram(r#"{"chat_id": "-1001234567890", "topic": 5}"#)
        .deliver(&far, &resolved(), first.as_deref())
        .unwrap();
    assert_eq!(again, first);
    assert_eq!(
        far.lines(),
        [
            format!("POST {BASE}/editMessageText"),
            format!("POST {BASE}/sendMessage")
        ]
    );
    let (edit, reply) = (&far.seen()[0].body, &far.seen()[1].body);
    assert_eq!(edit["message_id"], 17);
    assert!(
        edit["text"]
            .as_str()
            .unwrap()
            .starts_with("✅ <b>portrait works again</b>")
    );
    assert_eq!(
        reply["reply_parameters"],
        serde_json::json!({"message_id": 17, "allow_sending_without_reply": true})
    );
    assert_eq!(reply["message_thread_id"], 5);
    assert_eq!(reply["disable_notification"], true);
    assert!(edit.get("reply_parameters").is_none() && reply.get("message_id").is_none());
}

#[test]
fn an_edit_that_changes_nothing_is_fine() {
    let same = "Bad Request: message is not modified: specified new message content and reply markup are exactly the same";
    let far = Cassette::new([refused(400, same)]);
    let done = telegram(r#"{"chat_id": -1001234567890, "thread": false}"#)
        .deliver(&far, &notification(), Some(RECEIPT))
        .unwrap();
    assert_eq!(done.as_deref(), Some(RECEIPT));
    assert!(far.is_played());
}

#[test]
fn a_message_that_is_gone_is_sent_anew() {
    let gone = || refused(400, GONE);
    let anew = SENT.replace("17,", "99,");
    let far = Cassette::new([gone(), answer(200, &anew)]);
    let done = telegram(CONFIG)
        .deliver(&far, &resolved(), Some(RECEIPT))
        .unwrap();
    assert!(done.unwrap().contains("99"));
    let far = Cassette::new([gone(), answer(200, &anew)]);
    telegram(r#"{"chat_id": -1001234567890, "thread": false}"#)
        .deliver(&far, &resolved(), Some(RECEIPT))
        .unwrap();
    assert!(far.seen()[1].body.get("reply_parameters").is_none());
    // A receipt of another chat is of no use in this one.
    let far = Cassette::new([answer(200, SENT)]);
    telegram(r#"{"chat_id": "@renders"}"#)
        .deliver(&far, &resolved(), Some(RECEIPT))
        .unwrap();
    assert_eq!(far.lines(), [format!("POST {BASE}/sendMessage")]);
}

#[test]
fn the_bot_apis_refusals_are_told_apart() {
    for (refusals, kind) in [
        (answers::MISCONFIGURED, FailureKind::Misconfigured),
        (answers::PERMANENT, FailureKind::Permanent),
        (answers::TRANSIENT, FailureKind::Transient),
    ] {
        for (code, description) in refusals {
            let failure = refusal(refused(*code, description));
            assert_eq!(failure.kind, Some(kind), "{failure:?}");
            assert!(failure.message.contains(description), "{}", failure.message);
        }
    }
    let moved = r#"{"ok":false,"error_code":400,"description":"Bad Request: group chat was upgraded to a supergroup chat","parameters":{"migrate_to_chat_id":-1009876543210}}"#;
    let failure = refusal(answer(400, moved));
    assert_eq!(failure.kind, Some(FailureKind::Misconfigured));
    assert!(failure.message.contains("-1009876543210"));
    assert_eq!(
        refusal(answer(200, "<html>")).kind,
        Some(FailureKind::Transient)
    );
    assert_eq!(
        refusal(answer(502, "<html>")).kind,
        Some(FailureKind::Transient)
    );
}

#[test]
fn the_wait_is_in_the_body() {
    let failure = refusal(answer(429, BUSY));
    assert_eq!(
        (failure.kind, failure.retry_after_ms),
        (Some(FailureKind::Transient), Some(35_000))
    );
}

#[test]
fn limits_are_kept_and_no_tag_is_let_in() {
    let far = Cassette::new([answer(200, SENT)]);
    telegram(CONFIG).deliver(&far, &huge(500), None).unwrap();
    let body = far.seen().remove(0).body;
    let text = body["text"].as_str().unwrap();
    let size = text.encode_utf16().count();
    assert!(size <= 4096 && size > 3000, "{size}");
    assert!(text.contains("&lt;b&gt;@everyone"));
    assert!(text.contains("<a href=\"https://weir.example.net/executions/0198\">+"));
    // Our own tags are all there are, and each is closed.
    for tag in ["b", "i", "a"] {
        assert_eq!(
            text.matches(&format!("</{tag}>")).count(),
            text.matches(&format!("<{tag}>")).count() + text.matches(&format!("<{tag} ")).count(),
            "{tag}"
        );
    }
    let ours = text.matches("<b>").count() + text.matches("<i>").count();
    assert_eq!(ours, 2);

    let mut far_away = notification();
    far_away.alerts[0].url = Some(format!("https://h/{}", "a&".repeat(900)));
    far_away.text = "x\n".repeat(5000);
    let far = Cassette::new([answer(200, SENT)]);
    telegram(CONFIG).deliver(&far, &far_away, None).unwrap();
    let text = far.seen()[0].body["text"].as_str().unwrap().to_owned();
    assert!(text.encode_utf16().count() <= 4096, "{}", text.len());
}

#[test]
fn check_asks_for_the_chat() {
    let far = Cassette::new([answer(200, answers::CHAT)]);
    assert_eq!(
        telegram(CONFIG).check(&far).unwrap(),
        "Telegram chat Renders"
    );
    assert_eq!(far.lines(), [format!("POST {BASE}/getChat")]);
}

#[test]
fn a_wrong_configuration_is_refused_by_name() {
    for (json, expected) in [
        ("{}", "config: missing field `chat_id`"),
        (r#"{"chat_id": 1.5}"#, "config.chat_id: expected a number"),
        (r#"{"chat_id": "ops"}"#, "config.chat_id: expected a number"),
        (
            r#"{"chat_id": 1, "credential": "a}}b"}"#,
            "config.credential: expected",
        ),
        (
            r#"{"chat_id": 1, "api_url": "x"}"#,
            "config.api_url: expected an absolute",
        ),
        (
            r#"{"chat_id": 1, "token": "x"}"#,
            "config.token: unknown field",
        ),
    ] {
        let message = open::<Telegram>(json).unwrap_err().message;
        assert!(message.starts_with(expected), "{message}");
    }
    assert!(serde_json::from_str::<serde_json::Value>(Telegram::CONFIG_SCHEMA).is_ok());
}
