//! Server-sent events, read one by one and within bounds.

use super::{ClientError, reason};
use serde_json::Value;

/// A longer event is refused: the daemon's own are far below.
const EVENT_LEN_MAX: usize = 1 << 20;

/// One message of the stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Where to resume after this one; none on frames that are not kept.
    pub id: Option<String>,
    /// `event:`; empty for a heartbeat that came as a comment.
    pub kind: String,
    pub data: Value,
}

impl Message {
    /// A sign of life without content.
    pub fn is_heartbeat(&self) -> bool {
        self.kind.is_empty() || self.kind == "heartbeat"
    }
}

#[derive(Debug)]
pub struct EventStream {
    response: reqwest::Response,
    parser: Parser,
}

impl EventStream {
    pub(super) fn new(response: reqwest::Response) -> EventStream {
        EventStream {
            response,
            parser: Parser::default(),
        }
    }

    /// The next message; none at the end of the stream.
    pub async fn next(&mut self) -> Result<Option<Message>, ClientError> {
        loop {
            if let Some(message) = self.parser.message() {
                return Ok(Some(message));
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.parser.feed(&chunk)?,
                Ok(None) => return Ok(None),
                Err(error) => return Err(ClientError::Broken(reason(&error))),
            }
        }
    }
}

/// Turns bytes into messages.
#[derive(Debug, Default)]
struct Parser {
    buffer: Vec<u8>,
    /// Up to here the buffer was looked at and has no whole line.
    scanned: usize,
    id: Option<String>,
    kind: String,
    data: String,
    ready: std::collections::VecDeque<Message>,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.buffer.extend_from_slice(bytes);
        while let Some(end) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') {
            let rest = self.buffer.split_off(self.scanned + end + 1);
            let line = std::mem::replace(&mut self.buffer, rest);
            self.scanned = 0;
            let line = String::from_utf8_lossy(&line).into_owned();
            self.line(line.trim_end_matches(['\r', '\n']));
            if self.data.len() > EVENT_LEN_MAX {
                return Err(ClientError::TooLarge);
            }
        }
        self.scanned = self.buffer.len();
        if self.buffer.len() > EVENT_LEN_MAX {
            return Err(ClientError::TooLarge);
        }
        Ok(())
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.ready.push_back(Message::default()),
            "id" => self.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let id = self.id.take();
        let kind = std::mem::take(&mut self.kind);
        let data = std::mem::take(&mut self.data);
        if data.is_empty() && kind.is_empty() {
            return;
        }
        let data = serde_json::from_str(&data).unwrap_or(Value::String(data));
        let kind = if kind.is_empty() {
            "message".to_owned()
        } else {
            kind
        };
        self.ready.push_back(Message { id, kind, data });
    }

    fn message(&mut self) -> Option<Message> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(chunks: &[&str]) -> Vec<Message> {
        let mut parser = Parser::default();
        for chunk in chunks {
            parser.feed(chunk.as_bytes()).unwrap();
        }
        std::iter::from_fn(|| parser.message()).collect()
    }

    #[test]
    fn a_message_may_come_in_pieces_and_a_comment_is_a_heartbeat() {
        let messages = parse(&[
            ": hi\n\nid: 0192-",
            "7\r\nevent: execution.started\r\nda",
            "ta: {\"seq\":7}\r\n\r\nevent: progress\ndata: {}\n\n",
        ]);
        assert!(messages[0].is_heartbeat());
        assert_eq!(messages[1].id.as_deref(), Some("0192-7"));
        assert_eq!(messages[1].kind, "execution.started");
        assert_eq!(messages[1].data["seq"], 7);
        assert_eq!(messages[2].id, None, "an id belongs to its own message");
        assert_eq!(messages.len(), 3);
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let mut parser = Parser::default();
        let chunk = vec![b'x'; 64 * 1024];
        let refused = (0..64).any(|_| parser.feed(&chunk).is_err());
        assert!(refused);
    }
}
