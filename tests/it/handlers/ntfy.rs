//! ntfy behind an access token: a message for each notice.

use super::{Refusals, life, receipts, refused, secret};
use crate::services::{Service, busy, reply};
use std::path::Path;
use std::time::Duration;

const HEALTHY: &str = r#"{"healthy":true}"#;
const PUBLISHED: &str = r#"{"id":"sPs71M8A2T","time":1643935928,"expires":1643979128,"event":"message","topic":"renders","message":"x"}"#;
/// 429.
const BUSY: &str = r#"{"code":42901,"http":429,"error":"limit reached: too many requests","link":"https://ntfy.sh/docs/publish/#limitations"}"#;
const UNAUTHORIZED: (u16, &str) = (
    401,
    r#"{"code":40101,"http":401,"error":"unauthorized","link":"https://ntfy.sh/docs/publish/#authentication"}"#,
);
const TOO_LARGE: (u16, &str) = (
    413,
    r#"{"code":41303,"http":413,"error":"JSON body too large","link":""}"#,
);

fn server() -> Service {
    Service::start(|asked| {
        let token = asked.headers.get("authorization").map(String::as_str);
        match (asked.method.as_str(), asked.target.as_str()) {
            _ if token != Some("Bearer tk_canary0123456789") => {
                reply(UNAUTHORIZED.0, UNAUTHORIZED.1)
            }
            ("GET", "/v1/health") => reply(200, HEALTHY),
            ("POST", "/") => reply(200, PUBLISHED),
            _ => reply(404, ""),
        }
    })
}

fn receiver(folder: &Path, url: &str) -> String {
    let file = secret(folder, "tk_canary0123456789");
    format!(
        r#"(name: "ops", handler: "ntfy", config: {{ "url": "{url}/renders", "credential": "key" }},
            credentials: {{ "key": Bearer(file: "{file}", origins: ["{url}"]) }})"#
    )
}

#[actix_web::test]
async fn ntfy_gets_a_message_for_each_notice() {
    let folder = tempfile::tempdir().unwrap();
    let ntfy = server();
    let rows = life(&receiver(folder.path(), &ntfy.url())).await;
    assert_eq!(receipts(&rows), [""; 3]);
    assert_eq!(ntfy.lines(), ["GET /v1/health", "POST /"].repeat(3));
    let asked = ntfy.asked();
    let messages: Vec<_> = asked
        .iter()
        .filter(|asked| asked.method == "POST")
        .collect();
    let (tags, priorities): (Vec<_>, Vec<_>) = messages
        .iter()
        .map(|asked| {
            assert_eq!(asked.body["topic"], "renders");
            let tag = asked.body["tags"][0].as_str().unwrap();
            (tag, asked.body["priority"].as_u64().unwrap())
        })
        .unzip();
    assert_eq!(tags, ["x", "x", "white_check_mark"]);
    assert_eq!(priorities, [4, 4, 3]);
    // ntfy shows a message as it is, where it is not told to read Markdown.
    let text = messages[0].body["message"].as_str().unwrap();
    assert!(text.contains("<b>@everyone</b> <!channel> <@1> & *x* _y_ `z` [a](http://b)"));
    assert!(messages[0].body.get("markdown").is_none());
    ntfy.stop().await;
}

#[actix_web::test]
async fn what_ntfy_refuses_waits_is_given_up_or_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let ntfy = server();
    let no = Refusals {
        busy: busy(25, BUSY),
        wait: Duration::from_secs(25),
        permanent: reply(TOO_LARGE.0, TOO_LARGE.1),
        misconfigured: reply(UNAUTHORIZED.0, UNAUTHORIZED.1),
    };
    refused(&receiver(folder.path(), &ntfy.url()), &ntfy, no).await;
    ntfy.stop().await;
}
