//! A job's lines from Cloud Logging, by pages in either direction.
//!
//! Entries arrive late and out of order, so a tail looks 30 s back each time and leaves out what it told already, by
//! insert id. A page token belongs to one question only; the question's bounds are therefore in the cursor beside it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use weir_sdk::bindings::weir::plugin::types::JobRef;
use weir_sdk::{Failure, Far, failure, text};

use crate::bindings::exports::weir::plugin::logs::{Direction, Line, LogPage};
use crate::client::{Client, Trouble};
use crate::config::Config;
use crate::cursor::TOKEN_MAX;
use crate::kind::Kind;
use crate::name::Name;
use crate::source::digest;
use crate::time::{self, SECOND};
use crate::wire::{LogEntries, LogEntry};

const PAGE_SIZE: u32 = 200;
/// How late an entry may arrive.
const OVERLAP: u64 = 30 * SECOND;
/// Entries of the overlap that are remembered; 12 characters each in the cursor, which becomes part of a URL.
const TOLD_MAX: usize = 400;
/// Pages without a line that one call goes on over.
const EMPTY_MAX: u32 = 8;
const LINE_MAX: usize = 16 * 1024;
/// Lines of one entry: a traceback is shorter.
const ENTRY_LINES_MAX: usize = 200;
const ORIGIN_MAX: usize = 100;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Cursor {
    v: u32,
    backward: bool,
    /// The bound of the question that `token` belongs to, as it was asked.
    bound: Option<String>,
    token: Option<String>,
    /// The newest time that was told, in milliseconds.
    last: Option<u64>,
    /// Nothing before it is asked for again: more was told since than is remembered.
    floor: Option<u64>,
    /// What was told of the overlap, oldest first.
    #[serde(with = "packed")]
    told: VecDeque<Told>,
}

/// An entry that was told already.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Told {
    digest: u32,
    /// Milliseconds; of an entry without a time, that of the entry before it.
    at: u64,
}

const VERSION: u32 = 2;

impl Cursor {
    fn remember(&mut self, digest: u32, at: Option<u64>) {
        self.last = self.last.max(at);
        let at = at.or(self.last).unwrap_or(0);
        self.told.push_back(Told { digest, at });
        let since = self.last.unwrap_or(0).saturating_sub(OVERLAP);
        self.told.retain(|told| told.at >= since);
        if self.told.len() > TOLD_MAX
            && let Some(forgotten) = self.told.pop_front()
        {
            self.floor = self.floor.max(Some(forgotten.at.saturating_add(1)));
        }
    }

    /// Where a tail goes on.
    fn since(&self) -> Option<u64> {
        let overlap = self.last.map(|last| last.saturating_sub(OVERLAP));
        overlap.max(self.floor)
    }
}

/// Digests and times, the latter as what they are after the first one's: `TIME` and for each `DIGEST` and `OFFSET`, in
/// hexadecimal digits.
mod packed {
    use super::Told;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::collections::VecDeque;

    const TIME: usize = 16;
    const ENTRY: usize = 12;

    pub(super) fn serialize<S: Serializer>(
        told: &VecDeque<Told>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let first = told.iter().map(|told| told.at).min().unwrap_or(0);
        let mut text = format!("{first:016x}");
        for told in told {
            // They lie within the overlap, which is half of what fits.
            let offset = (told.at - first).min(0xffff);
            text.push_str(&format!("{:08x}{offset:04x}", told.digest));
        }
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<VecDeque<Told>, D::Error> {
        let text = String::deserialize(from)?;
        let number = |from: usize, len: usize| {
            let digits = text.get(from..from + len);
            digits.and_then(|digits| u64::from_str_radix(digits, 16).ok())
        };
        let wrong = || D::Error::custom("no list of entries");
        let first = number(0, TIME).ok_or_else(wrong)?;
        let mut told = VecDeque::new();
        for at in (TIME..text.len()).step_by(ENTRY) {
            let digest = number(at, 8).and_then(|digest| u32::try_from(digest).ok());
            let offset = number(at + 8, 4);
            let (digest, offset) = digest.zip(offset).ok_or_else(wrong)?;
            let at = first.saturating_add(offset);
            told.push_back(Told { digest, at });
        }
        Ok(told)
    }
}

/// Lines in the order of time, whatever the direction. `more`: there is a next page already.
pub fn read(
    far: &impl Far,
    config: &Config,
    job: &JobRef,
    direction: Direction,
    cursor: Option<&str>,
) -> Result<LogPage, Failure> {
    let name = Name::of_job(&job.id)?;
    let backward = matches!(direction, Direction::Backward);
    let client = Client::new(far, config);
    let mut cursor = start(cursor, backward, &client)?;
    let mut lines = Vec::new();
    let mut asked = 0;
    loop {
        let answer = ask(&client, &name, &cursor)?;
        asked += 1;
        let mut entries = answer.entries.good;
        if backward {
            entries.reverse();
        }
        for entry in &entries {
            take(entry, &mut cursor, &mut lines);
        }
        cursor.token = Some(answer.next_page_token).filter(|token| !token.is_empty());
        let is_over = cursor.token.is_none();
        if is_over || !lines.is_empty() || asked >= EMPTY_MAX || !client.has_room() {
            return page(cursor, lines, is_over);
        }
    }
}

fn start<F: Far>(
    cursor: Option<&str>,
    backward: bool,
    client: &Client<'_, F>,
) -> Result<Cursor, Failure> {
    let known = cursor.and_then(|json| serde_json::from_str::<Cursor>(json).ok());
    let known = known.filter(|known| known.v == VERSION && known.backward == backward);
    if cursor.is_some() && known.is_none() {
        return Err(failure::permanent(
            "logs: this cursor belongs to another question",
        ));
    }
    let mut cursor = known.unwrap_or(Cursor {
        v: VERSION,
        backward,
        ..Cursor::default()
    });
    if cursor.token.is_none() {
        cursor.bound = if backward {
            // A line that comes meanwhile moves no page.
            let now = client.far.now().saturating_add(60 * SECOND);
            cursor.bound.or_else(|| Some(time::format(now)))
        } else {
            cursor.since().map(time::format_exactly)
        };
    }
    Ok(cursor)
}

fn ask<F: Far>(
    client: &Client<'_, F>,
    name: &Name,
    cursor: &Cursor,
) -> Result<LogEntries, Failure> {
    let url = format!("{}/v2/entries:list", client.config.logging_url);
    let mut body = json!({
        "resourceNames": [format!("projects/{}", name.project)],
        "filter": filter(name, cursor),
        "orderBy": if cursor.backward { "timestamp desc" } else { "timestamp asc" },
        "pageSize": PAGE_SIZE,
    });
    if let Some(token) = &cursor.token {
        body["pageToken"] = Value::from(token.as_str());
    }
    let answer: Result<LogEntries, Trouble> = client.post(url, &body);
    let answer = answer.map_err(|trouble| {
        let mut failure = trouble.failure("logs");
        if matches!(&trouble, Trouble::Refused(refusal) if refusal.status == 403)
            && !failure.message.contains("missing permission")
        {
            failure
                .message
                .push_str(" (needed: logging.logEntries.list)");
        }
        failure
    })?;
    if answer.error.is_some() || answer.next_page_token.len() > TOKEN_MAX {
        return Err(failure::transient(
            "logs: answered 200, but with no page of entries",
        ));
    }
    Ok(answer)
}

fn filter(name: &Name, cursor: &Cursor) -> String {
    // A batch prediction writes as the jobs of AI Platform did, like a custom job.
    let resource = match name.kind {
        Kind::Custom | Kind::Batch => format!(
            "resource.type=\"ml_job\" AND resource.labels.job_id=\"{}\"",
            name.id
        ),
        Kind::Pipeline => format!(
            "resource.type=\"aiplatform.googleapis.com/PipelineJob\" AND resource.labels.pipeline_job_id=\"{}\"",
            name.id
        ),
    };
    let operator = if cursor.backward { "<" } else { ">=" };
    match &cursor.bound {
        Some(bound) => format!("{resource} AND timestamp{operator}\"{bound}\""),
        None => resource,
    }
}

fn take(entry: &LogEntry, cursor: &mut Cursor, lines: &mut Vec<Line>) {
    let stamp = entry.timestamp.0.as_deref();
    let at = stamp.and_then(time::parse);
    if !cursor.backward {
        let id = entry.insert_id.0.as_deref().unwrap_or_default();
        // Insert ids are unique within one time only.
        let digest = digest(&format!("{id} {}", stamp.unwrap_or_default())) >> 32;
        let digest = u32::try_from(digest).unwrap_or(u32::MAX);
        if cursor.told.iter().any(|told| told.digest == digest) {
            return;
        }
        cursor.remember(digest, at);
    }
    let origin = origin(entry);
    let message = message(entry);
    let line = |text: String| Line {
        at,
        origin: origin.clone(),
        text,
    };
    let shown = message.lines().take(ENTRY_LINES_MAX);
    lines.extend(shown.map(|text| line(text::cut(text.to_owned(), LINE_MAX))));
    let rest = message.lines().skip(ENTRY_LINES_MAX).count();
    if rest > 0 {
        lines.push(line(format!("… {rest} more lines of this entry")));
    }
}

/// The task that wrote it: `workerpool0-0`, `service`.
fn origin(entry: &LogEntry) -> String {
    let label = |labels: Option<&weir_sdk::lenient::Entries<String>>, key: &str| {
        let found = labels?.0.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| text::line(value, ORIGIN_MAX))
    };
    let resource = entry.resource.0.as_ref();
    label(
        resource.and_then(|resource| resource.labels.0.as_ref()),
        "task_name",
    )
    .or_else(|| label(entry.labels.0.as_ref(), "ml.googleapis.com/task_name"))
    .filter(|origin| !origin.is_empty())
    .unwrap_or_else(|| "job".to_owned())
}

fn message(entry: &LogEntry) -> String {
    if let Some(payload) = &entry.json_payload.0 {
        return payload_text(payload);
    }
    if let Some(text) = &entry.text_payload.0 {
        return text.clone();
    }
    entry
        .proto_payload
        .0
        .as_ref()
        .map_or_else(String::new, payload_text)
}

/// Its message where it has one, else all of it but what says how loud it is.
fn payload_text(payload: &Map<String, Value>) -> String {
    match payload.get("message") {
        Some(Value::String(message)) => message.clone(),
        Some(message) => message.to_string(),
        None => {
            let mut rest = payload.clone();
            rest.remove("levelname");
            if rest.is_empty() {
                String::new()
            } else {
                Value::Object(rest).to_string()
            }
        }
    }
}

fn page(mut cursor: Cursor, lines: Vec<Line>, is_over: bool) -> Result<LogPage, Failure> {
    if is_over && cursor.backward {
        // Nothing is older.
        return Ok(LogPage {
            lines,
            cursor: None,
            more: false,
        });
    }
    if is_over {
        cursor.bound = None;
    }
    let json = serde_json::to_string(&cursor)
        .map_err(|error| failure::permanent(format!("logs: {error}")))?;
    Ok(LogPage {
        lines,
        cursor: Some(json),
        more: !is_over,
    })
}
