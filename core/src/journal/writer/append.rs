//! An append of a workflow actor: refused before anything of it is written, or written whole.

use super::{Batch, Verdict};
use crate::journal::codec::{self, Encoded};
use crate::journal::{Append, Committed, Encoding};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use weir_model::event::{Event, ExecutionEvent};
use weir_model::id::{DEFAULT_WORKSPACE, ExecutionSeq, RunKey, Seq, WorkflowId};

/// Why an append is refused, or the error that ends the batch.
type Refused = rusqlite::Result<Option<String>>;

impl Batch<'_> {
    pub(super) fn append(&mut self, append: Append, encoded: Encoding) -> Verdict {
        if let Some(reason) = self.refuse_version(&append)? {
            return Ok(Err(reason));
        }
        if let Some(reason) = self.refuse_executions(&append)? {
            return Ok(Err(reason));
        }
        let encoded = match encoded {
            Ok(encoded) => encoded,
            Err(reason) => return Ok(Err(reason)),
        };
        let committed = self.number_events(encoded, append.recorded_at, Some(append.workflow));
        self.versions
            .insert(append.workflow, append.expected_version + 1);
        for record in &append.created {
            self.owners.insert(record.seq, append.workflow);
        }
        self.pending.append(append);
        Ok(Ok(committed))
    }

    /// The events were made from the state the store holds, or they mean nothing.
    fn refuse_version(&mut self, append: &Append) -> Refused {
        let (id, expected) = (append.workflow, append.expected_version);
        let version = match self.versions.get(&id) {
            Some(version) => *version,
            None => self
                .connection
                .prepare_cached("SELECT version FROM workflows WHERE id = ?1")?
                .query_row([id.0], |row| row.get(0))
                .optional()?
                .unwrap_or(0),
        };
        if version != expected {
            return Ok(Some(format!(
                "workflow {id} is at version {version}, not {expected}"
            )));
        }
        match &append.new {
            Some(new) if expected == 0 => {
                let taken = self.pending.has_workflow(&new.key)
                    || self
                        .connection
                        .prepare_cached(
                            "SELECT 1 FROM workflows WHERE workspace_id = ?1 AND key = ?2",
                        )?
                        .exists(params![DEFAULT_WORKSPACE, new.key])?;
                Ok(taken.then(|| format!("a workflow {:?} is there already", new.key)))
            }
            None if expected > 0 => Ok(None),
            _ => Ok(Some(format!(
                "workflow {id} at version {expected}: only the first append brings its names"
            ))),
        }
    }

    /// Every execution it is about is created by it, once, or belongs to its workflow already.
    fn refuse_executions(&mut self, append: &Append) -> Refused {
        let mut rows = append.created.iter();
        for (seq, event) in &append.events {
            let ExecutionEvent::Created { key, uuid, .. } = event else {
                continue;
            };
            let row = rows.next().filter(|row| row.seq == *seq);
            if row.is_none_or(|row| row.key != *key || row.uuid != *uuid) {
                return Ok(Some(format!("execution {seq} is created without its row")));
            }
            if self.is_there(*seq, key)? || is_twice(append, *seq, key) {
                return Ok(Some(format!(
                    "run {:?} {:?} of source {} is there already",
                    key.external_id, key.run, key.source
                )));
            }
        }
        if let Some(row) = rows.next() {
            return Ok(Some(format!("execution {} is not created", row.seq)));
        }
        let events = append.events.iter().map(|(seq, _)| *seq);
        let changed = append.changed.iter().map(|change| change.seq);
        let steps = append.steps.iter().map(|change| change.execution);
        let progress = append.progress.iter().map(|row| row.execution);
        let mut asked = None;
        for seq in events.chain(changed).chain(steps).chain(progress) {
            // Most appends are about one execution.
            if asked.replace(seq) == Some(seq) {
                continue;
            }
            let created = append.created.iter().any(|record| record.seq == seq);
            if !created && self.owner(seq)? != Some(append.workflow) {
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
        events: Vec<Encoded>,
        at: Timestamp,
        workflow: Option<WorkflowId>,
    ) -> Committed {
        let first = self.head + 1;
        for encoded in events {
            self.head += 1;
            self.pending.event(at, workflow, encoded);
        }
        Committed {
            first_seq: Seq(first),
            last_seq: Seq(self.head),
        }
    }

    /// Events that belong to no workflow.
    pub(super) fn facts(&mut self, events: impl Iterator<Item = Event>, at: Timestamp) -> Verdict {
        let encoded: Result<Vec<_>, _> = events.map(|event| codec::encode(&event)).collect();
        match encoded {
            Ok(events) => Ok(Ok(self.number_events(events, at, None))),
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}

/// The append itself creates the execution, or another of its run, more than once.
fn is_twice(append: &Append, seq: ExecutionSeq, key: &RunKey) -> bool {
    let same =
        |record: &&weir_model::workflow::ExecutionRecord| record.seq == seq || record.key == *key;
    append.created.iter().filter(same).count() > 1
}

pub(super) fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_microsecond)
}
