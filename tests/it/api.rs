//! The HTTP API, asked from outside: a real daemon, a source whose jobs the test decides.

mod client;
mod companion;
mod refusals;
mod stage;
mod streams;

use serde_json::{Value, json};
use stage::{Stage, job, progress, rule, step};
use std::io::Write;
use std::process::{Command, Stdio};
use weir_model::alert::rule::When;
use weir_model::observation::{JobState, StepState};

fn ids(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| item["external_id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn executions_are_listed_newest_first_in_pages_and_filtered() {
    let stage = Stage::new().await;
    stage
        .show(
            (0..5)
                .map(|n| job(&format!("q{n}"), JobState::Queued))
                .chain([job("bad", JobState::Failed)])
                .collect(),
        )
        .await;
    let all = stage.json("/api/executions").await;
    assert_eq!(ids(&all), ["bad", "q4", "q3", "q2", "q1", "q0"]);
    assert_eq!(all["next_cursor"], Value::Null);

    let mut seen = Vec::new();
    let mut path = "/api/executions?limit=2".to_owned();
    loop {
        let page = stage.json(&path).await;
        seen.extend(ids(&page));
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/api/executions?limit=2&cursor={cursor}");
    }
    assert_eq!(
        seen,
        ids(&all),
        "no page is empty, nothing is missing or doubled"
    );

    assert_eq!(
        ids(&stage.json("/api/executions?status=failed").await),
        ["bad"]
    );
    assert_eq!(
        ids(&stage.json("/api/executions?status=open").await).len(),
        5
    );
    assert_eq!(
        ids(&stage.json("/api/executions?external_id=q3").await),
        ["q3"]
    );
    assert_eq!(
        ids(&stage.json("/api/executions?source=studio&limit=1").await),
        ["bad"]
    );
    assert!(ids(&stage.json("/api/executions?source=nowhere").await).is_empty());
    let workflow = all["items"][0]["workflow_id"].as_i64().unwrap();
    assert_eq!(
        ids(&stage
            .json(&format!("/api/executions?workflow_id={workflow}"))
            .await)
        .len(),
        6
    );
    assert!(ids(&stage.json("/api/executions?workflow_id=999").await).is_empty());
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_says_everything_that_is_known() {
    let stage = Stage::new().await;
    let mut failed = job("bad", JobState::Failed);
    failed.name = Some("portrait".to_owned());
    failed.detail = "{\"node\":4}".to_owned();
    failed.steps = vec![
        step("1", StepState::Completed, None),
        step("2", StepState::Pending, None),
    ];
    stage.show(vec![failed]).await;
    let listed = stage.json("/api/executions").await["items"][0].clone();
    let id = listed["id"].as_str().unwrap();
    assert!(
        listed.get("step_executions").is_none(),
        "lists have no steps"
    );
    let whole = stage.json(&format!("/api/executions/{id}")).await;
    for (field, value) in [
        ("imported", json!(false)),
        ("workflow_name", json!("render")),
        ("execution_number", json!(1)),
        ("source", json!("studio")),
        ("external_id", json!("bad")),
        ("name", json!("portrait")),
        ("status", json!("failed")),
        ("stale_since", Value::Null),
        ("attempt", json!(1)),
        ("duration", json!(20.0)),
        ("queue_wait", json!(10.0)),
        ("error_message", json!("CUDA out of memory")),
        ("labels", json!({"gpu": "A100"})),
        ("detail", json!({"node": 4})),
        ("steps_total", json!(2)),
        ("steps_done", json!(1)),
        ("estimated", json!(false)),
    ] {
        assert_eq!(whole[field], value, "{field}");
    }
    assert!(whole["execution_seq"].is_i64());
    let started = whole["started_at"].as_str().unwrap();
    assert!(
        started.len() == 24 && started.ends_with('Z'),
        "milliseconds, UTC: {started}"
    );
    let steps = whole["step_executions"].as_array().unwrap();
    assert_eq!(steps[0]["name"], "Step 1");
    assert_eq!(steps[0]["status"], "completed");
    assert_eq!(steps[0]["duration"], 2.0);
    assert_eq!(steps[1]["status"], "pending");
    assert_eq!(
        whole["url"],
        format!("http://{}/executions/{id}", stage.address())
    );

    let events = stage
        .json(&format!("/api/executions/{id}/events?limit=2"))
        .await;
    assert_eq!(events["items"][0]["type"], "execution.created");
    let cursor = events["next_cursor"].as_str().unwrap();
    let rest = stage
        .json(&format!("/api/executions/{id}/events?cursor={cursor}"))
        .await;
    let last = rest["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["type"], "execution.failed");
    assert_eq!(last["data"]["error_message"], "CUDA out of memory");
    assert_eq!(last["execution"]["id"], id);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_that_nobody_tells_is_estimated_from_the_median() {
    let stage = Stage::new().await;
    stage
        .show(vec![
            job("a", JobState::Completed),
            job("b", JobState::Completed),
        ])
        .await;
    let mut running = job("c", JobState::Running);
    running.started = Some(jiff::Timestamp::now() - jiff::SignedDuration::from_secs(10));
    let quiet = running.clone();
    stage.show(vec![running]).await;
    let view = stage.json("/api/executions?external_id=c").await["items"][0].clone();
    let percent = view["progress"].as_f64().unwrap();
    assert!(
        (40.0..=99.0).contains(&percent),
        "10 s of about 20 s: {percent}"
    );
    assert_eq!(view["estimated"], true);

    stage
        .observe(vec![
            weir_model::observation::Observation::Job(Box::new(quiet)),
            progress("c", 12.0),
        ])
        .await;
    let view = stage.json("/api/executions?external_id=c").await["items"][0].clone();
    assert_eq!(view["progress"], 12.0, "the provider's own word");
    assert_eq!(view["estimated"], false);
    assert_eq!(view["note"], "sampling");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_workflows_resources_and_the_status_are_shown() {
    let stage = Stage::new().await;
    stage
        .show(vec![
            job("a", JobState::Completed),
            job("b", JobState::Failed),
            job("c", JobState::Queued),
        ])
        .await;
    let source = stage.json("/api/sources").await["items"][0].clone();
    assert_eq!(source["name"], "studio");
    assert_eq!(source["status"], "ok");
    assert_eq!(source["open_jobs"], 1);
    assert_eq!(stage.json("/api/sources/studio").await["name"], "studio");
    assert_eq!(stage.get("/api/sources/nope").await.status, 404);

    let workflow = stage.json("/api/workflows").await["items"][0].clone();
    assert_eq!(workflow["key"], "render");
    assert_eq!(workflow["executions"], 3);
    assert_eq!(workflow["queued"], 1);
    assert_eq!(workflow["success_rate"], 50.0);
    assert_eq!(
        workflow["counts"],
        json!({"completed": 1, "failed": 1, "queued": 1})
    );
    assert_eq!(workflow["duration"]["max"], 20.0);
    assert!(workflow["last_execution_at"].is_string());
    assert_eq!(
        stage
            .json(&format!("/api/workflows/{}", workflow["id"]))
            .await["key"],
        "render"
    );

    let resources = stage.json("/api/resources").await;
    assert_eq!(resources["thresholds"]["memory_percent"], 85.0);

    let status = stage.json("/status").await;
    assert_eq!(status["ready"], true);
    assert_eq!(status["journal"]["state"], "open");
    assert_eq!(status["executions"]["queued"], 1);
    assert_eq!(status["executions"]["by_status"], json!({"queued": 1}));
    assert_eq!(status["sources"][0]["name"], "studio");
    assert_eq!(status["reload"]["ok"], true);
    for path in [
        "/api/plugins",
        "/api/receivers",
        "/api/alerts",
        "/api/mutes",
    ] {
        assert!(stage.json(path).await["items"].is_array(), "{path}");
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_shown_and_can_be_taken() {
    let stage = Stage::with(|config| {
        config.settings.alerts.rules = vec![rule("failed", When::ExecutionFailed)];
    })
    .await;
    stage.show(vec![job("bad", JobState::Failed)]).await;
    let alerts = stage.json("/api/alerts?status=firing").await;
    let alert = alerts["items"][0].clone();
    assert_eq!(alert["rule"], "failed");
    assert_eq!(alert["severity"], "error");
    assert_eq!(alert["status"], "firing");
    let execution = stage.json("/api/executions").await["items"][0]["id"].clone();
    assert_eq!(alert["executions"], json!([execution]));
    assert_eq!(alert["deliveries"][0]["receiver"], "log");
    let id = alert["id"].as_str().unwrap();
    let page = stage.get(&format!("/alerts/{id}")).await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains(alert["title"].as_str().unwrap()));

    let taken = stage
        .post(&format!("/api/alerts/{id}/ack"), &json!({"by": "ondra"}))
        .await;
    assert_eq!(taken.status, 200, "{}", taken.body);
    stage.monitor().settled().await;
    let alert = stage.json(&format!("/api/alerts/{id}")).await;
    assert_eq!(alert["acknowledged_by"], "ondra");
    let unknown = stage
        .post(
            "/api/alerts/0190e0f0-0000-7000-8000-000000000000/ack",
            &json!({}),
        )
        .await;
    assert_eq!(unknown.status, 404);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mute_is_set_shown_and_lifted() {
    let stage = Stage::new().await;
    let set = stage
        .post(
            "/api/mutes",
            &json!({"receiver": "log", "for": "8h", "by": "ondra", "comment": "move"}),
        )
        .await;
    assert_eq!(set.status, 201, "{}", set.body);
    let id = set.json()["id"].as_str().unwrap().to_owned();
    let mutes = stage.json("/api/mutes").await;
    assert_eq!(mutes["items"][0]["receiver"], "log");
    assert_eq!(stage.json("/status").await["mutes"][0]["comment"], "move");
    assert!(stage.get("/").await.body.contains("receiver=log"));
    for (body, field) in [
        (json!({"receiver": "log", "for": "soon"}), json!("for")),
        (json!({"receiver": "log"}), Value::Null),
        (json!({"for": "1h"}), Value::Null),
        (
            json!({"receiver": "log", "for": "1h", "whatever": 1}),
            Value::Null,
        ),
    ] {
        let refused = stage.post("/api/mutes", &body).await;
        assert_eq!(refused.status, 400, "{body}");
        assert_eq!(refused.json()["field"], field, "{body}");
    }
    assert_eq!(
        stage
            .ask("DELETE", &format!("/api/mutes/{id}"), &[], "")
            .await
            .status,
        204
    );
    assert_eq!(stage.json("/api/mutes").await["items"], json!([]));
    assert_eq!(
        stage.ask("DELETE", "/api/mutes/999", &[], "").await.status,
        404
    );
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_are_plain_html_and_escape_what_comes_from_outside() {
    let stage = Stage::new().await;
    let evil = "<script>alert(1)</script>";
    let mut failed = job("bad", JobState::Failed);
    failed.workflow = Some(evil.to_owned());
    failed.name = Some(format!("{evil}\"'"));
    failed.error = Some(format!("{evil} &"));
    failed.labels = vec![(evil.to_owned(), evil.to_owned())];
    failed.steps = vec![step(evil, StepState::Failed, None)];
    let mut running = job("now", JobState::Running);
    running.name = Some("x".repeat(5000));
    stage
        .show(vec![failed, running, job("next", JobState::Queued)])
        .await;
    let id = stage.json("/api/executions?external_id=bad").await["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for path in ["/".to_owned(), format!("/executions/{id}")] {
        let page = stage.get(&path).await;
        assert_eq!(page.status, 200);
        assert!(!page.body.contains("<script"), "{path}");
        assert!(page.body.contains("&lt;script&gt;"), "{path}");
        assert!(
            page.header("content-security-policy")
                .unwrap()
                .contains("default-src 'none'")
        );
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    }
    let overview = stage.get("/").await.body;
    assert!(overview.contains("http-equiv=\"refresh\""));
    assert!(overview.contains("<progress"));
    assert!(!overview.contains(&"x".repeat(500)), "long text is cut");
    let missing = stage.get("/executions/17").await;
    assert_eq!(missing.status, 404);
    assert!(missing.body.starts_with("<!DOCTYPE html>"));
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_the_journal() {
    let stage = Stage::new().await;
    assert_eq!(stage.get("/livez").await.status, 200);
    assert_eq!(stage.get("/readyz").await.status, 200);
    stage.monitor().journal().clone().shutdown().await;
    let refused = stage.get("/readyz").await;
    assert_eq!(refused.status, 503);
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .contains("journal is closed"),
        "{}",
        refused.body
    );
    assert_eq!(stage.get("/livez").await.status, 200);
    let status = stage.json("/status").await;
    assert_eq!(status["ready"], false);
    assert_eq!(
        stage.get("/").await.status,
        200,
        "the page says what is wrong"
    );
    let mute = stage
        .post("/api/mutes", &json!({"receiver": "log", "for": "8h"}))
        .await;
    assert_eq!(
        mute.status, 503,
        "nothing is acknowledged that is not recorded"
    );
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_finds_nothing_wrong_with_the_metrics() {
    let stage = Stage::new().await;
    stage
        .show(vec![
            job("a", JobState::Completed),
            job("b", JobState::Failed),
        ])
        .await;
    let metrics = stage.get("/metrics").await;
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(metrics.body.contains("weir_"), "{}", metrics.body);
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    // Where there is no promtool the text was at least served.
    if let Ok(mut promtool) = promtool {
        promtool
            .stdin
            .take()
            .unwrap()
            .write_all(metrics.body.as_bytes())
            .unwrap();
        let output = promtool.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    stage.stop().await;
}
