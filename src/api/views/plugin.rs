//! Plugins as clients see them.

use super::{Seconds, Time};
use serde::Serialize;
use std::time::Instant;
use weir_core::plugin::PluginStatus;

/// A plugin as far as its source or receiver shows it.
#[derive(Debug, Serialize)]
pub struct PluginShort {
    pub state: &'static str,
    pub reason: Option<String>,
    pub version: Option<String>,
    pub strikes: u32,
    pub crashes: u64,
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
    /// Until it is tried again by itself.
    pub retry_in: Option<Seconds>,
    pub version: Option<String>,
    pub capabilities: Vec<&'static str>,
    /// How many files were taken into use one after the other.
    pub generation: u64,
    pub strikes: u32,
    pub counters: PluginCounters,
    pub check: Option<String>,
    pub last_crash: Option<CrashView>,
    /// Of the file in use, in hex.
    pub sha256: Option<String>,
    /// Why a changed file is not in use, where that is so.
    pub reload_error: Option<String>,
    pub limits: Vec<LimitView>,
}

/// One limit, and the most that was used of it since the plugin was opened.
#[derive(Debug, Serialize)]
pub struct LimitView {
    /// As in `limits: (…)` of monitor.ron.
    pub name: &'static str,
    /// `bytes`, `seconds`, `count` or `percent`.
    pub unit: &'static str,
    pub limit: f64,
    pub used: Option<f64>,
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
    /// The last words of the guest.
    pub stderr: String,
}

impl PluginView {
    pub fn new(plugin: &PluginStatus) -> PluginView {
        let short = PluginShort::new(plugin);
        let counters = &plugin.counters;
        PluginView {
            name: plugin.entry.clone(),
            plugin: plugin.plugin.clone(),
            role: plugin.role.name(),
            state: short.state,
            reason: short.reason,
            retry_in: plugin
                .retry_at
                .map(|at| at.saturating_duration_since(Instant::now()).into()),
            version: short.version,
            generation: plugin.generation,
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
                stderr: crash.stderr.clone(),
            }),
            sha256: plugin.sha256.as_ref().map(ToString::to_string),
            reload_error: plugin
                .reload
                .as_ref()
                .and_then(|reload| reload.error.clone()),
            limits: plugin
                .limits
                .iter()
                .map(|of| LimitView {
                    name: of.name,
                    unit: of.unit.name(),
                    limit: of.limit,
                    used: of.used,
                })
                .collect(),
        }
    }
}
