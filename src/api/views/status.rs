//! The monitor as clients see it.

use super::{MuteView, PluginView, ReceiverView, Seconds, SourceView, Time, elapsed};
use serde::Serialize;
use std::collections::BTreeMap;
use uuid::Uuid;
use weir_core::journal::JournalState;
use weir_core::monitor::MonitorHandle;
use weir_model::config::Durability;
use weir_model::status::Status;

#[derive(Debug, Serialize)]
pub struct StatusView {
    pub version: &'static str,
    pub origin: Uuid,
    pub started_at: Time,
    pub uptime: Seconds,
    pub now: Time,
    pub data_dir: String,
    pub public_url: String,
    pub ready: bool,
    pub journal: JournalView,
    pub consumers: Vec<ConsumerView>,
    pub sources: Vec<SourceView>,
    pub executions: CountsView,
    pub alerts: AlertCountsView,
    pub mutes: Vec<MuteView>,
    pub reload: ReloadView,
    pub plugins: Vec<PluginView>,
    pub receivers: Vec<ReceiverView>,
    pub actors: Vec<ActorView>,
    /// What needs an operator.
    pub warnings: Vec<WarningView>,
}

#[derive(Debug, Serialize)]
pub struct JournalView {
    pub state: &'static str,
    pub reason: Option<String>,
    pub head: i64,
    pub retained_from: i64,
    pub queue: u64,
    pub durability: &'static str,
    pub size_bytes: u64,
    pub sync_p50: Option<Seconds>,
    pub sync_p99: Option<Seconds>,
}

#[derive(Debug, Serialize)]
pub struct ConsumerView {
    pub name: &'static str,
    pub cursor: i64,
    pub behind: i64,
}

#[derive(Debug, Default, Serialize)]
pub struct CountsView {
    pub running: u64,
    pub queued: u64,
    pub by_status: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default, Serialize)]
pub struct AlertCountsView {
    pub firing: u64,
    pub by_severity: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
pub struct ReloadView {
    /// None: the configuration is the one of the start.
    pub at: Option<Time>,
    pub ok: bool,
    pub error: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct ActorView {
    pub name: String,
    pub starts: u64,
    pub panics: u64,
    pub refused: u64,
}

#[derive(Debug, Serialize)]
pub struct WarningView {
    pub subject: String,
    pub message: String,
}

impl StatusView {
    /// Without what only the store can tell.
    pub fn new(monitor: &MonitorHandle, base_url: String) -> StatusView {
        let status = monitor.status();
        let ready = status.ready().is_ok();
        let consumers = status.consumers.iter().map(|(name, cursor)| ConsumerView {
            name,
            cursor: cursor.0,
            behind: (status.head.0 - cursor.0).max(0),
        });
        let actors = status.actors.iter().map(|actor| ActorView {
            name: actor.name.clone(),
            starts: actor.starts,
            panics: actor.panics,
            refused: actor.refused,
        });
        let warnings = status
            .troubles
            .iter()
            .map(|(subject, message)| WarningView {
                subject: subject.clone(),
                message: message.clone(),
            });
        StatusView {
            version: status.version,
            origin: status.origin,
            started_at: status.started_at.into(),
            uptime: elapsed(status.started_at, status.now).into(),
            now: status.now.into(),
            data_dir: monitor.data_dir().display().to_string(),
            public_url: base_url,
            ready,
            journal: journal(monitor, &status.journal),
            consumers: consumers.collect(),
            sources: monitor.sources().iter().map(SourceView::new).collect(),
            executions: CountsView::default(),
            alerts: AlertCountsView::default(),
            mutes: status.mutes.iter().map(MuteView::new).collect(),
            reload: ReloadView {
                at: status.reload.at.map(Time),
                ok: status.reload.error.is_none(),
                error: status.reload.error.clone(),
            },
            plugins: Vec::new(),
            receivers: monitor.receivers().iter().map(ReceiverView::new).collect(),
            actors: actors.collect(),
            warnings: warnings.collect(),
        }
    }

    /// Adds the executions that are not closed.
    pub fn count_open(&mut self, open: &[(Status, u64)]) {
        let counts = &mut self.executions;
        for (status, count) in open {
            *counts.by_status.entry(status.as_str()).or_default() += count;
            if status.is_waiting() {
                counts.queued += count;
            } else {
                counts.running += count;
            }
        }
    }
}

fn journal(monitor: &MonitorHandle, state: &JournalState) -> JournalView {
    let journal = monitor.journal();
    let counters = journal.counters();
    let (state, reason) = match state {
        JournalState::Open => ("open", None),
        JournalState::Closed { reason, .. } => ("closed", Some(reason.clone())),
    };
    JournalView {
        state,
        reason,
        head: journal.head().0,
        retained_from: journal.retained_from().0,
        queue: counters.queue_len,
        durability: match monitor.config().durability {
            Durability::Power => "power",
            Durability::Process => "process",
        },
        size_bytes: journal.bytes(),
        sync_p50: counters.sync_p50.map(Seconds::from),
        sync_p99: counters.sync_p99.map(Seconds::from),
    }
}
