//! Sources and receivers as clients see them.

use super::plugin::PluginShort;
use super::{Seconds, Time, object};
use crate::gauges::Shown;
use serde::Serialize;
use std::time::Duration;
use weir_core::journal::FailedDeliveries;
use weir_core::monitor::{ReceiverView as Receiver, SourceView as Source};
use weir_core::plugin::{PluginState, PluginStatus};
use weir_core::receiver::Tested;
use weir_core::source::ToldGauge;
use weir_core::stream::{CompanionHealth, StreamHealth, StreamState};
use weir_model::alert::delivery::FailureKind;

#[derive(Debug, Serialize)]
pub struct SourceView {
    pub name: String,
    pub plugin_name: String,
    pub status: &'static str,
    pub stale_since: Option<Time>,
    pub last_error: Option<String>,
    pub last_poll_at: Option<Time>,
    pub last_ok_at: Option<Time>,
    pub poll_duration: Option<Seconds>,
    pub next_poll_at: Option<Time>,
    pub open_jobs: usize,
    pub polls: u64,
    pub failures: u64,
    pub control: bool,
    /// How jobs are seen now: `poll`, with `+stream` while every stream is connected, `+submit` where jobs can be handed
    /// over through weir, `+companion` once one reported.
    pub rung: String,
    pub stream: Option<StreamView>,
    /// The companion beside the provider; none where nobody may report.
    pub companion: Option<CompanionView>,
    /// What the plugin last told of the provider beside jobs, as the memory of its GPUs; none while contact is lost.
    pub gauges: Vec<GaugeView>,
    /// What the plugin says about this server: what it can and cannot see there.
    pub notice: Option<String>,
    pub plugin: Option<PluginShort>,
}

/// A value of the provider's own, in the base unit that its name ends with.
#[derive(Debug, Serialize)]
pub struct GaugeView {
    pub name: String,
    pub labels: serde_json::Map<String, serde_json::Value>,
    pub value: f64,
    /// When it was told.
    pub at: Time,
}

impl GaugeView {
    fn new(told: &ToldGauge) -> GaugeView {
        GaugeView {
            name: told.gauge.name().to_owned(),
            labels: object(told.gauge.labels()),
            value: told.gauge.value(),
            at: told.at.into(),
        }
    }

    pub fn shown(&self) -> Shown<'_> {
        let labels = self.labels.iter();
        Shown {
            name: &self.name,
            labels: labels
                .map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default()))
                .collect(),
            value: self.value,
        }
    }
}

/// What a companion beside the provider reported since the start.
#[derive(Debug, Serialize)]
pub struct CompanionView {
    pub last_report_at: Option<Time>,
    pub reports: u64,
    pub frames: u64,
    pub dropped: u64,
}

impl CompanionView {
    fn new(companion: CompanionHealth) -> CompanionView {
        CompanionView {
            last_report_at: companion.last_report_at.map(Time),
            reports: companion.reports,
            frames: companion.frames,
            dropped: companion.dropped,
        }
    }
}

/// The streams of a source together; the one in the worst state speaks for all.
#[derive(Debug, Serialize)]
pub struct StreamView {
    pub state: &'static str,
    pub since: Time,
    pub reconnects: u64,
    pub frames: u64,
    pub dropped: u64,
    pub last_error: Option<String>,
}

impl StreamView {
    fn new(stream: &StreamHealth) -> StreamView {
        StreamView {
            state: stream.state.as_str(),
            since: stream.since.into(),
            reconnects: stream.reconnects,
            frames: stream.frames,
            dropped: stream.dropped,
            last_error: stream.last_error.clone(),
        }
    }
}

fn rung(source: &Source) -> String {
    let stream = source.stream.as_ref().map(|stream| stream.state);
    let plugin = source.plugin.as_ref();
    let can_submit = plugin.is_some_and(|plugin| plugin.capabilities.control);
    let reported = source.companion.is_some_and(|c| c.reports > 0);
    let mut rung = "poll".to_owned();
    for (step, taken) in [
        ("+stream", stream == Some(StreamState::Connected)),
        ("+submit", source.control && can_submit),
        ("+companion", reported),
    ] {
        if taken {
            rung.push_str(step);
        }
    }
    rung
}

impl SourceView {
    pub fn new(source: &Source) -> SourceView {
        let health = &source.health;
        SourceView {
            name: source.name.clone(),
            plugin_name: source.plugin_name.clone(),
            status: status(source),
            stale_since: health.stale_since.map(Time),
            last_error: last_error(source),
            last_poll_at: health.last_poll_at.map(Time),
            last_ok_at: health.last_ok_at.map(Time),
            poll_duration: health.last_poll_duration.map(Seconds::from),
            next_poll_at: health.next_poll_at.map(Time),
            open_jobs: health.open_jobs,
            polls: health.polls,
            failures: health.failures,
            control: source.control,
            rung: rung(source),
            stream: source.stream.as_ref().map(StreamView::new),
            companion: source.companion.map(CompanionView::new),
            gauges: health.gauges.series().iter().map(GaugeView::new).collect(),
            notice: source.plugin.as_ref().and_then(notice),
            plugin: source.plugin.as_ref().map(PluginShort::new),
        }
    }
}

fn status(source: &Source) -> &'static str {
    let health = &source.health;
    let parked = source
        .plugin
        .as_ref()
        .is_some_and(|plugin| is_parked(&plugin.state));
    if parked {
        "parked"
    } else if health.stale_since.is_some() {
        "stale"
    } else if health.suspect {
        "suspect"
    } else if health.last_ok_at.is_none() {
        "starting"
    } else {
        "ok"
    }
}

fn is_parked(state: &PluginState) -> bool {
    matches!(
        state,
        PluginState::Parked { .. }
            | PluginState::Quarantined { .. }
            | PluginState::Incompatible { .. }
    )
}

fn last_error(source: &Source) -> Option<String> {
    let reason = source
        .plugin
        .as_ref()
        .and_then(|plugin| plugin.state.reason());
    reason
        .map(str::to_owned)
        .or_else(|| source.health.last_error.clone())
}

fn notice(plugin: &PluginStatus) -> Option<String> {
    let said = plugin.last_check.as_ref()?.as_ref().ok()?;
    (!said.is_empty()).then(|| said.clone())
}

#[derive(Debug, Serialize)]
pub struct ReceiverView {
    pub name: String,
    pub handler: String,
    pub status: &'static str,
    /// Why nothing is delivered there at present.
    pub parked: Option<String>,
    /// Messages that it did not take and that will not be tried again, as far back as the history goes.
    pub given_up: u64,
    /// Of the last message that failed there: when, and what was said.
    pub last_failure_at: Option<Time>,
    pub last_failure: Option<String>,
    pub plugin: Option<PluginShort>,
}

impl ReceiverView {
    /// With what only the store can tell. What failed last and was not followed by a delivery is how it is now.
    pub fn failed(&mut self, failed: FailedDeliveries) {
        if self.status == "ok" && failed.sent_at.is_none_or(|sent| sent < failed.last_at) {
            self.status = "failing";
        }
        self.given_up = failed.given_up;
        self.last_failure_at = Some(failed.last_at.into());
        self.last_failure = failed.answer;
    }

    pub fn new(receiver: &Receiver) -> ReceiverView {
        let plugin = receiver.plugin.as_ref();
        let parked = plugin.filter(|plugin| is_parked(&plugin.state));
        let parked = parked.map(|plugin| plugin.state.reason().unwrap_or_default().to_owned());
        let parked = parked.or_else(|| receiver.trouble.clone());
        ReceiverView {
            name: receiver.name.clone(),
            handler: receiver.handler.clone(),
            status: if parked.is_some() { "parked" } else { "ok" },
            parked,
            given_up: 0,
            last_failure_at: None,
            last_failure: None,
            plugin: plugin.map(PluginShort::new),
        }
    }
}

/// What came of `POST /api/receivers/{name}/test`.
#[derive(Debug, Serialize)]
pub struct TestView {
    pub receiver: String,
    pub delivered: bool,
    /// What the far side, or the handler, said.
    pub answer: String,
    pub receipt: Option<String>,
    /// `transient`, `permanent`, `misconfigured` or `crashed`; none when it was delivered.
    pub failure: Option<&'static str>,
    /// What to do about it.
    pub advice: Option<String>,
    pub retry_after: Option<Seconds>,
    pub took: Seconds,
}

impl TestView {
    /// `fallback`: the one that is configured, if one is.
    pub fn new(receiver: &str, tested: Tested, took: Duration, fallback: Option<&str>) -> TestView {
        TestView {
            receiver: receiver.to_owned(),
            delivered: tested.failure.is_none(),
            answer: tested.answer,
            receipt: tested.receipt,
            failure: tested.failure.map(failure),
            advice: (tested.failure).map(|kind| advice(kind, fallback.filter(|f| *f != receiver))),
            retry_after: tested.retry_after.map(Seconds::from),
            took: took.into(),
        }
    }
}

fn failure(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Transient => "transient",
        FailureKind::Permanent => "permanent",
        FailureKind::Misconfigured => "misconfigured",
        FailureKind::Crashed => "crashed",
    }
}

/// What an operator can do.
fn advice(kind: FailureKind, fallback: Option<&str>) -> String {
    let then = match fallback {
        Some(fallback) => format!("go to the fallback, {fallback}"),
        None => "only be written to weir's log: no `fallback` is configured".to_owned(),
    };
    match kind {
        FailureKind::Transient => {
            format!("it may pass: an alert would be tried again for a day, then {then}")
        }
        FailureKind::Permanent => {
            format!("the far side does not take this message: an alert would at once {then}")
        }
        FailureKind::Misconfigured => format!(
            "correct this receiver in monitor.ron or at the far side, then `{}`; until then its alerts wait",
            reload_command()
        ),
        FailureKind::Crashed => {
            "the plugin broke: the log says where; `weir plugin list` shows its state".to_owned()
        }
    }
}

/// How this daemon is told to read its configuration again.
fn reload_command() -> String {
    let pid = std::process::id();
    // systemd names the process that it started itself; a shell within a service inherits another's number.
    let unit = std::env::var("SYSTEMD_EXEC_PID").is_ok_and(|started| started == pid.to_string());
    match unit {
        true => "systemctl reload weir".to_owned(),
        false => format!("kill -HUP {pid}"),
    }
}
