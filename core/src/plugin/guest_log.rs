//! What guests write: log lines through the contract and the tail of their stderr, bounded and without secrets.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::credential::Redactor;
use super::gauge::{Gauge, Mark};
use super::text::{printable, printable_lines};

const TAIL_BYTES: usize = 8 * 1024;
/// Kept beyond the tail, so that a secret cut at its beginning never shows.
const TAIL_MARGIN: usize = 8 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// The log of one entry: so many lines a minute, each of so many bytes; what is over is counted.
pub(super) struct GuestLog {
    plugin: String,
    entry: String,
    redactor: Redactor,
    gauge: Arc<Gauge>,
    window: Mutex<Window>,
    dropped: AtomicU64,
}

struct Window {
    since: Instant,
    lines: u32,
    dropped: u32,
}

impl GuestLog {
    pub(super) fn new(
        plugin: &str,
        entry: &str,
        redactor: Redactor,
        gauge: Arc<Gauge>,
    ) -> GuestLog {
        GuestLog {
            gauge,
            plugin: plugin.to_owned(),
            entry: entry.to_owned(),
            redactor,
            window: Mutex::new(Window {
                since: Instant::now(),
                lines: 0,
                dropped: 0,
            }),
            dropped: AtomicU64::new(0),
        }
    }

    pub(super) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn log(&self, level: Level, message: &str) {
        match self.admit(Instant::now()) {
            Admission::Pass => {}
            Admission::PassAfter(dropped) => {
                self.emit(Level::Warn, &format!("{dropped} log lines left out"));
            }
            Admission::Drop => return,
        }
        let max = self.gauge.limits().log_line_bytes;
        self.gauge.note_len(Mark::LogLine, message.len());
        // Redacted before it is cut, or half a secret might stay.
        let message = self.redactor.redact(super::text::clip(message, 2 * max));
        self.emit(level, &printable(&message, max));
    }

    fn admit(&self, now: Instant) -> Admission {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = 0;
        if now.saturating_duration_since(window.since) >= Duration::from_secs(60) {
            dropped = window.dropped;
            *window = Window {
                since: now,
                lines: 0,
                dropped: 0,
            };
        }
        if window.lines >= self.gauge.limits().log_lines_per_minute {
            window.dropped = window.dropped.saturating_add(1);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Admission::Drop;
        }
        window.lines += 1;
        self.gauge.note(Mark::LogLines, u64::from(window.lines));
        if dropped > 0 {
            Admission::PassAfter(dropped)
        } else {
            Admission::Pass
        }
    }

    fn emit(&self, level: Level, message: &str) {
        let (plugin, entry) = (self.plugin.as_str(), self.entry.as_str());
        match level {
            Level::Debug => tracing::debug!(target: "weir::guest", plugin, entry, "{message}"),
            Level::Info => tracing::info!(target: "weir::guest", plugin, entry, "{message}"),
            Level::Warn => tracing::warn!(target: "weir::guest", plugin, entry, "{message}"),
            Level::Error => tracing::error!(target: "weir::guest", plugin, entry, "{message}"),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Admission {
    Pass,
    PassAfter(u32),
    Drop,
}

/// The last 8 KiB of what an instance wrote to stdout and stderr. Writing never blocks and never fails.
#[derive(Clone, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = &bytes[bytes.len().saturating_sub(TAIL_BYTES + TAIL_MARGIN)..];
        let over = (kept.len() + bytes.len()).saturating_sub(TAIL_BYTES + TAIL_MARGIN);
        kept.drain(..over);
        kept.extend(bytes);
    }

    pub(super) fn line(&self, text: &str) {
        self.push(text.as_bytes());
        self.push(b"\n");
    }

    pub(super) fn text(&self, redactor: &Redactor) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(kept.make_contiguous());
        let text = redactor.redact(&text);
        let from = text.ceil_char_boundary(text.len().saturating_sub(TAIL_BYTES));
        printable_lines(&text[from..], 2 * TAIL_BYTES)
    }
}

impl IsTerminal for Tail {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Tail {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    /// Written at once: through a background task the last words before a trap would be lost.
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Tail {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 * 1024)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Tail {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Tail {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::Limits;
    use super::*;

    #[test]
    fn two_hundred_lines_a_minute_pass_and_the_rest_is_counted() {
        let log = GuestLog::new(
            "p",
            "e",
            Redactor::default(),
            Arc::new(Gauge::new(Limits::default())),
        );
        let start = log.window.lock().unwrap().since;
        for _ in 0..200 {
            assert_eq!(log.admit(start), Admission::Pass);
        }
        for _ in 0..1_000_000 {
            assert_eq!(log.admit(start), Admission::Drop);
        }
        assert_eq!(log.dropped(), 1_000_000);
        let later = start + Duration::from_secs(60);
        assert_eq!(log.admit(later), Admission::PassAfter(1_000_000));
        assert_eq!(log.admit(later), Admission::Pass);
    }

    #[test]
    fn a_line_has_its_length() {
        let limits = Limits {
            log_line_bytes: 30,
            ..Limits::default()
        };
        let gauge = Arc::new(Gauge::new(limits));
        let log = GuestLog::new("p", "e", Redactor::default(), gauge);
        let written = Arc::new(Mutex::new(Vec::new()));
        #[derive(Clone)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines(Arc::clone(&written));
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || lines.clone())
            .with_ansi(false)
            .without_time()
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            log.log(Level::Warn, &"and so on ".repeat(500));
        });
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(written.matches("and so on").count(), 3, "{written}");
    }

    #[test]
    fn the_tail_keeps_the_end_and_never_half_a_secret() {
        let secret = "s3cr3t-canary-value";
        let redactor = Redactor::new(vec![("key".into(), secret.into())]);
        for pad in (TAIL_BYTES - 40)..(TAIL_BYTES + 40) {
            let tail = Tail::default();
            tail.push(&[b'a'; TAIL_BYTES]);
            tail.push(secret.as_bytes());
            tail.push(&vec![b'z'; pad]);
            let text = tail.text(&redactor);
            assert!(text.len() <= TAIL_BYTES + 40);
            assert!(!text.contains("canary") && !text.contains("value"));
            assert!(text.ends_with("zz"));
        }
    }
}
