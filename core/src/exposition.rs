//! `/metrics`: what weir counts, in the text format of Prometheus.
//!
//! Names begin with `weir_`, units are base units, and no label is an id: a workflow is named by its key, the first
//! 200 of them each, all later ones together as `other` (by age, so that no series ever falls by moving).

mod plugin;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use weir_model::alert::notification::Severity;
use weir_model::id::{SourceId, WorkflowId};
use weir_model::metrics::histogram::EXPOSED_BOUNDS;
use weir_model::metrics::{Histogram, Metrics};
use weir_model::observation::Gauge;

pub use self::plugin::PluginSample;
use self::text::{Buckets, Exposition, Kind};
use crate::sampler::{ResourceSample, Usage};

/// The content type of what [`render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Workflows with series of their own.
pub const WORKFLOWS_MAX: usize = 200;
/// Before the names of gauges that sources tell.
const PROVIDER_PREFIX: &str = "weir_provider_";
/// The label of all others.
const OTHER: &str = "other";

/// Everything that is shown, gathered at one moment. Empty lists and `None` leave their families out.
pub struct Snapshot<'a> {
    pub version: &'a str,
    pub started_at: Timestamp,
    pub metrics: &'a Metrics,
    /// The key of a workflow.
    pub workflow_key: &'a dyn Fn(WorkflowId) -> String,
    pub source_name: &'a dyn Fn(SourceId) -> String,
    pub sources: Vec<SourceSample>,
    pub journal: JournalSample,
    /// By name: events that a consumer has not read yet.
    pub consumers: Vec<(String, u64)>,
    pub receivers: Vec<ReceiverSample>,
    /// Open alerts by rule and severity.
    pub alerts: Vec<(String, Severity, u64)>,
    pub plugins: Vec<PluginSample>,
    pub actors: Vec<ActorSample>,
    pub reload: ReloadSample,
    pub resources: Option<&'a ResourceSample>,
}

#[derive(Clone, Debug, Default)]
pub struct SourceSample {
    pub name: String,
    /// The last poll was answered.
    pub up: bool,
    pub stale: bool,
    pub suspect: bool,
    pub polls: u64,
    pub failures: u64,
    pub last_poll_at: Option<Timestamp>,
    pub last_ok_at: Option<Timestamp>,
    pub poll_duration: Option<Duration>,
    /// None: it has no streams.
    pub stream: Option<StreamSample>,
    /// What it told of its provider beside jobs.
    pub gauges: Vec<Gauge>,
    pub gauges_refused: u64,
}

/// The streams of one source together.
#[derive(Clone, Debug, Default)]
pub struct StreamSample {
    pub connected: bool,
    pub reconnects: u64,
    pub frames: u64,
    pub bytes: u64,
    /// Frames that the plugin was not told.
    pub dropped: u64,
}

#[derive(Clone, Debug, Default)]
pub struct JournalSample {
    pub events: u64,
    pub commits: u64,
    /// Transactions, each with one sync.
    pub batches: u64,
    /// Refused for a conflicting version.
    pub rejected: u64,
    /// Refused because the queue was full.
    pub busy: u64,
    pub queue_len: u64,
    pub sync_p50: Option<Duration>,
    pub sync_p99: Option<Duration>,
    pub closed: bool,
    pub size_bytes: Option<u64>,
}

/// One receiver and its part of the outbox. `sent`, `failures` and `dead` only grow while weir runs.
#[derive(Clone, Debug, Default)]
pub struct ReceiverSample {
    pub name: String,
    pub parked: bool,
    /// Waiting for their first or next attempt.
    pub queued: u64,
    pub sent: u64,
    /// Attempts in vain.
    pub failures: u64,
    pub dead: u64,
}

#[derive(Clone, Debug, Default)]
pub struct ActorSample {
    pub name: String,
    pub starts: u64,
    pub panics: u64,
    /// Messages that its full mailbox refused.
    pub refused: u64,
}

#[derive(Clone, Debug, Default)]
pub struct ReloadSample {
    /// The configuration in use is the one in the file.
    pub succeeded: bool,
    /// When the configuration in use was taken.
    pub succeeded_at: Option<Timestamp>,
}

/// The whole text.
pub fn render(snapshot: &Snapshot<'_>) -> String {
    let mut to = Exposition::default();
    to.gauge(
        "weir_build_info",
        "A constant 1, labelled with the version that runs.",
    )
    .sample(&[("version", snapshot.version)], 1.0);
    to.gauge(
        "weir_start_time_seconds",
        "When this process started, in seconds since 1970.",
    )
    .sample(&[], seconds_since_1970(snapshot.started_at));
    executions(&mut to, snapshot);
    durations(&mut to, snapshot);
    sources(&mut to, &snapshot.sources);
    streams(&mut to, &snapshot.sources);
    providers(&mut to, &snapshot.sources);
    journal(&mut to, snapshot);
    notifications(&mut to, snapshot);
    plugin::render(&mut to, &snapshot.plugins);
    actors(&mut to, &snapshot.actors);
    reload(&mut to, &snapshot.reload);
    if let Some(resources) = snapshot.resources {
        host(&mut to, resources);
        processes(&mut to, resources);
        gpus(&mut to, resources);
    }
    to.into_text()
}

fn executions(to: &mut Exposition, snapshot: &Snapshot<'_>) {
    let metrics = snapshot.metrics;
    let named = named_workflows(snapshot);
    // All of `other` is one series for each source and status, so it is summed before it is written.
    let mut others = BTreeMap::new();
    let mut family = to.counter(
        "weir_executions_total",
        "Executions that ended, by the status they reached.",
    );
    for ((workflow, source, status), count) in &metrics.reached {
        let Some(key) = named.get(workflow) else {
            *others.entry((*source, *status)).or_insert(0) += count;
            continue;
        };
        let source = (snapshot.source_name)(*source);
        family.count(
            &[
                ("workflow", key.as_str()),
                ("source", &source),
                ("status", status.as_str()),
            ],
            *count,
        );
    }
    for ((source, status), count) in others {
        let source = (snapshot.source_name)(source);
        family.count(
            &[
                ("workflow", OTHER),
                ("source", &source),
                ("status", status.as_str()),
            ],
            count,
        );
    }
    to.counter(
        "weir_executions_imported_total",
        "Executions that were there before weir; in no other count.",
    )
    .count(&[], metrics.overall.imported);
    to.counter(
        "weir_executions_corrected_total",
        "Final verdicts that a provider corrected.",
    )
    .count(&[], metrics.overall.corrected);
    let mut family = to.gauge(
        "weir_executions_running",
        "Executions that have begun and not ended.",
    );
    for (source, counts) in &metrics.sources {
        family.count(
            &[("source", &(snapshot.source_name)(*source))],
            counts.running,
        );
    }
    let mut family = to.gauge(
        "weir_executions_queued",
        "Executions that wait at their provider.",
    );
    for (source, counts) in &metrics.sources {
        family.count(
            &[("source", &(snapshot.source_name)(*source))],
            counts.queued,
        );
    }
    to.gauge("weir_workflows", "Workflows that had executions.")
        .count(&[], metrics.workflows.len() as u64);
}

/// The oldest workflows by their keys. A key that is cut, or is `other` itself, gets its number.
fn named_workflows(snapshot: &Snapshot<'_>) -> BTreeMap<WorkflowId, String> {
    let mut taken = std::collections::HashSet::from([OTHER.to_owned()]);
    let ids = snapshot.metrics.workflows.keys().take(WORKFLOWS_MAX);
    let named = ids.map(|id| {
        let mut key = weir_model::alert::text::line(&(snapshot.workflow_key)(*id), 120);
        if !taken.insert(key.clone()) {
            key = format!("{key} ({id})");
            taken.insert(key.clone());
        }
        (*id, key)
    });
    named.collect()
}

fn durations(to: &mut Exposition, snapshot: &Snapshot<'_>) {
    let named = named_workflows(snapshot);
    let of = |get: fn(&weir_model::metrics::Aggregate) -> &Histogram| {
        let mut other = Exposed::default();
        let mut exposed: Vec<(&str, Exposed)> = Vec::new();
        for (id, aggregate) in &snapshot.metrics.workflows {
            match named.get(id) {
                Some(key) => exposed.push((key, Exposed::of(get(aggregate)))),
                None => other.add(&Exposed::of(get(aggregate))),
            }
        }
        exposed.push((OTHER, other));
        exposed.retain(|(_, exposed)| exposed.count > 0);
        exposed
    };
    let mut write = |name, help, series: Vec<(&str, Exposed)>| {
        let mut family = to.family(name, Kind::Histogram, help);
        for (key, exposed) in series {
            let buckets = Buckets {
                cumulative: &exposed.cumulative,
                sum_seconds: exposed.sum.as_secs_f64(),
                count: exposed.count,
            };
            family.histogram(&[("workflow", key)], &buckets);
        }
    };
    let help = "From start to end of executions that ended.";
    write(
        "weir_execution_duration_seconds",
        help,
        of(|aggregate| &aggregate.duration),
    );
    let help = "From creation to start of executions.";
    write(
        "weir_execution_queue_wait_seconds",
        help,
        of(|aggregate| &aggregate.queue_wait),
    );
}

/// What of a histogram is exposed; several can be added without merging the rest.
struct Exposed {
    cumulative: [(u32, u64); EXPOSED_BOUNDS.len()],
    sum: Duration,
    count: u64,
}

impl Default for Exposed {
    fn default() -> Self {
        Self {
            cumulative: EXPOSED_BOUNDS.map(|bound| (bound, 0)),
            sum: Duration::ZERO,
            count: 0,
        }
    }
}

impl Exposed {
    fn of(histogram: &Histogram) -> Self {
        let mut cumulative = EXPOSED_BOUNDS.map(|bound| (bound, 0));
        for (slot, count) in cumulative.iter_mut().zip(histogram.cumulative()) {
            slot.1 = count;
        }
        Self {
            cumulative,
            sum: histogram.sum(),
            count: histogram.count(),
        }
    }

    fn add(&mut self, other: &Exposed) {
        for (mine, theirs) in self.cumulative.iter_mut().zip(other.cumulative) {
            mine.1 += theirs.1;
        }
        self.sum = self.sum.saturating_add(other.sum);
        self.count += other.count;
    }
}

fn sources(to: &mut Exposition, sources: &[SourceSample]) {
    let mut gauge = |name, help, value: fn(&SourceSample) -> Option<f64>| {
        let mut family = to.gauge(name, help);
        for source in sources {
            family.known(&[("source", &source.name)], value(source));
        }
    };
    gauge(
        "weir_source_up",
        "Whether the last poll was answered.",
        |source| Some(f64::from(u8::from(source.up))),
    );
    gauge(
        "weir_source_stale",
        "Whether contact is lost and statuses are old.",
        |source| Some(f64::from(u8::from(source.stale))),
    );
    gauge(
        "weir_source_suspect",
        "Whether so many jobs vanished at once that it is not believed.",
        |source| Some(f64::from(u8::from(source.suspect))),
    );
    gauge(
        "weir_source_last_poll_timestamp_seconds",
        "When it was last asked.",
        |source| source.last_poll_at.map(seconds_since_1970),
    );
    gauge(
        "weir_source_last_success_timestamp_seconds",
        "When it last answered.",
        |source| source.last_ok_at.map(seconds_since_1970),
    );
    gauge(
        "weir_source_poll_duration_seconds",
        "How long the last poll took.",
        |source| source.poll_duration.map(|duration| duration.as_secs_f64()),
    );
    let mut family = to.counter("weir_source_polls_total", "Polls since the start.");
    for source in sources {
        family.count(&[("source", &source.name)], source.polls);
    }
    let mut family = to.counter(
        "weir_source_poll_failures_total",
        "Polls that failed since the start.",
    );
    for source in sources {
        family.count(&[("source", &source.name)], source.failures);
    }
}

fn streams(to: &mut Exposition, sources: &[SourceSample]) {
    let known = |source: &SourceSample| Some((source.name.clone(), source.stream.clone()?));
    let streams: Vec<(String, StreamSample)> = sources.iter().filter_map(known).collect();
    if streams.is_empty() {
        return;
    }
    let mut family = to.gauge(
        "weir_stream_connected",
        "Whether every stream of a source is connected and taken.",
    );
    for (source, stream) in &streams {
        family.flag(&[("source", source)], stream.connected);
    }
    let mut counter = |name, help, value: fn(&StreamSample) -> u64| {
        let mut family = to.counter(name, help);
        for (source, stream) in &streams {
            family.count(&[("source", source)], value(stream));
        }
    };
    counter(
        "weir_stream_reconnects_total",
        "Connections of streams after the first since the start.",
        |stream| stream.reconnects,
    );
    counter(
        "weir_stream_frames_total",
        "Frames that came since the start.",
        |stream| stream.frames,
    );
    counter(
        "weir_stream_bytes_total",
        "Bytes of these frames.",
        |stream| stream.bytes,
    );
    counter(
        "weir_stream_frames_dropped_total",
        "Frames that the plugin was not told since the start; polls make up for them.",
        |stream| stream.dropped,
    );
}

/// What sources told of their providers. No name of weir's own begins with this prefix, so none can be taken.
fn providers(to: &mut Exposition, sources: &[SourceSample]) {
    let mut families: BTreeMap<&str, Vec<(&str, &Gauge)>> = BTreeMap::new();
    for source in sources {
        for gauge in &source.gauges {
            let family = families.entry(gauge.name()).or_default();
            family.push((&source.name, gauge));
        }
    }
    for (name, series) in families {
        let name = format!("{PROVIDER_PREFIX}{name}");
        let mut family = to.gauge(
            &name,
            "What the plugin of a source last told of its provider.",
        );
        for (source, gauge) in series {
            let own = gauge.labels().iter();
            let own = own.map(|(label, value)| (label.as_str(), value.as_str()));
            let labels: Vec<(&str, &str)> =
                std::iter::once(("source", source)).chain(own).collect();
            family.sample(&labels, gauge.value());
        }
    }
    let mut family = to.counter(
        "weir_source_gauges_refused_total",
        "Values of providers that were not kept since the start: their source has too many series.",
    );
    for source in sources {
        family.count(&[("source", &source.name)], source.gauges_refused);
    }
}

fn journal(to: &mut Exposition, snapshot: &Snapshot<'_>) {
    let journal = &snapshot.journal;
    to.counter(
        "weir_journal_events_total",
        "Events written since the start.",
    )
    .count(&[], journal.events);
    to.counter(
        "weir_journal_commits_total",
        "Commits acknowledged since the start.",
    )
    .count(&[], journal.commits);
    to.counter(
        "weir_journal_batches_total",
        "Transactions since the start, each with one sync.",
    )
    .count(&[], journal.batches);
    let mut refused = to.counter(
        "weir_journal_refused_total",
        "Commits that were refused since the start.",
    );
    refused.count(&[("reason", "conflict")], journal.rejected);
    refused.count(&[("reason", "queue_full")], journal.busy);
    to.gauge(
        "weir_journal_queue_length",
        "Commits that wait for the writer.",
    )
    .count(&[], journal.queue_len);
    let known = [(0.5, journal.sync_p50), (0.99, journal.sync_p99)];
    let quantiles: Vec<(f64, f64)> = known
        .into_iter()
        .filter_map(|(q, value)| value.map(|value| (q, value.as_secs_f64())))
        .collect();
    to.family(
        "weir_journal_sync_seconds",
        Kind::Summary,
        "How long a transaction took to be on disk.",
    )
    .summary(&quantiles, None, journal.batches);
    to.gauge(
        "weir_journal_closed",
        "Whether the journal refuses everything after a failed sync.",
    )
    .flag(&[], journal.closed);
    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus has no other numbers"
    )]
    to.gauge("weir_journal_size_bytes", "Size of the journal's files.")
        .known(&[], journal.size_bytes.map(|bytes| bytes as f64));
    let mut family = to.gauge(
        "weir_consumer_lag_events",
        "Committed events that a consumer has not read yet.",
    );
    for (name, lag) in &snapshot.consumers {
        family.count(&[("consumer", name)], *lag);
    }
}

fn notifications(to: &mut Exposition, snapshot: &Snapshot<'_>) {
    let receivers = &snapshot.receivers;
    let mut family = to.gauge("weir_alerts_firing", "Alerts that have not ended.");
    for (rule, severity, count) in &snapshot.alerts {
        let severity = match severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Critical => "critical",
        };
        family.count(&[("rule", rule.as_str()), ("severity", severity)], *count);
    }
    let mut family = to.gauge(
        "weir_outbox_queued",
        "Notifications that wait for their first or next attempt.",
    );
    receivers
        .iter()
        .for_each(|receiver| family.count(&[("receiver", &receiver.name)], receiver.queued));
    let mut family = to.counter(
        "weir_notifications_total",
        "Notifications delivered since the start.",
    );
    receivers
        .iter()
        .for_each(|receiver| family.count(&[("receiver", &receiver.name)], receiver.sent));
    let mut family = to.counter(
        "weir_notifications_failed_total",
        "Attempts to deliver that failed since the start.",
    );
    receivers
        .iter()
        .for_each(|receiver| family.count(&[("receiver", &receiver.name)], receiver.failures));
    let mut family = to.counter(
        "weir_notifications_dead_total",
        "Notifications given up since the start.",
    );
    receivers
        .iter()
        .for_each(|receiver| family.count(&[("receiver", &receiver.name)], receiver.dead));
    let mut family = to.gauge(
        "weir_receiver_parked",
        "Whether a receiver waits for its configuration to change.",
    );
    receivers
        .iter()
        .for_each(|receiver| family.flag(&[("receiver", &receiver.name)], receiver.parked));
}

fn actors(to: &mut Exposition, actors: &[ActorSample]) {
    let mut counter = |name, help, value: fn(&ActorSample) -> u64| {
        let mut family = to.counter(name, help);
        for actor in actors {
            family.count(&[("actor", &actor.name)], value(actor));
        }
    };
    counter(
        "weir_actor_starts_total",
        "How often an actor was started.",
        |actor| actor.starts,
    );
    counter(
        "weir_actor_panics_total",
        "How often it panicked.",
        |actor| actor.panics,
    );
    counter(
        "weir_mailbox_refused_total",
        "Messages that its full mailbox refused.",
        |actor| actor.refused,
    );
}

fn reload(to: &mut Exposition, reload: &ReloadSample) {
    to.gauge(
        "weir_config_last_reload_successful",
        "Whether the last load of the configuration was taken.",
    )
    .flag(&[], reload.succeeded);
    to.gauge(
        "weir_config_last_reload_success_timestamp_seconds",
        "When the configuration in use was taken.",
    )
    .known(&[], reload.succeeded_at.map(seconds_since_1970));
}

fn host(to: &mut Exposition, resources: &ResourceSample) {
    let ratio = |percent: f64| percent / 100.0;
    to.gauge("weir_host_cpu_ratio", "Use of all cores together, 0 to 1.")
        .known(&[], resources.cpu_percent.map(ratio));
    to.gauge("weir_host_cpu_cores", "Cores of the host.")
        .count(&[], resources.cpu_cores as u64);
    let mut used = to.gauge("weir_host_memory_used_bytes", "Memory in use.");
    resources
        .memory
        .iter()
        .for_each(|memory| used.count(&[], memory.used_bytes));
    let mut size = to.gauge("weir_host_memory_size_bytes", "Memory of the host.");
    resources
        .memory
        .iter()
        .for_each(|memory| size.count(&[], memory.total_bytes));
    let mut used = to.gauge("weir_host_swap_used_bytes", "Swap in use.");
    resources
        .swap
        .iter()
        .for_each(|swap| used.count(&[], swap.used_bytes));
    let mut size = to.gauge("weir_host_swap_size_bytes", "Swap of the host.");
    resources
        .swap
        .iter()
        .for_each(|swap| size.count(&[], swap.total_bytes));
    let names = [
        ("weir_host_load1", "Load average of 1 minute."),
        ("weir_host_load5", "Load average of 5 minutes."),
        ("weir_host_load15", "Load average of 15 minutes."),
    ];
    for (place, (name, help)) in names.into_iter().enumerate() {
        to.gauge(name, help)
            .known(&[], resources.load.map(|load| load[place]));
    }
    let mut disks = |name, help, value: fn(&Usage) -> u64| {
        let mut family = to.gauge(name, help);
        for disk in &resources.disks {
            let labels = [
                ("mount", disk.mount.as_str()),
                ("file_system", disk.file_system.as_str()),
            ];
            family.count(&labels, value(&disk.usage));
        }
    };
    disks(
        "weir_host_disk_used_bytes",
        "Space in use of a file system.",
        |usage| usage.used_bytes,
    );
    disks(
        "weir_host_disk_size_bytes",
        "Size of a file system.",
        |usage| usage.total_bytes,
    );
    let mut received = to.counter(
        "weir_host_network_received_bytes_total",
        "Received by all interfaces but loopback.",
    );
    resources
        .network
        .iter()
        .for_each(|network| received.count(&[], network.received_bytes));
    let mut sent = to.counter(
        "weir_host_network_transmitted_bytes_total",
        "Sent by all interfaces but loopback.",
    );
    resources
        .network
        .iter()
        .for_each(|network| sent.count(&[], network.transmitted_bytes));
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has no other numbers"
)]
fn processes(to: &mut Exposition, resources: &ResourceSample) {
    if let Some(own) = &resources.own {
        to.gauge(
            "weir_process_resident_memory_bytes",
            "Resident memory of weir itself.",
        )
        .count(&[], own.resident_bytes);
        to.gauge(
            "weir_process_cpu_ratio",
            "Use of one core by weir itself, 1 = all of it.",
        )
        .known(&[], own.cpu_percent.map(|percent| percent / 100.0));
        to.gauge(
            "weir_process_open_files",
            "Files that weir itself has open.",
        )
        .known(&[], own.open_files.map(|count| count as f64));
        to.gauge("weir_process_threads", "Threads of weir itself.")
            .known(&[], own.threads.map(|count| count as f64));
    }
    let mut gauge = |name, help, value: fn(&crate::sampler::ProcessSample) -> Option<f64>| {
        let mut family = to.gauge(name, help);
        for process in &resources.processes {
            family.known(&[("process", &process.name)], value(process));
        }
    };
    gauge(
        "weir_watched_processes",
        "Processes of this name.",
        |process| Some(process.count as f64),
    );
    gauge(
        "weir_watched_process_resident_memory_bytes",
        "Their resident memory together.",
        |process| Some(process.resident_bytes as f64),
    );
    gauge(
        "weir_watched_process_cpu_ratio",
        "Their use of cores together, 1 = one core.",
        |process| process.cpu_percent.map(|percent| percent / 100.0),
    );
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has no other numbers"
)]
fn gpus(to: &mut Exposition, resources: &ResourceSample) {
    let mut gauge = |name, help, value: fn(&crate::sampler::GpuSample) -> Option<f64>| {
        let mut family = to.gauge(name, help);
        for gpu in &resources.gpus {
            let model = gpu.name.as_deref().unwrap_or_default();
            let index = gpu.index.to_string();
            family.known(&[("gpu", index.as_str()), ("model", model)], value(gpu));
        }
    };
    gauge(
        "weir_host_gpu_utilization_ratio",
        "Use of a GPU, 0 to 1.",
        |gpu| gpu.utilization_percent.map(|percent| percent / 100.0),
    );
    gauge(
        "weir_host_gpu_memory_used_bytes",
        "Memory of a GPU in use.",
        |gpu| gpu.memory.map(|memory| memory.used_bytes as f64),
    );
    gauge(
        "weir_host_gpu_memory_size_bytes",
        "Memory of a GPU.",
        |gpu| gpu.memory.map(|memory| memory.total_bytes as f64),
    );
    gauge(
        "weir_host_gpu_temperature_celsius",
        "Temperature of a GPU.",
        |gpu| gpu.temperature_celsius,
    );
    gauge(
        "weir_host_gpu_power_watts",
        "Power that a GPU draws.",
        |gpu| gpu.power_watts,
    );
}

fn seconds_since_1970(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests;
