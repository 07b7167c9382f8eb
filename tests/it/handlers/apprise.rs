//! An Apprise server: a message for each notice.

use super::life;
use crate::services::{Service, ok, reply};
use serde_json::json;

#[actix_web::test]
async fn an_apprise_server_gets_a_message_for_each_notice() {
    let apprise = Service::start(|asked| match asked.target.as_str() {
        "/status" => reply(200, "OK"),
        "/notify/renders" => ok(&json!({"error": "", "details": []})),
        _ => reply(404, ""),
    });
    let url = apprise.url();
    life(&format!(
        r#"(name: "ops", handler: "apprise", config: {{ "url": "{url}", "key": "renders", "tag": "ops" }})"#
    ))
    .await;
    assert_eq!(
        apprise.lines(),
        ["GET /status", "POST /notify/renders"].repeat(3)
    );
    let asked = apprise.asked();
    let messages: Vec<_> = asked
        .iter()
        .filter(|asked| asked.method == "POST")
        .collect();
    let kinds: Vec<_> = messages
        .iter()
        .map(|asked| asked.body["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["failure", "failure", "success"]);
    assert_eq!(messages[0].body["tag"], "ops");
    // What services show as markup is Apprise's to know: it is told that this is plain text.
    assert_eq!(messages[0].body["format"], "text");
    assert_eq!(messages[0].headers["accept"], "application/json");
    apprise.stop().await;
}
