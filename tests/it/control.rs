//! Control through real HTTP: who may, what is asked, what is believed, and what a crash costs.

mod crash;
pub(crate) mod provider;
mod shell;

use provider::{Daemon, Mood, path};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use weir_model::observation::JobState;

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test(flavor = "multi_thread")]
async fn nobody_acts_without_the_token_or_where_control_is_off() {
    let daemon = Daemon::new(Mood::Willing).await;
    let file = weir::token::path(daemon.server.monitor().data_dir());
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let execution = daemon.shown("a", JobState::Running).await;
    let paths = [
        path(&execution, "cancel"),
        path(&execution, "retry"),
        "/api/sources/studio/prompt".to_owned(),
        "/api/sources/studio/submit".to_owned(),
    ];
    for path in &paths {
        let none = daemon.send("POST", path, &[JSON], "{}").await;
        let problem = none.is(401);
        assert_eq!(none.header("content-type"), "application/problem+json");
        assert!(none.header("www-authenticate").starts_with("Bearer"));
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("cli.token") && detail.contains("--token-file"),
            "{detail}"
        );
        let almost = format!("Bearer {}0", &daemon.token[..63]);
        for wrong in ["Bearer wrong", almost.as_str(), "Basic d2VpcjpubwAA", "x"] {
            let answer = daemon
                .send("POST", path, &[("authorization", wrong)], "{}")
                .await;
            let problem = answer.is(401);
            assert!(!problem.to_string().contains(&daemon.token), "{problem}");
        }
        // With the token, a page of somebody else is still refused.
        let foreign = daemon
            .post(path, &[("origin", "https://evil.example")], "{}")
            .await;
        assert_eq!(foreign.is(403)["type"], "urn:weir:foreign-origin");
        let rebound = daemon.post(path, &[("host", "evil.example")], "{}").await;
        assert_eq!(rebound.is(421)["type"], "urn:weir:foreign-host");
    }
    let off = daemon
        .post("/api/sources/shop/prompt", &[JSON], "{}")
        .await
        .is(403);
    assert_eq!(off["type"], "urn:weir:control-off");
    assert!(
        off["detail"].as_str().unwrap().contains("control: true"),
        "{off}"
    );
    daemon
        .post("/api/sources/nowhere/prompt", &[], "{}")
        .await
        .is(404);
    assert!(
        daemon.provider.calls().is_empty(),
        "{:?}",
        daemon.provider.calls()
    );
    // Reading stays open.
    daemon.get(&path(&execution, "control")).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_can_only_set_the_address_sends_the_token_as_a_password() {
    use base64::Engine as _;
    let daemon = Daemon::new(Mood::Willing).await;
    let login = format!("weir:{}", daemon.token);
    let basic = format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(login)
    );
    let sent = [("authorization", basic.as_str())];
    daemon
        .send("POST", "/api/sources/studio/prompt", &sent, "{}")
        .await
        .is(200);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_done_when_the_provider_shows_it_and_leaves_its_trace() {
    let daemon = Daemon::new(Mood::Willing).await;
    let execution = daemon.shown("a", JobState::Running).await;
    let request = daemon
        .post(&path(&execution, "cancel"), &[], "")
        .await
        .is(202);
    assert_eq!(request["state"], "requested");
    assert_eq!(request["execution"], execution["id"]);
    let request = daemon.request(&request["id"], &["done"], 0).await;
    assert_eq!(request["asked"], 1);
    let execution = daemon.execution("a", |e| e["status"] == "cancelled").await;
    assert_eq!(execution["control"][0]["id"], request["id"]);
    assert!(execution["cancel_requested_at"].is_string());
    assert_eq!(
        daemon.control_events(&execution).await,
        ["control.requested", "control.asked", "control.settled"]
    );
    let again = daemon
        .post(&path(&execution, "cancel"), &[], "")
        .await
        .is(409);
    assert!(
        again["detail"]
            .as_str()
            .unwrap()
            .contains("cancelled already"),
        "{again}"
    );
    assert_eq!(daemon.provider.calls(), ["cancel a"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_sets_no_status_and_is_asked_three_times_before_it_is_given_up() {
    let daemon = Daemon::new(Mood::Ignoring).await;
    let execution = daemon.shown("a", JobState::Running).await;
    let cancel = path(&execution, "cancel");
    let request = daemon.post(&cancel, &[], "").await.is(202);
    daemon.request(&request["id"], &["asked"], 0).await;
    let shown = daemon.execution("a", |_| true).await;
    assert_eq!(shown["status"], "running");
    assert!(shown["cancel_requested_at"].is_string());
    let second = daemon.post(&cancel, &[], "").await.is(202);
    assert_eq!(
        second["id"], request["id"],
        "asked twice, it is one request"
    );
    let end = daemon.request(&request["id"], &["unverifiable"], 10).await;
    assert_eq!(end["asked"], 3, "{end}");
    assert!(
        end["reason"]
            .as_str()
            .unwrap()
            .contains("still shown as running"),
        "{end}"
    );
    assert_eq!(daemon.provider.calls().len(), 3);
    assert_eq!(daemon.execution("a", |_| true).await["status"], "running");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_cancel_gives_the_plugins_reason_and_changes_nothing() {
    let reason = "this server can only interrupt whatever runs";
    let daemon = Daemon::new(Mood::Refusing(reason)).await;
    let execution = daemon.shown("a", JobState::Running).await;
    let request = daemon
        .post(&path(&execution, "cancel"), &[], "")
        .await
        .is(202);
    let request = daemon.request(&request["id"], &["refused"], 0).await;
    assert_eq!(request["reason"], reason);
    let shown = daemon.execution("a", |_| true).await;
    assert_eq!(
        (&shown["status"], &shown["cancel_requested_at"]),
        (&json!("running"), &Value::Null)
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_before_its_cancel_is_no_cancelled_job() {
    let daemon = Daemon::new(Mood::Ignoring).await;
    let execution = daemon.shown("a", JobState::Running).await;
    let request = daemon
        .post(&path(&execution, "cancel"), &[], "")
        .await
        .is(202);
    daemon.request(&request["id"], &["asked"], 0).await;
    daemon.provider.set("a", JobState::Completed);
    let request = daemon.request(&request["id"], &["failed"], 0).await;
    assert!(
        request["reason"]
            .as_str()
            .unwrap()
            .contains("ended as completed"),
        "{request}"
    );
    assert_eq!(daemon.execution("a", |_| true).await["status"], "completed");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_that_leaves_the_queue_after_its_cancel_is_cancelled_and_not_lost() {
    let daemon = Daemon::new(Mood::Ignoring).await;
    let execution = daemon.shown("a", JobState::Queued).await;
    let request = daemon
        .post(&path(&execution, "cancel"), &[], "")
        .await
        .is(202);
    daemon.request(&request["id"], &["asked"], 0).await;
    // The look after the cancel may be under way with the job still in it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    daemon.provider.remove("a");
    daemon.request(&request["id"], &["done"], 0).await;
    let shown = daemon.execution("a", |_| true).await;
    assert_eq!(shown["status"], "cancelled");
    assert!(
        shown["error_message"]
            .as_str()
            .unwrap()
            .contains("left the provider's queue")
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_provider_is_tried_again_until_it_is_there() {
    let daemon = Daemon::new(Mood::Unreachable).await;
    let execution = daemon.shown("a", JobState::Running).await;
    let request = daemon
        .post(&path(&execution, "cancel"), &[], "")
        .await
        .is(202);
    let id = &request["id"];
    while daemon.request(id, &["requested"], 0).await["attempts"].as_u64() < Some(2) {
        daemon
            .server
            .monitor()
            .clock()
            .advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    daemon.provider.be(Mood::Willing);
    daemon.request(id, &["done"], 1).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_stays_away_is_given_up() {
    let daemon = Daemon::new(Mood::Unreachable).await;
    let execution = daemon.shown("a", JobState::Running).await;
    let request = daemon
        .post(&path(&execution, "cancel"), &[], "")
        .await
        .is(202);
    let end = daemon.request(&request["id"], &["failed"], 20).await;
    assert!(
        end["reason"]
            .as_str()
            .unwrap()
            .contains("connection refused"),
        "{end}"
    );
    assert_eq!(daemon.provider.calls().len(), 8);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_makes_a_new_execution_and_both_know_of_each_other() {
    let daemon = Daemon::new(Mood::Willing).await;
    let running = daemon.shown("b", JobState::Running).await;
    daemon.post(&path(&running, "retry"), &[], "").await.is(409);
    let failed = daemon.shown("a", JobState::Failed).await;
    let told = daemon.post(&path(&failed, "retry"), &[], "").await.is(201);
    assert_eq!(told["request"]["state"], "done", "{told}");
    assert_eq!(told["answer"]["body"]["number"], 7);
    let new = daemon.execution("made-1", |_| true).await;
    assert_eq!(new["id"], told["request"]["new_execution"]);
    assert_eq!(new["retried_from"], failed["id"]);
    assert_eq!(new["retried_as"], Value::Null);
    let old = daemon.execution("a", |e| !e["retried_as"].is_null()).await;
    assert_eq!(old["retried_as"], new["id"]);
    assert_eq!(old["status"], "failed", "what is over stays as it ended");
    assert_eq!(
        daemon.control_events(&old).await,
        ["control.requested", "control.asked"]
    );
    assert_eq!(daemon.control_events(&new).await, ["control.settled"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_is_passed_through_unchanged_and_known_at_once() {
    let daemon = Daemon::new(Mood::Willing).await;
    let body = r#"{ "prompt": {"3": {"class_type": "KSampler"}} , "client_id":"mine" }"#;
    let prompt = "/api/sources/studio/prompt";
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let answer = daemon.post(prompt, &[kind], body).await;
    assert_eq!(
        answer.is(200),
        json!({ "prompt_id": "made-1", "number": 7 })
    );
    assert_eq!(
        answer.header("content-type"),
        "application/json; charset=utf-8"
    );
    assert_eq!(
        daemon.provider.calls(),
        [format!("submit application/x-www-form-urlencoded {body}")]
    );
    let request = daemon
        .request(&json!(answer.header("weir-request")), &["done"], 0)
        .await;
    let execution = daemon.execution("made-1", |_| true).await;
    assert_eq!(request["new_execution"], execution["id"]);
    assert_eq!(
        execution["workflow_name"], "render",
        "as the provider shows it"
    );
    daemon.provider.be(Mood::Strict);
    let invalid = daemon.post(prompt, &[JSON], "{}").await;
    assert_eq!(invalid.is(400), json!({ "error": { "type": "no_prompt" } }));
    assert_eq!(
        invalid.header("content-type"),
        "application/json; charset=utf-8"
    );
    let told = daemon
        .post("/api/sources/studio/submit", &[JSON], "{}")
        .await
        .is(422);
    assert_eq!(told["outcome"]["request"]["state"], "refused");
    assert_eq!(
        told["outcome"]["answer"]["body"]["error"]["type"],
        "no_prompt"
    );
    daemon.provider.be(Mood::Unreachable);
    let away = daemon.post(prompt, &[JSON], "{}").await.is(502);
    assert!(
        away["detail"]
            .as_str()
            .unwrap()
            .contains("nothing was submitted"),
        "{away}"
    );
    let large = "x".repeat((16 << 20) + 1);
    daemon.post(prompt, &[JSON], &large).await.is(413);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_makes_one_job_however_often_it_comes() {
    let daemon = Daemon::new(Mood::Willing).await;
    let prompt = "/api/sources/studio/prompt";
    let headers = [JSON, ("idempotency-key", "\"night 7\"")];
    let both = tokio::join!(
        daemon.post(prompt, &headers, "{\"a\":1}"),
        daemon.post(prompt, &headers, "{\"a\":1}"),
    );
    let third = daemon.post(prompt, &headers, "{\"a\":1}").await;
    for answer in [both.0, both.1, third] {
        assert_eq!(answer.is(200)["prompt_id"], "made-1");
    }
    assert_eq!(daemon.provider.calls().len(), 1);
    let other = daemon.post(prompt, &headers, "{\"a\":2}").await.is(422);
    assert_eq!(other["type"], "urn:weir:key-reused");
    daemon
        .post(prompt, &[("idempotency-key", "")], "{}")
        .await
        .is(400);
    // A refusal is an answer too; what never got there leaves the key free.
    daemon.provider.be(Mood::Strict);
    let key = [JSON, ("idempotency-key", "strict")];
    for _ in 0..2 {
        daemon.post(prompt, &key, "{}").await.is(400);
    }
    daemon.provider.be(Mood::Unreachable);
    let key = [JSON, ("idempotency-key", "later")];
    daemon.post(prompt, &key, "{}").await.is(502);
    daemon.provider.be(Mood::Willing);
    daemon.post(prompt, &key, "{}").await.is(200);
    assert_eq!(daemon.provider.calls().len(), 4);
    daemon
        .server
        .monitor()
        .clock()
        .advance(Duration::from_secs(25 * 3600));
    daemon.post(prompt, &headers, "{\"a\":2}").await.is(200);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_looked_for_and_never_asked_again() {
    let daemon = Daemon::new(Mood::Mute).await;
    let submit = "/api/sources/studio/submit";
    let told = daemon.post(submit, &[JSON], "{}").await.is(201);
    assert_eq!(told["request"]["state"], "done", "{told}");
    assert_eq!(told["answer"], Value::Null);
    let id = told["request"]["id"].as_str().unwrap();
    let execution = daemon.execution(id, |_| true).await;
    assert_eq!(told["request"]["new_execution"], execution["id"]);
    daemon.provider.be(Mood::Dead);
    let key = [JSON, ("idempotency-key", "k")];
    let lost = daemon.post(submit, &key, "{}").await.is(504);
    assert_eq!(
        lost["outcome"]["request"]["state"], "unverifiable",
        "{lost}"
    );
    let again = daemon.post(submit, &key, "{}").await.is(504);
    assert_eq!(
        again["outcome"]["request"]["id"],
        lost["outcome"]["request"]["id"]
    );
    assert_eq!(daemon.provider.calls().len(), 2);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_the_provider_took_and_never_shows_is_recorded_and_then_lost() {
    let daemon = Daemon::new(Mood::Forgetful).await;
    let told = daemon
        .post("/api/sources/studio/submit", &[JSON], "{}")
        .await
        .is(201);
    assert_eq!(told["request"]["state"], "done", "{told}");
    let execution = daemon.execution("made-1", |_| true).await;
    assert_eq!(execution["status"], "pending");
    daemon
        .server
        .monitor()
        .clock()
        .advance(Duration::from_secs(61));
    let lost = daemon.execution("made-1", |e| e["status"] == "lost").await;
    assert!(
        lost["error_message"]
            .as_str()
            .unwrap()
            .contains("vanished while waiting")
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_control_actor_loses_no_request() {
    let daemon = Daemon::new(Mood::Ignoring).await;
    let execution = daemon.shown("a", JobState::Running).await;
    let request = daemon
        .post(&path(&execution, "cancel"), &[], "")
        .await
        .is(202);
    daemon.request(&request["id"], &["asked"], 0).await;
    assert!(daemon.server.monitor().panic_actor("control").await);
    daemon.provider.set("a", JobState::Cancelled);
    daemon.request(&request["id"], &["done"], 0).await;
    daemon.stop().await;
}
