//! The WebSocket frames of a recording: what each recorded client was sent, and when.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Bytes;
use base64::Engine as _;

use super::rebase::rebase;
use super::recording::{Line, at};

/// A longer frame is cut: the largest real one has 300 kB.
const FRAME_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Something that happened on one recorded connection.
#[derive(Debug, Clone)]
pub(super) struct RecordedFrame {
    pub(super) at: Duration,
    /// The recorder's name of the connection: `submitter`, `monitor`, `anon`.
    pub(super) conn: Arc<str>,
    pub(super) what: Happened,
}

#[derive(Debug, Clone)]
pub(super) enum Happened {
    /// The client connected under this id; none = the server gave it one.
    Opened(Option<String>),
    Text(Arc<str>),
    Binary(Bytes),
    /// The connection ended; by the server, or because the recorder was done with it.
    Closed,
}

impl RecordedFrame {
    /// Moves the epoch times within.
    pub(super) fn rebase(&mut self, shift_ms: i64) {
        if let Happened::Text(text) = &self.what {
            self.what = Happened::Text(rebase(text, shift_ms).into());
        }
    }
}

pub(super) fn of(lines: &[Line]) -> Vec<RecordedFrame> {
    lines.iter().filter_map(frame).collect()
}

fn frame(line: &Line) -> Option<RecordedFrame> {
    let what = match line.k.as_str() {
        "ws.open" => Happened::Opened(client_id(line.path.as_deref()?)),
        "ws.text" => Happened::Text(line.text.as_deref()?.into()),
        "ws.bin" => Happened::Binary(binary(line)?),
        "ws.close" => Happened::Closed,
        _ => return None,
    };
    Some(RecordedFrame {
        at: at(line.t),
        conn: line.conn.clone()?,
        what,
    })
}

/// The `clientId` of a path such as `/ws?clientId=…`.
pub(super) fn client_id(path: &str) -> Option<String> {
    let (_, query) = path.split_once('?')?;
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let (_, id) = pairs.find(|(name, _)| name == "clientId")?;
    (!id.is_empty()).then(|| id.into_owned())
}

/// The whole frame where the recording has it, else its beginning, filled up to its length.
fn binary(line: &Line) -> Option<Bytes> {
    if let Some(whole) = &line.b64 {
        let whole = base64::engine::general_purpose::STANDARD
            .decode(whole)
            .ok()?;
        return Some(whole.into());
    }
    let head = line.head_hex.as_deref().unwrap_or_default();
    let mut bytes: Vec<u8> = (0..head.len() / 2)
        .filter_map(|n| u8::from_str_radix(head.get(2 * n..2 * n + 2)?, 16).ok())
        .collect();
    let len = usize::try_from(line.len?.min(FRAME_BYTES_MAX)).ok()?;
    bytes.resize(len.max(bytes.len()), 0);
    Some(bytes.into())
}
