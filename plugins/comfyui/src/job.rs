//! Job views: one prompt as the queue, the history or the job list shows it.
//!
//! The same run has the same id, `run`, workflow and creation time in each of the three.

use std::collections::HashSet;

use weir_sdk::bindings::weir::plugin::types::{Job, JobState, Step};
use weir_sdk::text;

use crate::graph::{self, Outcome, Reports};
use crate::lenient::Items;
use crate::wire::{Details, Entry, Listed, ListedStatus, Message, Prompt};

const ERROR_MAX: usize = 2048;
const WORKFLOW_MAX: usize = 200;

/// Identity of one run: the prompt's id and, since clients may post an id twice, its number and creation time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub id: String,
    pub run: Option<String>,
}

impl Key {
    pub fn of(job: &Job) -> Key {
        Key {
            id: job.id.clone(),
            run: job.run.clone(),
        }
    }

    pub fn of_prompt(prompt: &Prompt) -> Key {
        Key {
            id: prompt.id.clone(),
            run: run(prompt.number, prompt.create_time),
        }
    }

    pub fn of_listed(listed: &Listed) -> Key {
        Key {
            id: listed.id.clone(),
            run: run(listed.number, listed.create_time),
        }
    }

    /// A short name for cursors: 53 bits, so that any JSON reader keeps it whole.
    pub fn digest(&self) -> u64 {
        let run = self.run.as_deref().unwrap_or_default();
        let bytes = self.id.bytes().chain([0]).chain(run.bytes());
        let fnv = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (fnv ^ (fnv >> 53)) & ((1 << 53) - 1)
    }
}

/// `number:create_time`; the number alone where the server gives no creation time.
fn run(number: Option<f64>, create_time: Option<f64>) -> Option<String> {
    let number = number.map(plain);
    match (number, create_time.and_then(millis)) {
        (Some(number), Some(created)) => Some(format!("{number}:{created}")),
        (Some(number), None) => Some(number),
        (None, Some(created)) => Some(format!(":{created}")),
        (None, None) => None,
    }
}

/// `40`, and `1.5` where a client chose so.
pub fn plain(number: f64) -> String {
    number.to_string()
}

pub fn millis(time: f64) -> Option<u64> {
    // Up to the year 9999: a larger number is no time.
    (0.0..253_402_300_800_000.0)
        .contains(&time)
        .then_some(time as u64)
}

/// What every view of one server has in common.
#[derive(Debug, Clone, Copy)]
pub struct Views<'a> {
    /// Workflow of prompts that name none.
    pub workflow: Option<&'a str>,
    pub version: Option<&'a str>,
    /// The queue is too large to be read.
    pub queue_unreadable: bool,
}

impl Views<'_> {
    fn job(
        &self,
        key: Key,
        number: Option<f64>,
        create_time: Option<f64>,
        workflow: Option<&str>,
        state: JobState,
    ) -> Job {
        let workflow = workflow
            .map(|workflow| text::line(workflow, WORKFLOW_MAX))
            .filter(|workflow| !workflow.is_empty());
        let mut detail = number.map_or_else(String::new, |number| {
            format!("\"number\":{}", plain(number))
        });
        if self.queue_unreadable {
            detail.push_str(if detail.is_empty() { "" } else { "," });
            detail.push_str("\"queue_unreadable\":true");
        }
        Job {
            id: key.id,
            run: key.run,
            workflow: workflow.or_else(|| self.workflow.map(str::to_owned)),
            state,
            name: None,
            position: None,
            created: create_time.and_then(millis),
            started: None,
            finished: None,
            steps: Vec::new(),
            error: None,
            labels: self
                .version
                .iter()
                .map(|version| ("comfyui_version".to_owned(), (*version).to_owned()))
                .collect(),
            detail: format!("{{{detail}}}"),
        }
    }

    /// A prompt that runs, or waits at `position`.
    pub fn queued(&self, prompt: &Prompt, position: Option<u32>) -> Job {
        let state = if position.is_some() {
            JobState::Queued
        } else {
            JobState::Running
        };
        let job = self.job(
            Key::of_prompt(prompt),
            prompt.number,
            prompt.create_time,
            prompt.workflow.as_deref(),
            state,
        );
        Job {
            position,
            steps: unfinished_steps(prompt),
            ..job
        }
    }

    /// A finished prompt, as the history tells it.
    pub fn finished(&self, entry: &Entry) -> Job {
        let prompt = &entry.prompt;
        let end = End::of(entry);
        let outcome = match end.state {
            JobState::Completed => Outcome::Success,
            JobState::Cancelled => Outcome::Interrupted { node: end.node },
            _ => Outcome::Failed {
                node: end.node,
                error: end.error.as_deref().unwrap_or_default(),
            },
        };
        let job = self.job(
            Key::of_prompt(prompt),
            prompt.number,
            prompt.create_time,
            prompt.workflow.as_deref(),
            end.state,
        );
        Job {
            started: end.started,
            finished: end.finished,
            steps: graph::steps(&prompt.nodes, &prompt.outputs, &end.reports, outcome),
            error: end.error.clone(),
            ..job
        }
    }

    /// A prompt as the job list shows it: no nodes, so no statement about steps.
    pub fn listed(&self, listed: &Listed, position: Option<u32>, steps: Vec<Step>) -> Job {
        let state = match listed.status {
            ListedStatus::Pending => JobState::Queued,
            ListedStatus::InProgress => JobState::Running,
            ListedStatus::Completed => JobState::Completed,
            ListedStatus::Failed => JobState::Failed,
            ListedStatus::Cancelled => JobState::Cancelled,
        };
        let job = self.job(
            Key::of_listed(listed),
            listed.number,
            listed.create_time,
            listed.workflow.as_deref(),
            state,
        );
        Job {
            position,
            started: listed.started.and_then(millis),
            finished: listed.finished.and_then(millis),
            steps,
            error: (state == JobState::Failed).then(|| error_text(listed.error.as_ref())),
            ..job
        }
    }
}

/// The steps of a prompt of which only the graph is known.
pub fn unfinished_steps(prompt: &Prompt) -> Vec<Step> {
    graph::steps(
        &prompt.nodes,
        &prompt.outputs,
        &Reports::default(),
        Outcome::Unfinished,
    )
}

/// How a prompt ended. The messages come before `status_str`, which calls an interruption an error and may be the
/// previous prompt's.
struct End<'a> {
    state: JobState,
    started: Option<u64>,
    finished: Option<u64>,
    node: Option<&'a str>,
    error: Option<String>,
    reports: Reports<'a>,
}

impl<'a> End<'a> {
    fn of(entry: &'a Entry) -> End<'a> {
        let messages: &[Message] = entry
            .status
            .as_ref()
            .and_then(|status| status.messages.0.as_ref())
            .map_or(&[], |messages| &messages.good);
        let mut end = End {
            state: JobState::Completed,
            started: None,
            finished: None,
            node: None,
            error: None,
            reports: Reports::default(),
        };
        let mut verdict = None;
        for Message(event, details) in messages {
            let (Some(event), Some(details)) = (&event.0, &details.0) else {
                continue;
            };
            let at = details.timestamp.0.and_then(millis);
            let state = match event.as_str() {
                "execution_start" => {
                    end.started = at;
                    continue;
                }
                "execution_cached" => {
                    end.reports.cached.extend(strings(&details.nodes.0));
                    continue;
                }
                "execution_success" => JobState::Completed,
                "execution_interrupted" => JobState::Cancelled,
                // A blocked output is no end: the prompt goes on.
                "execution_error"
                    if details.exception_type.0.as_deref() != Some("ExecutionBlocked") =>
                {
                    JobState::Failed
                }
                _ => continue,
            };
            verdict = Some((state, details));
            end.finished = at;
        }
        if let Some((state, details)) = verdict {
            end.state = state;
            end.node = details.node_id.0.as_deref();
            end.reports.executed = strings(&details.executed.0).collect::<HashSet<_>>();
            end.error = (state == JobState::Failed).then(|| error_text(Some(details)));
        } else if !is_success(entry) {
            end.state = JobState::Failed;
            end.error = Some(error_text(None));
        }
        end
    }
}

/// Without a verdict in the messages: what `status_str` says, and before there was one, whether anything came out.
fn is_success(entry: &Entry) -> bool {
    let word = entry
        .status
        .as_ref()
        .and_then(|status| status.status_str.0.as_deref());
    match word {
        Some(word) => word == "success",
        None => entry.has_outputs,
    }
}

fn strings(items: &Option<Items<String>>) -> impl Iterator<Item = &str> {
    items
        .iter()
        .flat_map(|items| &items.good)
        .map(String::as_str)
}

/// `exception_type: exception_message`, safe to show: host paths out, one line, bounded.
fn error_text(details: Option<&Details>) -> String {
    let kind = details
        .and_then(|details| details.exception_type.0.as_deref())
        .unwrap_or_default();
    let message = details
        .and_then(|details| details.exception_message.0.as_deref())
        .unwrap_or_default();
    let clean = |text: &str| {
        text::line(
            &text::without_paths(&text::line(text, 4 * ERROR_MAX)),
            ERROR_MAX,
        )
    };
    let (kind, message) = (clean(kind), clean(message));
    match (kind.is_empty(), message.is_empty()) {
        (false, false) => text::cut(format!("{kind}: {message}"), ERROR_MAX),
        (false, true) => kind,
        (true, false) => message,
        (true, true) => "the server gives no reason".to_owned(),
    }
}
