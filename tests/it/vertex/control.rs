//! Cancel, retry, submit and logs of the real plugin in the real plugin host, over real sockets.

use super::fake::{self, Fault, NUMBER, job};
use super::server::Server;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use weir_core::model::logs::Direction;
use weir_core::model::observation::{FailureKind, JobRef, JobState, Observation};
use weir_core::plugin::{
    AllowRule, CallError, Credential, HostOptions, Limits, PluginHandle, PluginHost, PluginSpec,
    Role, Scheme, Secret, WasmBytes,
};

fn open(server: &Server) -> PluginHandle {
    reopened(&server.url())
}

fn reopened(url: &str) -> PluginHandle {
    let origins = vec![AllowRule::parse(url).unwrap()];
    let token = Scheme::Bearer(Secret::new("ya29.good"));
    let host = PluginHost::start(HostOptions::default()).unwrap();
    host.open(PluginSpec {
        entry: "vertex".into(),
        plugin: "vertex-ai".into(),
        role: Role::Source,
        uuid: uuid::Uuid::from_u128(7),
        wasm: WasmBytes::Bundled(weir::bundled::find("vertex-ai").unwrap().bytes),
        config: json!({"projects": ["demo"], "locations": ["us-central1"], "base_url": url, "logging_url": url}),
        allow: origins.clone(),
        credentials: BTreeMap::from([("gcp".to_owned(), Credential::new(token, origins).unwrap())]),
        limits: Limits::default(),
    })
}

fn reference(id: &str) -> JobRef {
    JobRef {
        id: format!("projects/{NUMBER}/locations/us-central1/customJobs/{id}"),
        run: None,
    }
}

async fn state(plugin: &PluginHandle, id: &str) -> JobState {
    let page = plugin.poll(None, vec![]).await.unwrap();
    let jobs = page.observations.into_iter().filter_map(|o| match o {
        Observation::Job(job) => Some(job),
        _ => None,
    });
    let end = format!("/{id}");
    let mut found = jobs.filter(|job| job.id.ends_with(&end));
    found.next().unwrap().state
}

fn failure(error: CallError) -> (Option<FailureKind>, Option<Duration>, String) {
    match error {
        CallError::Failed {
            message,
            kind,
            retry_after,
            ..
        } => (kind, retry_after, message),
        error => panic!("{error}"),
    }
}

#[actix_web::test]
async fn cancel_is_done_when_the_provider_says_so() {
    let server = Server::start();
    server.with(|fake| {
        fake.tokens = vec!["ya29.good".to_owned()];
        fake.jobs = vec![super::custom("03-running-t4", "1")];
    });
    let plugin = open(&server);
    assert_eq!(state(&plugin, "1").await, JobState::Running);
    let capabilities = plugin.status().capabilities;
    assert!(capabilities.control && capabilities.logs && !capabilities.streams);
    plugin.cancel(reference("1")).await.unwrap();
    assert_eq!(state(&plugin, "1").await, JobState::Cancelling);
    server.with(|fake| fake.set("1", "JOB_STATE_CANCELLED", super::now()));
    assert_eq!(state(&plugin, "1").await, JobState::Cancelled);
    let missing = plugin.cancel(reference("2")).await.unwrap_err();
    assert_eq!(failure(missing).0, Some(FailureKind::NotFound));
    server.assert_nothing_wrong();
    plugin.close().await;
    server.stop().await;
}

#[actix_web::test]
async fn retry_and_submit_make_one_job_for_one_key_whatever_is_lost() {
    let server = Server::start();
    server.with(|fake| fake.jobs = vec![super::custom("06-failed-exit-code", "1")]);
    let plugin = open(&server);
    let retried = plugin.retry("k1".into(), reference("1")).await.unwrap();
    let made: Value = serde_json::from_slice(&retried.body).unwrap();
    assert_eq!(made["labels"]["retried_from"], "1");
    assert_eq!(made["labels"]["pipeline"], "autovideo");
    let again = plugin.retry("k1".into(), reference("1")).await.unwrap();
    assert_eq!(again.job, retried.job);
    // The answer is lost: on the wire, and behind a proxy.
    let body = json!({"kind": "custom_jobs", "job": {"displayName": "new", "jobSpec": {}}});
    let submit = |key: &str| {
        let body = body.to_string().into_bytes();
        plugin.submit(key.to_owned(), "application/json".into(), body)
    };
    for (number, lost) in [Fault::Half, Fault::Lost(502), Fault::Lost(504)]
        .into_iter()
        .enumerate()
    {
        server.with(|fake| fake.fault("POST", lost, 1));
        let key = format!("lost-{number}");
        let first = submit(&key).await.unwrap();
        assert_eq!(submit(&key).await.unwrap().job, first.job);
    }
    assert_eq!(server.with(|fake| fake.jobs.len()), 5, "never twice");
    server.assert_nothing_wrong();
    plugin.close().await;
    server.stop().await;
}

#[actix_web::test]
async fn the_host_knows_whether_a_job_may_have_been_made() {
    let server = Server::start();
    let plugin = open(&server);
    let submit = |key: &str| {
        let body = br#"{"job": {"displayName": "new", "jobSpec": {}}}"#.to_vec();
        plugin.submit(key.to_owned(), "application/json".into(), body)
    };
    let acted = |error: CallError| match error {
        CallError::Failed {
            acted, retry_after, ..
        } => (acted, retry_after),
        error => panic!("{error}"),
    };
    // Nobody can look for an earlier one: no job was asked for.
    server.with(|fake| fake.fault("GET", Fault::Html(502), 9));
    assert!(!acted(submit("a").await.unwrap_err()).0);
    server.with(|fake| fake.faults.clear());
    // A proxy answered instead, and nothing was made; or it was, and will be found by its label.
    server.with(|fake| fake.fault("POST", Fault::Html(504), 1));
    assert_eq!(acted(submit("b").await.unwrap_err()), (true, None));
    assert_eq!(server.with(|fake| fake.jobs.len()), 0);
    let address = server.url();
    plugin.close().await;
    server.stop().await;
    // Nobody is there at all.
    let gone = reopened(&address);
    let body = br#"{"job": {"displayName": "new", "jobSpec": {}}}"#.to_vec();
    let failed = gone.submit("c".into(), "application/json".into(), body);
    assert!(!acted(failed.await.unwrap_err()).0);
    gone.close().await;
}

#[actix_web::test]
async fn both_kinds_of_429_reach_whoever_submitted() {
    let server = Server::start();
    let plugin = open(&server);
    let submit = || {
        let body = br#"{"job": {"displayName": "new", "jobSpec": {}}}"#.to_vec();
        plugin.submit("key".into(), "application/json".into(), body)
    };
    server.with(|fake| fake.fault("POST", Fault::Status(429, "error-429-gpu".into()), 1));
    let refused = submit().await.unwrap();
    assert_eq!((refused.status, refused.job), (429, None));
    assert!(
        String::from_utf8(refused.body)
            .unwrap()
            .contains("nvidia_t4_gpus")
    );
    server.with(|fake| fake.fault("POST", Fault::Rate(None), 1));
    let (kind, wait, message) = failure(submit().await.unwrap_err());
    assert_eq!(kind, Some(FailureKind::Transient), "{message}");
    assert_eq!(wait, Some(Duration::from_millis(7_500)));
    plugin.close().await;
    server.stop().await;
}

#[actix_web::test]
async fn lines_of_a_job_come_page_by_page_and_the_tail_goes_on() {
    let server = Server::start();
    let entry = |number: u64| {
        json!({
            "insertId": format!("i{number}"), "timestamp": fake::stamp(1_790_000_000_000 + number * 100),
            "jsonPayload": {"message": format!("line {number}")},
            "resource": {"type": "ml_job", "labels": {"job_id": "1", "task_name": "workerpool0-0"}},
        })
    };
    server.with(|fake| {
        fake.jobs = vec![job(
            "03-running-t4",
            "customJobs",
            "us-central1",
            "1",
            super::now(),
        )];
        fake.entries = (0..450).map(entry).collect();
    });
    let plugin = open(&server);
    let (mut texts, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = plugin
            .read_logs(reference("1"), Direction::Forward, cursor)
            .await
            .unwrap();
        assert!(
            page.lines
                .iter()
                .all(|line| line.origin == "workerpool0-0" && line.at.is_some())
        );
        texts.extend(page.lines.into_iter().map(|line| line.text));
        pages += 1;
        cursor = page.cursor;
        if !page.more {
            break;
        }
    }
    let expected: Vec<String> = (0..450).map(|number| format!("line {number}")).collect();
    assert_eq!((texts, pages), (expected, 3));
    server.with(|fake| fake.entries.push(entry(450)));
    let tail = plugin
        .read_logs(reference("1"), Direction::Forward, cursor)
        .await
        .unwrap();
    let texts: Vec<&str> = tail.lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(texts, ["line 450"]);
    server.assert_nothing_wrong();
    plugin.close().await;
    server.stop().await;
}
