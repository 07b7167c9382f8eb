//! What a provider can do wrong: no fault of it changes a status, and each outage is told once.

use crate::corridor::{all, until};
use crate::recordings::{bundled, settings};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use weir::replay::{Fault, Recording, ReplayOptions, ReplayServer};
use weir_core::journal::AlertRow;
use weir_core::model::alert::notification::{AlertStatus, Notification};
use weir_core::model::status::Status;
use weir_core::monitor::SourceView;
use weir_core::{Config, Monitor, MonitorHandle};

pub(crate) type Notices = broadcast::Receiver<Arc<Notification>>;

const RULES: &str = r#"rules: [
    (name: "failed", when: ExecutionFailed),
    (name: "lost", when: ExecutionLost),
    (name: "unreachable", when: SourceUnreachable(after: "2m")),
]"#;

/// A recorded server of 0.33.0 whose time stands still at a second of the recording.
pub(crate) async fn serve(scenario: &str, second: f64) -> ReplayServer {
    let path = format!("tests/data/recordings/v0.33.0/{scenario}.jsonl");
    let recording = Recording::load(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let options = ReplayOptions {
        manual: true,
        ..ReplayOptions::default()
    };
    let server = ReplayServer::start(recording, options).await.unwrap();
    server.set_position(Duration::from_secs_f64(second));
    server
}

/// A monitor with the bundled plugins in a directory of its own.
pub(crate) fn configured(text: &str) -> Config {
    let mut config = Config::temporary().unwrap();
    config.settings = settings(text);
    config.bundled = bundled();
    config
}

pub(crate) fn view(monitor: &MonitorHandle, source: &str) -> SourceView {
    monitor
        .sources()
        .into_iter()
        .find(|s| s.name == source)
        .unwrap()
}

/// Waits for the end of polls that are still to begin, moving the clock no further than to when they are due.
pub(crate) async fn polled(monitor: &MonitorHandle, source: &str, count: usize) {
    for _ in 0..count {
        let before = view(monitor, source).health.polls;
        until(monitor, "a poll", |monitor| {
            let health = view(monitor, source).health;
            let clock = monitor.clock();
            if let Some(wait) = health
                .next_poll_at
                .and_then(|at| Duration::try_from(at - clock.now()).ok())
            {
                if health.polls > before && health.next_poll_at > health.last_poll_at {
                    return true;
                }
                clock.advance(wait);
            }
            health.polls > before && health.next_poll_at > health.last_poll_at
        })
        .await;
    }
    monitor.settled().await;
}

pub(crate) async fn next(notices: &mut Notices) -> Arc<Notification> {
    tokio::time::timeout(Duration::from_secs(30), notices.recv())
        .await
        .unwrap()
        .unwrap()
}

pub(crate) fn alerts(monitor: &MonitorHandle, rule: &str) -> Vec<AlertRow> {
    let reader = monitor.journal().reader().unwrap();
    let alerts = reader.alerts(None, 100).unwrap();
    alerts
        .into_iter()
        .filter(|alert| alert.rule == rule)
        .collect()
}

/// How many executions stand where.
pub(crate) fn count(monitor: &MonitorHandle, status: Status) -> usize {
    all(monitor)
        .iter()
        .filter(|e| e.record.status == status)
        .count()
}

fn one_source(server: &ReplayServer, more: &str) -> Config {
    let url = server.url();
    configured(&format!(
        r#"(sources: [(name: "studio", plugin: "comfyui", poll_interval: "10s", {more} config: {{ "url": "{url}" }})],
           alerts: ({RULES}))"#
    ))
}

async fn running(server: &ReplayServer, more: &str) -> MonitorHandle {
    let monitor = Monitor::start(one_source(server, more)).await.unwrap();
    until(&monitor, "running", |m| count(m, Status::Running) == 1).await;
    monitor
}

/// The executions of the only source are shown as of its last contact.
fn is_stale(monitor: &MonitorHandle) -> bool {
    all(monitor).iter().all(|e| e.stale_since.is_some())
}

#[actix_web::test]
async fn no_fault_changes_a_status_and_each_outage_is_told_once() {
    let server = serve("progress_own", 2.0).await;
    let monitor = running(&server, "").await;
    let mut notices = monitor.notifications();
    let faults = [
        Fault::Refuse,
        Fault::Html,
        Fault::Status(500),
        Fault::HalfBody,
        Fault::Garbage,
    ];
    for (outages, fault) in faults.into_iter().enumerate() {
        server.fault(fault);
        polled(&monitor, "studio", 2).await;
        // A frame of the stream may have asked for a poll just before.
        until(&monitor, "a stale source", |m| {
            view(m, "studio").health.stale_since.is_some()
        })
        .await;
        until(&monitor, "stale", is_stale).await;
        assert_eq!(count(&monitor, Status::Running), 1, "{fault:?}");
        monitor.clock().advance(Duration::from_secs(121));
        let notice = next(&mut notices).await;
        assert_eq!(notice.status, AlertStatus::Firing, "{fault:?}");
        assert!(notice.title.contains("studio"), "{}", notice.title);
        // It is asked ever more rarely, and nobody is told again.
        let (polls, end) = (
            view(&monitor, "studio").health.polls,
            monitor.clock().now() + Duration::from_secs(300),
        );
        while monitor.clock().now() < end {
            polled(&monitor, "studio", 1).await;
        }
        let polls = view(&monitor, "studio").health.polls - polls;
        assert!(
            (4..=20).contains(&polls),
            "{fault:?}: {polls} polls in five minutes"
        );
        assert!(notices.try_recv().is_err(), "{fault:?}");
        assert_eq!(
            alerts(&monitor, "unreachable").len(),
            outages + 1,
            "{fault:?}"
        );
        assert_eq!(count(&monitor, Status::Running), 1, "{fault:?}");

        server.fault(Fault::None);
        polled(&monitor, "studio", 1).await;
        assert_eq!(
            next(&mut notices).await.status,
            AlertStatus::Resolved,
            "{fault:?}"
        );
        assert!(
            view(&monitor, "studio").health.stale_since.is_none(),
            "{fault:?}"
        );
        assert_eq!(count(&monitor, Status::Running), 1, "{fault:?}");
    }
    server.set_position(server.recording().duration());
    polled(&monitor, "studio", 1).await;
    assert_eq!(
        (all(&monitor).len(), count(&monitor, Status::Completed)),
        (1, 1)
    );
    assert!(alerts(&monitor, "lost").is_empty() && alerts(&monitor, "weir_trouble").is_empty());
    monitor.shutdown().await;
    server.stop().await;
}

#[actix_web::test]
async fn a_provider_that_does_not_answer_in_time_is_lost_contact_and_no_more() {
    let server = serve("progress_own", 2.0).await;
    let monitor = running(&server, r#"limits: (wall: "1500ms"),"#).await;
    server.fault(Fault::Slow(Duration::from_secs(4)));
    polled(&monitor, "studio", 2).await;
    until(&monitor, "stale", is_stale).await;
    assert_eq!(count(&monitor, Status::Running), 1);
    server.fault(Fault::None);
    server.set_position(server.recording().duration());
    until(&monitor, "contact again", |monitor| {
        monitor.clock().advance(Duration::from_secs(5));
        count(monitor, Status::Completed) == 1
    })
    .await;
    // A request gets what is left of its call: a slow far side is a failure of the call, no strike against the plugin.
    assert_eq!(view(&monitor, "studio").plugin.unwrap().counters.crashes, 0);
    assert!(alerts(&monitor, "lost").is_empty());
    monitor.shutdown().await;
    server.stop().await;
}

#[actix_web::test]
async fn a_job_missing_from_an_empty_queue_is_lost_after_its_grace_and_found_again() {
    let server = serve("progress_own", 2.0).await;
    let monitor = running(&server, r#"lost_after: "5m","#).await;
    server.fault(Fault::EmptyQueue);
    let begun = monitor.clock().now();
    while monitor.clock().now() < begun + Duration::from_secs(280) {
        polled(&monitor, "studio", 1).await;
        assert_eq!(count(&monitor, Status::Running), 1);
    }
    monitor.clock().advance(Duration::from_secs(30));
    polled(&monitor, "studio", 2).await;
    assert_eq!(count(&monitor, Status::Lost), 1);
    assert_eq!(alerts(&monitor, "lost").len(), 1);
    server.fault(Fault::None);
    polled(&monitor, "studio", 1).await;
    assert_eq!(
        (all(&monitor).len(), count(&monitor, Status::Running)),
        (1, 1)
    );
    assert_eq!(
        alerts(&monitor, "lost")[0].status,
        AlertStatus::Resolved,
        "the alert is taken back"
    );
    assert!(alerts(&monitor, "unreachable").is_empty());
    monitor.shutdown().await;
    server.stop().await;
}

#[actix_web::test]
async fn a_whole_queue_that_vanishes_is_not_believed() {
    let server = serve("queue_several", 0.6).await;
    let monitor = running(&server, r#"lost_after: "1m","#).await;
    until(&monitor, "the queue", |m| all(m).len() == 5).await;
    let mut notices = monitor.notifications();
    server.fault(Fault::EmptyQueue);
    polled(&monitor, "studio", 1).await;
    assert!(view(&monitor, "studio").health.suspect);
    assert!(next(&mut notices).await.title.contains("studio"));
    let begun = monitor.clock().now();
    while monitor.clock().now() < begun + Duration::from_secs(240) {
        polled(&monitor, "studio", 1).await;
        assert_eq!(count(&monitor, Status::Lost), 0);
    }
    assert!(notices.try_recv().is_err());
    server.fault(Fault::None);
    polled(&monitor, "studio", 1).await;
    assert!(!view(&monitor, "studio").health.suspect);
    assert_eq!(next(&mut notices).await.status, AlertStatus::Resolved);
    server.set_position(server.recording().duration());
    polled(&monitor, "studio", 3).await;
    assert_eq!(
        count(&monitor, Status::Running) + count(&monitor, Status::Lost),
        0
    );
    assert!(alerts(&monitor, "lost").is_empty());
    monitor.shutdown().await;
    server.stop().await;
}

#[actix_web::test]
async fn a_wall_clock_that_jumps_makes_nothing_lost_and_stops_nothing() {
    let server = serve("progress_own", 2.0).await;
    let url = server.url();
    let text = format!(
        r#"(sources: [(name: "studio", plugin: "comfyui", poll_interval: "100ms", config: {{ "url": "{url}" }})], alerts: ({RULES}))"#
    );
    let monitor = Monitor::start(configured(&text)).await.unwrap();
    until(&monitor, "running", |m| count(m, Status::Running) == 1).await;
    for hours in [26, -52, 26] {
        monitor
            .clock()
            .jump(jiff::SignedDuration::from_hours(hours));
        let polls = view(&monitor, "studio").health.polls;
        until(&monitor, "polls after the jump", |m| {
            view(m, "studio").health.polls > polls + 3
        })
        .await;
        assert_eq!(count(&monitor, Status::Running), 1, "{hours}");
    }
    monitor.clock().advance(Duration::from_secs(24 * 3600));
    server.set_position(server.recording().duration());
    until(&monitor, "completed", |m| count(m, Status::Completed) == 1).await;
    monitor.settled().await;
    assert!(
        monitor
            .journal()
            .reader()
            .unwrap()
            .alerts(None, 10)
            .unwrap()
            .is_empty()
    );
    monitor.shutdown().await;
    server.stop().await;
}

#[actix_web::test]
async fn a_source_with_a_wrong_configuration_is_parked_and_the_others_go_on() {
    let server = serve("progress_own", 2.0).await;
    let url = server.url();
    let text = format!(
        r#"(sources: [
            (name: "studio", plugin: "comfyui", poll_interval: "100ms", config: {{ "url": "{url}" }}),
            (name: "typo", plugin: "comfyui", poll_interval: "100ms", config: {{ "url": "{url}", "histroy": 3 }}),
        ], alerts: ({RULES}))"#
    );
    let monitor = Monitor::start(configured(&text)).await.unwrap();
    until(&monitor, "parked", |m| {
        view(m, "typo")
            .plugin
            .is_some_and(|p| p.state.name() == "parked")
    })
    .await;
    until(&monitor, "trouble", |m| {
        alerts(m, "weir_trouble").len() == 1
    })
    .await;
    let trouble = alerts(&monitor, "weir_trouble").remove(0);
    assert!(
        trouble.title.contains("histroy") || trouble.body.contains("histroy"),
        "{trouble:?}"
    );
    assert_eq!(monitor.status().troubles[0].0, "source typo");
    server.set_position(server.recording().duration());
    until(&monitor, "completed", |m| count(m, Status::Completed) == 1).await;
    monitor.shutdown().await;
    server.stop().await;
}
