//! What the recorded server would answer at one recorded time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::jobs::{self, JobsQuery};
use super::recording::{EMPTY_HISTORY, EMPTY_JOBS, EMPTY_QUEUE, Recording};

/// Status and body of an answer; the body is JSON where the status is 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Reply {
    fn ok(body: impl Into<String>) -> Reply {
        Reply {
            status: 200,
            body: body.into(),
        }
    }

    fn not_found() -> Reply {
        Reply {
            status: 404,
            body: String::new(),
        }
    }
}

/// The server at one recorded time.
pub(super) struct Moment<'a> {
    recording: &'a Recording,
    at: Duration,
    round_at: Duration,
    down: bool,
    queue: Arc<str>,
    history: Arc<str>,
    jobs: Arc<str>,
}

impl<'a> Moment<'a> {
    pub(super) fn new(recording: &'a Recording, at: Duration) -> Moment<'a> {
        let count = recording.rounds.partition_point(|round| round.at <= at);
        match count.checked_sub(1).map(|last| &recording.rounds[last]) {
            Some(round) => Moment {
                recording,
                at,
                round_at: round.at,
                down: round.down,
                queue: Arc::clone(&round.queue),
                history: Arc::clone(&round.history),
                jobs: Arc::clone(&round.jobs),
            },
            None => Moment {
                round_at: Duration::ZERO,
                ..Moment::empty(recording, at)
            },
        }
    }

    /// A server that was just started and was never asked anything.
    pub(super) fn empty(recording: &'a Recording, at: Duration) -> Moment<'a> {
        Moment {
            recording,
            at,
            round_at: Duration::MAX,
            down: false,
            queue: EMPTY_QUEUE.into(),
            history: EMPTY_HISTORY.into(),
            jobs: EMPTY_JOBS.into(),
        }
    }

    /// `None`: the server is down and nothing answers.
    pub(super) fn answer(&self, path: &str, query: &str) -> Option<Reply> {
        if self.down {
            return None;
        }
        let parameters: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let unprefixed = canonical(path);
        Some(match unprefixed {
            "/queue" => Reply::ok(&*self.queue),
            "/prompt" => Reply::ok(format!(
                r#"{{"exec_info": {{"queue_remaining": {}}}}}"#,
                self.queue_remaining()
            )),
            "/history" => self.history(&parameters),
            "/api/jobs" if self.recording.has_jobs_api() => match JobsQuery::parse(&parameters) {
                Ok(_) if parameters.is_empty() => Reply::ok(&*self.jobs),
                Ok(query) => Reply::ok(query.answer(&self.jobs)),
                Err(error) => Reply {
                    status: 400,
                    body: format!(r#"{{"error": {}}}"#, serde_json::Value::from(error)),
                },
            },
            "/api/jobs" => Reply::not_found(),
            _ => {
                if let Some(id) = unprefixed.strip_prefix("/history/") {
                    self.history_of(id)
                } else if let Some(id) = unprefixed.strip_prefix("/api/jobs/") {
                    self.job(id)
                } else {
                    self.other(unprefixed, query)
                }
            }
        })
    }

    pub(super) fn queue_remaining(&self) -> usize {
        #[derive(Deserialize, Default)]
        struct Queue<'a> {
            #[serde(borrow)]
            queue_running: Vec<&'a RawValue>,
            #[serde(borrow)]
            queue_pending: Vec<&'a RawValue>,
        }
        let queue: Queue<'_> = serde_json::from_str(&self.queue).unwrap_or_default();
        queue.queue_running.len() + queue.queue_pending.len()
    }

    /// As `PromptQueue.get_history`: without an offset the newest `max_items`, with one (0.3.60) from the oldest on.
    fn history(&self, parameters: &[(String, String)]) -> Reply {
        let number = |wanted: &str| {
            parameters
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.parse())
        };
        let max_items: Option<i64> = match number("max_items").transpose() {
            Ok(max_items) => max_items,
            Err(_) => return server_error(),
        };
        let offset: Option<i64> = match number("offset").transpose() {
            Ok(offset) => offset.filter(|_| self.recording.version_at_least(&[0, 3, 60])),
            Err(_) => return server_error(),
        };
        if max_items.is_none() && offset.is_none() {
            return Reply::ok(&*self.history);
        }
        let entries = entries(&self.history);
        let len = i64::try_from(entries.len()).unwrap_or(i64::MAX);
        let first = match (offset.filter(|offset| *offset >= 0), max_items) {
            (Some(offset), _) => offset,
            (None, Some(max_items)) => len.saturating_sub(max_items),
            (None, None) => 0,
        };
        let first = usize::try_from(first).unwrap_or(0);
        let count = max_items.map_or(usize::MAX, |max_items| {
            usize::try_from(max_items).unwrap_or(0)
        });
        let page: Vec<String> = entries
            .iter()
            .skip(first)
            .take(count)
            .map(|(id, entry)| member(id, entry.get()))
            .collect();
        Reply::ok(format!("{{{}}}", page.join(", ")))
    }

    fn history_of(&self, id: &str) -> Reply {
        match entries(&self.history)
            .iter()
            .find(|(entry_id, _)| entry_id == id)
        {
            Some((id, entry)) => Reply::ok(format!("{{{}}}", member(id, entry.get()))),
            None => Reply::ok(EMPTY_HISTORY),
        }
    }

    fn job(&self, id: &str) -> Reply {
        if !self.recording.has_jobs_api() {
            return Reply::not_found();
        }
        // What a recorded client was told since the last poll is newer than the poll.
        let path = format!("/api/jobs/{id}");
        let told = self.recording.answers.iter().rev().find(|answer| {
            answer.path == path && answer.at <= self.at && answer.at >= self.round_at
        });
        if let Some(answer) = told {
            return Reply {
                status: answer.status,
                body: answer.body.to_string(),
            };
        }
        let jobs = jobs::parse(&self.jobs);
        let named = || jobs.iter().filter(|job| job.fields.id == id);
        let Some(job) = named()
            .find(|job| job.fields.is_finished())
            .or_else(|| named().next())
        else {
            return Reply {
                status: 404,
                body: r#"{"error": "Job not found"}"#.into(),
            };
        };
        if !job.fields.is_finished() {
            return Reply::ok(job.raw);
        }
        Reply::ok(
            self.with_details(id, job.raw)
                .unwrap_or_else(|| job.raw.to_owned()),
        )
    }

    /// A finished job as `/api/jobs/{id}` shows it: the entry of the list and what history knows.
    fn with_details(&self, id: &str, job: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Entry<'a> {
            #[serde(borrow)]
            prompt: Vec<&'a RawValue>,
            #[serde(borrow)]
            outputs: &'a RawValue,
            #[serde(borrow)]
            status: &'a RawValue,
        }
        let entries = entries(&self.history);
        let (_, entry) = entries.iter().find(|(entry_id, _)| entry_id == id)?;
        let entry: Entry<'_> = serde_json::from_str(entry.get()).ok()?;
        let (prompt, extra_data) = (entry.prompt.get(2)?.get(), entry.prompt.get(3)?.get());
        Some(format!(
            r#"{}, "outputs": {}, "execution_status": {}, "workflow": {{"prompt": {prompt}, "extra_data": {extra_data}}}}}"#,
            job.strip_suffix('}')?,
            entry.outputs.get(),
            entry.status.get(),
        ))
    }

    /// Endpoints that do not depend on the jobs: as recorded, or the least that a client needs.
    fn other(&self, path: &str, query: &str) -> Reply {
        let wanted = if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{query}")
        };
        if let Some(answer) = self
            .recording
            .answers
            .iter()
            .find(|answer| canonical(&answer.path) == wanted)
        {
            return Reply {
                status: answer.status,
                body: answer.body.to_string(),
            };
        }
        match path {
            "/system_stats" => Reply::ok(
                serde_json::json!({
                    "system": {
                        "os": "linux",
                        "comfyui_version": self.recording.comfyui_version(),
                        "python_version": "3.11.7",
                        "argv": ["main.py"],
                    },
                    // As every recorded server says it: without a GPU.
                    "devices": [{
                        "name": "cpu",
                        "type": "cpu",
                        "index": null,
                        "vram_total": 25_276_502_016_u64,
                        "vram_free": 22_641_938_432_u64,
                        "torch_vram_total": 25_276_502_016_u64,
                        "torch_vram_free": 22_641_938_432_u64,
                    }],
                })
                .to_string(),
            ),
            "/features" if self.recording.version_at_least(&[0, 3, 45]) => {
                Reply::ok(r#"{"supports_preview_metadata": true, "max_upload_size": 104857600}"#)
            }
            _ => Reply::not_found(),
        }
    }
}

/// The path without the `/api` alias; `/api/jobs` is a path of its own.
pub(super) fn canonical(path: &str) -> &str {
    match path.strip_prefix("/api/") {
        Some(rest)
            if rest != "jobs" && !rest.starts_with("jobs/") && !rest.starts_with("jobs?") =>
        {
            &path["/api".len()..]
        }
        _ if path == "/jobs" || path.starts_with("/jobs/") => "",
        _ => path,
    }
}

fn server_error() -> Reply {
    Reply {
        status: 500,
        body: "500 Internal Server Error\n\nServer got itself in trouble".into(),
    }
}

fn member(id: &str, entry: &str) -> String {
    format!("{}: {entry}", serde_json::Value::from(id))
}

/// The members of a JSON object in the order of the text, which is the order of `/history`.
fn entries(body: &str) -> Vec<(String, &RawValue)> {
    struct Ordered<'a>(Vec<(String, &'a RawValue)>);
    struct OrderedVisitor;

    impl<'de> Visitor<'de> for OrderedVisitor {
        type Value = Ordered<'de>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<'de>, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(Ordered(members))
        }
    }

    impl<'de> Deserialize<'de> for Ordered<'de> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ordered<'de>, D::Error> {
            deserializer.deserialize_map(OrderedVisitor)
        }
    }

    serde_json::from_str(body).map_or_else(|_| Vec::new(), |Ordered(members)| members)
}
