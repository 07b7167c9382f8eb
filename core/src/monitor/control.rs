//! Control through the handle: what may be asked, and which request stands for it.

use super::MonitorHandle;
use crate::control::{Begin, BeginError, Begun, OPEN_MAX};
use crate::journal::{ReadError, Reader, RequestRow, StoredExecution};
use sha2::{Digest, Sha256};
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::oneshot;
use uuid::Uuid;
use weir_model::control::Submission;
use weir_model::id::SourceId;
use weir_model::request::{Action, RequestState};

/// Characters of a key.
const KEY_LEN_MAX: usize = 200;
/// How long another call with the same key is waited for.
const SAME_KEY_PATIENCE: Duration = Duration::from_secs(60);
/// How long the control actor may take to be there.
const START_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at a request that is waited for.
const LOOK_GAP: Duration = Duration::from_millis(50);

/// A job for a provider.
#[derive(Clone, Debug)]
pub struct Submit {
    /// The source's name.
    pub source: String,
    /// The same key gets the same answer for 24 hours, and never a second job. None: a new job each time.
    pub key: Option<String>,
    pub content_type: String,
    /// As it came.
    pub body: Vec<u8>,
}

/// Why nothing was asked of a provider.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    #[error("there is no {0}")]
    NotFound(String),
    #[error("weir may not submit, cancel or retry at the source {0}: it has no `control: true`")]
    Off(String),
    #[error("{0}")]
    Invalid(String),
    /// The execution is not in a state in which this can be asked.
    #[error("{0}")]
    Conflict(String),
    #[error("this idempotency key was used for something else in the last 24 hours")]
    KeyReused,
    #[error("too much is asked at once")]
    Busy,
    #[error("not recorded: {0}")]
    NotRecorded(String),
}

impl From<ReadError> for RequestError {
    fn from(error: ReadError) -> RequestError {
        RequestError::NotRecorded(error.to_string())
    }
}

impl From<BeginError> for RequestError {
    fn from(error: BeginError) -> RequestError {
        match error {
            BeginError::Busy => RequestError::Busy,
            BeginError::Taken(reason) => RequestError::Conflict(reason),
            BeginError::NotRecorded(reason) => RequestError::NotRecorded(reason),
        }
    }
}

impl MonitorHandle {
    /// Asks for an execution to be cancelled; returns once that is on disk. Asked twice, it is one request.
    pub async fn cancel(&self, execution: Uuid) -> Result<RequestRow, RequestError> {
        let stored = self.known(execution).await?;
        let status = stored.record.status;
        if status.is_closed() {
            return Err(RequestError::Conflict(format!("it is {status} already")));
        }
        self.source_of(&stored)?;
        let seq = stored.record.seq;
        let row = self.row(
            Action::Cancel,
            stored.record.key.source,
            Some(&stored),
            None,
        );
        match self.begin(row, String::new(), Vec::new()).await {
            Err(BeginError::Taken(_)) => {
                let open = self.look(move |r| r.open_request_of(seq, Action::Cancel));
                // It may have been settled just now.
                let settled = || RequestError::Conflict("it was asked for just now".into());
                open.await?.ok_or_else(settled)
            }
            begun => Ok(begun?.row),
        }
    }

    /// Asks for the same job once more; returns once the provider has answered.
    pub async fn retry(&self, execution: Uuid, key: Option<String>) -> Result<Begun, RequestError> {
        let stored = self.known(execution).await?;
        let status = stored.record.status;
        if !status.is_closed() {
            let reason = format!("it is {status}; cancel it first, or submit another job");
            return Err(RequestError::Conflict(reason));
        }
        self.source_of(&stored)?;
        let seq = stored.record.seq;
        let digest = digest(&[b"retry", execution.as_bytes()]);
        let keyed = checked(key)?.map(|key| (key, digest));
        let row = self.row(
            Action::Retry,
            stored.record.key.source,
            Some(&stored),
            keyed,
        );
        let (source, key) = (row.source, row.key.clone());
        match self.begin(row.clone(), String::new(), Vec::new()).await {
            Err(BeginError::Taken(_)) if key.is_none() => {
                let open = self
                    .look(move |r| r.open_request_of(seq, Action::Retry))
                    .await?;
                let settled = || RequestError::Conflict("it was asked for just now".into());
                self.answer_of(open.ok_or_else(settled)?).await
            }
            Err(BeginError::Taken(_)) => self.standing(source, row).await,
            begun => Ok(begun?),
        }
    }

    /// Hands a job to a provider; returns once it has answered, with its answer as it was.
    pub async fn submit(&self, submit: Submit) -> Result<Begun, RequestError> {
        let source = self.controllable(&submit.source)?;
        let digest = digest(&[b"submit", submit.content_type.as_bytes(), &submit.body]);
        let keyed = checked(submit.key)?.map(|key| (key, digest));
        let row = self.row(Action::Submit, source, None, keyed);
        match self
            .begin(row.clone(), submit.content_type, submit.body)
            .await
        {
            Err(BeginError::Taken(_)) => self.standing(source, row).await,
            begun => Ok(begun?),
        }
    }

    /// Whether there is such a source, and weir may control it.
    pub fn controllable(&self, source: &str) -> Result<SourceId, RequestError> {
        let sources = self.inner.shared.sources.read();
        let sources = sources.unwrap_or_else(PoisonError::into_inner);
        match sources.get(source) {
            None => Err(RequestError::NotFound(format!("source {source}"))),
            Some(found) if !found.control => Err(RequestError::Off(source.to_owned())),
            Some(found) => Ok(found.row.id),
        }
    }

    pub async fn request(&self, id: Uuid) -> Result<RequestRow, RequestError> {
        let found = self.look(move |reader| reader.request(id)).await?;
        found.ok_or_else(|| RequestError::NotFound(format!("control request {id}")))
    }

    /// Waits until a request is `far_enough`, or `patience` is over; returns how it stands then.
    pub async fn wait_for_request(
        &self,
        id: Uuid,
        patience: Duration,
        far_enough: impl Fn(&RequestRow) -> bool,
    ) -> Result<RequestRow, RequestError> {
        let mut head = self.journal().subscribe();
        let over = tokio::time::sleep(patience);
        tokio::pin!(over);
        loop {
            head.mark_unchanged();
            let row = self.request(id).await?;
            if far_enough(&row) {
                return Ok(row);
            }
            tokio::select! {
                () = &mut over => return Ok(row),
                _ = head.changed() => tokio::time::sleep(LOOK_GAP).await,
            }
        }
    }

    /// The request that a key stands for already, and the provider's answer to it.
    async fn standing(&self, source: SourceId, row: RequestRow) -> Result<Begun, RequestError> {
        let (key, now) = (row.key.clone().unwrap_or_default(), row.created_at);
        let standing = self
            .look(move |r| r.request_by_key(source, &key, now))
            .await?;
        let standing =
            standing.ok_or_else(|| RequestError::Conflict("it was asked for just now".into()))?;
        if standing.digest != row.digest {
            return Err(RequestError::KeyReused);
        }
        self.answer_of(standing).await
    }

    async fn answer_of(&self, standing: RequestRow) -> Result<Begun, RequestError> {
        let answered = |row: &RequestRow| row.state != RequestState::Requested;
        let row = self
            .wait_for_request(standing.uuid, SAME_KEY_PATIENCE, answered)
            .await?;
        let answer = row.answer.clone().and_then(|answer| {
            Some(Submission {
                job: row.new_job.clone(),
                status: answer.status,
                content_type: answer.content_type,
                body: answer.body?,
            })
        });
        Ok(Begun { row, answer })
    }

    async fn begin(
        &self,
        row: RequestRow,
        content_type: String,
        body: Vec<u8>,
    ) -> Result<Begun, BeginError> {
        let open = self.look(Reader::open_request_count).await;
        let open = open.map_err(|error| BeginError::NotRecorded(error.to_string()))?;
        if open >= OPEN_MAX {
            return Err(BeginError::Busy);
        }
        let (reply, answer) = oneshot::channel();
        let begin = Begin {
            row,
            content_type,
            body,
            reply,
        };
        let control = &self.inner.shared.control;
        // A request may come in before the actor does.
        control.filled(START_PATIENCE).await;
        control.try_send(begin).map_err(|_| BeginError::Busy)?;
        // Whether it was journaled is not known when the actor died meanwhile.
        let died =
            || BeginError::NotRecorded("control was interrupted; look at the execution".into());
        answer.await.unwrap_or_else(|_| Err(died()))
    }

    fn row(
        &self,
        action: Action,
        source: SourceId,
        about: Option<&StoredExecution>,
        keyed: Option<(String, Vec<u8>)>,
    ) -> RequestRow {
        let now = self.clock().now();
        let (key, digest) = keyed.unzip();
        let job = about.map(|e| weir_model::observation::JobRef {
            id: e.record.key.external_id.clone(),
            run: (!e.record.key.run.is_empty()).then(|| e.record.key.run.clone()),
        });
        RequestRow {
            id: self.journal().next_request_id(),
            uuid: Uuid::now_v7(),
            action,
            state: RequestState::Requested,
            source,
            workflow: about.map(|e| e.workflow.id),
            execution: about.map(|e| e.record.seq),
            execution_uuid: about.map(|e| e.record.uuid),
            job,
            key,
            digest,
            after_execution: self.journal().last_execution_seq(),
            created_at: now,
            updated_at: now,
            attempts: 0,
            asked: 0,
            asked_at: None,
            not_before: None,
            reason: None,
            new_job: None,
            new_execution: None,
            new_uuid: None,
            answer: None,
        }
    }

    async fn known(&self, execution: Uuid) -> Result<StoredExecution, RequestError> {
        let found = self
            .look(move |reader| reader.execution_by_uuid(execution))
            .await?;
        found.ok_or_else(|| RequestError::NotFound(format!("execution {execution}")))
    }

    /// Its source runs, and may be controlled.
    fn source_of(&self, stored: &StoredExecution) -> Result<(), RequestError> {
        let sources = self.inner.shared.sources.read();
        let sources = sources.unwrap_or_else(PoisonError::into_inner);
        let id = stored.record.key.source;
        match sources.values().find(|source| source.row.id == id) {
            None => Err(RequestError::Conflict(format!(
                "its source {} is not in the configuration any more",
                stored.source_name
            ))),
            Some(source) if !source.control => Err(RequestError::Off(stored.source_name.clone())),
            Some(_) => Ok(()),
        }
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Reader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, RequestError> {
        let journal = self.journal().clone();
        let looked = tokio::task::spawn_blocking(move || look(&journal.reader()?));
        let cut_off = |_| RequestError::NotRecorded("the look was cut off".into());
        Ok(looked.await.map_err(cut_off)??)
    }
}

fn digest(parts: &[&[u8]]) -> Vec<u8> {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_vec()
}

/// A key is short and printable; quotes around it belong to the header.
fn checked(key: Option<String>) -> Result<Option<String>, RequestError> {
    let Some(key) = key else { return Ok(None) };
    let bare = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
    let key = bare.unwrap_or(&key);
    let printable = key.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    if key.trim().is_empty() || key.len() > KEY_LEN_MAX || !printable {
        return Err(RequestError::Invalid(format!(
            "an idempotency key has 1 to {KEY_LEN_MAX} printable ASCII characters"
        )));
    }
    Ok(Some(key.to_owned()))
}
