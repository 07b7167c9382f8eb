//! `/api/executions/{id}/logs`: the provider's own lines about one execution, passed through and not kept.

use super::errors::Problem;
use super::params::{Params, uuid};
use super::views::Time;
use super::{ApiState, View, store};
use actix_web::HttpRequest;
use actix_web::web::{Data, Json, Path};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use weir_core::model::logs::{Direction, LogLine, LogPage};
use weir_core::model::observation::JobRef;

const LIMIT_DEFAULT: usize = 200;
const LIMIT_MAX: usize = 1000;
/// Bytes of the lines of one answer; at least one line is told.
const BYTES_MAX: usize = 1 << 20;
/// A longer cursor cannot come back in an address.
const CURSOR_LEN_MAX: usize = 16 << 10;

/// Lines in the order of time, whatever the direction.
#[derive(Debug, Serialize)]
pub(super) struct LogsView {
    items: Vec<LineView>,
    /// Where to go on in the same direction; also where new lines will be, when there are no `more` now.
    next_cursor: Option<String>,
    more: bool,
}

#[derive(Debug, Serialize)]
struct LineView {
    time: Option<Time>,
    origin: String,
    text: String,
}

pub(super) async fn of_execution(
    request: HttpRequest,
    state: Data<ApiState>,
    id: Path<String>,
) -> View<LogsView> {
    let params = Params::of(&request, &["direction", "cursor", "limit"])?;
    let direction = match params.word("direction", &["forward", "backward"])? {
        Some("backward") => Direction::Backward,
        _ => Direction::Forward,
    };
    let wanted = "a number from 1 to 1000";
    let limit: usize = params.get("limit", wanted)?.unwrap_or(LIMIT_DEFAULT);
    if limit == 0 || limit > LIMIT_MAX {
        let found = format_args!("found `{limit}`, wanted {wanted}");
        return Err(Problem::bad_parameter("limit", found));
    }
    let place = match params.text("cursor") {
        Some(text) => Place::parse(text).ok_or_else(|| {
            Problem::bad_parameter("cursor", "it is not the `next_cursor` of a page before")
        })?,
        None => Place::default(),
    };
    let id = uuid(&id, "an execution")?;
    let _turn = state
        .log_readers
        .try_acquire()
        .map_err(|_| Problem::unavailable("logs of other executions are being read; try again"))?;
    let execution = store::read(&state, move |reader| store::execution(reader, id)).await?;
    let key = execution.record.key;
    let job = JobRef {
        id: key.external_id,
        run: (!key.run.is_empty()).then_some(key.run),
    };
    let source = &execution.source_name;
    let read = state
        .monitor
        .read_logs(source, job, direction, place.cursor.clone());
    let page = read.await.map_err(|error| Problem::logs(source, &error))?;
    place.cut(page, direction, limit).map(Json)
}

/// A place in a log: the provider's cursor, and how many lines of the page there were told already.
///
/// Pages are the provider's, of any length; an answer of ours is bounded and may end within one.
#[derive(Debug, Default, PartialEq)]
struct Place {
    skip: usize,
    cursor: Option<String>,
}

impl Place {
    /// `SKIP` or `SKIP.CURSOR`, the cursor in base64.
    fn parse(text: &str) -> Option<Place> {
        let (skip, cursor) = match text.split_once('.') {
            Some((skip, cursor)) => (skip, Some(cursor)),
            None => (text, None),
        };
        let decode = |cursor| String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok();
        Some(Place {
            skip: skip.parse().ok()?,
            cursor: match cursor {
                Some(cursor) => Some(decode(cursor)?),
                None => None,
            },
        })
    }

    fn text(&self) -> Result<String, Problem> {
        let text = match &self.cursor {
            Some(cursor) => format!("{}.{}", self.skip, URL_SAFE_NO_PAD.encode(cursor)),
            None => self.skip.to_string(),
        };
        if text.len() > CURSOR_LEN_MAX {
            return Err(Problem::bad_gateway(
                "the provider's cursor is too long to be handed out",
            ));
        }
        Ok(text)
    }

    /// The lines that one answer takes, from the side where the reader is.
    fn cut(self, page: LogPage, direction: Direction, limit: usize) -> Result<LogsView, Problem> {
        let total = page.lines.len();
        let skip = self.skip.min(total);
        let mut bytes = 0;
        let fits = |line: &&LogLine| {
            bytes += line.text.len() + line.origin.len();
            bytes <= BYTES_MAX
        };
        let count = match direction {
            Direction::Forward => page.lines[skip..]
                .iter()
                .take(limit)
                .take_while(fits)
                .count(),
            Direction::Backward => {
                let rest = page.lines[..total - skip].iter().rev();
                rest.take(limit).take_while(fits).count()
            }
        };
        // A line that is too long for any answer is told alone.
        let count = if count == 0 {
            (total - skip).min(1)
        } else {
            count
        };
        let begin = match direction {
            Direction::Forward => skip,
            Direction::Backward => total - skip - count,
        };
        let told = skip + count;
        let next = if told < total {
            Some(Place {
                skip: told,
                cursor: self.cursor,
            })
        } else if page.cursor.is_some() {
            Some(Place {
                skip: 0,
                cursor: page.cursor,
            })
        } else if direction == Direction::Forward && !page.more {
            // No cursor: what is new will stand on this page.
            Some(Place {
                skip: told,
                cursor: self.cursor,
            })
        } else {
            None
        };
        let view = |line: LogLine| LineView {
            time: line.at.map(Time),
            origin: line.origin,
            text: line.text,
        };
        let lines = page.lines.into_iter().skip(begin).take(count);
        Ok(LogsView {
            items: lines.map(view).collect(),
            next_cursor: next.as_ref().map(Place::text).transpose()?,
            more: told < total || page.more,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(texts: &[&str], cursor: Option<&str>, more: bool) -> LogPage {
        let line = |text: &&str| LogLine {
            at: None,
            origin: "worker".into(),
            text: (*text).to_owned(),
        };
        LogPage {
            lines: texts.iter().map(line).collect(),
            cursor: cursor.map(str::to_owned),
            more,
        }
    }

    fn told(
        place: Place,
        page: LogPage,
        direction: Direction,
    ) -> (Vec<String>, Option<Place>, bool) {
        let view = place.cut(page, direction, 2).unwrap();
        let texts = view.items.into_iter().map(|line| line.text).collect();
        let next = view.next_cursor.map(|text| Place::parse(&text).unwrap());
        (texts, next, view.more)
    }

    fn place(skip: usize, cursor: Option<&str>) -> Place {
        Place {
            skip,
            cursor: cursor.map(str::to_owned),
        }
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_long_page_is_told_in_pieces_and_nothing_twice() {
        let three = || page(&["a", "b", "c"], Some("p2"), true);
        let first = told(Place::default(), three(), Direction::Forward);
        assert_eq!(first, (texts(&["a", "b"]), Some(place(2, None)), true));
        let second = told(place(2, None), three(), Direction::Forward);
        assert_eq!(second, (texts(&["c"]), Some(place(0, Some("p2"))), true));
        let last = told(Place::default(), three(), Direction::Backward);
        assert_eq!(last, (texts(&["b", "c"]), Some(place(2, None)), true));
        let before = told(place(2, None), three(), Direction::Backward);
        assert_eq!(before, (texts(&["a"]), Some(place(0, Some("p2"))), true));
    }

    #[test]
    fn a_log_without_cursors_is_followed_on_its_one_page() {
        let end = told(
            place(0, None),
            page(&["a"], None, false),
            Direction::Forward,
        );
        assert_eq!(end, (texts(&["a"]), Some(place(1, None)), false));
        let grown = told(
            place(1, None),
            page(&["a", "b"], None, false),
            Direction::Forward,
        );
        assert_eq!(grown, (texts(&["b"]), Some(place(2, None)), false));
        let oldest = told(
            Place::default(),
            page(&["a"], None, false),
            Direction::Backward,
        );
        assert_eq!(oldest, (texts(&["a"]), None, false));
    }

    #[test]
    fn an_answer_is_bounded_in_bytes_and_a_cursor_in_length() {
        let long = "x".repeat(BYTES_MAX);
        let cut = told(
            Place::default(),
            page(&[&long, "b"], None, false),
            Direction::Forward,
        );
        assert_eq!((cut.0.len(), cut.1), (1, Some(place(1, None))));
        let endless = page(&["a"], Some(&"c".repeat(CURSOR_LEN_MAX)), true);
        assert!(
            Place::default()
                .cut(endless, Direction::Forward, 2)
                .is_err()
        );
        for text in ["", "x", "-1", "1.*", "1.gICA"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }
}
