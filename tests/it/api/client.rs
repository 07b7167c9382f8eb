//! A plain HTTP/1.1 client that sends exactly what a test says, wrong things too.

use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// Sends a request with these header lines and reads the answer to its end.
pub(super) async fn ask(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    if !body.is_empty() {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    request.push_str(body);
    let mut stream = TcpStream::connect(to).await.unwrap();
    // The other side may refuse before it has read everything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no head: {text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if chunked {
        unchunk(body)
    } else {
        body.to_owned()
    };
    Answer {
        status,
        head: head.to_owned(),
        body,
    }
}

fn unchunk(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((length, rest)) = text.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap();
        body.push_str(&rest[..length]);
        text = rest[length..].trim_start_matches("\r\n");
    }
    body
}

/// One message of an event stream.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) id: Option<String>,
    pub(super) event: Option<String>,
    pub(super) data: Value,
    pub(super) comment: Option<String>,
}

/// An open event stream.
pub(super) struct Stream {
    tcp: TcpStream,
    text: String,
}

impl Stream {
    pub(super) async fn open(to: SocketAddr, path: &str, headers: &[&str]) -> Stream {
        let mut tcp = TcpStream::connect(to).await.unwrap();
        let headers: String = headers
            .iter()
            .map(|header| format!("{header}\r\n"))
            .collect();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {to}\r\naccept: text/event-stream\r\nconnection: close\r\n{headers}\r\n"
        );
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Stream {
            tcp,
            text: String::new(),
        };
        let head = stream.until("\r\n\r\n").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("text/event-stream"), "{head}");
        stream
    }

    /// The next message; none when the stream is over. Chunk sizes stand on lines of their own and mean nothing here.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let block = self.until("\n\n").await?;
        let mut message = Message::default();
        for line in block.lines().map(|line| line.trim_end_matches('\r')) {
            if let Some(id) = line.strip_prefix("id: ") {
                message.id = Some(id.to_owned());
            } else if let Some(event) = line.strip_prefix("event: ") {
                message.event = Some(event.to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                message.data = serde_json::from_str(data).unwrap();
            } else if let Some(comment) = line.strip_prefix(": ") {
                message.comment = Some(comment.to_owned());
            }
        }
        Some(message)
    }

    /// The next message that is an event of the journal.
    pub(super) async fn event(&mut self) -> Message {
        loop {
            let message = self.next().await.expect("the stream goes on");
            if message.event.is_none() && message.id.is_some() {
                return message;
            }
        }
    }

    /// The next message of this name.
    pub(super) async fn named(&mut self, name: &str) -> Message {
        loop {
            let message = self.next().await.expect("the stream goes on");
            if message.event.as_deref() == Some(name) {
                return message;
            }
        }
    }

    async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.text.find(end) {
                let rest = self.text.split_off(at + end.len());
                return Some(std::mem::replace(&mut self.text, rest));
            }
            let mut bytes = [0u8; 4096];
            match timeout(PATIENCE, self.tcp.read(&mut bytes)).await.unwrap() {
                Ok(0) | Err(_) => return None,
                Ok(length) => self
                    .text
                    .push_str(std::str::from_utf8(&bytes[..length]).unwrap()),
            }
        }
    }
}
