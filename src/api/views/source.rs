//! Sources, receivers and plugins as clients see them.

use super::{Seconds, Time};
use serde::Serialize;
use weir_core::monitor::{ReceiverView as Receiver, SourceView as Source};
use weir_core::plugin::{PluginState, PluginStatus, Role};

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
    /// What the plugin says about this server: what it can and cannot see there.
    pub notice: Option<String>,
    pub plugin: Option<PluginShort>,
}

/// A plugin as far as its source or receiver shows it.
#[derive(Debug, Serialize)]
pub struct PluginShort {
    pub state: &'static str,
    pub reason: Option<String>,
    pub version: Option<String>,
    pub strikes: u32,
    pub crashes: u64,
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

impl PluginShort {
    pub fn new(plugin: &PluginStatus) -> PluginShort {
        PluginShort {
            state: plugin.state.name(),
            reason: plugin.state.reason().map(str::to_owned),
            version: plugin
                .manifest
                .as_ref()
                .map(|manifest| manifest.version.clone()),
            strikes: plugin.strikes,
            crashes: plugin.counters.crashes,
        }
    }
}

/// One plugin entry.
#[derive(Debug, Serialize)]
pub struct PluginView {
    /// The name of the source or receiver.
    pub name: String,
    pub plugin: String,
    pub role: &'static str,
    pub state: &'static str,
    pub reason: Option<String>,
    pub version: Option<String>,
    pub capabilities: Vec<&'static str>,
    pub strikes: u32,
    pub counters: PluginCounters,
    pub check: Option<String>,
    pub last_crash: Option<CrashView>,
}

#[derive(Debug, Serialize)]
pub struct PluginCounters {
    pub calls: u64,
    pub failures: u64,
    pub crashes: u64,
    pub cpu: Seconds,
    pub memory_high_water_bytes: u64,
    pub http_requests: u64,
    pub observations_dropped: u64,
    pub log_lines_dropped: u64,
}

#[derive(Debug, Serialize)]
pub struct CrashView {
    pub at: Time,
    pub call: &'static str,
    pub cause: String,
    pub message: String,
}

impl PluginView {
    pub fn new(plugin: &PluginStatus) -> PluginView {
        let short = PluginShort::new(plugin);
        let counters = &plugin.counters;
        PluginView {
            name: plugin.entry.clone(),
            plugin: plugin.plugin.clone(),
            role: match plugin.role {
                Role::Source => "source",
                Role::Handler => "handler",
            },
            state: short.state,
            reason: short.reason,
            version: short.version,
            capabilities: plugin.capabilities.names(),
            strikes: short.strikes,
            counters: PluginCounters {
                calls: counters.calls,
                failures: counters.failures,
                crashes: counters.crashes,
                cpu: counters.cpu.into(),
                memory_high_water_bytes: counters.memory_high_water,
                http_requests: counters.http_requests,
                observations_dropped: counters.observations_dropped,
                log_lines_dropped: counters.log_lines_dropped,
            },
            check: plugin.last_check.as_ref().map(|check| match check {
                Ok(said) | Err(said) => said.clone(),
            }),
            last_crash: plugin.last_crash.as_ref().map(|crash| CrashView {
                at: crash.at.into(),
                call: crash.call,
                cause: crash.cause.to_string(),
                message: crash.message.clone(),
            }),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct ReceiverView {
    pub name: String,
    pub handler: String,
    pub status: &'static str,
    pub parked: Option<String>,
    pub plugin: Option<PluginShort>,
}

impl ReceiverView {
    pub fn new(receiver: &Receiver) -> ReceiverView {
        let plugin = receiver.plugin.as_ref();
        let parked = plugin.filter(|plugin| is_parked(&plugin.state));
        ReceiverView {
            name: receiver.name.clone(),
            handler: receiver.handler.clone(),
            status: if parked.is_some() { "parked" } else { "ok" },
            parked: parked.map(|plugin| plugin.state.reason().unwrap_or_default().to_owned()),
            plugin: plugin.map(PluginShort::new),
        }
    }
}
