//! A journal in a temporary directory and small workflows to fill it with.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of a test function"
)]

use jiff::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;
use uuid::Uuid;
use weir_core::journal::{
    Append, Commit, Committed, Durability, ExecutionChange, Journal, JournalHandle, JournalOptions,
    NewWorkflow, OpenError, Retention, SourceCommit, SourceRow, StepChange,
};
use weir_model::event::{DeclaredStep, ExecutionEvent, Outcome};
use weir_model::id::{ExecutionSeq, RunKey, SourceId, WorkflowId};
use weir_model::status::StepStatus;
use weir_model::workflow::{Execution, Workflow};

/// 2026-01-01, in microseconds.
pub(crate) const START: i64 = 1_767_225_600_000_000;
pub(crate) const SOURCE: SourceId = SourceId(1);

/// A journal with a clock that is set by hand.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    clock: Arc<AtomicI64>,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        Fixture {
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(AtomicI64::new(START)),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.clock.load(Ordering::SeqCst)).unwrap()
    }

    pub(crate) fn advance_days(&self, days: i64) {
        self.clock
            .fetch_add(days * 86_400_000_000, Ordering::SeqCst);
    }

    pub(crate) fn options(&self) -> JournalOptions {
        let clock = self.clock.clone();
        let now = move || Timestamp::from_microsecond(clock.load(Ordering::SeqCst)).unwrap();
        JournalOptions {
            durability: Durability::Process,
            retention: Retention {
                age: None,
                size: None,
            },
            ..JournalOptions::new(self.dir.path().to_owned(), Arc::new(now))
        }
    }

    pub(crate) fn open(&self) -> Journal {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> Result<Journal, OpenError> {
        Journal::open(self.options())
    }

    pub(crate) fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("weir.db")
    }
}

pub(crate) fn source(now: Timestamp) -> Commit {
    Commit::Source(SourceCommit {
        row: SourceRow {
            id: SOURCE,
            name: "studio".to_owned(),
            plugin: "comfyui".to_owned(),
            generation: 1,
            config_hash: None,
            created_at: now,
            first_contact_at: Some(now),
            contact_at: Some(now),
            stale_since: None,
            stale_error: None,
            suspect: false,
            configured: true,
            forgotten_before: None,
            complete_round: None,
        },
        cursor: None,
        events: Vec::new(),
        recorded_at: now,
    })
}

pub(crate) fn key(external_id: &str) -> RunKey {
    RunKey {
        source: SOURCE,
        external_id: external_id.to_owned(),
        run: String::new(),
    }
}

pub(crate) fn created(key: &RunKey, number: i64) -> ExecutionEvent {
    ExecutionEvent::Created {
        uuid: Uuid::new_v4(),
        key: key.clone(),
        number,
        name: Some("portrait".to_owned()),
        imported: false,
        created_at: Some(Timestamp::from_microsecond(START + 7).unwrap()),
        labels: vec![("client".to_owned(), "ui".to_owned())],
        detail: Some(r#"{"nodes":2}"#.to_owned()),
    }
}

pub(crate) fn declared() -> ExecutionEvent {
    ExecutionEvent::Declared {
        steps: ["4", "9"]
            .map(|id| DeclaredStep {
                external_id: id.to_owned(),
                name: format!("node {id}"),
            })
            .to_vec(),
    }
}

pub(crate) fn step_finished(step: u32) -> ExecutionEvent {
    ExecutionEvent::StepFinished {
        step,
        status: StepStatus::Completed,
        started_at: None,
        at: Some(Timestamp::from_microsecond(START + 9).unwrap()),
        error: None,
    }
}

pub(crate) fn finished(status: weir_model::status::Status) -> ExecutionEvent {
    ExecutionEvent::Finished {
        status,
        late: false,
        outcome: Outcome::default(),
    }
}

/// A workflow as its actor holds it, with the version of its next append.
pub(crate) struct Actor {
    pub(crate) workflow: Workflow,
    pub(crate) version: i64,
}

impl Actor {
    pub(crate) fn new(id: WorkflowId, key: &str) -> Actor {
        Actor {
            workflow: Workflow::new(id, key.to_owned()),
            version: 0,
        }
    }

    /// Applies the events and makes the append that stores them.
    pub(crate) fn append(
        &mut self,
        events: Vec<(ExecutionSeq, ExecutionEvent)>,
        at: Timestamp,
    ) -> Append {
        let mut seqs: Vec<ExecutionSeq> = Vec::new();
        let (mut new, mut declared) = (Vec::new(), Vec::new());
        for (seq, event) in &events {
            match event {
                ExecutionEvent::Created { .. } => new.push(*seq),
                ExecutionEvent::Declared { .. } => {
                    let known = self.workflow.execution(*seq);
                    declared.push(known.map_or(0, |e| u32::try_from(e.steps.len()).unwrap()));
                }
                _ => {}
            }
            self.workflow.apply(*seq, event, at);
            if !seqs.contains(seq) {
                seqs.push(*seq);
            }
        }
        let touched: Vec<&Execution> = seqs
            .iter()
            .filter_map(|seq| self.workflow.execution(*seq))
            .collect();
        let is_new = |e: &&&Execution| new.contains(&e.record.seq);
        let append = Append {
            workflow: self.workflow.id,
            new: (self.version == 0).then(|| NewWorkflow {
                key: self.workflow.key.clone(),
                name: "Portrait".to_owned(),
            }),
            expected_version: self.version,
            recorded_at: at,
            created: touched
                .iter()
                .filter(is_new)
                .map(|e| e.record.clone())
                .collect(),
            changed: touched
                .iter()
                .filter(|e| !is_new(e))
                .map(|e| ExecutionChange::of(&e.record))
                .collect(),
            declared,
            steps: touched
                .iter()
                .flat_map(|e| {
                    (0u32..)
                        .zip(&e.steps)
                        .map(|(i, s)| StepChange::of(e.record.seq, i, s))
                })
                .collect(),
            progress: Vec::new(),
            last_number: self.workflow.last_number,
            events,
        };
        self.version += 1;
        append
    }

    /// A run that is created, declares two steps, starts and does one step.
    pub(crate) fn begin(&mut self, seq: ExecutionSeq, key: &RunKey, at: Timestamp) -> Append {
        let number = self.workflow.last_number + 1;
        let events = vec![
            (seq, created(key, number)),
            (seq, declared()),
            (
                seq,
                ExecutionEvent::Started {
                    started_at: Some(at),
                    attempt: 1,
                },
            ),
            (seq, ExecutionEvent::StepStarted { step: 0, at: None }),
            (seq, step_finished(0)),
        ];
        self.append(events, at)
    }
}

pub(crate) fn append(handle: &JournalHandle, append: Append) -> Committed {
    handle.commit_blocking(Commit::Append(append)).unwrap()
}

/// Stores `count` runs of one workflow from start to end, and returns their numbers.
pub(crate) fn finished_runs(
    handle: &JournalHandle,
    actor: &mut Actor,
    count: usize,
    at: Timestamp,
) -> Vec<ExecutionSeq> {
    (0..count)
        .map(|_| {
            let seq = handle.next_execution_seq();
            append(handle, actor.begin(seq, &key(&format!("p{seq}")), at));
            let events = vec![(seq, finished(weir_model::status::Status::Completed))];
            append(handle, actor.append(events, at));
            seq
        })
        .collect()
}

pub(crate) fn count(path: &Path, table: &str) -> i64 {
    let connection = rusqlite::Connection::open(path).unwrap();
    let sql = format!("SELECT count(*) FROM {table}");
    connection.query_row(&sql, [], |row| row.get(0)).unwrap()
}
