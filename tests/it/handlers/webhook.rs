//! A webhook whose messages are signed as Standard Webhooks says.

use super::{Refusals, life, refused, secret};
use crate::services::{Asked, Service, busy, reply};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// HMAC-SHA256 as RFC 2104 writes it, and not as the host has it.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    assert!(key.len() <= 64, "a longer key is hashed first");
    let padded = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block
    };
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(message)
        .finalize();
    let outer = Sha256::new()
        .chain_update(padded(0x5c))
        .chain_update(inner)
        .finalize();
    outer.to_vec()
}

/// What the specification has a receiver do: one of the signatures is that of `id.timestamp.body`.
fn is_signed(id: &str, timestamp: &str, body: &str, signatures: &str) -> bool {
    let key = STANDARD
        .decode(SECRET.strip_prefix("whsec_").unwrap())
        .unwrap();
    let signed = format!("{id}.{timestamp}.{body}");
    let expected = format!("v1,{}", STANDARD.encode(hmac(&key, signed.as_bytes())));
    signatures.split(' ').any(|signature| signature == expected)
}

#[test]
fn the_check_of_a_signature_agrees_with_the_example_of_the_specification() {
    let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let is = |body: &str| is_signed(id, "1614265330", body, signature);
    assert!(is(r#"{"test": 2432232314}"#));
    assert!(!is(r#"{"test": 2432232315}"#));
}

/// Takes what is signed and not older than five minutes, as a careful receiver does.
fn careful(asked: &Asked) -> bool {
    let header = |name: &str| asked.headers.get(name).map_or("", String::as_str);
    let timestamp = header("webhook-timestamp");
    let at = timestamp.parse::<i64>().unwrap_or_default();
    let age = jiff::Timestamp::now().as_second() - at;
    let signature = header("webhook-signature");
    age.abs() < 300 && is_signed(header("webhook-id"), timestamp, &asked.text, signature)
}

fn server() -> Service {
    Service::start(|asked| match careful(asked) {
        true => reply(204, ""),
        false => reply(401, "who are you?"),
    })
}

fn receiver(folder: &Path, url: &str) -> String {
    let file = secret(folder, SECRET);
    format!(
        r#"(name: "ops", handler: "webhook", config: {{ "url": "{url}/hook", "credential": "key" }},
            credentials: {{ "key": StandardWebhooks(file: "{file}", origins: ["{url}"]) }})"#
    )
}

#[actix_web::test]
async fn a_webhook_can_tell_who_sent_a_message_and_which_one_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let server = server();
    life(&receiver(folder.path(), &server.url())).await;
    let asked = server.asked();
    assert_eq!(server.lines(), ["POST /hook"; 3]);
    let told: Vec<&str> = asked
        .iter()
        .map(|asked| asked.body["status"].as_str().unwrap())
        .collect();
    assert_eq!(told, ["firing", "firing", "resolved"]);
    let ids: BTreeSet<&str> = asked
        .iter()
        .map(|asked| asked.headers["webhook-id"].as_str())
        .collect();
    assert_eq!(ids.len(), 3, "each message has an id of its own");
    let groups: BTreeSet<&str> = asked
        .iter()
        .map(|asked| asked.body["groupKey"].as_str().unwrap())
        .collect();
    assert_eq!(groups.len(), 1, "all are about one group");
    assert!(
        asked[0].text.contains("<b>@everyone</b>"),
        "{}",
        asked[0].text
    );
    server.stop().await;
}

#[actix_web::test]
async fn what_a_webhook_refuses_waits_is_given_up_or_is_kept_and_is_signed_anew() {
    let folder = tempfile::tempdir().unwrap();
    let server = server();
    let no = Refusals {
        busy: busy(40, ""),
        wait: Duration::from_secs(40),
        permanent: reply(400, "no"),
        misconfigured: reply(401, "who are you?"),
    };
    refused(&receiver(folder.path(), &server.url()), &server, no).await;
    let asked = server.asked();
    let of = |workflow: &str| -> Vec<&Asked> {
        asked
            .iter()
            .filter(|asked| asked.text.contains(workflow))
            .collect()
    };
    for tries in [of("portrait"), of("still")] {
        let [first, again] = tries[..] else {
            panic!("{tries:?}");
        };
        assert_eq!(first.headers["webhook-id"], again.headers["webhook-id"]);
        assert!(careful(first) && careful(again));
    }
    server.stop().await;
}
