//! Receivers as an operator meets them: parked ones wait, rates hold, fallbacks say why, and a test says what came back.

use crate::corridor::{Bench, until};
use crate::delivery::{Answer, Far, ends, ledger, tried, with_bench};
use crate::faults::alerts;
use crate::guest::{CONTRACT, Guest};
use std::sync::Arc;
use std::time::Duration;
use weir_core::journal::OutboxState;
use weir_core::model::alert::delivery::FailureKind;
use weir_core::model::observation::JobState;
use weir_core::{Monitor, MonitorHandle};

const FAILED: &str = r#"rules: [(name: "failed", when: ExecutionFailed)]"#;

fn hook(far: &Far, more: &str) -> String {
    let url = far.url("/hook");
    format!(r#"(name: "hook", handler: "webhook", config: {{ "url": "{url}" }}, {more})"#)
}

async fn start(far: &Far, bench: &Arc<Bench>, more: &str) -> MonitorHandle {
    let hook = hook(far, more);
    let alerts = format!(r#"{FAILED}, receivers: [{hook}], route: (receiver: "hook")"#);
    Monitor::start(with_bench(&alerts, bench)).await.unwrap()
}

fn states(monitor: &MonitorHandle) -> Vec<OutboxState> {
    let rows = ledger(monitor, "hook");
    rows.iter().map(|row| row.state).collect()
}

/// Long enough for a receiver to do what it should not.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(150)).await;
}

#[actix_web::test]
async fn a_parked_receiver_sends_nothing_until_it_looks_again() {
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let monitor = start(&far, &bench, "").await;
    far.script("/hook", &[Answer::Status(401), Answer::Status(401)]);
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    until(&monitor, "parked", |m| states(m) == [OutboxState::Failed]).await;
    let view = |m: &MonitorHandle| {
        m.receivers()
            .into_iter()
            .find(|r| r.name == "hook")
            .unwrap()
    };
    until(&monitor, "shown", |m| view(m).trouble.is_some()).await;
    for (id, workflow) in [("b", "landscape"), ("c", "panorama")] {
        ends(&monitor, &bench, id, workflow, JobState::Failed).await;
    }
    until(&monitor, "queued", |m| states(m).len() == 3).await;
    a_while().await;
    assert_eq!(far.got("/hook").len(), 1, "one message found it out");
    // One message looks again after a quarter of an hour, and the far side is as it was.
    monitor.clock().advance(Duration::from_secs(15 * 60 + 1));
    until(&monitor, "a probe", |_| far.got("/hook").len() == 2).await;
    a_while().await;
    assert_eq!(far.got("/hook").len(), 2, "one message is enough to see");
    // Then somebody mended it.
    monitor.clock().advance(Duration::from_secs(15 * 60 + 1));
    until(&monitor, "sent", |m| states(m) == [OutboxState::Sent; 3]).await;
    until(&monitor, "over", |m| view(m).trouble.is_none()).await;
    monitor.shutdown().await;
    far.stop().await;
}

#[actix_web::test]
async fn a_test_that_arrives_ends_the_waiting() {
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let monitor = start(&far, &bench, "").await;
    far.script("/hook", &[Answer::Status(403)]);
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    until(&monitor, "parked", |m| states(m) == [OutboxState::Failed]).await;
    let tested = monitor.test_receiver("hook").await.unwrap();
    assert_eq!(tested.failure, None);
    // The message that was refused has its own time; a new one goes at once.
    ends(&monitor, &bench, "b", "landscape", JobState::Failed).await;
    until(&monitor, "sent", |m| {
        states(m).last() == Some(&OutboxState::Sent)
    })
    .await;
    monitor.shutdown().await;
    far.stop().await;
}

#[actix_web::test]
async fn a_rate_holds_and_nothing_is_lost() {
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let monitor = start(&far, &bench, r#"rate: "2/m","#).await;
    for n in 0..5 {
        let (id, workflow) = (format!("job {n}"), format!("workflow-{n}"));
        ends(&monitor, &bench, &id, &workflow, JobState::Failed).await;
    }
    for (minute, expected) in [(0, 2), (1, 4), (2, 5)] {
        until(&monitor, "as many as allowed", |_| {
            far.got("/hook").len() == expected
        })
        .await;
        a_while().await;
        assert_eq!(far.got("/hook").len(), expected, "in minute {minute}");
        // A test is no alert: it neither waits nor counts.
        monitor.clock().advance(Duration::from_secs(61));
    }
    until(&monitor, "all", |m| states(m) == [OutboxState::Sent; 5]).await;
    monitor.shutdown().await;
    far.stop().await;
}

#[actix_web::test]
async fn a_webhook_that_is_the_fallback_says_why() {
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let alerts = format!(
        r#"{FAILED}, receivers: [{}, (name: "phone", handler: "ntfy", config: {{ "url": "{}" }})],
           route: (receiver: "phone"), fallback: "hook""#,
        hook(&far, ""),
        far.url("/renders")
    );
    let monitor = Monitor::start(with_bench(&alerts, &bench)).await.unwrap();
    far.script("/", &[Answer::Status(413)]);
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    until(&monitor, "sent", |m| states(m) == [OutboxState::Sent]).await;
    let got = far.got("/hook").remove(0).body;
    for pointer in ["/commonAnnotations", "/alerts/0/annotations"] {
        let why = got.pointer(pointer).unwrap()["fallback_reason"].as_str();
        let why = why.unwrap_or_default();
        assert!(
            why.contains("phone could not deliver this") && why.contains("413"),
            "{got}"
        );
    }
    monitor.shutdown().await;
    far.stop().await;
}

#[actix_web::test]
async fn a_test_says_what_came_back_and_leaves_no_trace() {
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let monitor = start(&far, &bench, r#"rate: "1/h","#).await;
    for (answer, kind) in [
        (Answer::Status(500), FailureKind::Transient),
        (Answer::Status(400), FailureKind::Permanent),
        (Answer::Status(401), FailureKind::Misconfigured),
    ] {
        far.script("/hook", &[answer]);
        let tested = monitor.test_receiver("hook").await.unwrap();
        assert_eq!(tested.failure, Some(kind), "{tested:?}");
    }
    far.script("/hook", &[Answer::RetryAfter(90)]);
    let tested = monitor.test_receiver("hook").await.unwrap();
    assert_eq!(tested.retry_after, Some(Duration::from_secs(90)));
    // The rate is for alerts.
    for _ in 0..2 {
        let tested = monitor.test_receiver("hook").await.unwrap();
        assert_eq!(
            (tested.failure, tested.answer.as_str()),
            (None, "delivered")
        );
    }
    let got = far.got("/hook").pop().unwrap();
    assert_eq!(got.body["commonLabels"]["rule"], "weir_test");
    assert!(got.body.to_string().contains("This is a test"));
    let log = monitor.test_receiver("log").await.unwrap();
    assert_eq!(log.answer, "written to the log");
    assert!(monitor.test_receiver("nobody").await.is_err());
    assert!(ledger(&monitor, "hook").is_empty());
    assert!(monitor.status().troubles.is_empty());
    monitor.shutdown().await;
    far.stop().await;
}

#[actix_web::test]
async fn one_test_at_a_time() {
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let monitor = start(&far, &bench, "").await;
    far.script("/hook", &[Answer::Never]);
    let waiting = monitor.clone();
    let first = actix_web::rt::spawn(async move { waiting.test_receiver("hook").await });
    until(&monitor, "under way", |_| far.got("/hook").len() == 1).await;
    let second = monitor.test_receiver("hook").await.unwrap_err();
    assert!(second.to_string().contains("under way"), "{second}");
    let first = first.await.unwrap().unwrap();
    assert_eq!(first.failure, Some(FailureKind::Transient), "{first:?}");
    monitor.shutdown().await;
    far.stop().await;
}

#[actix_web::test]
async fn a_handler_that_no_longer_fits_parks_its_receiver_and_keeps_what_it_has_to_say() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hook.wasm");
    let bench = Arc::new(Bench::default());
    let start = async || {
        let hook = format!(
            r#"(name: "hook", handler: "{}", config: {{}})"#,
            file.display()
        );
        let alerts = format!(r#"{FAILED}, receivers: [{hook}], route: (receiver: "hook")"#);
        let mut config = with_bench(&alerts, &bench);
        config.data_dir = folder.path().join("data");
        Monitor::start(config).await.unwrap()
    };
    std::fs::write(&file, Guest::handler().component()).unwrap();
    let monitor = start().await;
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    until(&monitor, "sent", |m| states(m) == [OutboxState::Sent]).await;
    monitor.shutdown().await;
    // To the next weir its contract is another one.
    let other = Guest {
        contract: CONTRACT.replace("weir:plugin@0.1.0", "weir:plugin@0.0.9"),
        ..Guest::handler()
    };
    std::fs::write(&file, other.component()).unwrap();
    let monitor = start().await;
    ends(&monitor, &bench, "b", "landscape", JobState::Failed).await;
    ends(&monitor, &bench, "c", "panorama", JobState::Failed).await;
    let told = |m: &MonitorHandle| {
        let told = alerts(m, "weir_trouble").into_iter();
        let told = told.map(|alert| format!("{}: {}", alert.title, alert.body));
        told.collect::<Vec<String>>()
    };
    until(&monitor, "told", |m| !told(m).is_empty()).await;
    until(&monitor, "kept", |m| states(m).len() == 3).await;
    until(&monitor, "tried", |m| {
        states(m)[1..].contains(&OutboxState::Failed)
    })
    .await;
    // That its plugin cannot run and that nothing can be delivered there is one trouble.
    let told = told(&monitor);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("weir is in trouble: receiver hook: ")
            && told[0].contains("built for weir:plugin@0.0.9"),
        "{told:?}"
    );
    let waiting = |state: &OutboxState| matches!(state, OutboxState::Queued | OutboxState::Failed);
    assert!(
        states(&monitor)[1..].iter().all(waiting),
        "{:?}",
        states(&monitor)
    );
    // Rebuilt, it takes up where it was; the message that found it out has its own time.
    std::fs::write(&file, Guest::handler().component()).unwrap();
    tried(&monitor, "hook", "sent", |m| {
        states(m) == [OutboxState::Sent; 3]
    })
    .await;
    until(&monitor, "over", |m| m.status().troubles.is_empty()).await;
    monitor.shutdown().await;
}

#[actix_web::test]
async fn a_message_that_crashes_its_handler_is_given_to_the_fallback_after_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hook.wasm");
    let crashing = Guest {
        deliver: "(unreachable)".into(),
        ..Guest::handler()
    };
    std::fs::write(&file, crashing.component()).unwrap();
    let (far, bench) = (Far::start(), Arc::new(Bench::default()));
    let alerts = format!(
        r#"{FAILED}, receivers: [(name: "hook", handler: "{}", config: {{}}),
               (name: "phone", handler: "ntfy", config: {{ "url": "{}" }})],
           route: (receiver: "hook"), fallback: "phone""#,
        file.display(),
        far.url("/renders")
    );
    let monitor = Monitor::start(with_bench(&alerts, &bench)).await.unwrap();
    ends(&monitor, &bench, "a", "portrait", JobState::Failed).await;
    tried(&monitor, "hook", "given up", |m| {
        states(m) == [OutboxState::Dead]
    })
    .await;
    let row = ledger(&monitor, "hook").remove(0);
    let waited = row.updated_at.duration_since(row.created_at);
    assert!(waited.as_hours() >= 24, "{waited}");
    assert!(row.attempts > 5, "{row:?}");
    let handed_over = |told: &crate::delivery::Got| {
        let of = |field: &str| told.body[field].as_str().unwrap_or_default();
        of("message").contains("hook could not deliver this") && of("title").contains("portrait")
    };
    until(&monitor, "handed over", |_| {
        far.got("/").iter().any(handed_over)
    })
    .await;
    monitor.shutdown().await;
    far.stop().await;
}
