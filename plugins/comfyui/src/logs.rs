//! The terminal of one ComfyUI server: the last 300 pieces of output, of all prompts together.
//!
//! The address is one that ComfyUI calls internal, and no line says which prompt it belongs to, so this is off unless
//! the operator asks for it, and each line says where it comes from.

use weir_sdk::{Failure, FailureKind, Far, text};

use crate::bindings::exports::weir::plugin::logs::{Direction, Line, LogPage};
use crate::client::Client;
use crate::source::Source;
use crate::wire::Terminal;

const ORIGIN: &str = "terminal (all prompts)";
const LINE_MAX: usize = 4096;
const LINES_MAX: usize = 2000;

impl Source {
    /// The pieces after `cursor` (the time of the last one that was read), or before it; in the order of the terminal.
    pub fn read_logs(
        &mut self,
        far: &impl Far,
        direction: Direction,
        cursor: Option<&str>,
    ) -> Result<LogPage, Failure> {
        if !self.config.logs {
            return Err(Failure {
                message: "ComfyUI keeps no logs of single prompts; `logs: true` in the config of this source offers the server's terminal".to_owned(),
                kind: Some(FailureKind::Unsupported),
                retry_after_ms: None,
            });
        }
        let terminal: Terminal = Client::new(far, &self.config).json("/internal/logs/raw")?;
        Ok(page(terminal, direction, cursor))
    }
}

fn page(terminal: Terminal, direction: Direction, cursor: Option<&str>) -> LogPage {
    let is_wanted = |time: &str| match (cursor, direction) {
        (None, _) => true,
        (Some(cursor), Direction::Forward) => time > cursor,
        (Some(cursor), Direction::Backward) => time < cursor,
    };
    let mut lines = Vec::new();
    let mut ends: Option<(String, String)> = None;
    for piece in terminal.entries.good {
        let time = text::line(&piece.t.0.unwrap_or_default(), 40);
        if !is_wanted(&time) {
            continue;
        }
        lines.extend(shown(&time, &piece.m.0.unwrap_or_default()));
        let first = ends.map_or_else(|| time.clone(), |(first, _)| first);
        ends = Some((first, time));
    }
    let more = lines.len().saturating_sub(LINES_MAX);
    // The newest are worth most.
    lines.drain(..more);
    let cursor = match (ends, direction) {
        (Some((_, last)), Direction::Forward) => Some(last),
        (Some((first, _)), Direction::Backward) => Some(first),
        (None, _) => cursor.map(str::to_owned),
    };
    LogPage {
        lines,
        cursor,
        // The ring has no second page.
        more: false,
    }
}

/// The lines of one piece; of a progress bar that was drawn over itself, what it looked like last.
fn shown<'a>(time: &'a str, piece: &'a str) -> impl Iterator<Item = Line> + 'a {
    let clock = time.get(11..19).unwrap_or(time);
    let lines = piece.split('\n').map(|line| {
        let line = line.trim_end_matches('\r');
        text::line(line.rsplit('\r').next().unwrap_or(line), LINE_MAX)
    });
    lines.filter(|line| !line.is_empty()).map(move |line| Line {
        at: None,
        origin: ORIGIN.to_owned(),
        text: if clock.is_empty() {
            line
        } else {
            format!("{clock} {line}")
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> Terminal {
        serde_json::from_str(
            r#"{"entries": [
            {"t": "2026-11-22T10:00:00.1", "m": "got prompt\n"},
            {"t": "2026-11-22T10:00:01.5", "m": "\r  0%|  | 0/3\r 33%|█ | 1/3 \u001b[0m"},
            {"t": "2026-11-22T10:00:02", "m": "a\nb\n\n"},
            7, {}
        ], "size": {"cols": 80, "rows": 24}}"#,
        )
        .unwrap()
    }

    fn texts(page: &LogPage) -> Vec<&str> {
        page.lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn the_terminal_is_read_on_from_where_it_was_left() {
        let first = page(raw(), Direction::Forward, None);
        assert_eq!(
            texts(&first),
            [
                "10:00:00 got prompt",
                "10:00:01 33%|█ | 1/3 [0m",
                "10:00:02 a",
                "10:00:02 b"
            ]
        );
        let next = page(raw(), Direction::Forward, Some("2026-11-22T10:00:01.5"));
        assert_eq!(texts(&next), ["10:00:02 a", "10:00:02 b"]);
        let back = page(raw(), Direction::Backward, Some("2026-11-22T10:00:01.5"));
        assert_eq!(texts(&back), ["10:00:00 got prompt"]);
    }
}
