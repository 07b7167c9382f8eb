//! An append of a workflow actor: refused before anything of it is written, or written whole.

use super::{Batch, Verdict};
use crate::journal::codec::{self, Encoded};
use crate::journal::{Append, Committed, EventRow};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use std::collections::{HashMap, HashSet};
use weir_model::event::{DeclaredStep, Event, ExecutionEvent};
use weir_model::id::{DEFAULT_WORKSPACE, ExecutionSeq, RunKey, Seq, WorkflowId};
use weir_model::workflow::Step;

/// Why an append is refused, or the error that ends the batch.
type Refused = rusqlite::Result<Option<String>>;

impl Batch<'_> {
    pub(super) fn append(&mut self, append: Append) -> Verdict {
        if let Some(reason) = self.refuse_version(&append)? {
            return Ok(Err(reason));
        }
        if let Some(reason) = self.refuse_executions(&append)? {
            return Ok(Err(reason));
        }
        let encoded = match encode(&append) {
            Ok(encoded) => encoded,
            Err(reason) => return Ok(Err(reason)),
        };
        self.pending.workflow(&append);
        let version = append.expected_version + 1;
        self.versions.insert(append.workflow, version);
        let created: HashSet<ExecutionSeq> = created(&append).collect();
        for record in append.executions {
            let is_new = created.contains(&record.seq);
            self.owners.insert(record.seq, append.workflow);
            self.pending.execution(append.workflow, record, is_new);
        }
        for (execution, index, step) in append.steps {
            self.pending.step(execution, index, step);
        }
        for row in append.progress {
            self.pending.progress(row);
        }
        let events = append
            .events
            .into_iter()
            .map(|(seq, event)| Event::Execution(seq, event));
        let committed = self.number_events(
            events.zip(encoded),
            append.recorded_at,
            Some(append.workflow),
        );
        Ok(Ok(committed))
    }

    /// The events were made from the state the store holds, or they mean nothing.
    fn refuse_version(&mut self, append: &Append) -> Refused {
        let (id, expected) = (append.workflow, append.expected_version);
        let known = match self.versions.get(&id) {
            Some(version) => Some(*version),
            None => self
                .connection
                .prepare_cached("SELECT version FROM workflows WHERE id = ?1")?
                .query_row([id.0], |row| row.get(0))
                .optional()?,
        };
        if let Some(version) = known {
            self.versions.insert(id, version);
        }
        let version = known.unwrap_or(0);
        if version != expected {
            return Ok(Some(format!(
                "workflow {id} is at version {version}, not {expected}"
            )));
        }
        if expected == 0 {
            let taken = self.pending.has_workflow(&append.key)
                || self
                    .connection
                    .prepare_cached("SELECT 1 FROM workflows WHERE workspace_id = ?1 AND key = ?2")?
                    .exists(params![DEFAULT_WORKSPACE, append.key])?;
            if taken {
                return Ok(Some(format!(
                    "a workflow {:?} is there already",
                    append.key
                )));
            }
        }
        Ok(None)
    }

    /// Every execution it is about is created by it, once, or belongs to its workflow already.
    fn refuse_executions(&mut self, append: &Append) -> Refused {
        let mut created: HashMap<ExecutionSeq, &RunKey> = HashMap::new();
        let mut keys: HashSet<&RunKey> = HashSet::new();
        for (seq, event) in &append.events {
            let ExecutionEvent::Created { key, uuid, .. } = event else {
                continue;
            };
            let row = append.executions.iter().find(|record| record.seq == *seq);
            if row.is_none_or(|record| record.key != *key || record.uuid != *uuid) {
                return Ok(Some(format!("execution {seq} is created without its row")));
            }
            let twice = created.insert(*seq, key).is_some() || !keys.insert(key);
            if twice || self.is_there(*seq, key)? {
                return Ok(Some(format!(
                    "run {:?} {:?} of source {} is there already",
                    key.external_id, key.run, key.source
                )));
            }
        }
        let events = append.events.iter().map(|(seq, _)| *seq);
        let rows = append.executions.iter().map(|record| record.seq);
        let steps = append.steps.iter().map(|(seq, ..)| *seq);
        let progress = append.progress.iter().map(|row| row.execution);
        let mut asked = None;
        for seq in events.chain(rows).chain(steps).chain(progress) {
            // Most appends are about one execution.
            if asked.replace(seq) == Some(seq) {
                continue;
            }
            if !created.contains_key(&seq) && self.owner(seq)? != Some(append.workflow) {
                return Ok(Some(format!(
                    "workflow {} has no execution {seq}",
                    append.workflow
                )));
            }
        }
        Ok(None)
    }

    fn is_there(&mut self, seq: ExecutionSeq, key: &RunKey) -> rusqlite::Result<bool> {
        if self.pending.has_run(key) || self.owner(seq)?.is_some() {
            return Ok(true);
        }
        self.connection
            .prepare_cached(
                "SELECT 1 FROM executions WHERE source = ?1 AND external_id = ?2 AND run = ?3",
            )?
            .exists(params![key.source.0, key.external_id, key.run])
    }

    /// The workflow an execution belongs to, remembered from the last time it was asked.
    fn owner(&mut self, seq: ExecutionSeq) -> rusqlite::Result<Option<WorkflowId>> {
        if let Some(owner) = self.owners.get(&seq) {
            return Ok(Some(*owner));
        }
        let owner: Option<i64> = self
            .connection
            .prepare_cached("SELECT workflow FROM executions WHERE seq = ?1")?
            .query_row([seq.0], |row| row.get(0))
            .optional()?;
        let owner = owner.map(WorkflowId);
        if let Some(owner) = owner {
            self.owners.insert(seq, owner);
        }
        Ok(owner)
    }

    /// Numbers the events, to be written at the end of the batch.
    pub(super) fn number_events(
        &mut self,
        events: impl Iterator<Item = (Event, Encoded)>,
        at: Timestamp,
        workflow: Option<WorkflowId>,
    ) -> Committed {
        let first = self.head + 1;
        for (event, encoded) in events {
            self.head += 1;
            if self.followed {
                self.events.push(EventRow {
                    seq: Seq(self.head),
                    at,
                    kind: event.kind(),
                    workflow,
                    execution: encoded.execution,
                    step: encoded.step,
                    event,
                });
            }
            self.pending.event(at, workflow, encoded);
        }
        Committed {
            first_seq: Seq(first),
            last_seq: Seq(self.head),
        }
    }

    /// Events that belong to no workflow.
    pub(super) fn facts(&mut self, events: impl Iterator<Item = Event>, at: Timestamp) -> Verdict {
        let encoded: Result<Vec<_>, _> = events
            .map(|event| codec::encode(&event).map(|encoded| (event, encoded)))
            .collect();
        match encoded {
            Ok(events) => Ok(Ok(self.number_events(events.into_iter(), at, None))),
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}

fn created(append: &Append) -> impl Iterator<Item = ExecutionSeq> {
    let is_creation = |event: &ExecutionEvent| matches!(event, ExecutionEvent::Created { .. });
    append
        .events
        .iter()
        .filter(move |(_, event)| is_creation(event))
        .map(|(seq, _)| *seq)
}

fn encode(append: &Append) -> Result<Vec<Encoded>, String> {
    let mut declared: Option<Declared<'_>> = None;
    let mut encoded = Vec::with_capacity(append.events.len());
    for (seq, event) in &append.events {
        let first = match event {
            ExecutionEvent::Declared { steps } => declared
                .get_or_insert_with(|| Declared::of(append))
                .first(*seq, steps)
                .ok_or_else(|| format!("execution {seq} declares steps without their rows"))?,
            _ => 0,
        };
        encoded.push(codec::encode_execution(*seq, event, first).map_err(|e| e.to_string())?);
    }
    Ok(encoded)
}

/// The rows of an append's steps, by index and by the provider's id.
struct Declared<'a> {
    rows: HashMap<(ExecutionSeq, u32), &'a Step>,
    indexes: HashMap<(ExecutionSeq, &'a str), u32>,
}

impl<'a> Declared<'a> {
    fn of(append: &'a Append) -> Declared<'a> {
        let steps = append.steps.iter();
        Declared {
            rows: steps.clone().map(|(s, i, step)| ((*s, *i), step)).collect(),
            indexes: steps
                .map(|(s, i, step)| ((*s, &*step.external_id), *i))
                .collect(),
        }
    }

    /// Where the declared steps begin, if their rows are here: the event's payload is those rows.
    fn first(&self, seq: ExecutionSeq, steps: &[DeclaredStep]) -> Option<u32> {
        let Some(one) = steps.first() else {
            return Some(0);
        };
        let first = *self.indexes.get(&(seq, one.external_id.as_str()))?;
        let all_there = (first..).zip(steps).all(|(index, declared)| {
            self.rows.get(&(seq, index)).is_some_and(|row| {
                *row.external_id == declared.external_id && *row.name == declared.name
            })
        });
        all_there.then_some(first)
    }
}

pub(super) fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_microsecond)
}
