//! The resource sampler actor: measures the host at intervals, journals what crosses a threshold, rolls history up.

use crate::clock::Clock;
use crate::journal::{Commit, JournalHandle, SampleRow};
use crate::sampler::{ResourceSample, Sampler, SamplerOptions};
use crate::supervise::{Guard, Panic};
use crate::trouble::Troubles;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use weir_model::config::Resources;
use weir_model::event::SystemEvent;
use weir_model::rollup::{Resolution, Rollup};
use weir_model::threshold::{Crossed, Threshold};

/// Series kept at once: a host with many disks and processes has about fifty.
const SERIES_MAX: usize = 256;
/// A threshold is cleared this many percent below it, after this many good samples.
const CLEAR_MARGIN: f64 = 3.0;
const GOOD_NEEDED: u32 = 3;
/// Free space below which weir itself is in danger, in bytes.
const DISK_NEEDED: u64 = 256 << 20;
/// The subject of that trouble.
const DISK: &str = "disk";

/// What the sampler measures and where weir keeps its store.
#[derive(Clone, Debug)]
pub struct SamplerSettings {
    pub resources: Resources,
    pub data_dir: PathBuf,
}

/// Take new settings.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SetSampling(pub Resources);

/// Self-message: the next sample is due.
#[derive(Message)]
#[rtype(result = "()")]
struct TakeSample;

pub struct ResourceSampler {
    settings: SamplerSettings,
    sampler: Option<Sampler>,
    thresholds: HashMap<String, Threshold>,
    rollup: Rollup,
    journal: JournalHandle,
    clock: Clock,
    newest: Arc<ArcSwapOption<ResourceSample>>,
    troubles: Troubles,
    busy: bool,
    _guard: Guard,
}

impl ResourceSampler {
    pub fn new(
        settings: SamplerSettings,
        journal: JournalHandle,
        clock: Clock,
        newest: Arc<ArcSwapOption<ResourceSample>>,
        troubles: Troubles,
        guard: Guard,
    ) -> ResourceSampler {
        ResourceSampler {
            settings,
            sampler: None,
            thresholds: HashMap::new(),
            rollup: Rollup::new(SERIES_MAX),
            journal,
            clock,
            newest,
            troubles,
            busy: false,
            _guard: guard,
        }
    }

    fn take(&mut self, sample: ResourceSample) {
        let now = self.clock.now();
        let events = self.judge(&sample);
        for (series, value) in sample.series() {
            self.rollup.add(&series, now.as_millisecond(), value);
        }
        let rows: Vec<SampleRow> = self
            .rollup
            .flush(now.as_millisecond())
            .iter()
            .map(sample_row)
            .collect();
        if !rows.is_empty() {
            // Measurements are droppable: a busy journal loses a minute of them, nothing else.
            drop(self.journal.try_commit(Commit::Samples(rows)));
        }
        if !events.is_empty()
            && self
                .journal
                .try_commit(Commit::system(events, now))
                .is_err()
        {
            // Crossings are told again by the next sample.
            self.thresholds.clear();
        }
        self.guard_disk(&sample);
        self.newest.store(Some(Arc::new(sample)));
    }

    fn judge(&mut self, sample: &ResourceSample) -> Vec<SystemEvent> {
        let resources = &self.settings.resources;
        let mut watched = Vec::new();
        watched.extend(
            sample
                .memory
                .map(|m| ("memory".to_owned(), m.percent, resources.memory_percent)),
        );
        watched.extend(
            sample
                .cpu_percent
                .map(|v| ("cpu".to_owned(), v, resources.cpu_percent)),
        );
        for disk in &sample.disks {
            watched.push((
                format!("disk {}", disk.mount),
                disk.usage.percent,
                resources.disk_percent,
            ));
        }
        let mut events = Vec::new();
        for (resource, value, limit) in watched {
            let known = self
                .thresholds
                .get(&resource)
                .is_some_and(|t| t.limit() == limit);
            if !known {
                let fresh = Threshold::new(limit, CLEAR_MARGIN, GOOD_NEEDED);
                self.thresholds.insert(resource.clone(), fresh);
            }
            let crossed = self
                .thresholds
                .get_mut(&resource)
                .and_then(|t| t.observe(value));
            events.extend(crossed.map(|crossed| match crossed {
                Crossed::Over => SystemEvent::ResourceOver {
                    resource,
                    value,
                    limit,
                },
                Crossed::Recovered => SystemEvent::ResourceRecovered {
                    resource,
                    value,
                    limit,
                },
            }));
        }
        events
    }

    /// A nearly full disk under the store is weir's own trouble, before it is an error.
    fn guard_disk(&self, sample: &ResourceSample) {
        let holds = |mount: &str| self.settings.data_dir.starts_with(mount);
        let under = sample
            .disks
            .iter()
            .filter(|d| holds(&d.mount))
            .max_by_key(|d| d.mount.len());
        let Some(disk) = under else { return };
        let free = disk.usage.total_bytes.saturating_sub(disk.usage.used_bytes);
        if free < DISK_NEEDED {
            let message = format!(
                "{} MiB are left on {} under {}; free some space, or weir must refuse new events",
                free >> 20,
                disk.mount,
                self.settings.data_dir.display()
            );
            self.troubles.raise(DISK, &message);
        } else {
            self.troubles.clear(DISK);
        }
    }
}

fn sample_row(bucket: &weir_model::rollup::Bucket) -> SampleRow {
    SampleRow {
        series: bucket.series.clone(),
        width_seconds: match bucket.resolution {
            Resolution::Minute => 60,
            Resolution::Hour => 3600,
        },
        at: Timestamp::from_millisecond(bucket.start_ms).unwrap_or(Timestamp::UNIX_EPOCH),
        min: bucket.min,
        max: bucket.max,
        mean: bucket.mean(),
        count: u32::try_from(bucket.count).unwrap_or(u32::MAX),
    }
}

impl Actor for ResourceSampler {
    type Context = Context<ResourceSampler>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.notify(TakeSample);
    }
}

impl Handler<TakeSample> for ResourceSampler {
    type Result = ();

    fn handle(&mut self, _: TakeSample, ctx: &mut Self::Context) {
        ctx.notify_later(TakeSample, self.settings.resources.interval);
        if std::mem::replace(&mut self.busy, true) {
            return;
        }
        let sampler = self.sampler.take();
        let options = SamplerOptions {
            processes: self.settings.resources.processes.clone(),
        };
        let measured = async move {
            tokio::task::spawn_blocking(move || {
                let mut sampler = sampler.unwrap_or_else(|| Sampler::new(options));
                let sample = sampler.sample();
                (sampler, sample)
            })
            .await
            .ok()
        };
        ctx.spawn(
            measured
                .into_actor(self)
                .map(|measured, actor: &mut Self, _| {
                    actor.busy = false;
                    if let Some((sampler, sample)) = measured {
                        actor.sampler = Some(sampler);
                        actor.take(sample);
                    }
                }),
        );
    }
}

impl Handler<SetSampling> for ResourceSampler {
    type Result = ();

    fn handle(&mut self, SetSampling(resources): SetSampling, _: &mut Self::Context) {
        self.sampler = None;
        self.settings.resources = resources;
    }
}

impl Handler<Panic> for ResourceSampler {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("asked to panic by a test");
    }
}
