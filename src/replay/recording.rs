//! One recorded session: the rounds of polls, and the answers a client was given.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::frames::{self, RecordedFrame};
use super::rebase::rebase;
use super::synthesis;

/// A recording is read whole; the largest real one is 250 kB.
const RECORDING_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Why a recording cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("cannot read the recording {path}: {source}")]
    Unreadable {
        path: String,
        source: std::io::Error,
    },
    #[error("the recording is larger than {RECORDING_BYTES_MAX} bytes")]
    TooLarge,
    #[error("line {line} of the recording is not valid: {source}")]
    Line {
        line: usize,
        source: serde_json::Error,
    },
    #[error("the recording does not begin with a meta line")]
    NoMeta,
    #[error("line {line} of the recording refers to line {same_as}, which has no body")]
    SameAs { line: usize, same_as: u64 },
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        listen: std::net::SocketAddr,
        source: std::io::Error,
    },
}

/// A recorded session of one ComfyUI server.
#[derive(Debug, Clone)]
pub struct Recording {
    scenario: String,
    comfyui_version: String,
    wall_t0_ms: i64,
    duration: Duration,
    has_jobs_api: bool,
    pub(super) rounds: Vec<Round>,
    pub(super) answers: Vec<Answer>,
    /// Of every recorded WebSocket connection, oldest first.
    pub(super) frames: Vec<RecordedFrame>,
}

/// What the server was found to know at one time.
///
/// The polls of one round become visible together, at the end of the round: a reader who asks for the queue first and
/// the history second could otherwise miss a job in both, which a real server never shows.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) at: Duration,
    /// The server did not answer.
    pub(super) down: bool,
    pub(super) queue: Arc<str>,
    pub(super) history: Arc<str>,
    pub(super) jobs: Arc<str>,
}

/// What a client of the recorded session was answered.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) at: Duration,
    pub(super) path: String,
    pub(super) status: u16,
    pub(super) body: Arc<str>,
}

/// One line of the file, as far as the replay needs it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Line {
    #[serde(default)]
    pub(super) seq: u64,
    pub(super) t: f64,
    pub(super) k: String,
    pub(super) scenario: Option<String>,
    pub(super) comfyui_version: Option<String>,
    pub(super) wall_t0_ms: Option<i64>,
    pub(super) who: Option<String>,
    pub(super) method: Option<String>,
    pub(super) path: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) req_body: Option<String>,
    #[serde(default, deserialize_with = "shared_text")]
    pub(super) body: Option<Arc<str>>,
    pub(super) same_as: Option<u64>,
    pub(super) text: Option<String>,
    pub(super) error: Option<String>,
    #[serde(default, deserialize_with = "shared_text")]
    pub(super) conn: Option<Arc<str>>,
    pub(super) len: Option<u64>,
    pub(super) head_hex: Option<String>,
    pub(super) b64: Option<String>,
}

/// Bodies are referred to by many rounds.
fn shared_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<str>>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Arc::from))
}

pub(super) const EMPTY_QUEUE: &str = r#"{"queue_running": [], "queue_pending": []}"#;
pub(super) const EMPTY_HISTORY: &str = "{}";
pub(super) const EMPTY_JOBS: &str =
    r#"{"jobs": [], "pagination": {"offset": 0, "limit": null, "total": 0, "has_more": false}}"#;

impl Recording {
    pub fn load(path: impl AsRef<Path>) -> Result<Recording, ReplayError> {
        let path = path.as_ref();
        let unreadable = |source| ReplayError::Unreadable {
            path: path.display().to_string(),
            source,
        };
        if std::fs::metadata(path).map_err(unreadable)?.len() > RECORDING_BYTES_MAX {
            return Err(ReplayError::TooLarge);
        }
        Recording::parse(&std::fs::read_to_string(path).map_err(unreadable)?)
    }

    pub fn parse(text: &str) -> Result<Recording, ReplayError> {
        let mut lines = Vec::new();
        for (index, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let line: Line = serde_json::from_str(line).map_err(|source| ReplayError::Line {
                line: index + 1,
                source,
            })?;
            lines.push(line);
        }
        resolve_same_as(&mut lines)?;
        let meta = lines
            .first()
            .filter(|line| line.k == "meta")
            .ok_or(ReplayError::NoMeta)?;
        let (Some(scenario), Some(comfyui_version), Some(wall_t0_ms)) = (
            meta.scenario.clone(),
            meta.comfyui_version.clone(),
            meta.wall_t0_ms,
        ) else {
            return Err(ReplayError::NoMeta);
        };
        Ok(Recording {
            scenario,
            wall_t0_ms,
            duration: lines.last().map(|line| at(line.t)).unwrap_or_default(),
            has_jobs_api: version_at_least(&comfyui_version, &[0, 6, 0]),
            comfyui_version,
            rounds: if polls_history(&lines) {
                rounds(&lines)
            } else {
                synthesis::rounds(&lines, wall_t0_ms)
            },
            answers: answers(&lines),
            frames: frames::of(&lines),
        })
    }

    pub fn scenario(&self) -> &str {
        &self.scenario
    }

    pub fn comfyui_version(&self) -> &str {
        &self.comfyui_version
    }

    /// Epoch milliseconds at the beginning of the recording.
    pub fn wall_t0_ms(&self) -> i64 {
        self.wall_t0_ms
    }

    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// `/api/jobs` came with 0.6.0.
    pub fn has_jobs_api(&self) -> bool {
        self.has_jobs_api
    }

    /// The id under which the recorder's connection of this name was opened.
    pub fn client_id(&self, conn: &str) -> Option<&str> {
        self.frames.iter().find_map(|frame| match &frame.what {
            frames::Happened::Opened(id) if *frame.conn == *conn => id.as_deref(),
            _ => None,
        })
    }

    /// The recorded times at which an answer changes: what a test steps through in manual mode.
    pub fn marks(&self) -> Vec<Duration> {
        let mut marks = Vec::new();
        let mut last: Option<&Round> = None;
        for round in &self.rounds {
            let same = last.is_some_and(|last| {
                last.down == round.down
                    && last.queue == round.queue
                    && last.history == round.history
                    && last.jobs == round.jobs
            });
            if !same {
                marks.push(round.at);
            }
            last = Some(round);
        }
        marks
    }

    /// The same session with the time from `from` to `until` cut out, for a demo that need not wait for a slow restart.
    ///
    /// The epoch times of what comes after move with it, so the cut must be where nothing from before is remembered.
    pub fn cut(mut self, from: Duration, until: Duration) -> Recording {
        let gap = until.saturating_sub(from);
        let shift = |at: Duration| if at >= until { at - gap } else { at };
        self.rounds
            .retain(|round| round.at <= from || round.at >= until);
        self.answers
            .retain(|answer| answer.at <= from || answer.at >= until);
        let gap_ms = i64::try_from(gap.as_millis()).unwrap_or(0);
        let earlier = |body: &str| Arc::<str>::from(rebase(body, -gap_ms));
        for round in self.rounds.iter_mut().filter(|round| round.at >= until) {
            round.at = shift(round.at);
            round.queue = earlier(&round.queue);
            round.history = earlier(&round.history);
            round.jobs = earlier(&round.jobs);
        }
        for answer in self.answers.iter_mut().filter(|answer| answer.at >= until) {
            answer.at = shift(answer.at);
            answer.body = earlier(&answer.body);
        }
        self.frames
            .retain(|frame| frame.at <= from || frame.at >= until);
        for frame in self.frames.iter_mut().filter(|frame| frame.at >= until) {
            frame.at = shift(frame.at);
            frame.rebase(-gap_ms);
        }
        self.duration = shift(self.duration);
        self
    }

    pub(super) fn version_at_least(&self, wanted: &[u32]) -> bool {
        version_at_least(&self.comfyui_version, wanted)
    }
}

fn version_at_least(version: &str, wanted: &[u32]) -> bool {
    let version: Vec<u32> = version
        .split(['.', '+', '-'])
        .map_while(|part| part.parse().ok())
        .collect();
    version.as_slice() >= wanted
}

fn polls_history(lines: &[Line]) -> bool {
    lines
        .iter()
        .any(|line| line.who.as_deref() == Some("poll") && line.path.as_deref() == Some("/history"))
}

pub(super) fn at(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn resolve_same_as(lines: &mut [Line]) -> Result<(), ReplayError> {
    let mut bodies = std::collections::HashMap::new();
    for (index, line) in lines.iter_mut().enumerate() {
        if let Some(same_as) = line.same_as {
            let body: &Arc<str> = bodies.get(&same_as).ok_or(ReplayError::SameAs {
                line: index + 1,
                same_as,
            })?;
            line.body = Some(Arc::clone(body));
        }
        if let Some(body) = &line.body {
            bodies.insert(line.seq, Arc::clone(body));
        }
    }
    Ok(())
}

/// The polls, grouped: each round begins with `/queue`.
fn rounds(lines: &[Line]) -> Vec<Round> {
    let mut rounds: Vec<Round> = Vec::new();
    for line in lines
        .iter()
        .filter(|line| line.who.as_deref() == Some("poll"))
    {
        let path = line.path.as_deref().unwrap_or_default();
        if path == "/queue" || rounds.is_empty() {
            let (queue, history, jobs) = match rounds.last() {
                Some(last) => (
                    Arc::clone(&last.queue),
                    Arc::clone(&last.history),
                    Arc::clone(&last.jobs),
                ),
                None => (EMPTY_QUEUE.into(), EMPTY_HISTORY.into(), EMPTY_JOBS.into()),
            };
            rounds.push(Round {
                at: at(line.t),
                down: false,
                queue,
                history,
                jobs,
            });
        }
        let Some(round) = rounds.last_mut() else {
            continue;
        };
        round.at = at(line.t);
        match (line.status, &line.body) {
            (None, _) => round.down |= line.error.is_some(),
            (Some(200), Some(body)) => match path {
                "/queue" => round.queue = Arc::clone(body),
                "/history" => round.history = Arc::clone(body),
                "/api/jobs" => round.jobs = Arc::clone(body),
                _ => {}
            },
            // An omitted body or an unexpected status leaves what was known before.
            _ => {}
        }
    }
    rounds
}

fn answers(lines: &[Line]) -> Vec<Answer> {
    lines
        .iter()
        .filter(|line| {
            line.who.as_deref() == Some("client") && line.method.as_deref() == Some("GET")
        })
        .filter_map(|line| {
            Some(Answer {
                at: at(line.t),
                path: line.path.clone()?,
                status: line.status?,
                body: line.body.clone()?,
            })
        })
        .collect()
}
