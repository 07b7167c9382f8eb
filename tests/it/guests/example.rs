//! Every example plugin against a far side that answers as the real one does.
//!
//! In `examples/plugins`: python/gotify.py, python/json_jobs.py, python/weir_plugin.py; js/teams.js, js/github_actions.js,
//! js/weir_plugin.js; c/ntfy.c, c/csv.c, c/runtime (plugin.c, plugin.h, stdlib.h, string.h), c/bindings (weir.c, weir.h,
//! weir_component_type.o, wit.sha256); rust/Cargo.toml, Cargo.lock, matrix and slurm with their lib.rs.

use super::server::{Request, Server};
use super::{guest, host, ready, spec};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::path::Path;
use weir_core::plugin::{AllowRule, CallError, Credential, PluginHandle, Role, Scheme, Secret};
use weir_model::alert::notification::{AlertStatus, Notification, NotifiedAlert, Severity};
use weir_model::observation::{Coverage, FailureKind, Job, JobRef, JobState, Observation, Page};

const CANARY: &str = "canary-secret-9f2c";

/// Opens a guest toward `server` with a bearer token of the name "token"; none where it is not built.
async fn opened(name: &str, role: Role, config: Value, server: &Server) -> Option<PluginHandle> {
    let mut spec = spec(guest(name)?, role, config);
    spec.allow = vec![AllowRule::parse(&server.origin).unwrap()];
    let credential =
        Credential::new(Scheme::Bearer(Secret::new(CANARY)), spec.allow.clone()).unwrap();
    spec.credentials.insert("token".into(), credential);
    let handle = host().open(spec);
    ready(&handle).await;
    server.requests();
    Some(handle)
}

fn notification(id: &str, status: AlertStatus) -> Notification {
    Notification {
        id: id.into(),
        key: "k1".into(),
        severity: Severity::Critical,
        title: "nightly failed — \"žluťoučký\"\u{1f525}".into(),
        text: "first line\nsecond [line] with *stars*".into(),
        test: false,
        receiver: "r1".into(),
        status,
        group_labels: vec![],
        common_labels: vec![],
        common_annotations: vec![],
        alerts: vec![NotifiedAlert {
            fingerprint: "f".into(),
            status,
            severity: Severity::Critical,
            title: "nightly failed".into(),
            body: "out of [memory]".into(),
            labels: vec![],
            annotations: vec![],
            since: "2026-01-01T00:00:00Z".parse().unwrap(),
            ends: None,
            count: 3,
            executions: vec![],
            url: None,
        }],
        truncated: 2,
        external_url: Some("http://127.0.0.1:8000/".into()),
    }
}

async fn deliver(
    handle: &PluginHandle,
    status: AlertStatus,
    prior: Option<&str>,
) -> Option<String> {
    let id = format!("n-{status:?}/ä");
    let prior = prior.map(str::to_owned);
    handle
        .deliver(notification(&id, status), prior)
        .await
        .unwrap()
}

fn only(mut requests: Vec<Request>) -> Request {
    assert_eq!(requests.len(), 1, "{requests:?}");
    requests.remove(0)
}

fn signed(request: &Request) {
    let expected = format!("Bearer {CANARY}");
    assert_eq!(request.header("authorization"), Some(expected.as_str()));
}

async fn fails(handle: &PluginHandle, kind: FailureKind) {
    match handle
        .deliver(notification("n", AlertStatus::Firing), None)
        .await
    {
        Err(CallError::Failed {
            kind: found,
            message,
            ..
        }) => {
            assert_eq!(found, Some(kind), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(handle.status().strikes, 0);
}

/// Answers `good`, and 500 for as long as `path` holds "bad".
fn answering(good: impl Fn(&Request) -> String + Send + 'static) -> Server {
    Server::start(move |request| (200, good(request)))
}

#[tokio::test]
async fn gotify_in_python_sends_a_message_with_its_priority() {
    let server = answering(|request| match request.path.as_str() {
        "/base/health" => json!({ "health": "green", "database": "green" }).to_string(),
        _ => json!({ "id": 7 }).to_string(),
    });
    let config = json!({ "url": format!("{}/base/", server.origin), "credential": "token" });
    let Some(handle) = opened("python-gotify", Role::Handler, config, &server).await else {
        return;
    };
    assert!(handle.check().await.unwrap().starts_with("Gotify at"));
    server.requests();
    let receipt = deliver(&handle, AlertStatus::Firing, None).await;
    assert_eq!(receipt.as_deref(), Some("7"));
    let request = only(server.requests());
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/base/message")
    );
    signed(&request);
    let body = request.json();
    assert_eq!(body["priority"], 10);
    assert_eq!(body["title"], notification("", AlertStatus::Firing).title);
    assert_eq!(
        body["extras"]["client::notification"]["click"]["url"],
        "http://127.0.0.1:8000/"
    );
    let server = Server::start(|_| (503, "down".into()));
    let config = json!({ "url": server.origin, "credential": "token" });
    let handle = opened("python-gotify", Role::Handler, config, &server)
        .await
        .unwrap();
    fails(&handle, FailureKind::Transient).await;
}

#[tokio::test]
async fn teams_in_javascript_sends_an_adaptive_card() {
    let server = Server::start(|_| (202, String::new()));
    let config = json!({ "url": format!("{}/workflows/x", server.origin) });
    let Some(handle) = opened("js-teams", Role::Handler, config, &server).await else {
        return;
    };
    assert_eq!(deliver(&handle, AlertStatus::Firing, None).await, None);
    let request = only(server.requests());
    assert_eq!(request.path, "/workflows/x");
    let body = request.json();
    let card = &body["attachments"][0]["content"];
    assert_eq!(
        (&body["type"], &card["type"]),
        (&json!("message"), &json!("AdaptiveCard"))
    );
    assert_eq!(card["body"][0]["color"], "attention");
    // Markdown of the alert is text, not markup.
    assert_eq!(card["body"][1]["text"], "out of \\[memory\\] (3 times)");
    assert_eq!(card["body"][2]["text"], "+2 more");
    deliver(&handle, AlertStatus::Resolved, None).await;
    let body = only(server.requests()).json();
    assert_eq!(
        body["attachments"][0]["content"]["body"][0]["color"],
        "good"
    );

    for (status, kind) in [(429, FailureKind::Transient), (400, FailureKind::Permanent)] {
        let server = Server::start(move |_| (status, "{}".into()));
        let config = json!({ "url": server.origin });
        let handle = opened("js-teams", Role::Handler, config, &server)
            .await
            .unwrap();
        fails(&handle, kind).await;
    }
}

#[tokio::test]
async fn ntfy_in_c_publishes_json_that_is_json() {
    let server = answering(|request| match request.path.as_str() {
        "/v1/health" => "{\"healthy\":true}".into(),
        _ => "{\"id\":\"x\"}".into(),
    });
    let config = json!({ "server": format!("{}/", server.origin), "topic": "al\u{e1}rms", "credential": "token" });
    let Some(handle) = opened("c-ntfy", Role::Handler, config, &server).await else {
        return;
    };
    assert_eq!(handle.check().await.unwrap(), "ntfy topic alárms");
    server.requests();
    // More often than its memory would last if calls left anything behind.
    for _ in 0..200 {
        deliver(&handle, AlertStatus::Firing, None).await;
        let request = only(server.requests());
        signed(&request);
        let body = request.json();
        let expected = notification("", AlertStatus::Firing);
        assert_eq!(
            (&body["title"], &body["message"]),
            (&json!(expected.title), &json!(expected.text))
        );
        assert_eq!(
            (&body["topic"], &body["priority"]),
            (&json!("alárms"), &json!(5))
        );
    }
    assert!(handle.status().counters.memory_high_water < 512 * 1024);
    deliver(&handle, AlertStatus::Resolved, None).await;
    assert_eq!(
        only(server.requests()).json()["tags"],
        json!(["white_check_mark"])
    );

    let server = Server::start(|_| (401, "{}".into()));
    let config = json!({ "server": server.origin, "topic": "t" });
    let spec = spec(guest("c-ntfy").unwrap(), Role::Handler, config);
    let handle = host().open(spec);
    match handle.ready().await {
        Err(CallError::Parked { reason }) => assert!(reason.contains("401"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn matrix_in_rust_edits_its_first_message() {
    let server = answering(|request| match request.method.as_str() {
        "GET" => "{\"user_id\":\"@weir:example.net\"}".into(),
        _ => "{\"event_id\":\"$first\"}".into(),
    });
    let config =
        json!({ "homeserver": server.origin, "room": "!r:example.net", "credential": "token" });
    let Some(handle) = opened("rust-matrix", Role::Handler, config, &server).await else {
        return;
    };
    let first = deliver(&handle, AlertStatus::Firing, None).await;
    assert_eq!(first.as_deref(), Some("$first"));
    let request = only(server.requests());
    signed(&request);
    assert_eq!(
        request.path,
        "/_matrix/client/v3/rooms/%21r%3Aexample.net/send/m.room.message/n-Firing%2F%C3%A4"
    );
    let again = deliver(&handle, AlertStatus::Resolved, first.as_deref()).await;
    assert_eq!(again, first);
    let body = only(server.requests()).json();
    assert_eq!(
        body["m.relates_to"],
        json!({ "rel_type": "m.replace", "event_id": "$first" })
    );
    assert!(
        body["m.new_content"]["body"]
            .as_str()
            .unwrap()
            .starts_with('✅')
    );
}

fn jobs(page: &Page) -> Vec<&Job> {
    fn job(observation: &Observation) -> &Job {
        match observation {
            Observation::Job(job) => job,
            _ => panic!("{observation:?}"),
        }
    }
    page.observations.iter().map(job).collect()
}

fn states(page: &Page) -> Vec<(&str, JobState)> {
    let jobs = jobs(page).into_iter();
    jobs.map(|job| (job.id.as_str(), job.state)).collect()
}

/// A page of a proxy, an error, an empty answer: none of them is a complete list.
async fn takes_no_nonsense(name: &str, config: impl Fn(&str) -> Value) {
    for (status, body) in [(200, "<html>sign in</html>"), (500, "{}"), (200, "")] {
        let server = Server::start(move |_| (status, body.into()));
        let handle = opened(name, Role::Source, config(&server.origin), &server)
            .await
            .unwrap();
        match handle.poll(None, vec![]).await {
            Err(CallError::Failed { kind, .. }) => {
                assert!(
                    matches!(kind, None | Some(FailureKind::Transient)),
                    "{name}: {body}"
                );
            }
            other => panic!("{name}, {status} {body}: {other:?}"),
        }
    }
}

const FLOWER: &str = r#"{
 "6f1c": {"uuid": "6f1c", "name": "render.frame", "state": "SUCCESS", "received": 1767225600.5, "started": 1767225601.25,
          "succeeded": 1767225661.0, "worker": {"hostname": "gpu-1"}},
 "77aa": {"uuid": "77aa", "name": "render.frame", "state": "FAILURE", "received": 1767225600, "started": 1767225601,
          "failed": 1767225602, "exception": "MemoryError()"},
 "81bb": {"uuid": "81bb", "name": "mail.send", "state": "STARTED", "received": "1767225600"},
 "92cc": {"uuid": "92cc", "name": "mail.send", "state": "WEIRD", "received": null}
}"#;

#[tokio::test]
async fn json_jobs_in_python_reads_flower_and_any_other_list() {
    let server = answering(|_| FLOWER.into());
    let config = |url: &str| json!({ "url": format!("{url}/api/tasks"), "credential": "token", "labels": { "worker": "worker.hostname" } });
    let opening = opened(
        "python-json-jobs",
        Role::Source,
        config(&server.origin),
        &server,
    );
    let Some(handle) = opening.await else {
        return;
    };
    let page = handle.poll(None, vec![]).await.unwrap();
    signed(&only(server.requests()));
    let expected = [
        ("6f1c", JobState::Completed),
        ("77aa", JobState::Failed),
        ("81bb", JobState::Running),
    ];
    assert_eq!(states(&page), expected);
    // The one with an unknown state may be unfinished.
    assert_eq!(page.coverage, Coverage::Partial);
    let first = jobs(&page)[0];
    assert_eq!(first.created.unwrap().as_millisecond(), 1_767_225_600_500);
    assert_eq!(first.finished.unwrap().as_millisecond(), 1_767_225_661_000);
    assert_eq!(first.labels, [("worker".to_owned(), "gpu-1".to_owned())]);
    assert_eq!(first.workflow.as_deref(), Some("render.frame"));
    assert_eq!(jobs(&page)[1].error.as_deref(), Some("MemoryError()"));

    let server = answering(|_| {
        r#"{"data": {"jobs": [{"uid": 5, "status": {"phase": "Baked"}, "at": "2026-01-01T00:00:00+01:00"}]}}"#.into()
    });
    let mapped = json!({
        "url": server.origin, "items": "data.jobs", "states": { "Baked": "completed" },
        "fields": { "id": "uid", "state": "status.phase", "finished": "at" }
    });
    let handle = opened("python-json-jobs", Role::Source, mapped, &server)
        .await
        .unwrap();
    let page = handle.poll(None, vec![]).await.unwrap();
    assert_eq!(states(&page), [("5", JobState::Completed)]);
    assert_eq!(page.coverage, Coverage::Complete);
    let finished = jobs(&page)[0].finished.unwrap();
    assert_eq!(finished.to_string(), "2025-12-31T23:00:00Z");
    takes_no_nonsense("python-json-jobs", config).await;
}

#[tokio::test]
async fn github_actions_in_javascript_follows_runs_that_left_the_list() {
    let server = Server::start(|request| {
        match request.path.as_str() {
        path if path.contains("/actions/runs?") && request.header("if-none-match").is_some() => {
            (304, String::new())
        }
        path if path.contains("/actions/runs?") => (
            200,
            json!({ "total_count": 2, "workflow_runs": [
                { "id": 30_433_642, "name": "CI", "display_title": "fix it", "status": "completed", "conclusion": "failure",
                  "run_attempt": 2, "created_at": "2026-01-22T19:33:08Z", "run_started_at": "2026-01-22T19:33:10Z",
                  "updated_at": "2026-01-22T19:35:00Z", "head_branch": "main", "event": "push", "html_url": "https://x" },
                { "id": 30_433_643, "name": "CI", "status": "in_progress", "conclusion": null, "run_attempt": 1,
                  "created_at": "2026-01-22T19:33:08Z", "run_started_at": "2026-01-22T19:33:10Z" }
            ]})
            .to_string(),
        ),
        path if path.ends_with("/actions/runs/7/attempts/1") => (
            200,
            json!({ "id": 7, "name": "CI", "status": "completed", "conclusion": "timed_out", "run_attempt": 1 }).to_string(),
        ),
        _ => (404, "{}".into()),
    }
    });
    let config = |url: &str| json!({ "url": url, "repository": "o/r", "credential": "token" });
    let opening = opened(
        "js-github-actions",
        Role::Source,
        config(&server.origin),
        &server,
    );
    let Some(handle) = opening.await else {
        return;
    };
    let job = |id: &str| JobRef {
        id: id.into(),
        run: Some("1".into()),
    };
    let open = vec![job("30433643"), job("7"), job("8")];
    let page = handle.poll(None, open).await.unwrap();
    assert_eq!(page.coverage, Coverage::Partial);
    assert_eq!(page.cursor.as_deref(), Some("\"e1\""));
    let seen: Vec<String> = page
        .observations
        .iter()
        .map(|seen| match seen {
            Observation::Job(job) => {
                format!("{}/{} {:?}", job.id, job.run.as_ref().unwrap(), job.state)
            }
            Observation::Gone(job) => format!("{} gone", job.id),
            Observation::Progress(_) | Observation::Gauge(_) => unreachable!(),
        })
        .collect();
    let expected = [
        "30433642/2 Failed",
        "30433643/1 Running",
        "7/1 Timeout",
        "8 gone",
    ];
    assert_eq!(seen, expected);
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    requests.iter().for_each(signed);
    // Nothing is unfinished: an unchanged list is not sent again.
    let page = handle.poll(page.cursor, vec![]).await.unwrap();
    assert!(page.observations.is_empty() && page.cursor.is_some());
    takes_no_nonsense("js-github-actions", config).await;
}

const CSV: &str = "\u{66}arm,id,state,name,started,finished,error\r\n\
a,1,running,\"a \"\"quoted\"\", name\",2026-02-28T23:59:59Z,,\r\n\
a,2,failed,plain,1767225600,2024-02-29T00:00:00Z,\"out of\nmemory\"\r\n\
\r\n\
a,3,completed,last,,,";

#[tokio::test]
async fn csv_in_c_reads_quotes_times_and_lines() {
    let server = answering(|_| CSV.into());
    let config = |url: &str| json!({ "url": format!("{url}/jobs.csv"), "credential": "token" });
    let opening = opened("c-csv", Role::Source, config(&server.origin), &server);
    let Some(handle) = opening.await else {
        return;
    };
    let page = handle.poll(None, vec![]).await.unwrap();
    signed(&only(server.requests()));
    let expected = [
        ("1", JobState::Running),
        ("2", JobState::Failed),
        ("3", JobState::Completed),
    ];
    assert_eq!(states(&page), expected);
    assert_eq!(page.coverage, Coverage::Complete);
    let found = jobs(&page);
    assert_eq!(found[0].name.as_deref(), Some("a \"quoted\", name"));
    assert_eq!(
        found[0].started.unwrap().to_string(),
        "2026-02-28T23:59:59Z"
    );
    assert_eq!(
        found[1].started.unwrap().to_string(),
        "2026-01-01T00:00:00Z"
    );
    assert_eq!(
        found[1].finished.unwrap().to_string(),
        "2024-02-29T00:00:00Z"
    );
    assert_eq!(found[1].error.as_deref(), Some("out of\nmemory"));

    let server = answering(|_| "id,state\n1,running\n2,odd\n".into());
    let handle = opened("c-csv", Role::Source, config(&server.origin), &server)
        .await
        .unwrap();
    let page = handle.poll(None, vec![]).await.unwrap();
    assert_eq!(
        (page.observations.len(), page.coverage),
        (1, Coverage::Partial)
    );
    takes_no_nonsense("c-csv", config).await;
}

#[tokio::test]
async fn slurm_in_rust_reads_old_and_new_answers() {
    let server = answering(|_| {
        json!({ "jobs": [
            { "job_id": 17, "job_state": ["RUNNING"], "name": "train", "user_name": "me", "partition": "gpu",
              "submit_time": { "set": true, "infinite": false, "number": 1_767_225_600 },
              "start_time": { "set": true, "infinite": false, "number": 1_767_225_700 },
              "end_time": { "set": true, "infinite": false, "number": 1_767_999_999 } },
            { "job_id": 16, "job_state": "PENDING", "name": "train", "submit_time": 1_767_225_600, "start_time": 1_767_225_999 },
            { "job_id": 15, "job_state": ["OUT_OF_MEMORY"], "state_reason": "OutOfMemory", "restart_cnt": 1,
              "end_time": { "set": true, "number": 1_767_225_800 } }
        ]})
        .to_string()
    });
    let config = |url: &str| json!({ "url": url, "credential": "token" });
    let opening = opened("rust-slurm", Role::Source, config(&server.origin), &server);
    let Some(handle) = opening.await else {
        return;
    };
    let page = handle.poll(None, vec![]).await.unwrap();
    assert_eq!(only(server.requests()).path, "/slurm/v0.0.40/jobs");
    let expected = [
        ("17", JobState::Running),
        ("16", JobState::Queued),
        ("15", JobState::Failed),
    ];
    assert_eq!(states(&page), expected);
    assert_eq!(page.coverage, Coverage::Complete);
    let found = jobs(&page);
    // The end of a running job and the start of a waiting one are plans.
    assert!(found[0].finished.is_none() && found[1].started.is_none());
    assert_eq!(found[2].error.as_deref(), Some("OutOfMemory"));
    assert_eq!(found[2].run.as_deref(), Some("1"));
    takes_no_nonsense("rust-slurm", config).await;
}

/// `scripts/c-bindings.sh` generates them anew and writes the stamp.
#[test]
fn the_bindings_for_c_are_of_this_contract() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let contract = std::fs::read_to_string(root.join("wit/plugin.wit")).unwrap();
    let mut hash = Sha256::new();
    // Comments may change.
    for line in contract
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
    {
        hash.update(line);
        hash.update("\n");
    }
    let stamp: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let written = root.join("examples/plugins/c/bindings/wit.sha256");
    let written = std::fs::read_to_string(written).unwrap();
    assert_eq!(written.trim(), stamp, "run scripts/c-bindings.sh");
}
