//! The bundled alert handlers, as they are in the binary, against services that answer as theirs are documented to.

mod apprise;
mod discord;
mod ntfy;
mod pagerduty;
mod slack;
mod telegram;
mod webhook;

use crate::corridor::{Bench, until};
use crate::delivery::{ends, ends_saying, ledger, tried, with_bench};
use crate::services::{Reply, Service};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use weir_core::journal::{OutboxRow, OutboxState};
use weir_core::model::observation::JobState;
use weir_core::{Config, Monitor, MonitorHandle};

/// What the first failure says: something of everything that a service may act upon, and two requests for the secret of
/// the receiver, one of them as it looks before a handler drops what nobody sees.
const HOSTILE: &str = "<b>@everyone</b> <!channel> <@1> & *x* _y_ `z` [a](http://b) \u{17e}\u{1f600} \
                       {{secret:key}} {{sec\u{200b}ret:key}}";

/// A secret in a file of its own, as `file:` wants it.
fn secret(folder: &Path, text: &str) -> String {
    let path = folder.join("secret");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn config(receiver: &str, bench: &Arc<Bench>) -> Config {
    let alerts = format!(
        r#"rules: [(name: "failed", when: ExecutionFailed, notify_resolved: true)],
           receivers: [{receiver}], route: (receiver: "ops")"#
    );
    with_bench(&alerts, bench)
}

fn states(monitor: &MonitorHandle) -> Vec<OutboxState> {
    let rows = ledger(monitor, "ops");
    rows.iter().map(|row| row.state).collect()
}

/// A workflow fails, fails again a while later, and works: three messages about one group. Before each the monitor is
/// started anew, so that a receipt is what the store kept. Returns the ledger.
async fn life(receiver: &str) -> Vec<OutboxRow> {
    let (folder, bench) = (tempfile::tempdir().unwrap(), Arc::new(Bench::default()));
    let mut rows = Vec::new();
    let stages = [
        ("a", JobState::Failed),
        ("b", JobState::Failed),
        ("c", JobState::Completed),
    ];
    for (stage, (id, state)) in (0..).zip(stages) {
        let mut config = config(receiver, &bench);
        config.data_dir = folder.path().join("data");
        let monitor = Monitor::start(config).await.unwrap();
        // The second failure is told when the first one has been known for five minutes.
        monitor.clock().advance(Duration::from_secs(301) * stage);
        ends_saying(&monitor, &bench, id, "portrait", state, HOSTILE).await;
        let sent = vec![OutboxState::Sent; stage as usize + 1];
        until(&monitor, "sent", |m| states(m) == sent).await;
        rows = ledger(&monitor, "ops");
        monitor.shutdown().await;
    }
    rows
}

/// How a service says no.
struct Refusals {
    busy: Reply,
    /// What it says with it, in its own way.
    wait: Duration,
    permanent: Reply,
    misconfigured: Reply,
}

/// What becomes of a message that is refused: not sent again before the service allows it; given up; kept until
/// somebody mends the receiver.
async fn refused(receiver: &str, service: &Service, no: Refusals) {
    use OutboxState::{Dead, Failed, Sent};
    let bench = Arc::new(Bench::default());
    let monitor = Monitor::start(config(receiver, &bench)).await.unwrap();
    let fails = async |id: &str, workflow: &str| {
        ends(&monitor, &bench, id, workflow, JobState::Failed).await;
    };
    let times = |workflow: &str| {
        let asked = service.asked();
        asked
            .iter()
            .filter(|asked| asked.text.contains(workflow))
            .count()
    };
    let ready = |m: &MonitorHandle| {
        let ops = m.receivers().into_iter().find(|r| r.name == "ops").unwrap();
        ops.plugin.is_some_and(|p| p.state.name() == "ready")
    };
    until(&monitor, "ready", ready).await;

    service.next(no.busy);
    fails("a", "portrait").await;
    until(&monitor, "refused", |m| states(m) == [Failed]).await;
    let row = ledger(&monitor, "ops").remove(0);
    let wait = row.next_attempt_at.unwrap().duration_since(row.updated_at);
    assert!(wait.unsigned_abs() >= no.wait, "{wait} of {:?}", no.wait);
    monitor.clock().advance(no.wait - Duration::from_secs(5));
    // Another message goes meanwhile: the receiver did look.
    fails("b", "landscape").await;
    until(&monitor, "the other", |m| states(m) == [Failed, Sent]).await;
    assert_eq!(times("portrait"), 1, "{:?}", service.lines());
    tried(&monitor, "ops", "sent", |m| states(m) == [Sent, Sent]).await;
    assert_eq!(times("portrait"), 2, "{:?}", service.lines());

    service.next(no.permanent);
    fails("c", "panorama").await;
    until(&monitor, "given up", |m| states(m) == [Sent, Sent, Dead]).await;
    assert_eq!(times("panorama"), 1);
    assert!(monitor.status().troubles.is_empty());

    service.next(no.misconfigured);
    fails("d", "still").await;
    until(&monitor, "parked", |m| {
        states(m) == [Sent, Sent, Dead, Failed] && m.status().troubles.len() == 1
    })
    .await;
    monitor.clock().advance(Duration::from_secs(15 * 60 + 1));
    until(&monitor, "mended", |m| {
        states(m) == [Sent, Sent, Dead, Sent] && m.status().troubles.is_empty()
    })
    .await;
    assert_eq!(times("still"), 2);
    monitor.shutdown().await;
}

fn receipts(rows: &[OutboxRow]) -> Vec<&str> {
    rows.iter()
        .map(|row| row.receipt.as_deref().unwrap_or_default())
        .collect()
}
