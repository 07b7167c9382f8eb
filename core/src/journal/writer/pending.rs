//! Rows that a batch will write once, at its end, however often its commits change them.

use super::ById;
use super::append::micros;
use super::rows::json;
use crate::journal::codec::{Encoded, PAYLOAD_VERSION};
use crate::journal::{Append, ExecutionChange, NewWorkflow, ProgressRow, StepChange};
use jiff::Timestamp;
use rusqlite::{Connection, Statement, params};
use std::collections::HashSet;
use std::collections::hash_map::Entry;
use weir_model::event::{DeclaredStep, ExecutionEvent};
use weir_model::id::{DEFAULT_WORKSPACE, ExecutionSeq, RunKey, WorkflowId};
use weir_model::status::{Status, StepStatus};
use weir_model::workflow::ExecutionRecord;

/// The last word of a batch on every row.
#[derive(Default)]
pub(super) struct Pending {
    workflows: ById<WorkflowId, WorkflowRow>,
    executions: ById<ExecutionSeq, Execution>,
    steps: ById<(ExecutionSeq, u32), StepRow>,
    events: Vec<(Timestamp, Option<WorkflowId>, Encoded)>,
    /// Keys of workflows and runs that are not stored yet.
    new_workflows: HashSet<String>,
    new_runs: HashSet<RunKey>,
}

struct WorkflowRow {
    new: Option<NewWorkflow>,
    version: i64,
    last_number: i64,
    at: i64,
}

/// What becomes of one row: created with everything, or changed in part.
#[derive(Default)]
struct Execution {
    created: Option<(WorkflowId, Box<ExecutionRecord>)>,
    changed: Option<ExecutionChange>,
    progress: Option<ProgressRow>,
}

struct StepRow {
    /// Set where this batch creates the row.
    declared: Option<DeclaredStep>,
    change: StepChange,
}

impl Pending {
    /// With room for as many events.
    pub(super) fn with_capacity(events: usize) -> Pending {
        Pending {
            events: Vec::with_capacity(events),
            ..Pending::default()
        }
    }

    pub(super) fn has_workflow(&self, key: &str) -> bool {
        self.new_workflows.contains(key)
    }

    pub(super) fn has_run(&self, key: &RunKey) -> bool {
        self.new_runs.contains(key)
    }

    /// Takes the rows of an append that was found good.
    pub(super) fn append(&mut self, append: Append) {
        self.workflow(&append);
        if let Some(new) = append.new {
            self.new_workflows.insert(new.key.clone());
            if let Some(row) = self.workflows.get_mut(&append.workflow) {
                row.new = Some(new);
            }
        }
        for record in append.created {
            self.new_runs.insert(record.key.clone());
            let row = self.executions.entry(record.seq).or_default();
            row.created = Some((append.workflow, Box::new(record)));
        }
        for change in append.changed {
            let row = self.executions.entry(change.seq).or_default();
            match &mut row.created {
                Some((_, record)) => change.onto(record),
                None => row.changed = Some(change),
            }
        }
        let mut places = append.declared.into_iter();
        for (execution, event) in append.events {
            if let ExecutionEvent::Declared { steps } = event {
                let first = places.next().unwrap_or(0);
                for (index, step) in (first..).zip(steps) {
                    self.declare(execution, index, step);
                }
            }
        }
        for change in append.steps {
            self.step(change);
        }
        for row in append.progress {
            self.progress(row);
        }
    }

    fn workflow(&mut self, append: &Append) {
        let row = self
            .workflows
            .entry(append.workflow)
            .or_insert(WorkflowRow {
                new: None,
                version: 0,
                last_number: 0,
                at: 0,
            });
        row.version = append.expected_version + 1;
        row.last_number = row.last_number.max(append.last_number);
        row.at = append.recorded_at.as_microsecond();
    }

    fn declare(&mut self, execution: ExecutionSeq, index: u32, step: DeclaredStep) {
        let change = StepChange {
            execution,
            index,
            status: StepStatus::Pending,
            started_at: None,
            completed_at: None,
            error: None,
        };
        let row = StepRow {
            declared: Some(step),
            change,
        };
        self.steps.insert((execution, index), row);
    }

    fn step(&mut self, change: StepChange) {
        match self.steps.entry((change.execution, change.index)) {
            Entry::Occupied(mut row) => row.get_mut().change = change,
            Entry::Vacant(place) => {
                place.insert(StepRow {
                    declared: None,
                    change,
                });
            }
        }
    }

    pub(super) fn progress(&mut self, row: ProgressRow) {
        let execution = self.executions.entry(row.execution).or_default();
        execution.progress = Some(row);
    }

    pub(super) fn event(&mut self, at: Timestamp, workflow: Option<WorkflowId>, encoded: Encoded) {
        self.events.push((at, workflow, encoded));
    }

    /// Writes everything; events are numbered from `first` on.
    pub(super) fn write(&self, connection: &Connection, first: i64) -> rusqlite::Result<()> {
        self.write_workflows(connection)?;
        self.write_executions(connection)?;
        self.write_steps(connection)?;
        self.write_events(connection, first)
    }

    fn write_workflows(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut insert = connection.prepare_cached(
            "INSERT INTO workflows (id, workspace_id, key, name, version, last_number, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
        )?;
        let mut update = connection.prepare_cached(
            "UPDATE workflows SET version = ?2, last_number = max(last_number, ?3), updated_at = ?4
             WHERE id = ?1",
        )?;
        for (id, row) in in_order(&self.workflows) {
            match &row.new {
                Some(new) => insert.execute(params![
                    id.0,
                    DEFAULT_WORKSPACE,
                    new.key,
                    new.name,
                    row.version,
                    row.last_number,
                    row.at,
                ])?,
                None => update.execute(params![id.0, row.version, row.last_number, row.at])?,
            };
        }
        Ok(())
    }

    fn write_executions(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut insert = connection.prepare_cached(
            "INSERT INTO executions (seq, workspace_id, workflow, source, uuid, external_id, run, number,
             name, status, imported, attempt, corrected, watched, started_estimated, first_seen_at,
             created_at, started_at, completed_at, error, labels, detail, progress, note, position,
             next_deadline)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
             ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26)",
        )?;
        // What is known from the creation never changes: the event of it has no payload but these columns.
        let mut update = connection.prepare_cached(
            "UPDATE executions SET status = ?2, attempt = ?3, corrected = ?4, watched = ?5,
             started_estimated = ?6, started_at = ?7, completed_at = ?8, error = ?9,
             progress = CASE ?2 WHEN 7 THEN 100.0 ELSE progress END,
             position = CASE WHEN ?2 >= 7 THEN NULL ELSE position END,
             next_deadline = CASE WHEN ?2 >= 7 THEN NULL ELSE next_deadline END
             WHERE seq = ?1",
        )?;
        // A row that is gone or closed meanwhile is no error: progress is ephemeral.
        let mut progress = connection.prepare_cached(
            "UPDATE executions SET progress = CASE WHEN status = 7 THEN 100.0 ELSE ?2 END, note = ?3,
             position = CASE WHEN status >= 7 THEN NULL ELSE ?4 END,
             next_deadline = CASE WHEN status >= 7 THEN NULL ELSE ?5 END WHERE seq = ?1",
        )?;
        for (_, execution) in in_order(&self.executions) {
            if let Some((workflow, record)) = &execution.created {
                insert_execution(&mut insert, *workflow, record, execution.progress.as_ref())?;
                continue;
            }
            if let Some(change) = &execution.changed {
                update_execution(&mut update, change)?;
            }
            if let Some(row) = &execution.progress {
                progress.execute(params![
                    row.execution.0,
                    row.progress,
                    row.note,
                    row.position,
                    micros(row.next_deadline),
                ])?;
            }
        }
        Ok(())
    }

    fn write_steps(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut insert = connection.prepare_cached(
            "INSERT INTO steps (execution, idx, external_id, name, status, started_at, completed_at, error)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        let mut update = connection.prepare_cached(
            "UPDATE steps SET status = ?3, started_at = ?4, completed_at = ?5, error = ?6
             WHERE execution = ?1 AND idx = ?2",
        )?;
        for ((execution, index), row) in in_order(&self.steps) {
            let change = &row.change;
            match &row.declared {
                Some(step) => insert.execute(params![
                    execution.0,
                    index,
                    step.external_id,
                    step.name,
                    change.status.code(),
                    micros(change.started_at),
                    micros(change.completed_at),
                    change.error,
                ])?,
                None => update.execute(params![
                    execution.0,
                    index,
                    change.status.code(),
                    micros(change.started_at),
                    micros(change.completed_at),
                    change.error,
                ])?,
            };
        }
        Ok(())
    }

    fn write_events(&self, connection: &Connection, first: i64) -> rusqlite::Result<()> {
        let mut insert = connection.prepare_cached(
            "INSERT INTO events (seq, workspace_id, at, kind, v, workflow, execution, step, payload)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        for (seq, (at, workflow, encoded)) in (first..).zip(&self.events) {
            insert.execute(params![
                seq,
                DEFAULT_WORKSPACE,
                at.as_microsecond(),
                encoded.code,
                PAYLOAD_VERSION,
                workflow.map(|id| id.0),
                encoded.execution.map(|seq| seq.0),
                encoded.step,
                encoded.payload,
            ])?;
        }
        Ok(())
    }
}

/// Rows in the order of their keys: neighbours share pages.
fn in_order<K: Ord, V>(rows: &ById<K, V>) -> Vec<(&K, &V)> {
    let mut rows: Vec<(&K, &V)> = rows.iter().collect();
    rows.sort_unstable_by_key(|(key, _)| *key);
    rows
}

fn insert_execution(
    insert: &mut Statement<'_>,
    workflow: WorkflowId,
    record: &ExecutionRecord,
    progress: Option<&ProgressRow>,
) -> rusqlite::Result<()> {
    let labels = (!record.labels.is_empty()).then(|| json(&record.labels));
    let percent = match record.status {
        Status::Completed => Some(100.0),
        _ => progress.and_then(|row| row.progress),
    };
    let waiting = progress.filter(|_| !record.status.is_closed());
    insert.execute(params![
        record.seq.0,
        DEFAULT_WORKSPACE,
        workflow.0,
        record.key.source.0,
        record.uuid.as_bytes(),
        record.key.external_id,
        record.key.run,
        record.number,
        record.name,
        record.status.code(),
        record.imported,
        record.attempt,
        record.corrected,
        record.watched,
        record.started_estimated,
        record.first_seen_at.as_microsecond(),
        micros(record.created_at),
        micros(record.started_at),
        micros(record.completed_at),
        record.error,
        labels,
        record.detail,
        percent,
        progress.and_then(|row| row.note.as_deref()),
        waiting.and_then(|row| row.position),
        micros(waiting.and_then(|row| row.next_deadline)),
    ])?;
    Ok(())
}

fn update_execution(update: &mut Statement<'_>, change: &ExecutionChange) -> rusqlite::Result<()> {
    update.execute(params![
        change.seq.0,
        change.status.code(),
        change.attempt,
        change.corrected,
        change.watched,
        change.started_estimated,
        micros(change.started_at),
        micros(change.completed_at),
        change.error,
    ])?;
    Ok(())
}
