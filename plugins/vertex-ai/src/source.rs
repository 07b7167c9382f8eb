//! One Vertex AI source: how it is checked and polled, and what an instance remembers to save requests.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use weir_sdk::bindings::weir::plugin::types::{Job, JobRef, Step};
use weir_sdk::{Failure, FailureKind, Far};

use crate::bindings::exports::weir::plugin::jobs::Page;
use crate::client::Client;
use crate::config::Config;
use crate::cursor::{Cursor, Pause};
use crate::name::Scope;
use crate::round::{self, list};

/// Places that a check asks; more would take longer than a check may.
const PROBES_MAX: usize = 12;
/// Finished jobs that were told; those of one window.
const SEEN_MAX: usize = 20_000;

/// Saves requests, and nothing depends on it: an instance may be dropped between any two calls.
#[derive(Debug, Default)]
pub struct Memory {
    pub round: Option<RoundMemory>,
    /// Finished jobs whose end the host has on disk.
    pub seen: Seen,
    /// Tasks of running pipelines, as they were last read.
    pub steps: HashMap<String, Vec<Step>>,
    /// Open jobs that no list shows.
    pub hidden: HashMap<String, Hidden>,
    /// As in the cursor: a failed poll keeps no cursor.
    pub pauses: BTreeMap<String, Pause>,
    /// What was logged about which scope, and when.
    pub logged: BTreeMap<String, (String, u64)>,
    /// A round that ended in a failure while the host's cursor stands in its middle.
    pub abandoned: Option<u64>,
}

/// What the pages of one round said.
#[derive(Debug, Default)]
pub struct RoundMemory {
    pub started: u64,
    pub mentioned: HashSet<u64>,
    /// Pipelines that run.
    pub running: BTreeSet<String>,
    /// Pipelines that ended, held back until their tasks were read.
    pub held: HashMap<String, Job>,
}

#[derive(Debug)]
pub struct Hidden {
    pub asked: u64,
    /// None: the provider does not know it.
    pub view: Option<Job>,
}

/// Digests of what was told, oldest first. What a page tells is known to be durable when its cursor comes back.
#[derive(Debug, Default)]
pub struct Seen {
    order: VecDeque<u64>,
    known: HashSet<u64>,
    unconfirmed: Option<(String, Vec<u64>)>,
}

impl Seen {
    pub fn contains(&self, digest: u64) -> bool {
        self.known.contains(&digest)
    }

    /// The host hands `cursor` in: the page that ended with it is durable, any other one may not be.
    pub fn confirm(&mut self, cursor: Option<&str>) {
        let Some((with, told)) = self.unconfirmed.take() else {
            return;
        };
        if Some(with.as_str()) != cursor {
            return;
        }
        for digest in told {
            if self.known.insert(digest) {
                self.order.push_back(digest);
            }
        }
        while self.order.len() > SEEN_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    pub fn tell(&mut self, cursor: String, told: Vec<u64>) {
        self.unconfirmed = Some((cursor, told));
    }
}

/// A short name of a text.
pub fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[derive(Debug)]
pub struct Source {
    pub config: Config,
    scopes: Vec<Scope>,
    memory: Memory,
}

impl Source {
    pub fn new(config: Config) -> Source {
        Source {
            scopes: config.scopes(),
            config,
            memory: Memory::default(),
        }
    }

    /// Asks each place for one job; changes nothing. One place that answers is enough: what the others refuse is in
    /// the answer, and in every round's log.
    pub fn check(&mut self, far: &impl Far) -> Result<String, Failure> {
        let client = Client::new(far, &self.config);
        let mut failed: Vec<Failure> = Vec::new();
        let mut good = 0;
        for scope in self.probes() {
            if !client.has_room() {
                break;
            }
            match list::probe(&client, scope) {
                Ok(()) => good += 1,
                Err(failure) => failed.push(failure),
            }
        }
        let asked = good + failed.len();
        let refused: Vec<&str> = failed
            .iter()
            .map(|failure| failure.message.as_str())
            .collect();
        if good > 0 {
            let mut text = format!("Vertex AI, {good} of {asked} lists answered");
            if !refused.is_empty() {
                text.push_str(&format!("; {}", refused.join("; ")));
            }
            return Ok(text);
        }
        // A far side that is down is no reason to park, so one passing failure decides.
        let is_lasting = |failure: &Failure| {
            matches!(
                failure.kind,
                Some(FailureKind::Misconfigured | FailureKind::NotFound | FailureKind::Permanent)
            )
        };
        let kind = if failed.iter().all(is_lasting) {
            FailureKind::Misconfigured
        } else {
            FailureKind::Transient
        };
        Err(Failure {
            message: refused.join("; "),
            kind: Some(kind),
            retry_after_ms: failed
                .iter()
                .filter_map(|failure| failure.retry_after_ms)
                .min(),
        })
    }

    /// Every place with its first kind, then the other kinds.
    fn probes(&self) -> impl Iterator<Item = &Scope> {
        let first = self.scopes.first().map(|scope| scope.kind);
        let is_first = move |scope: &&Scope| Some(scope.kind) == first;
        let rest = self.scopes.iter().filter(move |scope| !is_first(scope));
        self.scopes
            .iter()
            .filter(is_first)
            .chain(rest)
            .take(PROBES_MAX)
    }

    pub fn poll(
        &mut self,
        far: &impl Far,
        cursor: Option<&str>,
        open: &[JobRef],
    ) -> Result<Page, Failure> {
        self.memory.seen.confirm(cursor);
        let turn = round::Turn {
            client: Client::new(far, &self.config),
            config: &self.config,
            scopes: &self.scopes,
            cursor: Cursor::parse(cursor),
            memory: &mut self.memory,
            open,
            jobs: Vec::new(),
            told: Vec::new(),
        };
        turn.run()
    }
}
