//! The far side of the live fixture: jobs over HTTP, and connections that a test holds in its hand.

use futures::{SinkExt, StreamExt};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

/// Nothing that is waited for takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that weir made, in the test's hand.
pub(super) struct Held {
    pub(super) socket: WebSocketStream<TcpStream>,
    /// Headers of the handshake.
    pub(super) headers: Vec<(String, String)>,
}

/// An event stream that weir asked for: its head was answered.
pub(super) struct Events {
    pub(super) stream: TcpStream,
    /// The request.
    pub(super) asked: String,
}

pub(super) struct Far {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    sockets: mpsc::UnboundedReceiver<Held>,
    events: mpsc::UnboundedReceiver<Events>,
}

struct Shared {
    jobs: Mutex<String>,
    polls: AtomicU64,
    connects: AtomicU64,
    /// Answered instead of a websocket; 0 = take it.
    refusal: AtomicU16,
    sockets: mpsc::UnboundedSender<Held>,
    events: mpsc::UnboundedSender<Events>,
}

impl Far {
    pub(super) async fn start() -> Far {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sockets_tx, sockets) = mpsc::unbounded_channel();
        let (events_tx, events) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            jobs: Mutex::default(),
            polls: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            refusal: AtomicU16::new(0),
            sockets: sockets_tx,
            events: events_tx,
        });
        let far = Far {
            address: listener.local_addr().unwrap(),
            shared: Arc::clone(&shared),
            sockets,
            events,
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        far
    }

    /// What the next poll finds: lines `ID STATE [STEP...]`.
    pub(super) fn jobs(&self, lines: &str) {
        lines.clone_into(&mut self.shared.jobs.lock().unwrap());
    }

    pub(super) fn refuse(&self, status: u16) {
        self.shared.refusal.store(status, Ordering::Relaxed);
    }

    pub(super) fn polls(&self) -> u64 {
        self.shared.polls.load(Ordering::Relaxed)
    }

    pub(super) fn connects(&self) -> u64 {
        self.shared.connects.load(Ordering::Relaxed)
    }

    /// The next connection that weir makes.
    pub(super) async fn held(&mut self) -> Held {
        let next = tokio::time::timeout(PATIENCE, self.sockets.recv());
        next.await.expect("weir connects").unwrap()
    }

    pub(super) async fn events(&mut self) -> Events {
        let next = tokio::time::timeout(PATIENCE, self.events.recv());
        next.await.expect("weir asks for events").unwrap()
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut head = vec![0; 8192];
    let head = loop {
        match stream.peek(&mut head).await {
            Ok(n) if head[..n].ends_with(b"\r\n\r\n") => {
                break String::from_utf8_lossy(&head[..n]).into_owned();
            }
            Ok(n) if n > 0 => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => return,
        }
    };
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let refusal = shared.refusal.load(Ordering::Relaxed);
    if path == "/ws" && refusal == 0 {
        shared.connects.fetch_add(1, Ordering::Relaxed);
        return accept(stream, &shared).await;
    }
    let mut rest = vec![0; head.len()];
    stream.read_exact(&mut rest).await.unwrap();
    let (status, body) = match path.as_str() {
        "/jobs" => {
            shared.polls.fetch_add(1, Ordering::Relaxed);
            (200, shared.jobs.lock().unwrap().clone())
        }
        "/slow" => return tokio::time::sleep(PATIENCE).await,
        "/events" => {
            shared.connects.fetch_add(1, Ordering::Relaxed);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let asked = Events {
                stream,
                asked: head_of(&rest),
            };
            return drop(shared.events.send(asked));
        }
        _ => (refusal.max(404), String::new()),
    };
    let answer = format!(
        "HTTP/1.1 {status} Whatever\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // weir may have gone.
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn head_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).to_ascii_lowercase()
}

async fn accept(stream: TcpStream, shared: &Shared) {
    let mut headers = Vec::new();
    #[expect(clippy::result_large_err, reason = "the shape that tungstenite wants")]
    let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let pairs = request.headers().iter();
        headers.extend(pairs.map(|(name, value)| (name.to_string(), text(value.as_bytes()))));
        Ok(response)
    };
    let accepted = tokio_tungstenite::accept_hdr_async(stream, note).await;
    if let Ok(socket) = accepted {
        drop(shared.sockets.send(Held { socket, headers }));
    }
}

impl Held {
    pub(super) async fn say(&mut self, text: &str) {
        self.socket.send(Message::Text(text.into())).await.unwrap();
    }

    /// The next text that weir sends; pings are answered meanwhile.
    pub(super) async fn hear(&mut self) -> String {
        let hearing = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => return text.to_string(),
                    Some(Ok(_)) => {}
                    other => panic!("weir is gone: {other:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, hearing)
            .await
            .expect("weir says something")
    }

    /// What the fixture reports of its calls, added up until `enough`: connected, messages, bytes, dropped.
    pub(super) async fn reports(&mut self, enough: impl Fn(&[u64; 4]) -> bool) -> [u64; 4] {
        let mut sum = [0; 4];
        while !enough(&sum) {
            let report = self.hear().await;
            let words: Vec<u64> = report
                .split(' ')
                .map(|word| word.parse().unwrap())
                .collect();
            sum.iter_mut()
                .zip(words)
                .for_each(|(sum, word)| *sum += word);
        }
        sum
    }
}
