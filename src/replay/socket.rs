//! `/ws` of the replay: a client is sent what the recorded server sent to a client like it, in recorded time.

use std::sync::Arc;
use std::time::Duration;

use actix_web::rt;
use actix_web::{HttpRequest, HttpResponse, web};
use actix_ws::{Message, MessageStream, Session};
use serde_json::json;

use super::frames::{Happened, RecordedFrame, client_id};
use super::moment::Moment;
use super::rebase::rebase;
use super::recording::Recording;
use super::server::{Fault, Shared, Socket};

/// How often the recorded time is looked at.
const TICK: Duration = Duration::from_millis(10);
/// Whom a client that is none of the recorded ones is like: a stranger with an id of its own, then one without.
const STRANGERS: [&str; 2] = ["monitor", "anon"];

/// Answers the handshake and plays from now on.
pub(super) fn open(
    request: &HttpRequest,
    payload: web::Payload,
    shared: Arc<Shared>,
) -> HttpResponse {
    let (response, session, messages) = match actix_ws::handle(request, payload) {
        Ok(opened) => opened,
        Err(error) => return error.error_response(),
    };
    let id = client_id(&format!("?{}", request.query_string()));
    let role = Role::of(shared.recording(), id.as_deref());
    let player = Player {
        frames: role.frames(shared.recording()),
        recorded_id: role.recorded_id,
        id,
        from: shared.position(),
        shared,
    };
    let socket = Socket::of(request);
    rt::spawn(async move {
        if player.play(session, messages).await == End::Broken
            && let Some(socket) = socket
        {
            socket.break_off();
        }
    });
    response
}

/// As whom a client is served.
struct Role {
    /// A recorded connection; none = the recording has no such client.
    conn: Option<Arc<str>>,
    /// The id under which it was opened.
    recorded_id: Option<String>,
}

impl Role {
    fn of(recording: &Recording, id: Option<&str>) -> Role {
        let opened = |wanted: &dyn Fn(&RecordedFrame, Option<&str>) -> bool| {
            recording.frames.iter().find_map(|frame| match &frame.what {
                Happened::Opened(id) if wanted(frame, id.as_deref()) => Some(Role {
                    conn: Some(Arc::clone(&frame.conn)),
                    recorded_id: id.clone(),
                }),
                _ => None,
            })
        };
        let same = opened(&|_, recorded| id.is_some() && recorded == id);
        same.or_else(|| {
            let mut strangers = STRANGERS.iter();
            strangers.find_map(|name| opened(&|frame, _| *frame.conn == **name))
        })
        .unwrap_or(Role {
            conn: None,
            recorded_id: None,
        })
    }

    /// What such a client was sent: the frames of its connection, and while that was closed, what everybody else heard.
    fn frames(&self, recording: &Recording) -> Vec<RecordedFrame> {
        let mut open: Vec<&Arc<str>> = Vec::new();
        let mut own_is_open = false;
        let mut heard = Vec::new();
        for frame in &recording.frames {
            let own = self.conn.as_ref() == Some(&frame.conn);
            let takes = match &frame.what {
                Happened::Opened(_) => {
                    open.push(&frame.conn);
                    own_is_open |= own;
                    false
                }
                Happened::Closed => {
                    open.retain(|conn| **conn != frame.conn);
                    own_is_open &= !own;
                    own
                }
                // The greeting is told when a client connects.
                Happened::Text(text) if is_status(text) && text.contains("\"sid\"") => false,
                Happened::Text(text) if !own_is_open => {
                    is_status(text) && open.first() == Some(&&frame.conn)
                }
                Happened::Text(_) | Happened::Binary(_) => own,
            };
            if takes {
                heard.push(frame.clone());
            }
        }
        heard
    }
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The client left.
    Left,
    /// The recorded server ended it, or is to be unreachable.
    Broken,
}

struct Player {
    shared: Arc<Shared>,
    frames: Vec<RecordedFrame>,
    recorded_id: Option<String>,
    id: Option<String>,
    from: Duration,
}

impl Player {
    async fn play(&self, mut session: Session, mut messages: MessageStream) -> End {
        if session.text(self.greeting()).await.is_err() {
            return End::Left;
        }
        let mut tick = tokio::time::interval(TICK);
        let mut played = self.from;
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(Ok(Message::Ping(payload))) => {
                        if session.pong(&payload).await.is_err() {
                            return End::Left;
                        }
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Left,
                    Some(Ok(_)) => {}
                },
                _ = tick.tick() => {
                    let position = self.shared.position();
                    let down = self.shared.current_fault() == Fault::Refuse;
                    if down || self.advance(&mut session, played, position).await == Some(End::Broken) {
                        return End::Broken;
                    }
                    played = position;
                }
            }
        }
    }

    /// Sends what was sent after `from`, until `to`. A position that was set back repeats nothing.
    async fn advance(&self, session: &mut Session, from: Duration, to: Duration) -> Option<End> {
        let frames = &self.frames;
        let begin = frames.partition_point(|frame| frame.at <= from);
        let end = frames.partition_point(|frame| frame.at <= to).max(begin);
        for frame in &frames[begin..end] {
            let sent = match &frame.what {
                Happened::Opened(_) => continue,
                Happened::Closed => return Some(End::Broken),
                Happened::Text(text) => session.text(self.as_own(text)).await,
                Happened::Binary(bytes) => session.binary(bytes.clone()).await,
            };
            if sent.is_err() {
                return Some(End::Left);
            }
        }
        None
    }

    /// What every client hears first: how long the queue is, and under which id it is known.
    fn greeting(&self) -> String {
        let moment = Moment::new(self.shared.recording(), self.from);
        let sid = self.id.as_deref().or(self.recorded_id.as_deref());
        let sid = sid.unwrap_or("00000000000000000000000000000000");
        let status = json!({ "exec_info": { "queue_remaining": moment.queue_remaining() } });
        json!({ "type": "status", "data": { "status": status, "sid": sid } }).to_string()
    }

    fn as_own(&self, text: &str) -> String {
        let text = match self.shared.rebase() {
            Some(shift_ms) => rebase(text, shift_ms),
            None => text.to_owned(),
        };
        match (&self.recorded_id, &self.id) {
            (Some(recorded), Some(own)) => text.replace(recorded.as_str(), own),
            _ => text,
        }
    }
}

fn is_status(text: &str) -> bool {
    text.starts_with("{\"type\": \"status\"")
}
