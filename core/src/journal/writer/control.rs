//! Commits of control requests: refused before anything of them is written, or written whole.

use super::append::micros;
use super::{Batch, Verdict};
use crate::journal::codec;
use crate::journal::{ControlCommit, KEY_LIFE, RequestRow};
use rusqlite::params;
use weir_model::event::Event;
use weir_model::id::DEFAULT_WORKSPACE;
use weir_model::request::{Action, RequestState};

/// Provider's answers that are kept, newest first; older requests keep their verdict alone.
const ANSWERS_MAX: i64 = 1000;

impl Batch<'_> {
    pub(super) fn control(&mut self, commit: ControlCommit) -> Verdict {
        let row = commit.row;
        if commit.is_new
            && let Some(reason) = self.refuse_request(&row)?
        {
            return Ok(Err(reason));
        }
        let about = row.new_execution.or(row.execution);
        let events = commit.events.into_iter();
        let events = events.map(|event| codec::encode(&Event::Control(about, event)));
        let events: Vec<_> = match events.collect::<Result<_, _>>() {
            Ok(events) => events,
            Err(error) => return Ok(Err(error.to_string())),
        };
        self.write_request(&row)?;
        let (at, workflow) = (commit.recorded_at, row.workflow);
        Ok(Ok(self.number_events(events, at, workflow)))
    }

    /// One request per key, and one open cancel or retry per execution: whoever comes second finds the first.
    fn refuse_request(&self, row: &RequestRow) -> rusqlite::Result<Option<String>> {
        if let Some(key) = &row.key {
            let since = row.created_at.checked_sub(KEY_LIFE);
            let since = since.map_or(i64::MIN, |at| at.as_microsecond());
            let taken = self
                .connection
                .prepare_cached(
                    "SELECT 1 FROM control_requests WHERE source = ?1 AND key = ?2 AND created_at > ?3 AND state <> ?4",
                )?
                .exists(params![row.source.0, key, since, RequestState::Failed.code()])?;
            if taken {
                return Ok(Some("a request with this key is there already".to_owned()));
            }
        }
        let Some(execution) = row.execution else {
            return Ok(None);
        };
        let keyless = row.action == Action::Cancel || row.key.is_none();
        let open = keyless
            && self
                .connection
                .prepare_cached(
                    "SELECT 1 FROM control_requests WHERE execution = ?1 AND action = ?2 AND state < 2",
                )?
                .exists(params![execution.0, row.action.code()])?;
        Ok(open.then(|| {
            format!(
                "an open {} of execution {execution} is there already",
                row.action
            )
        }))
    }

    fn write_request(&self, row: &RequestRow) -> rusqlite::Result<()> {
        let (job, new_job) = (row.job.as_ref(), row.new_job.as_ref());
        let answer = row.answer.as_ref();
        let body = answer.and_then(|answer| answer.body.as_ref());
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO control_requests (id, workspace_id, uuid, action, state, source, workflow,
                 execution, execution_uuid, job_id, job_run, key, digest, after_execution, created_at, updated_at,
                 attempts, asked, asked_at, not_before, reason, new_job_id, new_job_run, new_execution, new_uuid,
                 answer_status, answer_type, answer)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
                 ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28)",
            )?
            .execute(params![
                row.id,
                DEFAULT_WORKSPACE,
                row.uuid.as_bytes(),
                row.action.code(),
                row.state.code(),
                row.source.0,
                row.workflow.map(|id| id.0),
                row.execution.map(|seq| seq.0),
                row.execution_uuid.as_ref().map(uuid::Uuid::as_bytes),
                job.map(|job| &job.id),
                job.and_then(|job| job.run.as_ref()),
                row.key,
                row.digest,
                row.after_execution.0,
                row.created_at.as_microsecond(),
                row.updated_at.as_microsecond(),
                row.attempts,
                row.asked,
                micros(row.asked_at),
                micros(row.not_before),
                row.reason,
                new_job.map(|job| &job.id),
                new_job.and_then(|job| job.run.as_ref()),
                row.new_execution.map(|seq| seq.0),
                row.new_uuid.as_ref().map(uuid::Uuid::as_bytes),
                answer.map(|answer| answer.status),
                answer.map(|answer| &answer.content_type),
                body,
            ])?;
        if body.is_some() {
            self.connection
                .prepare_cached(
                    "UPDATE control_requests SET answer = NULL WHERE answer IS NOT NULL AND id <= ?1",
                )?
                .execute([row.id - ANSWERS_MAX])?;
        }
        Ok(())
    }
}
