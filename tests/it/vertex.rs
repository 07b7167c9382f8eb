//! The real plugin in the real monitor, over real sockets, against a fake of Vertex AI that is built on its samples.

mod control;
#[expect(dead_code, reason = "the plugin's own tests use all of it")]
pub(crate) mod fake;
pub(crate) mod server;

use crate::corridor::{all, until};
use crate::faults::{alerts, configured, count, polled, view};
use fake::{Fake, Fault, job, sample};
use serde_json::{Value, json};
use server::Server;
use std::time::Duration;
use weir_core::journal::StoredExecution;
use weir_core::model::status::{Status, StepStatus};
use weir_core::{Monitor, MonitorHandle};

const RULES: &str =
    r#"rules: [(name: "failed", when: ExecutionFailed), (name: "lost", when: ExecutionLost)]"#;

/// A monitor with one source that watches `server`; the token is in a file, as an operator has it.
async fn watch(server: &Server, interval: &str, more: &str) -> (MonitorHandle, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "ya29.good\n").unwrap();
    let credential = format!(
        r#"Bearer(file: "{}", origins: ["{}"])"#,
        token.display(),
        server.url()
    );
    (watch_as(server, interval, &credential, more).await, folder)
}

async fn watch_as(server: &Server, interval: &str, credential: &str, more: &str) -> MonitorHandle {
    let url = server.url();
    let locations = if more.contains("\"locations\"") {
        ""
    } else {
        r#""locations": ["us-central1"],"#
    };
    let text = format!(
        r#"(sources: [(name: "vertex", plugin: "vertex-ai", poll_interval: "{interval}",
            credentials: {{ "gcp": {credential} }},
            config: {{ "projects": ["demo"], {locations} "base_url": "{url}", "logging_url": "{url}",
                       "workflow": "av-video-render-{{id}}" {more} }})],
           alerts: ({RULES}))"#
    );
    Monitor::start(configured(&text)).await.unwrap()
}

/// Milliseconds since the epoch.
pub(crate) fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap()
}

fn find(monitor: &MonitorHandle, id: &str) -> Option<StoredExecution> {
    let end = format!("/{id}");
    let mut found = all(monitor).into_iter();
    found.find(|e| e.record.key.external_id.ends_with(&end))
}

fn status(monitor: &MonitorHandle, id: &str) -> Option<Status> {
    find(monitor, id).map(|e| e.record.status)
}

async fn until_status(monitor: &MonitorHandle, id: &'static str, wanted: Status) {
    until(monitor, id, |m| status(m, id) == Some(wanted)).await;
}

pub(crate) fn custom(sample: &str, id: &str) -> Value {
    job(sample, "customJobs", "us-central1", id, now() - 60_000)
}

const CUSTOM: &str = r#", "kinds": ["custom_jobs"]"#;

#[actix_web::test]
async fn every_sample_is_recorded_with_its_own_times_and_verdict() {
    let server = Server::start();
    server.with(|fake| {
        fake.tokens = vec!["ya29.good".to_owned()];
        for name in [
            "01-queued",
            "02-pending",
            "03-running-t4",
            "04-running-two-pools-web",
            "05-succeeded",
            "06-failed-exit-code",
            "07-failed-timeout",
            "08-failed-quota-never-started",
            "10-cancelling",
            "11-cancelled",
            "13-paused",
            "14-expired",
            "16-partially-succeeded",
            "19-unspecified-empty-pool",
            "pipelinejob-running",
            "batchpredictionjob-succeeded",
        ] {
            fake.jobs.push(sample(name));
        }
    });
    let (monitor, _folder) = watch(
        &server,
        "10s",
        r#", "created_after": "5000d", "page_size": 5"#,
    )
    .await;
    until(&monitor, "all of them", |m| all(m).len() == 16).await;
    for (id, wanted) in [
        ("4000000000000000001", Status::Queued),
        ("4000000000000000002", Status::Initializing),
        ("4000000000000000003", Status::Running),
        ("4000000000000000005", Status::Completed),
        ("4000000000000000006", Status::Failed),
        ("4000000000000000007", Status::Timeout),
        ("4000000000000000008", Status::Failed),
        ("4000000000000000010", Status::Cancelling),
        ("4000000000000000011", Status::Cancelled),
        ("4000000000000000013", Status::Paused),
        ("4000000000000000014", Status::Timeout),
        ("4000000000000000016", Status::Partial),
        ("4000000000000000019", Status::Pending),
        ("render-20250529", Status::Running),
        ("77", Status::Completed),
    ] {
        assert_eq!(status(&monitor, id), Some(wanted), "{id}");
    }
    let failed = find(&monitor, "4000000000000000006").unwrap();
    assert!(failed.record.imported);
    assert_eq!(failed.workflow.key, "av-video-render");
    let error = failed.record.error.clone().unwrap();
    assert!(
        error.starts_with("code 3 (INVALID_ARGUMENT): The replica workerpool0-0 exited"),
        "{error}"
    );
    let done = find(&monitor, "4000000000000000005").unwrap().record;
    let time = |text: &str| Some(text.parse::<jiff::Timestamp>().unwrap());
    assert_eq!(done.started_at, time("2025-05-29T14:02:00.623Z"));
    assert_eq!(done.completed_at, time("2025-05-29T14:32:00.873Z"));
    assert!(
        alerts(&monitor, "failed").is_empty(),
        "what was over before is no news"
    );
    assert_eq!(view(&monitor, "vertex").health.failures, 0);
    monitor.shutdown().await;
    server.stop().await;
}

#[actix_web::test]
async fn a_job_is_followed_to_its_end_and_its_failure_is_told_with_code_and_message() {
    let server = Server::start();
    server.with(|fake| {
        fake.jobs = vec![custom("01-queued", "1"), custom("03-running-t4", "2")];
    });
    let (monitor, _folder) = watch(&server, "100ms", CUSTOM).await;
    until_status(&monitor, "1", Status::Queued).await;
    server.with(|fake| fake.set("1", "JOB_STATE_RUNNING", now()));
    until_status(&monitor, "1", Status::Running).await;
    server.with(|fake| {
        fake.set("1", "JOB_STATE_FAILED", now());
        fake.find("1")["error"] = sample("06-failed-exit-code")["error"].clone();
        // It was started an hour and a half ago.
        let job = fake.find("2");
        job["startTime"] = json!(fake::stamp(now() - 5_400_000));
        fake.set("2", "JOB_STATE_CANCELLED", now());
    });
    until_status(&monitor, "1", Status::Failed).await;
    until_status(&monitor, "2", Status::Timeout).await;
    until(&monitor, "told", |m| alerts(m, "failed").len() == 1).await;
    // One workflow, one alert; the newest failure is its body.
    until(&monitor, "told with its words", |m| {
        let alert = alerts(m, "failed").remove(0);
        let text = format!("{} {}", alert.title, alert.body);
        text.contains("code 3 (INVALID_ARGUMENT): The replica workerpool0-0 exited")
            || text.contains("timeout: it ran 5")
    })
    .await;
    let late = find(&monitor, "2").unwrap().record.error.unwrap();
    assert!(late.starts_with("timeout: it ran "), "{late}");
    server.assert_nothing_wrong();
    monitor.shutdown().await;
    server.stop().await;
}

#[actix_web::test]
async fn a_deleted_job_is_lost_and_never_failed() {
    let server = Server::start();
    server
        .with(|fake| fake.jobs = vec![custom("03-running-t4", "1"), custom("03-running-t4", "2")]);
    let (monitor, _folder) = watch(&server, "10s", CUSTOM).await;
    until_status(&monitor, "1", Status::Running).await;
    server.with(|fake| fake.jobs.truncate(1));
    polled(&monitor, "vertex", 2).await;
    assert_eq!(status(&monitor, "2"), Some(Status::Running));
    monitor.clock().advance(Duration::from_secs(61));
    until_status(&monitor, "2", Status::Lost).await;
    assert_eq!(status(&monitor, "1"), Some(Status::Running));
    assert!(alerts(&monitor, "failed").is_empty());
    monitor.shutdown().await;
    server.stop().await;
}

#[actix_web::test]
async fn no_fault_changes_a_status() {
    let server = Server::start();
    server.with(|fake| fake.jobs = vec![custom("03-running-t4", "1")]);
    let (monitor, _folder) = watch(&server, "10s", CUSTOM).await;
    until_status(&monitor, "1", Status::Running).await;
    for fault in [
        Fault::Html(502),
        Fault::Html(200),
        Fault::Status(500, "error-500".into()),
        Fault::Status(503, "error-503".into()),
        Fault::Status(403, "error-403".into()),
        Fault::Half,
        Fault::Silent,
    ] {
        let failures = view(&monitor, "vertex").health.failures;
        server.with(|fake| fake.fault("customJobs", fault.clone(), 1));
        until(&monitor, "the fault is over", |m| {
            m.clock().advance(Duration::from_secs(1));
            let health = view(m, "vertex").health;
            health.failures > failures && health.consecutive_failures == 0
        })
        .await;
        assert_eq!(status(&monitor, "1"), Some(Status::Running), "{fault:?}");
    }
    assert!(
        alerts(&monitor, "weir_trouble").is_empty(),
        "no fault of the provider is the plugin's"
    );
    monitor.shutdown().await;
    server.stop().await;
}

#[actix_web::test]
async fn nobody_asks_before_a_request_rate_allows_it() {
    let server = Server::start();
    server.with(|fake| fake.jobs = vec![custom("03-running-t4", "1")]);
    let (monitor, _folder) = watch(&server, "100ms", CUSTOM).await;
    until_status(&monitor, "1", Status::Running).await;
    server.with(|fake| fake.fault("customJobs", Fault::Rate(Some(2)), 1));
    until(&monitor, "refused", |m| {
        view(m, "vertex").health.failures > 0
    })
    .await;
    let error = view(&monitor, "vertex")
        .health
        .last_error
        .unwrap_or_default();
    assert!(error.contains("429") || error.is_empty(), "{error}");
    until(&monitor, "contact again", |m| {
        view(m, "vertex").health.consecutive_failures == 0
    })
    .await;
    // RetryInfo alone, without a header, in one of two places: the other one goes on.
    server.assert_nothing_wrong();
    assert_eq!(status(&monitor, "1"), Some(Status::Running));
    monitor.shutdown().await;
    server.stop().await;
}

#[actix_web::test]
async fn a_place_that_fails_hides_nothing_of_the_others() {
    let server = Server::start();
    server.with(|fake| {
        fake.jobs = vec![
            custom("03-running-t4", "1"),
            job("03-running-t4", "customJobs", "europe-west4", "2", now()),
        ];
    });
    let more = r#", "kinds": ["custom_jobs"], "locations": ["us-central1", "europe-west4"]"#;
    let (monitor, _folder) = watch(&server, "100ms", more).await;
    until(&monitor, "both", |m| count(m, Status::Running) == 2).await;
    server.with(|fake| {
        fake.fault("us-central1", Fault::Rate(None), 1);
        fake.set("2", "JOB_STATE_SUCCEEDED", now());
    });
    until_status(&monitor, "2", Status::Completed).await;
    server.with(|fake| {
        fake.faults.clear();
        fake.fault("us-central1", Fault::Status(403, "error-403".into()), 9999);
        fake.jobs
            .push(job("01-queued", "customJobs", "europe-west4", "3", now()));
    });
    until_status(&monitor, "3", Status::Queued).await;
    assert_eq!(status(&monitor, "1"), Some(Status::Running));
    assert_eq!(view(&monitor, "vertex").health.failures, 0);
    server.assert_nothing_wrong();
    monitor.shutdown().await;
    server.stop().await;
}

#[actix_web::test]
async fn a_wrong_token_parks_the_source_and_names_the_credential() {
    let server = Server::start();
    server.with(|fake| fake.tokens = vec!["another".to_owned()]);
    let (monitor, _folder) = watch(&server, "100ms", CUSTOM).await;
    until(&monitor, "parked", |m| {
        view(m, "vertex")
            .plugin
            .is_some_and(|p| p.state.name() == "parked")
    })
    .await;
    until(&monitor, "trouble", |m| {
        alerts(m, "weir_trouble").len() == 1
    })
    .await;
    let trouble = alerts(&monitor, "weir_trouble").remove(0);
    let text = format!("{} {}", trouble.title, trouble.body);
    assert!(text.contains("401") && text.contains("gcp"), "{text}");
    assert!(!text.contains("ya29"), "{text}");
    monitor.shutdown().await;
    server.stop().await;
}

#[actix_web::test]
async fn tasks_of_a_pipeline_and_counts_of_a_batch_are_steps() {
    let server = Server::start();
    server.with(|fake| {
        fake.jobs = vec![
            job(
                "pipelinejob-running",
                "pipelineJobs",
                "us-central1",
                "p1",
                now(),
            ),
            job(
                "batchpredictionjob-succeeded",
                "batchPredictionJobs",
                "us-central1",
                "b1",
                now(),
            ),
        ];
        fake.set("b1", "JOB_STATE_RUNNING", now());
        let batch = fake.find("b1");
        batch.as_object_mut().unwrap().remove("endTime");
        batch["completionStats"] = json!({"successfulCount": "250", "incompleteCount": "750"});
    });
    let (monitor, _folder) = watch(&server, "100ms", "").await;
    until_status(&monitor, "b1", Status::Running).await;
    let batch = find(&monitor, "b1").unwrap().record.seq;
    until(&monitor, "a quarter", |m| {
        m.board()
            .get(batch)
            .is_some_and(|live| live.percent == Some(25.0))
    })
    .await;
    until(&monitor, "tasks", |m| !steps(m, "p1").is_empty()).await;
    assert_eq!(
        steps(&monitor, "p1"),
        [
            StepStatus::Completed,
            StepStatus::Running,
            StepStatus::Pending
        ]
    );
    server.with(|fake| {
        for (task, state) in ["SUCCEEDED", "FAILED", "NOT_TRIGGERED"].iter().enumerate() {
            fake.find("p1")["jobDetail"]["taskDetails"][task]["state"] = json!(state);
        }
        fake.set("p1", "PIPELINE_STATE_FAILED", now());
    });
    until_status(&monitor, "p1", Status::Failed).await;
    assert_eq!(
        steps(&monitor, "p1"),
        [
            StepStatus::Completed,
            StepStatus::Failed,
            StepStatus::Skipped
        ]
    );
    server.assert_nothing_wrong();
    monitor.shutdown().await;
    server.stop().await;
}

fn steps(monitor: &MonitorHandle, id: &str) -> Vec<StepStatus> {
    let Some(execution) = find(monitor, id) else {
        return Vec::new();
    };
    let reader = monitor.journal().reader().unwrap();
    let found = reader.execution(execution.record.seq).unwrap().unwrap();
    found.steps.iter().map(|step| step.status).collect()
}

#[actix_web::test]
async fn two_thousand_jobs_are_read_within_the_limits_of_a_plugin() {
    let server = Server::start();
    server.with(|fake: &mut Fake| {
        fake.jobs = (0..2000)
            .map(|number| {
                custom(
                    if number < 50 {
                        "03-running-t4"
                    } else {
                        "05-succeeded"
                    },
                    &number.to_string(),
                )
            })
            .collect();
    });
    let (monitor, _folder) = watch(&server, "10s", CUSTOM).await;
    until(&monitor, "all of them", |m| {
        let done = m.metrics().overall().imported;
        done == 1950 && view(m, "vertex").health.open_jobs == 50
    })
    .await;
    let plugin = view(&monitor, "vertex").plugin.unwrap();
    assert_eq!(plugin.counters.crashes, 0);
    server.assert_nothing_wrong();
    monitor.shutdown().await;
    server.stop().await;
}

#[actix_web::test]
async fn a_service_account_gets_its_token_by_itself_and_once() {
    let server = Server::start();
    server.with(|fake| {
        fake.tokens = vec!["nobody-has-this".to_owned()];
        fake.jobs = vec![custom("03-running-t4", "1")];
    });
    let folder = tempfile::tempdir().unwrap();
    let account = folder.path().join("sa.json");
    let token_uri = format!("{}/token", server.url());
    let json = json!({
        "type": "service_account", "client_email": "weir@demo.iam.gserviceaccount.com", "token_uri": token_uri,
        "private_key": include_str!("../data/google/key.pem"), "private_key_id": "kid-1",
    });
    std::fs::write(&account, json.to_string()).unwrap();
    let credential = format!(
        r#"Google(file: "{}", origins: ["{}"], endpoints: (token: "{token_uri}"))"#,
        account.display(),
        server.url()
    );
    let monitor = watch_as(&server, "100ms", &credential, "").await;
    until_status(&monitor, "1", Status::Running).await;
    let polls = view(&monitor, "vertex").health.polls;
    until(&monitor, "more polls", |m| {
        view(m, "vertex").health.polls > polls + 5
    })
    .await;
    assert_eq!(view(&monitor, "vertex").health.failures, 0);
    assert_eq!(
        server.with(|fake| fake.tokens.len()),
        2,
        "one token was issued"
    );
    server.assert_nothing_wrong();
    monitor.shutdown().await;
    server.stop().await;
}
