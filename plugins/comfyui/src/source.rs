//! One ComfyUI server: how a poll of it begins and ends, and what an instance remembers to save requests.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weir_sdk::bindings::weir::plugin::types::{Job, JobRef, Observation, Step};
use weir_sdk::{Failure, Far, Level, failure, text};

use crate::bindings::exports::weir::plugin::jobs::{Coverage, Page};
use crate::client::{Client, Trouble};
use crate::config::Config;
use crate::cursor::{Cursor, Mode};
use crate::job::{Key, Views};
use crate::memory;
use crate::round;
use crate::wire::{Jobs, Listed, SystemStats};

/// How long version and mode are believed.
const PROBE_EVERY: u64 = 10 * 60 * 1000;
/// How often the memory of the devices is asked for, and how long an answer may take.
const MEASURE_EVERY: u64 = 15_000;
const MEASURE_TIMEOUT_MS: u32 = 2000;
/// The host takes 5 000.
const OBSERVATIONS_MAX: usize = 4900;
/// Pages of one round; the host takes 100.
const PAGES_MAX: u32 = 50;
/// A cursor, a label and a name stay small.
const VERSION_MAX: usize = 64;

/// Saves requests, and nothing depends on it: an instance may be dropped between any two calls.
#[derive(Debug, Default)]
pub struct Memory {
    /// Nodes of unfinished prompts, where they were read; empty = could not be read.
    pub graphs: HashMap<Key, Vec<Step>>,
    /// Jobs that were in neither queue nor history, and when.
    pub gone: BTreeMap<Key, u64>,
    /// Finished jobs that the list showed and the history did not yet.
    pub unexplained: HashMap<Key, Listed>,
    pub queue: round::queue::Memory,
    pub stream: crate::stream::Memory,
    /// When the terminal was read, and whether it told of the worker's end.
    pub terminal: (Option<u64>, bool),
    /// When the memory of the devices was asked for.
    pub measured: Option<u64>,
    /// Pages since a round began.
    pages: u32,
}

#[derive(Debug)]
pub struct Source {
    pub(crate) config: Config,
    /// The source's own, the same in every instance: the client id of its socket and of what is submitted through it.
    pub(crate) uuid: String,
    pub(crate) memory: Memory,
}

/// What one call found.
#[derive(Debug)]
pub struct Found {
    /// In the order in which they shall be told.
    pub jobs: Vec<Job>,
    pub coverage: Coverage,
}

/// What a round works with.
pub struct Context<'a, F> {
    pub client: Client<'a, F>,
    pub config: &'a Config,
    pub cursor: &'a mut Cursor,
    pub memory: &'a mut Memory,
    /// The unfinished jobs that the host knows.
    pub open: BTreeSet<Key>,
    pub now: u64,
}

impl Source {
    pub fn new(config: Config, uuid: String) -> Source {
        Source {
            config,
            uuid,
            memory: Memory::default(),
        }
    }

    /// Asks for the version and the job list; changes nothing.
    pub fn check(&mut self, far: &impl Far) -> Result<String, Failure> {
        let client = Client::new(far, &self.config);
        let version = match client.json::<SystemStats>("/system_stats") {
            Ok(stats) => version(&stats),
            Err(Trouble::Status(404, _)) => None,
            Err(Trouble::Status(401 | 403 | 407, failure)) => {
                return Err(failure::misconfigured(failure.message));
            }
            Err(trouble) => return Err(trouble.into()),
        };
        let way = match client.json::<Jobs>("/api/jobs?limit=1") {
            Ok(_) => "/api/jobs",
            Err(Trouble::Status(..)) => "/queue and /history",
            Err(trouble) => return Err(trouble.into()),
        };
        if version.is_none() && way != "/api/jobs" {
            client.json::<crate::wire::Remaining>("/prompt")?;
        }
        let version = version.map_or_else(
            || "ComfyUI of unknown version".to_owned(),
            |version| format!("ComfyUI {version}"),
        );
        Ok(format!(
            "{version}, read through {way}; jobs of the web UI have no live node progress this way"
        ))
    }

    pub fn poll(
        &mut self,
        far: &impl Far,
        cursor: Option<&str>,
        open: &[JobRef],
    ) -> Result<Page, Failure> {
        let mut cursor = Cursor::parse(cursor);
        let client = Client::new(far, &self.config);
        let now = far.now();
        let probing = cursor.mode.is_none()
            || now.saturating_sub(cursor.probed) >= PROBE_EVERY
            || now < cursor.probed;
        let mut gauges = Vec::new();
        if probing {
            self.memory.measured = Some(now);
            match client.json::<SystemStats>("/system_stats") {
                Ok(stats) => {
                    cursor.version = version(&stats);
                    gauges = memory::gauges(&stats);
                }
                Err(Trouble::NoAnswer(failure)) => return Err(failure),
                // Very old servers and some proxies have none.
                Err(_) => {}
            }
        }
        let mut context = Context {
            client,
            config: &self.config,
            cursor: &mut cursor,
            memory: &mut self.memory,
            open: open
                .iter()
                .map(|open| Key {
                    id: open.id.clone(),
                    run: open.run.clone(),
                })
                .collect(),
            now,
        };
        let found = round(&mut context, probing)?;
        for job in found.jobs.iter().filter(|job| job.finished.is_some()) {
            context.memory.stream.forget(&job.id);
        }
        // Only a complete round says what is unfinished.
        let mut notes = match found.coverage {
            Coverage::Complete => context.stalled(&found.jobs),
            Coverage::More | Coverage::Partial => Vec::new(),
        };
        notes.extend(if probing { gauges } else { context.measure() });
        if probing {
            cursor.probed = now;
        }
        Ok(self.page(&cursor, found, notes))
    }

    fn page(&mut self, cursor: &Cursor, found: Found, notes: Vec<Observation>) -> Page {
        let mut coverage = found.coverage;
        let mut observations: Vec<Observation> =
            found.jobs.into_iter().map(Observation::Job).collect();
        if observations.len() > OBSERVATIONS_MAX {
            observations.truncate(OBSERVATIONS_MAX);
            coverage = Coverage::Partial;
        }
        observations.extend(notes);
        self.memory.pages = if matches!(coverage, Coverage::More) {
            self.memory.pages + 1
        } else {
            0
        };
        if self.memory.pages >= PAGES_MAX {
            self.memory.pages = 0;
            coverage = Coverage::Partial;
        }
        Page {
            observations,
            cursor: cursor.to_json(),
            coverage,
        }
    }
}

/// The job list where there is one, else queue and history.
fn round<F: Far>(context: &mut Context<'_, F>, probing: bool) -> Result<Found, Failure> {
    let had = context.cursor.mode;
    if had == Some(Mode::Queue) && !probing {
        return Ok(round::queue::round(context)?);
    }
    let attempt = match round::jobs::round(context) {
        // A proxy that answers 404 to everything fails at the queue as well, and nothing is concluded from it.
        Err(Trouble::Status(404 | 405, _)) => round::queue::round(context),
        attempt => attempt,
    };
    Ok(attempt?)
}

pub(crate) fn version(stats: &SystemStats) -> Option<String> {
    let version = stats.system.comfyui_version.0.as_deref()?;
    Some(text::line(version, VERSION_MAX)).filter(|version| !version.is_empty())
}

impl<F: Far> Context<'_, F> {
    pub fn views(&self) -> Views<'_> {
        Views {
            workflow: self.config.workflow.as_deref(),
            version: self.cursor.version.as_deref(),
            queue_unreadable: self.cursor.unreadable.is_some(),
        }
    }

    /// The memory of the devices, now and then. It is a nicety: no trouble here fails a poll.
    fn measure(&mut self) -> Vec<Observation> {
        let is_due = |at| self.now.saturating_sub(at) >= MEASURE_EVERY || self.now < at;
        if !self.memory.measured.is_none_or(is_due) {
            return Vec::new();
        }
        self.memory.measured = Some(self.now);
        let client = self.client.within(MEASURE_TIMEOUT_MS);
        let stats = client.json::<SystemStats>("/system_stats");
        stats.map_or_else(|_| Vec::new(), |stats| memory::gauges(&stats))
    }

    pub fn warn(&self, message: &str) {
        self.client.far.log(Level::Warn, message);
    }
}
