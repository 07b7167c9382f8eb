//! Turns what the rooms know of themselves into the samples of `/metrics`.

use super::views::{ActorView, ReceiverView, SourceView};
use crate::exposition::{
    ActorSample, JournalSample, PluginSample, ReceiverSample, SourceSample, StreamSample,
};
use crate::journal::{JournalHandle, JournalState, OutboxState};
use crate::plugin::{PluginState, PluginStatus};
use crate::stream::StreamState;
use std::collections::BTreeMap;
use weir_model::alert::notification::Severity;

pub(super) fn source(source: &SourceView) -> SourceSample {
    let health = &source.health;
    SourceSample {
        name: source.name.clone(),
        up: health.consecutive_failures == 0 && health.last_ok_at.is_some(),
        stale: health.stale_since.is_some(),
        suspect: health.suspect,
        polls: health.polls,
        failures: health.failures,
        last_poll_at: health.last_poll_at,
        last_ok_at: health.last_ok_at,
        poll_duration: health.last_poll_duration,
        stream: source.stream.as_ref().map(|stream| StreamSample {
            connected: stream.state == StreamState::Connected,
            reconnects: stream.reconnects,
            frames: stream.frames,
            bytes: stream.bytes,
            dropped: stream.dropped,
        }),
        gauges: health
            .gauges
            .series()
            .iter()
            .map(|told| told.gauge.clone())
            .collect(),
        gauges_refused: health.gauges.refused,
    }
}

pub(super) fn journal(journal: &JournalHandle) -> JournalSample {
    let counters = journal.counters();
    JournalSample {
        events: counters.events,
        commits: counters.commits,
        batches: counters.batches,
        rejected: counters.rejected,
        busy: counters.busy,
        queue_len: counters.queue_len,
        sync_p50: counters.sync_p50,
        sync_p99: counters.sync_p99,
        closed: journal.state() != JournalState::Open,
        size_bytes: Some(journal.bytes()),
    }
}

/// One sample for each receiver there is; the ledger's counts where it can be read.
pub(super) fn receivers(journal: &JournalHandle, views: &[ReceiverView]) -> Vec<ReceiverSample> {
    let counts = journal
        .reader()
        .and_then(|reader| reader.outbox_counts())
        .unwrap_or_default();
    let sample = |view: &ReceiverView| {
        let count = |states: &[OutboxState]| {
            let of = counts
                .iter()
                .filter(|(name, state, _)| *name == view.name && states.contains(state));
            of.map(|(_, _, count)| count).sum()
        };
        ReceiverSample {
            name: view.name.clone(),
            parked: view.trouble.is_some()
                || view
                    .plugin
                    .as_ref()
                    .is_some_and(|p| matches!(p.state, PluginState::Parked { .. })),
            queued: count(&[OutboxState::Queued, OutboxState::Failed]),
            sent: count(&[OutboxState::Sent]),
            failures: view.failures,
            dead: count(&[OutboxState::Dead]),
        }
    };
    views.iter().map(sample).collect()
}

/// Open alerts by rule and severity.
pub(super) fn alerts(journal: &JournalHandle) -> Vec<(String, Severity, u64)> {
    let firing = journal
        .reader()
        .and_then(|reader| reader.firing_alerts(0))
        .unwrap_or_default();
    let mut counts: BTreeMap<(String, Severity), u64> = BTreeMap::new();
    for alert in firing {
        *counts.entry((alert.rule, alert.severity)).or_default() += 1;
    }
    counts
        .into_iter()
        .map(|((rule, severity), count)| (rule, severity, count))
        .collect()
}

pub(super) fn plugin(status: &PluginStatus) -> PluginSample {
    let counters = &status.counters;
    PluginSample {
        entry: status.entry.clone(),
        plugin: status.plugin.clone(),
        role: status.role.name(),
        state: status.state.name(),
        ready: matches!(status.state, PluginState::Ready),
        calls: counters.calls,
        failures: counters.failures,
        crashes: counters.crashes,
        cpu: counters.cpu,
        memory_bytes: counters.memory_high_water,
        http_requests: counters.http_requests,
        dropped: counters.observations_dropped,
        log_lines_dropped: counters.log_lines_dropped,
        strikes: status.strikes,
        generation: status.generation,
        reload_failed: status
            .reload
            .as_ref()
            .is_some_and(|reload| reload.error.is_some()),
        limits: status.limits.clone(),
    }
}

pub(super) fn actor(actor: &ActorView) -> ActorSample {
    ActorSample {
        name: actor.name.clone(),
        starts: actor.starts,
        panics: actor.panics,
        refused: actor.refused,
    }
}
