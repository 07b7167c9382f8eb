//! The HTTP API, asked from outside: a real daemon, a source whose jobs the test decides.

mod client;
mod stage;

use client::{Stream, ask};
use serde_json::{Value, json};
use stage::{Stage, job, progress, rule, step};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;
use weir::daemon::{ServeError, serve};
use weir_core::{Config, Monitor};
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
async fn what_cannot_be_answered_is_a_problem_document() {
    let stage = Stage::new().await;
    let json_body = &["content-type: application/json"][..];
    let long = format!("/api/sources?cursor={}", "x".repeat(9000));
    let big = format!("{{\"by\":\"{}\"}}", "x".repeat(70_000));
    let cases: [(&str, &str, &[&str], &str, u16, &str); 12] = [
        (
            "GET",
            "/api/excutions",
            &[],
            "",
            404,
            "did you mean `/api/executions`?",
        ),
        ("GET", "/api/executions/17", &[], "", 404, "a UUID"),
        (
            "GET",
            "/api/executions/0190e0f0-0000-7000-8000-000000000000",
            &[],
            "",
            404,
            "there is no execution",
        ),
        (
            "GET",
            "/api/executions?sorce=x",
            &[],
            "",
            400,
            "did you mean `source`?",
        ),
        (
            "GET",
            "/api/executions?limit=101",
            &[],
            "",
            400,
            "from 1 to 100",
        ),
        (
            "GET",
            "/api/executions?status=faild",
            &[],
            "",
            400,
            "failed",
        ),
        (
            "GET",
            "/api/executions?cursor=x",
            &[],
            "",
            400,
            "next_cursor",
        ),
        ("GET", "/api/alerts?status=loud", &[], "", 400, "firing"),
        ("PUT", "/api/mutes", &[], "", 405, "GET, HEAD, POST"),
        ("POST", "/api/mutes", &[], "{}", 415, "application/json"),
        ("POST", "/api/alerts/x/ack", json_body, &big, 413, "65536"),
        ("GET", &long, &[], "", 414, "8192"),
    ];
    for (method, path, headers, body, status, detail) in cases {
        let answer = stage.ask(method, path, headers, body).await;
        assert_eq!(
            answer.status, status,
            "{method} {path:.60}: {}",
            answer.body
        );
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{method} {path:.60}"
        );
        let problem = answer.json();
        assert_eq!(problem["status"], status);
        assert!(problem["type"].as_str().unwrap().starts_with("urn:weir:"));
        assert!(
            problem["detail"].as_str().unwrap().contains(detail),
            "{method} {path:.60}: {problem}"
        );
    }
    assert_eq!(
        stage
            .ask("PUT", "/api/mutes", &[], "")
            .await
            .header("allow"),
        Some("GET, HEAD, POST")
    );
    let unreadable = stage.get("/api/executions/%FF").await;
    assert_eq!(unreadable.status, 404);
    assert_eq!(
        unreadable.header("content-type"),
        Some("application/problem+json")
    );
    let endless = stage.ask("HEAD", "/api/events", &[], "").await;
    assert_eq!(
        (endless.status, endless.header("allow")),
        (405, Some("GET"))
    );
    let head = stage.ask("HEAD", "/api/executions", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_or_origin_is_refused_with_the_setting_to_change() {
    let stage =
        Stage::with(|config| config.settings.http.allowed_hosts = vec!["box.lan".to_owned()]).await;
    let port = stage.address().port();
    let cases = [
        (format!("host: evil.com:{port}"), None, 421),
        (
            format!("host: evil.com:{port}"),
            Some("origin: http://evil.com"),
            421,
        ),
        (format!("host: localhost:{port}"), None, 200),
        (format!("host: [::1]:{port}"), None, 200),
        ("host: box.lan".to_owned(), None, 200),
        (
            format!("host: localhost:{port}"),
            Some("origin: http://evil.com"),
            403,
        ),
        (format!("host: localhost:{port}"), Some("origin: null"), 403),
        (
            format!("host: localhost:{port}"),
            Some("origin: http://box.lan"),
            200,
        ),
    ];
    for path in [
        "/status",
        "/",
        "/api/events?follow=false",
        "/metrics",
        "/nowhere",
    ] {
        for (host, origin, status) in &cases {
            let mut headers = vec![host.as_str()];
            headers.extend(*origin);
            let answer = ask(stage.address(), "GET", path, &headers, "").await;
            let expected = if path == "/nowhere" && *status == 200 {
                404
            } else {
                *status
            };
            assert_eq!(
                answer.status, expected,
                "{path} {headers:?}: {}",
                answer.body
            );
            if *status != 200 {
                let problem = answer.json();
                assert!(
                    problem["detail"]
                        .as_str()
                        .unwrap()
                        .contains("http.allowed_hosts"),
                    "{problem}"
                );
            }
        }
    }
    assert_eq!(
        ask(stage.address(), "GET", "/status", &[], "").await.status,
        400,
        "no host at all"
    );
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_where_its_client_was() {
    let stage = Stage::new().await;
    stage.show(vec![job("a", JobState::Running)]).await;
    let mut stream = Stream::open(stage.address(), "/api/events?since=0", &[]).await;
    let mut all = Vec::new();
    loop {
        let message = stream.event().await;
        let kind = message.data["type"].as_str().unwrap().to_owned();
        all.push(message);
        if kind == "execution.started" {
            break;
        }
    }
    let seqs: Vec<i64> = all
        .iter()
        .map(|message| message.data["seq"].as_i64().unwrap())
        .collect();
    assert!(seqs.is_sorted() && seqs[0] == 1, "{seqs:?}");
    let created = all
        .iter()
        .find(|message| message.data["type"] == "execution.created")
        .unwrap();
    assert_eq!(created.data["execution"]["external_id"], "a");
    assert_eq!(created.data["execution"]["source"], "studio");
    assert_eq!(created.data["workflow"]["name"], "render");
    assert_eq!(created.id.as_deref(), created.data["id"].as_str());

    let resumed = format!("last-event-id: {}", created.id.as_ref().unwrap());
    let mut second = Stream::open(stage.address(), "/api/events?since=0", &[&resumed]).await;
    assert_eq!(
        second.event().await.data["type"],
        "execution.started",
        "the header is newer than the address"
    );

    stage.show(vec![job("a", JobState::Failed)]).await;
    for stream in [&mut stream, &mut second] {
        assert_eq!(
            stream.event().await.data["type"],
            "execution.failed",
            "what is committed later arrives"
        );
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_go_on_says_so() {
    let stage = Stage::new().await;
    stage.show(vec![job("a", JobState::Running)]).await;
    let head = stage.monitor().journal().head().0;
    for (since, reason) in [
        ("ffffffff-1".to_owned(), "other_origin"),
        ((head + 100).to_string(), "beyond_head"),
    ] {
        let mut stream =
            Stream::open(stage.address(), &format!("/api/events?since={since}"), &[]).await;
        let gap = stream.named("gap").await;
        assert_eq!(gap.data["reason"], reason);
        assert_eq!(gap.data["to"], head);
        assert!(
            gap.id.unwrap().ends_with(&format!("-{head}")),
            "it can be resumed from"
        );
    }
    for bad in [
        "since=x",
        "since=-1",
        "sinse=1",
        "execution=1",
        "workflow_id=x",
    ] {
        assert!(
            [400, 404].contains(&stage.get(&format!("/api/events?{bad}")).await.status),
            "{bad}"
        );
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_away_for_longer_than_events_are_kept_is_told() {
    let stage = Stage::new().await;
    stage.show(vec![job("old", JobState::Completed)]).await;
    stage.show(Vec::new()).await;
    stage
        .monitor()
        .clock()
        .advance(Duration::from_secs(40 * 86_400));
    let deleted = async {
        // What a consumer has not stored yet is kept: they store every second.
        while stage.monitor().journal().retain_now().await == 0 {
            stage.show(Vec::new()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), deleted)
        .await
        .unwrap();
    let kept = stage.monitor().journal().retained_from().0;
    assert!(kept > 1);
    let mut stream = Stream::open(stage.address(), "/api/events?since=0&follow=false", &[]).await;
    let gap = stream.named("gap").await;
    assert_eq!(gap.data["reason"], "not_retained");
    assert_eq!(
        (&gap.data["from"], &gap.data["to"]),
        (&json!(1), &json!(kept - 1))
    );
    while let Some(message) = stream.next().await {
        if message.id.is_some() {
            assert!(message.data["seq"].as_i64().unwrap() >= kept, "{message:?}");
        }
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_filtered_and_can_end_at_the_head() {
    let stage = Stage::new().await;
    let mut other = job("b", JobState::Completed);
    other.workflow = Some("upscale".to_owned());
    stage.show(vec![job("a", JobState::Completed), other]).await;
    let executions = stage.json("/api/executions?external_id=b").await;
    let (id, workflow) = (
        &executions["items"][0]["id"],
        &executions["items"][0]["workflow_id"],
    );
    for filter in [
        format!("execution={}", id.as_str().unwrap()),
        format!("workflow_id={workflow}"),
    ] {
        let path = format!("/api/events?since=0&follow=false&{filter}");
        let mut stream = Stream::open(stage.address(), &path, &[]).await;
        let mut kinds = Vec::new();
        while let Some(message) = stream.next().await {
            if message.id.is_some() {
                assert_eq!(message.data["execution"]["external_id"], "b");
                kinds.push(message.data["type"].as_str().unwrap().to_owned());
            }
        }
        assert_eq!(
            kinds,
            ["execution.created", "execution.completed"],
            "{filter}"
        );
    }
    let mut stream = Stream::open(
        stage.address(),
        "/api/events?since=0&follow=false&source=nowhere",
        &[],
    )
    .await;
    let mut comment = None;
    while let Some(message) = stream.next().await {
        assert!(message.id.is_none(), "{message:?}");
        comment = message.comment.or(comment);
    }
    assert!(
        comment.unwrap().starts_with("head "),
        "a heartbeat tells where the journal stands"
    );
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_progress_is_streamed_without_an_id() {
    let stage = Stage::new().await;
    let running = job("a", JobState::Running);
    stage.show(vec![running.clone()]).await;
    let mut stream = Stream::open(stage.address(), "/api/events", &[]).await;
    let observed = weir_model::observation::Observation::Job(Box::new(running));
    stage.observe(vec![observed, progress("a", 40.0)]).await;
    let frame = stream.named("progress").await;
    assert_eq!(frame.id, None);
    assert_eq!(frame.data["progress"], 40.0);
    assert_eq!(frame.data["note"], "sampling");
    assert_eq!(frame.data["source"], "studio");
    let executions = stage.json("/api/executions").await;
    assert_eq!(frame.data["execution"]["id"], executions["items"][0]["id"]);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_in_number() {
    let stage = Stage::new().await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(Stream::open(stage.address(), "/api/events", &[]).await);
    }
    let refused = stage.get("/api/events").await;
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(
        stage.get("/livez").await.status,
        200,
        "everything else goes on"
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

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_the_streams_and_frees_the_port() {
    let stage = Stage::new().await;
    let address = stage.address();
    let mut stream = Stream::open(address, "/api/events", &[]).await;
    let stopping = tokio::time::timeout(Duration::from_secs(20), stage.stop());
    let (stopped, ended) = tokio::join!(stopping, async { while stream.next().await.is_some() {} });
    stopped.unwrap();
    let () = ended;
    std::net::TcpListener::bind(address).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_told_with_its_holder_and_the_setting() {
    let stage = Stage::new().await;
    let monitor = Monitor::start(Config::temporary().unwrap()).await.unwrap();
    let mut http = stage.http().clone();
    http.listen = stage.address();
    let refused = serve(monitor.clone(), &http).await.unwrap_err();
    assert!(matches!(refused, ServeError::PortInUse { .. }));
    let message = refused.to_string();
    assert!(message.contains("`http.listen`"), "{message}");
    assert!(
        message.contains(&format!("(pid {})", std::process::id())),
        "{message}"
    );
    monitor.shutdown().await;
    stage.stop().await;
}
