//! What systemd is told (`Type=notify`): ready, reloading, stopping, a status line, and that we are alive.

use sd_notify::NotifyState;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};
use weir_core::journal::JournalState;
use weir_core::monitor::MonitorHandle;

/// How often the status line is renewed where there is no watchdog.
const STATUS_INTERVAL: Duration = Duration::from_secs(30);

/// Beats as long as the daemon's loop turns.
pub(super) struct Heart {
    interval: Interval,
}

impl Heart {
    pub(super) fn new() -> Heart {
        let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 3);
        let period = watchdog
            .unwrap_or(STATUS_INTERVAL)
            .clamp(Duration::from_millis(100), STATUS_INTERVAL);
        let mut interval = interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Heart { interval }
    }

    pub(super) async fn tick(&mut self) {
        self.interval.tick().await;
    }

    pub(super) fn ready(&self, monitor: &MonitorHandle) {
        tell(&[NotifyState::Ready, NotifyState::Status(&status(monitor))]);
    }

    pub(super) fn alive(&self, monitor: &MonitorHandle) {
        tell(&[NotifyState::Watchdog, NotifyState::Status(&status(monitor))]);
    }
}

pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

fn status(monitor: &MonitorHandle) -> String {
    match monitor.journal().state() {
        JournalState::Closed { reason, .. } => format!("journal closed: {reason}"),
        JournalState::Open => {
            let metrics = monitor.metrics();
            let (sources, overall) = (monitor.sources().len(), metrics.overall());
            let plural = if sources == 1 { "" } else { "s" };
            let (running, queued) = (overall.running(), overall.queued());
            format!("{sources} source{plural}, {running} running, {queued} queued")
        }
    }
}

/// Without systemd there is nobody to tell; a failure is nothing to act on.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be told");
    }
}
