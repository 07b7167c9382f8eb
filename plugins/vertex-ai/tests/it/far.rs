//! The host in small: a clock, a way to the fake, and what a real host keeps between polls.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use vertex_ai::bindings::exports::weir::plugin::jobs::{Coverage, Page};
use vertex_ai::config::Config;
use vertex_ai::source::Source;
use weir_sdk::bindings::weir::plugin::types::{Job, JobRef, JobState, Observation};
use weir_sdk::{Failure, FailureKind, Far, Level, Request, Response, failure};

use crate::fake::{Fake, Fault};

pub(crate) const NOW: u64 = 1_800_000_000_000;
const BASE: &str = "https://vertex.test";

pub(crate) struct Way {
    pub(crate) now: Cell<u64>,
    /// Milliseconds that each request takes.
    pub(crate) delay: Cell<u64>,
    pub(crate) fake: RefCell<Fake>,
    pub(crate) log: RefCell<Vec<String>>,
    /// Requests of the running call.
    pub(crate) requests: Cell<u32>,
}

impl Way {
    pub(crate) fn new() -> Way {
        Way {
            now: Cell::new(NOW),
            delay: Cell::new(0),
            fake: RefCell::default(),
            log: RefCell::default(),
            requests: Cell::new(0),
        }
    }

    pub(crate) fn later(&self, milliseconds: u64) {
        self.now.set(self.now.get() + milliseconds);
    }

    /// `METHOD /path` of each request since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        let asked = self.fake.borrow_mut().take_asked();
        asked.iter().map(crate::fake::Asked::line).collect()
    }

    pub(crate) fn assert_nothing_wrong(&self) {
        assert_eq!(self.fake.borrow().wrongs, Vec::<String>::new());
    }
}

impl Far for Way {
    fn now(&self) -> u64 {
        self.now.get()
    }

    fn log(&self, _level: Level, message: &str) {
        self.log.borrow_mut().push(message.to_owned());
    }

    fn send(&self, request: Request) -> Result<Response, Failure> {
        self.requests.set(self.requests.get() + 1);
        assert!(
            self.requests.get() <= 32,
            "the host allows 32 requests in a call"
        );
        assert_eq!(request.credential.as_deref(), Some("gcp"));
        self.later(self.delay.get());
        let url = request.url.strip_prefix(BASE).unwrap();
        let body = request.body.unwrap_or_default();
        let answer = self
            .fake
            .borrow_mut()
            .answer(&request.method, url, None, &body, self.now());
        match answer.fault {
            Some(Fault::TooLarge) => Err(failure::permanent(
                "too-large: the answer has more than 8388608 bytes",
            )),
            Some(Fault::Silent) => Err(failure::transient("timeout: no answer within 14s")),
            _ => Ok(Response {
                status: answer.status,
                headers: answer.headers,
                body: answer.body,
            }),
        }
    }

    fn fetch(&self, _request: Request) -> Result<Response, Failure> {
        Err(failure::permanent("not used"))
    }
}

pub(crate) fn config(more: &str) -> Config {
    let locations = if more.contains("\"locations\"") {
        ""
    } else {
        r#", "locations": ["us-central1"]"#
    };
    Config::parse(&format!(
        r#"{{"projects": ["demo"], "base_url": "{BASE}", "logging_url": "{BASE}"{locations}{more}}}"#
    ))
    .unwrap()
}

pub(crate) fn source(more: &str) -> Source {
    Source::new(config(more))
}

pub(crate) fn is_final(state: JobState) -> bool {
    matches!(
        state,
        JobState::Completed
            | JobState::Partial
            | JobState::Failed
            | JobState::Cancelled
            | JobState::Timeout
    )
}

/// What one round came to.
#[derive(Debug)]
pub(crate) enum End {
    /// Every unfinished job was named but these.
    Complete(Vec<String>),
    Partial,
    Failed(Failure),
}

impl End {
    pub(crate) fn missing(self) -> Vec<String> {
        match self {
            End::Complete(missing) => missing,
            end => panic!("{end:?}"),
        }
    }

    pub(crate) fn failure(self) -> Failure {
        match self {
            End::Failed(failure) => failure,
            end => panic!("{end:?}"),
        }
    }
}

/// Keeps the last view of each job and hands the unfinished ones over.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) jobs: BTreeMap<String, Job>,
    pub(crate) cursor: Option<String>,
    pub(crate) pages: usize,
    /// Views that were told in the last round.
    pub(crate) told: usize,
}

impl Host {
    pub(crate) fn open(&self) -> Vec<JobRef> {
        let open = self.jobs.values().filter(|job| !is_final(job.state));
        open.map(|job| JobRef {
            id: job.id.clone(),
            run: None,
        })
        .collect()
    }

    pub(crate) fn poll(&self, source: &mut Source, way: &Way) -> Result<Page, Failure> {
        way.requests.set(0);
        let page = source.poll(way, self.cursor.as_deref(), &self.open())?;
        assert!(page.cursor.as_ref().unwrap().len() < 64 * 1024);
        assert!(page.observations.len() <= 5000);
        Ok(page)
    }

    /// One round, with all its pages.
    pub(crate) fn round(&mut self, source: &mut Source, way: &Way) -> End {
        let mut missing: Vec<String> = self.open().into_iter().map(|open| open.id).collect();
        self.pages = 0;
        self.told = 0;
        loop {
            let page = match self.poll(source, way) {
                Ok(page) => page,
                Err(failure) => return End::Failed(failure),
            };
            self.pages += 1;
            let coverage = page.coverage;
            self.take(page, &mut missing);
            match coverage {
                Coverage::More => assert!(self.pages < 100, "the host allows 100 pages in a round"),
                Coverage::Complete => return End::Complete(missing),
                Coverage::Partial => return End::Partial,
            }
        }
    }

    pub(crate) fn take(&mut self, page: Page, missing: &mut Vec<String>) {
        self.cursor = page.cursor;
        for observation in page.observations {
            let Observation::Job(mut job) = observation else {
                panic!("only jobs")
            };
            self.told += 1;
            missing.retain(|missing| *missing != job.id);
            if let Some(known) = self.jobs.get(&job.id) {
                assert!(
                    !is_final(known.state) || known.state == job.state,
                    "{} rose from the dead",
                    job.id
                );
                // As the real host: a view without steps says nothing about them.
                if job.steps.is_empty() {
                    job.steps.clone_from(&known.steps);
                }
            }
            self.jobs.insert(job.id.clone(), job);
        }
    }

    pub(crate) fn job(&self, id: &str) -> &Job {
        let end = format!("/{id}");
        let found = self.jobs.values().find(|job| job.id.ends_with(&end));
        found.unwrap_or_else(|| panic!("no job {id}"))
    }
}

pub(crate) fn kind(failure: &Failure) -> FailureKind {
    failure.kind.unwrap()
}
