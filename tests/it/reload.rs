//! A new configuration while weir runs: all of it or nothing, and nothing that is watched is lost by it.

use crate::corridor::{Bench, all, until};
use crate::delivery::{Answer, Far, ends, ledger, tried, with_bench};
use crate::faults::{alerts, configured, count, next, polled, serve, view};
use crate::recordings::settings;
use crate::vertex::fake::{Fault as VertexFault, job};
use crate::vertex::now;
use crate::vertex::server::Server;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use weir::replay::{Fault, ReplayServer};
use weir_core::journal::OutboxState;
use weir_core::model::id::Seq;
use weir_core::model::observation::JobState;
use weir_core::model::status::Status;
use weir_core::monitor::ReloadError;
use weir_core::{Monitor, MonitorHandle};

const RULES: &str = r#"rules: [
    (name: "failed", when: ExecutionFailed),
    (name: "lost", when: ExecutionLost),
    (name: "unreachable", when: SourceUnreachable(after: "2m")),
]"#;

fn source(name: &str, server: &ReplayServer, config: &str) -> String {
    let url = server.url();
    format!(
        r#"(name: "{name}", plugin: "comfyui", poll_interval: "10s", lost_after: "1m", config: {{ "url": "{url}" {config} }}),"#
    )
}

fn watching(sources: &[&str]) -> String {
    format!("(sources: [{}], alerts: ({RULES}))", sources.concat())
}

fn of(monitor: &MonitorHandle, source: &str) -> Vec<(Status, bool)> {
    let of_source = all(monitor).into_iter().filter(|e| e.source_name == source);
    of_source
        .map(|e| (e.record.status, e.record.watched))
        .collect()
}

fn kinds(monitor: &MonitorHandle) -> Vec<&'static str> {
    let events = monitor
        .journal()
        .reader()
        .unwrap()
        .events_after(Seq(0), 1000)
        .unwrap();
    events.iter().map(|e| e.row.event.kind()).collect()
}

#[actix_web::test]
async fn a_removed_source_is_no_longer_watched_and_goes_on_when_it_is_put_back() {
    let (one, many) = (
        serve("progress_own", 2.0).await,
        serve("queue_several", 0.6).await,
    );
    let both = watching(&[&source("one", &one, ""), &source("many", &many, "")]);
    let only = watching(&[&source("one", &one, "")]);
    let monitor = Monitor::start(configured(&both)).await.unwrap();
    until(&monitor, "everything", |m| {
        all(m).len() == 6 && count(m, Status::Running) == 2
    })
    .await;
    let before = of(&monitor, "many");

    monitor.reload(settings(&only)).await.unwrap();
    until(&monitor, "unwatched", |m| {
        of(m, "many").iter().all(|(_, watched)| !watched)
    })
    .await;
    assert_eq!(monitor.sources().len(), 1);
    let statuses =
        |jobs: &[(Status, bool)]| jobs.iter().map(|(status, _)| *status).collect::<Vec<_>>();
    assert_eq!(statuses(&of(&monitor, "many")), statuses(&before));
    assert!(of(&monitor, "one").iter().all(|(_, watched)| *watched));
    // Its queue runs dry meanwhile, for hours.
    many.fault(Fault::EmptyQueue);
    for _ in 0..3 {
        monitor.clock().advance(Duration::from_secs(3600));
        polled(&monitor, "one", 1).await;
    }
    assert_eq!(count(&monitor, Status::Lost), 0);
    assert!(kinds(&monitor).contains(&"source.removed"));

    many.fault(Fault::None);
    monitor.reload(settings(&both)).await.unwrap();
    until(&monitor, "watched again", |m| {
        of(m, "many").iter().all(|(_, watched)| *watched)
    })
    .await;
    polled(&monitor, "many", 1).await;
    assert_eq!(statuses(&of(&monitor, "many")), statuses(&before));
    many.set_position(many.recording().duration());
    polled(&monitor, "many", 3).await;
    // Two were taken out of the queue: they are missing, and not for long enough to be lost.
    let many = of(&monitor, "many");
    let completed = many
        .iter()
        .filter(|(status, _)| *status == Status::Completed);
    assert_eq!(completed.count(), 5, "{many:?}");
    let kinds = kinds(&monitor);
    assert!(
        kinds.contains(&"source.returned") && !kinds.contains(&"execution.lost"),
        "{kinds:?}"
    );
    assert!(alerts(&monitor, "lost").is_empty() && alerts(&monitor, "unreachable").is_empty());
    monitor.shutdown().await;
}

#[actix_web::test]
async fn a_changed_source_is_a_new_generation_with_a_new_cursor() {
    let server = serve("queue_several", 0.6).await;
    let before = watching(&[&source("studio", &server, "")]);
    let monitor = Monitor::start(configured(&before)).await.unwrap();
    until(&monitor, "everything", |m| {
        all(m).len() == 5 && count(m, Status::Running) == 1
    })
    .await;
    polled(&monitor, "studio", 1).await;
    let row = |m: &MonitorHandle| {
        m.journal()
            .reader()
            .unwrap()
            .source_by_name("studio")
            .unwrap()
            .unwrap()
    };
    let cursor = |m: &MonitorHandle| {
        m.journal()
            .reader()
            .unwrap()
            .source_cursor(row(m).id)
            .unwrap()
    };
    assert_eq!(row(&monitor).generation, 1);
    assert!(cursor(&monitor).is_some_and(|cursor| !cursor.is_empty()));
    // Nothing is answered, so what the reload left is what is seen.
    server.fault(Fault::Refuse);
    let after = watching(&[&source("studio", &server, r#", "history": 7"#)]);
    monitor.reload(settings(&after)).await.unwrap();
    assert_eq!(row(&monitor).generation, 2);
    assert_eq!(cursor(&monitor).unwrap_or_default(), "");
    server.fault(Fault::None);
    until(&monitor, "a look", |m| {
        m.clock().advance(Duration::from_secs(10));
        cursor(m).is_some_and(|cursor| !cursor.is_empty())
    })
    .await;
    assert_eq!(
        (all(&monitor).len(), count(&monitor, Status::Running)),
        (5, 1)
    );
    // What changes nothing is nothing.
    monitor.reload(settings(&after)).await.unwrap();
    assert_eq!(row(&monitor).generation, 2);
    assert!(alerts(&monitor, "lost").is_empty());
    monitor.shutdown().await;
}

/// A Vertex AI that is watched in these places.
fn places(server: &Server, token: &Path, places: &str) -> String {
    let (url, token) = (server.url(), token.display());
    format!(
        r#"(sources: [(name: "vertex", plugin: "vertex-ai", poll_interval: "100ms",
            credentials: {{ "gcp": Bearer(file: "{token}", origins: ["{url}"]) }},
            config: {{ "projects": ["demo"], "locations": {places}, "kinds": ["custom_jobs"],
                       "base_url": "{url}", "logging_url": "{url}" }})], alerts: ({RULES}))"#
    )
}

#[actix_web::test]
async fn what_ended_long_before_a_wider_view_is_history_and_what_nobody_saw_end_is_told_late() {
    let server = Server::start();
    let failed = |id: &str, created| {
        job(
            "06-failed-exit-code",
            "customJobs",
            "europe-west4",
            id,
            created,
        )
    };
    server.with(|fake| {
        let running = job("03-running-t4", "customJobs", "us-central1", "seen", now());
        fake.jobs = vec![running, failed("old", now() - 3_600_000)];
    });
    let dir = tempfile::tempdir().unwrap();
    let start = async |text: &str| {
        let mut config = configured(text);
        config.data_dir = dir.path().join("data");
        Monitor::start(config).await.unwrap()
    };
    let token = dir.path().join("token");
    std::fs::write(&token, "ya29.good").unwrap();
    let narrow = places(&server, &token, r#"["us-central1"]"#);
    let wide = places(&server, &token, r#"["us-central1", "europe-west4"]"#);
    let monitor = start(&narrow).await;
    until(&monitor, "a round", |m| {
        count(m, Status::Running) == 1 && view(m, "vertex").health.last_ok_at.is_some()
    })
    .await;
    // Nobody gets an answer any more; then two end, one in the old view and one in the new.
    server.with(|fake| {
        fake.fault(
            "customJobs",
            VertexFault::Status(503, "error-503".into()),
            u32::MAX,
        );
    });
    until(&monitor, "no contact", |m| {
        view(m, "vertex").health.consecutive_failures > 0
    })
    .await;
    server.with(|fake| {
        fake.set("seen", "JOB_STATE_FAILED", now());
        let mut missed = failed("missed", now() - 60_000);
        missed["endTime"] = serde_json::json!(crate::vertex::fake::stamp(now()));
        fake.jobs.insert(0, missed);
    });
    monitor.reload(settings(&wide)).await.unwrap();
    // The change is remembered over a restart, until there was a look.
    monitor.shutdown().await;
    drop(monitor);
    let monitor = start(&wide).await;
    server.with(|fake| fake.faults.clear());
    until(&monitor, "all three", |m| {
        m.clock().advance(Duration::from_secs(1));
        count(m, Status::Failed) == 3
    })
    .await;
    monitor.settled().await;
    let imported = |id: &str| {
        let end = format!("/{id}");
        let found = all(&monitor)
            .into_iter()
            .find(|e| e.record.key.external_id.ends_with(&end));
        found.unwrap().record.imported
    };
    assert_eq!(
        ["old", "missed", "seen"].map(imported),
        [true, false, false]
    );
    until(&monitor, "told", |m| {
        alerts(m, "failed")
            .iter()
            .map(|alert| alert.count)
            .sum::<i64>()
            == 2
    })
    .await;
    assert!(
        alerts(&monitor, "failed")
            .iter()
            .all(|a| a.title.ends_with("(late)"))
    );
    monitor.shutdown().await;
    server.stop().await;
}

#[actix_web::test]
async fn what_waits_for_a_removed_receiver_goes_where_the_route_leads_now() {
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let to = |name: &str| {
        format!(
            r#"rules: [(name: "failed", when: ExecutionFailed)],
               receivers: [(name: "{name}", handler: "webhook", config: {{ "url": "{}" }})],
               route: (receiver: "{name}")"#,
            far.url(&format!("/{name}"))
        )
    };
    let dir = tempfile::tempdir().unwrap();
    let mut config = with_bench(&to("first"), &bench);
    config.data_dir = dir.path().to_owned();
    let monitor = Monitor::start(config).await.unwrap();
    far.script("/first", &[Answer::Status(503); 50]);
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    until(&monitor, "refused", |m| {
        ledger(m, "first")
            .iter()
            .any(|r| r.state == OutboxState::Failed)
    })
    .await;
    let second = settings(&format!("(alerts: ({}))", to("second")));
    monitor.reload(second).await.unwrap();
    tried(&monitor, "second", "sent", |m| {
        ledger(m, "second")
            .iter()
            .any(|r| r.state == OutboxState::Sent)
    })
    .await;
    assert_eq!(far.got("/second")[0].id, far.got("/first")[0].id);
    assert!(ledger(&monitor, "first").is_empty());

    // The same while weir is stopped.
    far.script("/second", &[Answer::Status(503); 50]);
    ends(&monitor, &bench, "b", "landscape", JobState::Failed).await;
    until(&monitor, "refused", |m| {
        ledger(m, "second")
            .iter()
            .any(|r| r.state == OutboxState::Failed)
    })
    .await;
    monitor.shutdown().await;
    drop(monitor);
    let mut config = with_bench(&to("third"), &bench);
    config.data_dir = dir.path().to_owned();
    let monitor = Monitor::start(config).await.unwrap();
    tried(&monitor, "third", "sent", |m| {
        ledger(m, "third")
            .iter()
            .any(|r| r.state == OutboxState::Sent)
    })
    .await;
    assert_eq!(
        far.got("/third")[0].body["commonLabels"]["workflow"],
        "landscape"
    );
    monitor.shutdown().await;
    far.stop().await;
}

#[actix_web::test]
async fn what_needs_a_restart_is_refused() {
    let bench = Arc::new(Bench::default());
    let monitor = Monitor::start(with_bench(RULES, &bench)).await.unwrap();
    let cases = [
        (r#"(http: (listen: "127.0.0.1:9"))"#, "http.listen"),
        ("(durability: Process)", "durability"),
        (r#"(data_dir: "/nowhere")"#, "data_dir"),
    ];
    for (text, field) in cases {
        let error = monitor.reload(settings(text)).await.unwrap_err();
        assert_eq!(error, ReloadError::NeedsRestart(field));
        assert!(error.to_string().contains("needs a restart"), "{error}");
        assert!(monitor.status().reload.error.unwrap().contains(field));
        assert_eq!(
            monitor.config().alerts.rules.len(),
            3,
            "the old one goes on"
        );
    }
    monitor.shutdown().await;
}

#[actix_web::test]
async fn a_secret_that_is_missing_changes_nothing_at_all() {
    let (one, many) = (
        serve("progress_own", 2.0).await,
        serve("queue_several", 0.6).await,
    );
    let before = watching(&[&source("one", &one, "")]);
    let monitor = Monitor::start(configured(&before)).await.unwrap();
    until(&monitor, "running", |m| count(m, Status::Running) == 1).await;
    let mut notices = monitor.notifications();
    let secret = r#"(name: "hook", handler: "webhook", config: { "url": "http://127.0.0.1:9/" },
        credentials: { "token": Bearer(env: "WEIR_TEST_SECRET_THAT_IS_NOT_SET", origins: ["http://127.0.0.1:9"]) })"#;
    let after = format!(
        r#"(sources: [{}], alerts: ({RULES}, receivers: [{secret}], route: (receiver: "hook")))"#,
        source("many", &many, "")
    );
    let error = monitor.reload(settings(&after)).await.unwrap_err();
    assert!(matches!(error, ReloadError::Plan(_)), "{error:?}");
    let said = error.to_string();
    assert!(
        said.contains("alerts.receivers[0].credentials.token") && said.contains("is not set"),
        "{said}"
    );
    assert_eq!(
        monitor
            .sources()
            .iter()
            .map(|s| &*s.name)
            .collect::<Vec<_>>(),
        ["one"]
    );
    assert_eq!(
        monitor
            .receivers()
            .iter()
            .map(|r| &*r.name)
            .collect::<Vec<_>>(),
        ["log"]
    );
    assert_eq!(*monitor.config(), settings(&before));
    assert_eq!(monitor.status().reload.error.as_deref(), Some(&*said));
    let notice = next(&mut notices).await;
    assert!(notice.text.contains("is not set"), "{}", notice.text);
    polled(&monitor, "one", 1).await;
    assert_eq!(of(&monitor, "one"), [(Status::Running, true)]);
    // A good one takes it back.
    monitor.reload(settings(&before)).await.unwrap();
    assert_eq!(monitor.status().reload.error, None);
    until(&monitor, "over", |m| {
        alerts(m, "weir_trouble").iter().all(|a| a.ends.is_some())
    })
    .await;
    monitor.reload_failed("monitor.ron: line 1: what is this?".to_owned());
    assert!(monitor.status().reload.error.unwrap().contains("line 1"));
    until(&monitor, "told", |m| {
        alerts(m, "weir_trouble").iter().any(|a| a.ends.is_none())
    })
    .await;
    monitor.shutdown().await;
}

#[actix_web::test]
async fn the_trouble_of_a_source_goes_with_it() {
    let server = serve("progress_own", 2.0).await;
    let good = watching(&[&source("one", &server, "")]);
    let bad = watching(&[
        &source("one", &server, ""),
        &source("typo", &server, r#", "histroy": 3"#),
    ]);
    let monitor = Monitor::start(configured(&bad)).await.unwrap();
    until(&monitor, "trouble", |m| !m.status().troubles.is_empty()).await;
    monitor.reload(settings(&good)).await.unwrap();
    until(&monitor, "no trouble", |m| m.status().troubles.is_empty()).await;
    until(&monitor, "told", |m| {
        let troubles = alerts(m, "weir_trouble");
        troubles.len() == 1 && troubles[0].ends.is_some()
    })
    .await;
    assert_eq!(view(&monitor, "one").name, "one");
    monitor.shutdown().await;
}
