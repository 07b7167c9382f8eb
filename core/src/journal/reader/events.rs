//! Events as they are streamed and exported: self-contained, in order.

use super::executions::{self, COLUMNS};
use super::rows::timestamp;
use super::{PAGE_MAX, ReadError, Reader, Result};
use crate::journal::EventRow;
use crate::journal::codec::{self, Decoded};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;
use weir_model::event::{DeclaredStep, Event, ExecutionEvent};
use weir_model::id::{ExecutionSeq, Seq, SourceId, WorkflowId};
use weir_model::workflow::ExecutionRecord;

/// An event with the names and identities that make it mean something elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    pub row: EventRow,
    pub workflow_key: Option<String>,
    pub workflow_name: Option<String>,
    pub execution_uuid: Option<Uuid>,
    pub execution_number: Option<i64>,
    pub execution_name: Option<String>,
    pub imported: bool,
    pub external_id: Option<String>,
    pub run: Option<String>,
    pub source: Option<SourceId>,
    pub source_name: Option<String>,
}

impl Reader {
    /// Events after `seq`, oldest first, up to `limit` (at most 1000).
    pub fn events_after(&self, seq: Seq, limit: usize) -> Result<Vec<StoredEvent>> {
        after(self.connection(), seq, None, limit)
    }

    /// The same of one execution.
    pub fn execution_events_after(
        &self,
        execution: ExecutionSeq,
        seq: Seq,
        limit: usize,
    ) -> Result<Vec<StoredEvent>> {
        after(self.connection(), seq, Some(execution), limit)
    }

    /// The newest event recorded at or before a time, by bisection over the numbers; 0 before the first.
    pub fn seq_at(&self, at: Timestamp) -> Result<Seq> {
        let (mut low, mut high) = (0, self.head().0 + 1);
        let mut probe = self.connection().prepare_cached(
            "SELECT seq, at FROM events WHERE seq >= ?1 AND seq < ?2 ORDER BY seq LIMIT 1",
        )?;
        // Invariant: what is at or below `low` was recorded in time, what is at or above `high` was not.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let found: Option<(i64, i64)> = probe
                .query_row([middle, high], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            match found {
                Some((seq, micros)) if micros <= at.as_microsecond() => low = seq,
                _ => high = middle,
            }
        }
        Ok(Seq(low))
    }
}

pub(super) fn after(
    connection: &Connection,
    seq: Seq,
    execution: Option<ExecutionSeq>,
    limit: usize,
) -> Result<Vec<StoredEvent>> {
    let one = execution.map_or("", |_| "AND e.execution = ?3");
    let sql = format!(
        "SELECT e.seq, e.at, e.kind, e.v, e.workflow, e.execution, e.step, e.payload, w.key, w.name, s.name, {COLUMNS}
         FROM events e LEFT JOIN executions x ON x.seq = e.execution
         LEFT JOIN workflows w ON w.id = e.workflow LEFT JOIN sources s ON s.id = x.source
         WHERE e.seq > ?1 {one} ORDER BY e.seq LIMIT ?2"
    );
    // Steps are read after their events: one transaction, or retention could delete them in between.
    let snapshot = connection.unchecked_transaction()?;
    let mut statement = snapshot.prepare_cached(&sql)?;
    let limit = i64::try_from(limit.min(PAGE_MAX)).unwrap_or(0);
    let mut rows = match execution {
        Some(execution) => statement.query(params![seq.0, limit, execution.0])?,
        None => statement.query(params![seq.0, limit])?,
    };
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(stored_event(&snapshot, row)?);
    }
    drop(rows);
    drop(statement);
    for event in &mut events {
        name_source(&snapshot, event)?;
    }
    Ok(events)
}

/// Where the execution's columns begin.
const EXECUTION_AT: usize = 11;

fn stored_event(connection: &Connection, row: &Row<'_>) -> Result<StoredEvent> {
    let seq: i64 = row.get(0)?;
    let (code, version): (i64, i64) = (row.get(2)?, row.get(3)?);
    let execution: Option<i64> = row.get(5)?;
    let execution = execution.map(ExecutionSeq);
    let step: Option<u32> = row.get(6)?;
    let payload = row
        .get_ref(7)?
        .as_str_or_null()
        .map_err(rusqlite::Error::from)?;
    let faulty = |source| ReadError::Event { seq, source };
    let decoded = codec::decode(code, version, execution, step, payload).map_err(faulty)?;
    let record = match row.get::<_, Option<i64>>(EXECUTION_AT)? {
        Some(_) => Some(executions::record(row, EXECUTION_AT)?),
        None => None,
    };
    let event = restored(connection, decoded, record.as_ref())?.ok_or_else(|| {
        faulty(codec::CodecError::Missing {
            kind: "execution.created",
            what: "its execution's row",
        })
    })?;
    let key = record.as_ref().map(|r| r.key.clone());
    let source = match &event {
        Event::Source(source, _) => Some(*source),
        Event::Control(_, event) => Some(event.source()),
        _ => key.as_ref().map(|key| key.source),
    };
    let (external_id, run) = key.map(|key| (key.external_id, key.run)).unzip();
    Ok(StoredEvent {
        row: EventRow {
            seq: Seq(seq),
            at: timestamp(row.get(1)?),
            kind: event.kind(),
            workflow: row.get::<_, Option<i64>>(4)?.map(WorkflowId),
            execution,
            step,
            event,
        },
        workflow_key: row.get(8)?,
        workflow_name: row.get(9)?,
        execution_uuid: record.as_ref().map(|r| r.uuid),
        execution_number: record.as_ref().map(|r| r.number),
        execution_name: record.as_ref().and_then(|r| r.name.clone()),
        imported: record.as_ref().is_some_and(|r| r.imported),
        external_id,
        run,
        source,
        source_name: row.get(10)?,
    })
}

/// The event with what its execution's row says of it; none where it needs the row and there is none.
fn restored(
    connection: &Connection,
    decoded: Decoded,
    record: Option<&ExecutionRecord>,
) -> Result<Option<Event>> {
    let event = match (decoded, record) {
        (Decoded::Whole(event), _) => event,
        (Decoded::Created, Some(record)) => Event::Execution(
            record.seq,
            ExecutionEvent::Created {
                uuid: record.uuid,
                key: record.key.clone(),
                number: record.number,
                name: record.name.clone(),
                imported: record.imported,
                created_at: record.created_at,
                labels: record.labels.clone(),
                detail: record.detail.clone(),
            },
        ),
        (Decoded::Declared { first, count }, Some(record)) => Event::Execution(
            record.seq,
            ExecutionEvent::Declared {
                steps: declared(connection, record.seq, first, count)?,
            },
        ),
        (Decoded::Created | Decoded::Declared { .. }, None) => return Ok(None),
    };
    Ok(Some(event))
}

/// The steps a declaration named, in their order.
fn declared(
    connection: &Connection,
    execution: ExecutionSeq,
    first: u32,
    count: u32,
) -> Result<Vec<DeclaredStep>> {
    let mut statement = connection.prepare_cached(
        "SELECT external_id, name FROM steps WHERE execution = ?1 AND idx >= ?2 AND idx < ?3 ORDER BY idx",
    )?;
    let end = first.saturating_add(count);
    let steps = statement.query_map(params![execution.0, first, end], |row| {
        Ok(DeclaredStep {
            external_id: row.get(0)?,
            name: row.get(1)?,
        })
    })?;
    Ok(steps.collect::<rusqlite::Result<_>>()?)
}

/// Events of a source have no execution that would name it.
fn name_source(connection: &Connection, event: &mut StoredEvent) -> Result<()> {
    if let (Some(source), None) = (event.source, &event.source_name) {
        event.source_name = connection
            .prepare_cached("SELECT name FROM sources WHERE id = ?1")?
            .query_row([source.0], |row| row.get(0))
            .optional()?;
    }
    Ok(())
}
