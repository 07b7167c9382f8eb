//! `Google(...)` in a daemon: the account is found where Google's own tools look for it, and its tokens come from where they
//! are issued. What each exchange says is tested where it is made: `core/src/plugin/egress/tests/google.rs`.

use super::Shell;
use super::daemon::{Loud, configure, until};
use crate::vertex::custom;
use crate::vertex::server::Server;
use serde_json::{Value, json};
use std::fs;

fn service_account(server: &Server) -> Value {
    json!({
        "type": "service_account", "client_email": "weir@demo.iam.gserviceaccount.com",
        "token_uri": format!("{}/token", server.url()),
        "private_key": include_str!("../../data/google/key.pem"), "private_key_id": "kid-1",
    })
}

/// A source with this credential sees its job, with a token that was issued once.
async fn watches(shell: &Shell, env: &[(&str, String)], credential: impl Fn(&str) -> String) {
    let server = Server::start();
    server.with(|fake| {
        fake.tokens = vec!["nobody-has-this".to_owned()];
        fake.jobs = vec![custom("03-running-t4", "1")];
    });
    let account = service_account(&server).to_string();
    for file in [
        "named.json",
        ".config/gcloud/application_default_credentials.json",
    ] {
        let file = shell.path().join(file);
        // Only what the test put there before is an account to be found.
        if file.exists() {
            fs::write(file, &account).unwrap();
        }
    }
    let url = server.url();
    configure(
        shell,
        &format!(
            r#"(http: (listen: "127.0.0.1:0"), data_dir: "data",
                sources: [(name: "vertex", plugin: "vertex-ai", poll_interval: "100ms",
                    credentials: {{ "gcp": {} }},
                    config: {{ "projects": ["demo"], "locations": ["us-central1"], "kinds": ["custom_jobs"],
                               "base_url": "{url}", "logging_url": "{url}" }})])"#,
            credential(&url)
        ),
    );
    let loud = Loud::start(shell, env).await;
    until("the job", async || {
        let jobs = loud.json("/api/executions").await;
        (jobs["items"][0]["status"] == "running").then_some(())
    })
    .await;
    let polls = async || loud.json("/api/sources/vertex").await["polls"].as_u64();
    let before = polls().await;
    until("more polls", async || {
        (polls().await > before.map(|n| n + 2)).then_some(())
    })
    .await;
    assert_eq!(
        server.with(|fake| fake.tokens.len()),
        2,
        "one token was issued"
    );
    server.assert_nothing_wrong();
    server.stop().await;
}

#[actix_web::test]
async fn the_account_that_the_environment_names_is_used() {
    let shell = Shell::alone();
    let named = shell.path().join("named.json");
    fs::write(&named, "").unwrap();
    let env = [(
        "GOOGLE_APPLICATION_CREDENTIALS",
        named.display().to_string(),
    )];
    let credential = |url: &str| format!(r#"Google(origins: ["{url}"])"#);
    watches(&shell, &env, credential).await;
}

#[actix_web::test]
async fn the_account_that_gcloud_keeps_is_used() {
    let shell = Shell::alone();
    let folder = shell.path().join(".config/gcloud");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("application_default_credentials.json"), "").unwrap();
    let credential = |url: &str| format!(r#"Google(origins: ["{url}"])"#);
    watches(&shell, &[], credential).await;
}

#[actix_web::test]
async fn where_no_account_is_found_the_machines_own_is_used() {
    let shell = Shell::alone();
    let credential =
        |url: &str| format!(r#"Google(origins: ["{url}"], endpoints: (metadata: "{url}"))"#);
    watches(&shell, &[], credential).await;
}

#[actix_web::test]
async fn another_issuers_token_is_exchanged_and_then_impersonates() {
    let shell = Shell::alone();
    fs::write(shell.path().join("subject"), "subject-1\n").unwrap();
    let external = json!({
        "type": "external_account", "audience": "//iam/pool",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": {"file": shell.path().join("subject")},
        "service_account_impersonation_url":
            "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/sa@x:generateAccessToken",
    });
    fs::write(shell.path().join("external.json"), external.to_string()).unwrap();
    let credential = |url: &str| {
        format!(
            r#"Google(file: "external.json", origins: ["{url}"],
                endpoints: (sts: "{url}/sts", iamcredentials: "{url}"))"#
        )
    };
    watches(&shell, &[], credential).await;
}
