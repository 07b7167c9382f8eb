//! The families of plugins: what they did, how they are, and what they used of their limits.

use super::text::{Exposition, Family};
use crate::plugin::LimitUse;
use std::time::Duration;

/// One entry that uses a plugin.
#[derive(Clone, Debug, Default)]
pub struct PluginSample {
    /// The name in monitor.ron.
    pub entry: String,
    pub plugin: String,
    /// `source` or `handler`: one of each may have the same name.
    pub role: &'static str,
    pub state: &'static str,
    pub ready: bool,
    pub calls: u64,
    pub failures: u64,
    pub crashes: u64,
    pub strikes: u32,
    pub generation: u64,
    /// The last changed file could not be taken into use.
    pub reload_failed: bool,
    pub cpu: Duration,
    /// The most that one instance ever had.
    pub memory_bytes: u64,
    pub http_requests: u64,
    /// Observations that broke the contract.
    pub dropped: u64,
    pub log_lines_dropped: u64,
    pub limits: Vec<LimitUse>,
}

type Counter = (&'static str, &'static str, fn(&PluginSample) -> f64);

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has no other numbers"
)]
const COUNTERS: [Counter; 7] = [
    (
        "weir_plugin_calls_total",
        "Calls into the plugin.",
        |plugin| plugin.calls as f64,
    ),
    (
        "weir_plugin_failures_total",
        "Calls that it answered with a failure.",
        |plugin| plugin.failures as f64,
    ),
    (
        "weir_plugin_crashes_total",
        "Traps and exceeded limits.",
        |plugin| plugin.crashes as f64,
    ),
    (
        "weir_plugin_cpu_seconds_total",
        "CPU time in the plugin.",
        |plugin| plugin.cpu.as_secs_f64(),
    ),
    (
        "weir_plugin_http_requests_total",
        "Requests it sent.",
        |plugin| plugin.http_requests as f64,
    ),
    (
        "weir_plugin_observations_dropped_total",
        "Observations that broke the contract.",
        |plugin| plugin.dropped as f64,
    ),
    (
        "weir_plugin_log_lines_dropped_total",
        "Log lines over its limit.",
        |plugin| plugin.log_lines_dropped as f64,
    ),
];

pub(super) fn render(to: &mut Exposition, plugins: &[PluginSample]) {
    for (name, help, value) in COUNTERS {
        let family = to.counter(name, help);
        each(family, plugins, |family, plugin, labels| {
            family.sample(labels, value(plugin));
        });
    }
    let family = to.gauge(
        "weir_plugin_memory_bytes",
        "The most memory that one instance ever had.",
    );
    each(family, plugins, |family, plugin, labels| {
        family.count(labels, plugin.memory_bytes);
    });
    let family = to.gauge("weir_plugin_ready", "Whether it is open and answers calls.");
    each(family, plugins, |family, plugin, labels| {
        family.flag(labels, plugin.ready);
    });
    let family = to.gauge(
        "weir_plugin_strikes",
        "Crashes that are not forgiven yet; the fifth is quarantine.",
    );
    each(family, plugins, |family, plugin, labels| {
        family.count(labels, u64::from(plugin.strikes));
    });
    let family = to.gauge(
        "weir_plugin_quarantined",
        "Whether it crashed too often to be called.",
    );
    each(family, plugins, |family, plugin, labels| {
        family.flag(labels, plugin.state == "quarantined");
    });
    let family = to.gauge(
        "weir_plugin_generation",
        "Files taken into use, one after the other.",
    );
    each(family, plugins, |family, plugin, labels| {
        family.count(labels, plugin.generation);
    });
    let family = to.gauge(
        "weir_plugin_reload_failed",
        "Whether its changed file could not be taken into use, so that the old one goes on.",
    );
    each(family, plugins, |family, plugin, labels| {
        family.flag(labels, plugin.reload_failed);
    });
    limits(to, plugins);
}

/// One series per limit: `limit` is its name in monitor.ron, `unit` what it counts.
fn limits(to: &mut Exposition, plugins: &[PluginSample]) {
    let mut rows = |name, help, value: fn(&LimitUse) -> Option<f64>| {
        let mut family = to.gauge(name, help);
        for plugin in plugins {
            for of in &plugin.limits {
                if let Some(value) = value(of) {
                    let labels = [
                        ("entry", plugin.entry.as_str()),
                        ("plugin", &plugin.plugin),
                        ("role", plugin.role),
                        ("limit", of.name),
                        ("unit", of.unit.name()),
                    ];
                    family.sample(&labels, value);
                }
            }
        }
    };
    rows("weir_plugin_limit", "What it may use.", |of| Some(of.limit));
    rows(
        "weir_plugin_limit_used",
        "The most that it used of a limit since it was opened; of retire_*, where its instance is now.",
        |of| of.used,
    );
}

fn each(
    mut family: Family<'_>,
    plugins: &[PluginSample],
    sample: impl Fn(&mut Family<'_>, &PluginSample, &[(&str, &str)]),
) {
    for plugin in plugins {
        let labels = [
            ("entry", plugin.entry.as_str()),
            ("plugin", &plugin.plugin),
            ("role", plugin.role),
        ];
        sample(&mut family, plugin, &labels);
    }
}
