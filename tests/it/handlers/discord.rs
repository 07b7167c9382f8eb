//! Discord: a webhook whose message is edited.

#[expect(dead_code, reason = "the plugin's own tests use the rest of it")]
#[path = "../../../plugins/discord/tests/data/answers.rs"]
mod answers;

use super::{Refusals, life, receipts, refused, secret};
use crate::services::{Asked, Reply, Service, busy, reply};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The address is the secret.
const HOOK: &str = "/api/webhooks/223704706495545344/canary-3d89bb7572e0fb30d8128367b3b1b44fecd1726de135cbe28a41f8b2f777c372ba2939e72279b94526ff5d1bd4358d65cf11";
const ESCAPED: &str = r"\<b\>\@everyone\</b\> \<!channel\> \<\@1\> & \*x\* \_y\_ \`z\`";

/// A webhook: what it posted can be edited, and nothing else.
fn webhook() -> impl Fn(&Asked) -> Reply + Send + Sync {
    let count = AtomicU64::new(0);
    let id = |number: u64| (1_061_733_541_263_966_259 + number).to_string();
    let posted = move |id_text: &str| reply(200, &answers::POSTED.replace(&id(0), id_text));
    move |asked| {
        let Some(rest) = asked.target.strip_prefix(HOOK) else {
            let (status, body) = answers::MISCONFIGURED[0];
            return reply(status, body);
        };
        let known = |text: &str| (0..count.load(Ordering::SeqCst)).any(|number| id(number) == text);
        match (asked.method.as_str(), rest.strip_prefix("/messages/")) {
            ("GET", None) => reply(200, answers::HOOK),
            ("POST", None) if rest == "?wait=true" => {
                posted(&id(count.fetch_add(1, Ordering::SeqCst)))
            }
            ("PATCH", Some(message)) if known(message) => posted(message),
            _ => reply(404, answers::GONE),
        }
    }
}

fn receiver(folder: &Path, url: &str) -> String {
    let file = secret(folder, &format!("{url}{HOOK}"));
    format!(
        r#"(name: "ops", handler: "discord", config: {{ "credential": "key" }},
            credentials: {{ "key": Url(file: "{file}") }})"#
    )
}

#[actix_web::test]
async fn discord_keeps_one_message_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let discord = Service::start(webhook());
    let rows = life(&receiver(folder.path(), &discord.url())).await;
    assert_eq!(receipts(&rows), [r#"{"message":"1061733541263966259"}"#; 3]);
    let edit = format!("PATCH {HOOK}/messages/1061733541263966259");
    assert_eq!(
        discord.lines(),
        [
            format!("GET {HOOK}"),
            format!("POST {HOOK}?wait=true"),
            format!("GET {HOOK}"),
            edit.clone(),
            format!("GET {HOOK}"),
            edit,
        ]
    );
    let asked = discord.asked();
    let text = asked[1].body["embeds"][0]["description"].as_str().unwrap();
    assert!(text.contains(ESCAPED), "{text}");
    assert!(!text.contains("{{secret"), "{text}");
    assert_eq!(asked[5].body["embeds"][0]["color"], 0x2e_b8_67);
    for message in [1, 3, 5] {
        assert_eq!(
            asked[message].body["allowed_mentions"],
            json!({"parse": []})
        );
    }
    assert!(asked.iter().all(|asked| !asked.text.contains("canary")));
    discord.stop().await;
}

#[actix_web::test]
async fn what_discord_refuses_waits_is_given_up_or_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let discord = Service::start(webhook());
    let of = |(status, body): (u16, &str)| reply(status, body);
    let no = Refusals {
        busy: busy(65, answers::BUSY),
        wait: Duration::from_millis(64_570),
        permanent: of(answers::PERMANENT[0]),
        misconfigured: of(answers::MISCONFIGURED[1]),
    };
    refused(&receiver(folder.path(), &discord.url()), &discord, no).await;
    discord.stop().await;
}
