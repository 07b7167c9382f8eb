//! The event stream: every client is a cursor over the journal, woken by its head, and told when it missed something.

mod resume;

use super::errors::Problem;
use super::params::{Params, uuid};
use super::store;
use super::views::{EventView, Page, ProgressFrame, event_id, origin8};
use super::{ApiState, View};
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use actix_web::web::{Bytes, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use futures::stream;
use resume::{Gap, Resume, behind, start};
use serde::Serialize;
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};
use tokio::time::{Instant, sleep_until};
use weir_core::journal::StoredEvent;
use weir_core::live::LiveProgress;
use weir_model::id::{ExecutionSeq, Seq, WorkflowId};

/// Events read, and held, at once.
const BATCH_LEN: usize = 200;
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Progress frames of one execution are sent at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// Executions whose progress may wait to be sent; more are dropped, the newest view stays on the board.
const PROGRESS_PENDING_MAX: usize = 1024;
/// When a client shall come back after the stream broke.
const RETRY: Duration = Duration::from_secs(2);

/// `GET /api/executions/{id}/events`: oldest first.
pub(super) async fn of_execution(
    request: HttpRequest,
    state: Data<ApiState>,
    id: Path<String>,
) -> View<Page<EventView>> {
    let params = Params::of(&request, &["cursor", "limit"])?;
    let limit = params.limit()?;
    let after = Seq(params.cursor()?.unwrap_or(0).max(0));
    let id = uuid(&id, "an execution")?;
    let page = store::read(&state, move |reader| {
        let execution = store::execution(reader, id)?.record.seq;
        let mut events = reader.execution_events_after(execution, after, limit + 1)?;
        let more = events.len() > limit;
        events.truncate(limit);
        let next_cursor = events
            .last()
            .filter(|_| more)
            .map(|last| last.row.seq.to_string());
        let names = store::step_names(reader, &events)?;
        let origin = reader.origin();
        let view = |event: &StoredEvent| EventView::new(event, origin, names.of(event));
        Ok(Page {
            items: events.iter().map(view).collect(),
            next_cursor,
        })
    });
    page.await.map(actix_web::web::Json)
}

/// `GET /api/events`: everything that is committed, as Server-Sent Events.
pub(super) async fn follow(
    request: HttpRequest,
    state: Data<ApiState>,
) -> Result<HttpResponse, Problem> {
    let params = Params::of(
        &request,
        &["since", "execution", "workflow_id", "source", "follow"],
    )?;
    let filter = Filter::of(&params, &state).await?;
    let resume = Resume::of(&request, &params)?;
    let follow = params.flag("follow")?.unwrap_or(true);
    let permit = state
        .streams
        .clone()
        .try_acquire_owned()
        .map_err(|_| Problem::too_many_streams(super::STREAMS_MAX))?;
    let follower = Follower::new(state, filter, &resume, follow, permit);
    let frames = stream::unfold(follower, |mut follower| async move {
        let bytes = follower.next().await?;
        Some((Ok::<Bytes, Problem>(bytes), follower))
    });
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream; charset=utf-8"))
        .insert_header((CACHE_CONTROL, "no-store"))
        // nginx would hold the events back.
        .insert_header((HeaderName::from_static("x-accel-buffering"), "no"))
        .streaming(Box::pin(frames)))
}

/// What of the journal a client wants.
#[derive(Debug, Default)]
struct Filter {
    execution: Option<ExecutionSeq>,
    workflow: Option<WorkflowId>,
    source: Option<String>,
}

impl Filter {
    async fn of(params: &Params, state: &Data<ApiState>) -> Result<Filter, Problem> {
        let execution = match params.text("execution") {
            Some(text) => {
                let id = uuid(text, "an execution")?;
                Some(
                    store::read(state, move |reader| {
                        Ok(store::execution(reader, id)?.record.seq)
                    })
                    .await?,
                )
            }
            None => None,
        };
        let workflow = params.integer("workflow_id")?.map(WorkflowId);
        let source = params.text("source").map(str::to_owned);
        Ok(Filter {
            execution,
            workflow,
            source,
        })
    }

    fn takes(&self, event: &StoredEvent) -> bool {
        let row = &event.row;
        self.execution
            .is_none_or(|wanted| row.execution == Some(wanted))
            && self
                .workflow
                .is_none_or(|wanted| row.workflow == Some(wanted))
            && self
                .source
                .as_deref()
                .is_none_or(|wanted| event.source_name.as_deref() == Some(wanted))
    }
}

/// One client: what it holds is bounded, and it reads only as fast as it is read.
struct Follower {
    state: Data<ApiState>,
    filter: Filter,
    follow: bool,
    origin: uuid::Uuid,
    cursor: Seq,
    /// Sent before anything else.
    greeting: Option<String>,
    head: watch::Receiver<Seq>,
    stop: watch::Receiver<bool>,
    frames: broadcast::Receiver<LiveProgress>,
    pending: HashMap<ExecutionSeq, LiveProgress>,
    /// What progress frames say of their executions; none = it is filtered out.
    identities: HashMap<ExecutionSeq, Option<ProgressFrame>>,
    flush_at: Option<Instant>,
    heartbeat_at: Instant,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    fn new(
        state: Data<ApiState>,
        filter: Filter,
        resume: &Resume,
        follow: bool,
        permit: OwnedSemaphorePermit,
    ) -> Follower {
        let journal = state.monitor.journal();
        let origin = journal.origin();
        let head = journal.subscribe();
        let (cursor, gap) = start(
            resume,
            &origin8(origin),
            journal.head(),
            journal.retained_from(),
        );
        let mut greeting = format!(
            "retry: {}\n: head {}\n\n",
            RETRY.as_millis(),
            journal.head()
        );
        if let Some(gap) = gap {
            greeting.push_str(&gap_frame(&gap, origin, cursor));
        }
        Follower {
            frames: state.monitor.board().subscribe(),
            stop: state.stopping.clone(),
            filter,
            follow,
            origin,
            cursor,
            greeting: Some(greeting),
            head,
            pending: HashMap::new(),
            identities: HashMap::new(),
            flush_at: None,
            heartbeat_at: Instant::now() + HEARTBEAT,
            ended: false,
            state,
            _permit: permit,
        }
    }

    /// The next piece of the stream; none when it is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            let text = match self.greeting.take() {
                Some(greeting) => Some(greeting),
                None => self.step().await,
            };
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                return Some(Bytes::from(text));
            }
        }
    }

    async fn step(&mut self) -> Option<String> {
        if *self.stop.borrow() {
            self.ended = true;
            return None;
        }
        let head = *self.head.borrow_and_update();
        if self.cursor < head {
            let text = self.read(head).await;
            let quiet = text.as_deref().is_none_or(str::is_empty);
            return if quiet && Instant::now() >= self.heartbeat_at {
                Some(self.heartbeat())
            } else {
                text
            };
        }
        if !self.follow {
            self.ended = true;
            return Some(self.heartbeat());
        }
        self.wait().await
    }

    /// What was committed after the cursor.
    async fn read(&mut self, head: Seq) -> Option<String> {
        let (cursor, gap) = behind(self.cursor, self.state.monitor.journal().retained_from());
        if let Some(gap) = gap {
            self.cursor = cursor;
            return Some(gap_frame(&gap, self.origin, cursor));
        }
        let only = self.filter.execution;
        let batch = store::read(&self.state, move |reader| {
            let events = match only {
                Some(execution) => reader.execution_events_after(execution, cursor, BATCH_LEN)?,
                None => reader.events_after(cursor, BATCH_LEN)?,
            };
            let names = store::step_names(reader, &events)?;
            Ok((events, names))
        });
        let (events, names) = match batch.await {
            Ok(batch) => batch,
            Err(problem) => {
                // The client comes back by itself and resumes from what it has.
                self.ended = true;
                return Some(format!(": {}\n\n", problem.detail()));
            }
        };
        self.cursor = match events.last() {
            Some(last) if events.len() >= BATCH_LEN => last.row.seq,
            Some(last) => last.row.seq.max(head),
            None => head,
        };
        let mut text = String::new();
        for event in events.iter().filter(|event| self.filter.takes(event)) {
            let view = EventView::new(event, self.origin, names.of(event));
            push_frame(&mut text, Some(&view.id), None, &view);
        }
        Some(text)
    }

    /// Nothing to read: sleeps until there is, or until something else has to be said.
    async fn wait(&mut self) -> Option<String> {
        let flush = async {
            match self.flush_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.head.changed() => {
                // The journal is gone: so is the daemon, soon.
                self.ended = changed.is_err();
                None
            }
            _ = self.stop.changed() => None,
            () = flush => self.flush().await,
            () = sleep_until(self.heartbeat_at) => Some(self.heartbeat()),
            frame = self.frames.recv() => {
                match frame {
                    Ok(frame) => self.note(frame),
                    // Frames are droppable: the newest of each execution comes again.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => self.ended = true,
                }
                None
            }
        }
    }

    fn heartbeat(&mut self) -> String {
        self.heartbeat_at = Instant::now() + HEARTBEAT;
        format!(": head {}\n\n", *self.head.borrow())
    }

    fn note(&mut self, frame: LiveProgress) {
        if self.pending.len() < PROGRESS_PENDING_MAX || self.pending.contains_key(&frame.seq) {
            self.pending.insert(frame.seq, frame);
            self.flush_at
                .get_or_insert_with(|| Instant::now() + PROGRESS_INTERVAL);
        }
    }

    /// The newest progress of each execution that moved.
    async fn flush(&mut self) -> Option<String> {
        self.flush_at = None;
        let frames: Vec<LiveProgress> = self.pending.drain().map(|(_, frame)| frame).collect();
        self.identify(&frames).await;
        let mut text = String::new();
        for frame in frames {
            if let Some(Some(identity)) = self.identities.get(&frame.seq) {
                push_frame(&mut text, None, Some("progress"), &identity.with(&frame));
            }
        }
        Some(text)
    }

    async fn identify(&mut self, frames: &[LiveProgress]) {
        if self.identities.len() > PROGRESS_PENDING_MAX {
            self.identities.clear();
        }
        let unknown: Vec<ExecutionSeq> = frames
            .iter()
            .map(|frame| frame.seq)
            .filter(|seq| !self.identities.contains_key(seq))
            .collect();
        if unknown.is_empty() {
            return;
        }
        let found = store::read(&self.state, move |reader| {
            store::executions_by_seq(reader, &unknown)
        })
        .await;
        for execution in found.unwrap_or_default() {
            let filter = &self.filter;
            let wanted = filter
                .execution
                .is_none_or(|seq| seq == execution.record.seq)
                && filter.workflow.is_none_or(|id| id == execution.workflow.id)
                && filter
                    .source
                    .as_ref()
                    .is_none_or(|name| *name == execution.source_name);
            let frame = wanted.then(|| ProgressFrame::of(&execution));
            self.identities.insert(execution.record.seq, frame);
        }
    }
}

fn gap_frame(gap: &Gap, origin: uuid::Uuid, cursor: Seq) -> String {
    let mut text = String::new();
    let data = json!({
        "reason": gap.reason, "from": gap.from, "to": gap.to, "resume": event_id(origin, cursor),
    });
    push_frame(
        &mut text,
        Some(&event_id(origin, cursor)),
        Some("gap"),
        &data,
    );
    text
}

fn push_frame(text: &mut String, id: Option<&str>, event: Option<&str>, data: &impl Serialize) {
    let Ok(json) = serde_json::to_string(data) else {
        return;
    };
    if let Some(id) = id {
        text.push_str("id: ");
        text.push_str(id);
        text.push('\n');
    }
    if let Some(event) = event {
        text.push_str("event: ");
        text.push_str(event);
        text.push('\n');
    }
    text.push_str("data: ");
    // JSON has no raw line breaks: one line it is.
    text.push_str(&json);
    text.push_str("\n\n");
}
