//! One open connection, websocket or server-sent events, as a stream of what comes and a way to send.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Sink, SinkExt, StreamExt};
use sseer::errors::EventStreamError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, http};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use weir_model::observation::FailureKind;
use weir_model::stream::{Endpoint, Protocol, StreamMessage};

use crate::plugin::{EventBody, Failure, PluginHandle, Socket, StreamConnection, StreamRequest};

/// A larger frame ends the connection: it is never held, not even in part.
pub(super) const FRAME_BYTES_MAX: usize = 8 << 20;
/// What may wait to be sent; a far side that does not read is left.
const UNSENT_BYTES_MAX: usize = 4 << 20;

/// What a connection says.
#[derive(Debug)]
pub(super) enum Incoming {
    Message(StreamMessage),
    /// A binary frame of so many bytes where only text is wanted: gone already.
    Skipped(usize),
    /// A sign of life.
    Alive,
}

/// What is sent on a connection.
#[derive(Debug)]
pub(super) enum Outgoing {
    Message(StreamMessage),
    Ping,
}

type Sending = Pin<Box<dyn Sink<Outgoing, Error = String> + Send>>;

/// An open connection. The error of an end is its reason in words.
pub(super) struct Connection {
    pub(super) incoming: BoxStream<'static, Result<Incoming, String>>,
    /// None where nothing can be sent.
    pub(super) outgoing: Option<Sending>,
}

/// What server-sent events say about the next connection.
#[derive(Debug, Default)]
pub(super) struct Resume(std::sync::Mutex<(Option<String>, Option<Duration>)>);

impl Resume {
    /// The id of the last event.
    pub(super) fn last_event_id(&self) -> Option<String> {
        self.lock().0.clone()
    }

    pub(super) fn retry(&self) -> Option<Duration> {
        self.lock().1
    }

    fn note(&self, id: &str, retry: Option<Duration>) {
        let mut noted = self.lock();
        // It goes into a header.
        if id.len() <= 1024 && noted.0.as_deref() != Some(id) {
            noted.0 = (!id.is_empty()).then(|| id.to_owned());
        }
        noted.1 = retry.or(noted.1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Option<String>, Option<Duration>)> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct NotOpened {
    pub(super) message: String,
    /// Nobody allows it: trying again soon is of no use.
    pub(super) refused: bool,
}

impl NotOpened {
    pub(super) fn passing(message: String) -> NotOpened {
        NotOpened {
            message,
            refused: false,
        }
    }
}

impl From<Failure> for NotOpened {
    fn from(failure: Failure) -> NotOpened {
        NotOpened {
            refused: failure.kind == Some(FailureKind::Misconfigured),
            message: failure.message,
        }
    }
}

/// Connects through the plugin's way out, and speaks the endpoint's protocol.
pub(super) async fn open(
    plugin: &PluginHandle,
    endpoint: &Endpoint,
    resume: Arc<Resume>,
    silence: Duration,
) -> Result<Connection, NotOpened> {
    let mut request = StreamRequest {
        url: endpoint.url.clone(),
        headers: endpoint.headers.clone(),
        credential: endpoint.credential.clone(),
        silence,
    };
    match endpoint.protocol {
        Protocol::Websocket => {
            let connection = plugin.connect(request).await?;
            let request = handshake(&connection, &endpoint.subprotocols)?;
            let (socket, _) = client_async_with_config(request, connection.socket, Some(config()))
                .await
                .map_err(|error| handshake_failed(&error))?;
            Ok(websocket(socket, endpoint.text_only))
        }
        Protocol::Sse => {
            let header = |id| ("last-event-id".to_owned(), id);
            request.headers.extend(resume.last_event_id().map(header));
            events(plugin.open_events(request).await?, resume)
        }
    }
}

fn handshake(
    connection: &StreamConnection,
    subprotocols: &[String],
) -> Result<http::Request<()>, NotOpened> {
    let request = connection.url.as_str().into_client_request();
    let mut request = request.map_err(|error| NotOpened::passing(error.to_string()))?;
    request.headers_mut().extend(connection.headers.clone());
    if !subprotocols.is_empty() {
        let value = http::HeaderValue::from_str(&subprotocols.join(", "))
            .map_err(|_| NotOpened::passing("a subprotocol cannot be sent".into()))?;
        let name = http::header::SEC_WEBSOCKET_PROTOCOL;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
        .write_buffer_size(0)
        .max_write_buffer_size(UNSENT_BYTES_MAX)
}

fn handshake_failed(error: &tungstenite::Error) -> NotOpened {
    NotOpened::passing(match error {
        tungstenite::Error::Http(response) => {
            format!(
                "the far side answered {} instead of a websocket",
                response.status()
            )
        }
        other => format!("the websocket handshake: {other}"),
    })
}

fn websocket(socket: WebSocketStream<Box<dyn Socket>>, text_only: bool) -> Connection {
    let (sink, stream) = socket.split();
    let incoming = stream.filter_map(move |message| {
        let taken = match message {
            Ok(Message::Text(text)) => Some(Ok(Incoming::Message(StreamMessage::Text(
                text.as_str().to_owned(),
            )))),
            Ok(Message::Binary(bytes)) if text_only => Some(Ok(Incoming::Skipped(bytes.len()))),
            Ok(Message::Binary(bytes)) => {
                Some(Ok(Incoming::Message(StreamMessage::Binary(bytes.into()))))
            }
            // Pings are answered by the socket itself.
            Ok(Message::Ping(_) | Message::Pong(_)) => Some(Ok(Incoming::Alive)),
            Ok(Message::Close(frame)) => Some(Err(closed(frame))),
            Ok(Message::Frame(_)) => None,
            Err(error) => Some(Err(broken(&error))),
        };
        futures::future::ready(taken)
    });
    let outgoing = sink
        .sink_map_err(|error| broken(&error))
        .with(|out: Outgoing| {
            futures::future::ready(Ok::<Message, String>(match out {
                Outgoing::Message(StreamMessage::Text(text)) => Message::Text(text.into()),
                Outgoing::Message(StreamMessage::Binary(bytes)) => Message::Binary(bytes.into()),
                Outgoing::Ping => Message::Ping(Bytes::from_static(b"weir")),
            }))
        });
    Connection {
        incoming: incoming.boxed(),
        outgoing: Some(Box::pin(outgoing)),
    }
}

fn closed(frame: Option<CloseFrame>) -> String {
    match frame {
        None => "the far side closed the connection".into(),
        Some(frame) if frame.reason.is_empty() => {
            format!("the far side closed the connection ({})", frame.code)
        }
        Some(frame) => format!(
            "the far side closed the connection ({}: {})",
            frame.code,
            frame.reason.as_str()
        ),
    }
}

fn broken(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Capacity(CapacityError::MessageTooLong { size, .. }) => {
            too_large(Some(*size))
        }
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            "the far side closed the connection".into()
        }
        tungstenite::Error::WriteBufferFull(_) => {
            "the far side does not read what it is sent".into()
        }
        other => format!("the connection broke: {other}"),
    }
}

fn too_large(size: Option<usize>) -> String {
    let allowed = FRAME_BYTES_MAX >> 20;
    match size {
        Some(size) => format!("a frame of {size} bytes came, {allowed} MiB are allowed"),
        None => format!("an event of more than {allowed} MiB came"),
    }
}

/// One text message per event: its fields in lines, as on the wire, so that nothing of it is lost to the guest.
fn events(body: EventBody, resume: Arc<Resume>) -> Result<Connection, NotOpened> {
    let kind = body.header("content-type").unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if body.status() != 200 || !essence.eq_ignore_ascii_case("text/event-stream") {
        let status = body.status();
        return Err(NotOpened::passing(format!(
            "the far side answered {status} of type `{kind}` instead of an event stream"
        )));
    }
    // The decoder holds an unfinished event for as long as it grows.
    let held = Arc::new(AtomicUsize::new(0));
    let bytes = stream::unfold((body, Arc::clone(&held)), |(mut body, held)| async move {
        let chunk = match body.chunk().await {
            Ok(None) => return None,
            Ok(Some(chunk)) => {
                let total = held.fetch_add(chunk.len(), Ordering::Relaxed) + chunk.len();
                (total <= FRAME_BYTES_MAX)
                    .then_some(chunk)
                    .ok_or_else(|| too_large(None))
            }
            Err(failure) => Err(format!("the connection broke: {}", failure.message)),
        };
        Some((chunk, (body, held)))
    });
    let incoming = sseer::EventStream::new(bytes.boxed()).map(move |event| {
        held.store(0, Ordering::Relaxed);
        match event {
            Ok(event) => {
                resume.note(&event.id, event.retry);
                let block = block(&event.event, &event.id, &event.data);
                Ok(Incoming::Message(StreamMessage::Text(block)))
            }
            Err(EventStreamError::Transport(reason)) => Err(reason),
            Err(EventStreamError::Utf8Error(_)) => Err("an event came that is not UTF-8".into()),
        }
    });
    Ok(Connection {
        incoming: incoming.boxed(),
        outgoing: None,
    })
}

/// `event: NAME` where it has one, `id: ID` where it has one, and a `data: …` for every line.
fn block(event: &str, id: &str, data: &str) -> String {
    let mut text = String::with_capacity(data.len() + 64);
    let mut field = |name: &str, value: &str| {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push('\n');
    };
    if event != "message" {
        field("event", event);
    }
    if !id.is_empty() {
        field("id", id);
    }
    for line in data.split('\n') {
        field("data", line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_with_all_its_fields() {
        assert_eq!(block("message", "", "{}"), "data: {}\n");
        assert_eq!(
            block("progress", "7", "a\nb"),
            "event: progress\nid: 7\ndata: a\ndata: b\n"
        );
    }

    #[test]
    fn the_next_connection_begins_where_the_last_event_was() {
        let resume = Resume::default();
        resume.note("7", Some(Duration::from_secs(3)));
        resume.note("8", None);
        resume.note(&"x".repeat(5000), None);
        assert_eq!(resume.last_event_id().as_deref(), Some("8"));
        assert_eq!(resume.retry(), Some(Duration::from_secs(3)));
    }
}
