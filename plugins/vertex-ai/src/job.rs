//! Job views: one resource as the provider shows it, in weir's words.
//!
//! A view holds nothing that grows with the clock, so that an unchanged job has an unchanged view: what a waiting or
//! running job took so far follows from `created` and `started`.

use serde_json::{Map, Value, json};
use weir_sdk::bindings::weir::plugin::types::{Job, JobState, Step, StepState};
use weir_sdk::lenient::{Entries, Lenient};
use weir_sdk::text;

use crate::config::Config;
use crate::hardware::Hardware;
use crate::kind::{Kind, State};
use crate::name::Name;
use crate::time::{DAY, SECOND};
use crate::wire::{Duration, Integer, Resource, RpcStatus, StateField, Task, TaskState, Time};

const NAME_MAX: usize = 256;
const ERROR_MAX: usize = 2048;
const STEP_ERROR_MAX: usize = 512;
const STEPS_MAX: usize = 1000;
const LABELS_MAX: usize = 64;
/// The API's own default.
const TIMEOUT_DEFAULT: u64 = 7 * DAY;
/// How much earlier than its timeout a job may be ended by it: times are rounded.
const TIMEOUT_TOLERANCE: u64 = SECOND;

/// What time a job took, as far as that is settled. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Durations {
    /// Until it ran; of a job that never did, until it ended.
    pub queue: Option<u64>,
    /// None if it never ran.
    pub run: Option<u64>,
    pub total: Option<u64>,
}

impl Durations {
    pub fn of(created: Option<u64>, started: Option<u64>, ended: Option<u64>) -> Durations {
        let between = |from: Option<u64>, to: Option<u64>| to?.checked_sub(from?);
        Durations {
            queue: between(created, started.or(ended)),
            run: between(started, ended),
            total: between(created, ended),
        }
    }
}

/// The facts of a resource that several answers are made of.
struct Facts<'a> {
    resource: &'a Resource,
    kind: Kind,
    state: State,
    created: Option<u64>,
    started: Option<u64>,
    ended: Option<u64>,
}

impl<'a> Facts<'a> {
    fn of(resource: &'a Resource, kind: Kind) -> Facts<'a> {
        let time = |time: &Lenient<Time>| time.0.map(|Time(milliseconds)| milliseconds);
        let state = state(resource);
        // Two final states are not promised an end time.
        let ended = time(&resource.end_time).or_else(|| time(&resource.update_time));
        Facts {
            resource,
            kind,
            created: time(&resource.create_time),
            started: time(&resource.start_time),
            ended: ended.filter(|_| state.is_final()),
            state,
        }
    }

    fn durations(&self) -> Durations {
        Durations::of(self.created, self.started, self.ended)
    }

    /// What a custom job may run; the other kinds have no such limit.
    fn timeout(&self) -> Option<u64> {
        let spec = self.resource.job_spec.0.as_ref();
        let scheduling = spec.and_then(|spec| spec.scheduling.0.as_ref());
        let timeout = scheduling.and_then(|scheduling| scheduling.timeout.0);
        (self.kind == Kind::Custom)
            .then(|| timeout.map_or(TIMEOUT_DEFAULT, |Duration(timeout)| timeout))
    }

    /// The text of a timeout's error is not documented, its times are.
    fn is_timeout(&self) -> bool {
        match self.state {
            State::Expired => true,
            State::Failed | State::Cancelled => self
                .durations()
                .run
                .zip(self.timeout())
                .is_some_and(|(run, timeout)| {
                    timeout > 0 && run.saturating_add(TIMEOUT_TOLERANCE) >= timeout
                }),
            _ => false,
        }
    }

    fn job_state(&self) -> JobState {
        if self.is_timeout() {
            return JobState::Timeout;
        }
        match &self.state {
            State::Unspecified => JobState::Pending,
            State::Queued => JobState::Queued,
            State::Pending => JobState::Initializing,
            State::Running | State::Updating => JobState::Running,
            State::Succeeded => JobState::Completed,
            State::Failed => JobState::Failed,
            State::Cancelling => JobState::Cancelling,
            State::Cancelled => JobState::Cancelled,
            State::Paused => JobState::Paused,
            State::Expired => JobState::Timeout,
            State::PartiallySucceeded => JobState::Partial,
            // No verdict of ours: what is known is whether it ran.
            State::Unknown(_) if self.resource.end_time.0.is_some() => JobState::Completing,
            State::Unknown(_) if self.started.is_some() => JobState::Running,
            State::Unknown(_) => JobState::Pending,
        }
    }

    fn error(&self) -> Option<String> {
        let is_timeout = self.is_timeout();
        let cause = self.resource.error.0.as_ref().filter(|_| {
            // Of a cancelled job the error only repeats that it was cancelled.
            is_timeout || self.state != State::Cancelled
        });
        let mut parts = Vec::new();
        if is_timeout {
            let seconds = |time: Option<u64>| time.map_or("?".to_owned(), seconds_text);
            parts.push(match self.state {
                State::Expired => "the job expired".to_owned(),
                _ => format!(
                    "timeout: it ran {} s of {} s",
                    seconds(self.durations().run),
                    seconds(self.timeout())
                ),
            });
        }
        parts.extend(cause.and_then(|error| error_text(error, ERROR_MAX)));
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

fn state(resource: &Resource) -> State {
    match &resource.state.0 {
        Some(StateField(state)) => state.clone(),
        // The default is left out of Google's JSON.
        None => State::Unspecified,
    }
}

pub fn is_final(resource: &Resource) -> bool {
    state(resource).is_final()
}

/// `code 3 (INVALID_ARGUMENT): The replica workerpool0-0 exited …`.
fn error_text(error: &RpcStatus, max: usize) -> Option<String> {
    let message = error.message.0.as_deref().unwrap_or_default();
    let message = text::line(message, max);
    let code = error.code.0.map(|Integer(code)| code);
    match (code, message.is_empty()) {
        (None | Some(0), true) => None,
        (None | Some(0), false) => Some(message),
        (Some(code), is_empty) => {
            let colon = if is_empty { "" } else { ": " };
            Some(text::cut(
                format!("code {code} ({}){colon}{message}", code_name(code)),
                max,
            ))
        }
    }
}

fn code_name(code: i64) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let index = usize::try_from(code).unwrap_or(usize::MAX);
    NAMES.get(index).copied().unwrap_or("?")
}

/// Makes the view of one job. `project`: as the operator calls it.
pub fn view(config: &Config, name: &Name, project: &str, resource: &Resource) -> Job {
    let facts = Facts::of(resource, name.kind);
    let hardware = Hardware::of(resource);
    let display_name = resource.display_name.0.as_deref().unwrap_or_default();
    let shown = text::line(display_name, NAME_MAX);
    let mut labels = vec![
        ("kind".to_owned(), name.kind.word().to_owned()),
        ("project".to_owned(), project.to_owned()),
        ("region".to_owned(), name.location.clone()),
    ];
    labels.extend(hardware.labels());
    Job {
        id: name.to_string(),
        run: None,
        workflow: workflow(config, resource, display_name),
        state: facts.job_state(),
        name: Some(shown).filter(|shown| !shown.is_empty()),
        position: None,
        created: facts.created,
        started: facts.started,
        finished: facts.ended,
        steps: match name.kind {
            Kind::Custom => Vec::new(),
            Kind::Pipeline => tasks(resource),
            Kind::Batch => predictions(&facts).into_iter().collect(),
        },
        error: facts.error(),
        labels,
        detail: Value::Object(detail(&facts, &hardware)).to_string(),
    }
}

fn workflow(config: &Config, resource: &Resource, display_name: &str) -> Option<String> {
    let label = config.workflow_label.as_deref().and_then(|key| {
        let labels = resource.labels.0.as_ref()?;
        let (_, value) = labels.0.iter().find(|(name, _)| name == key)?;
        Some(text::line(value, NAME_MAX)).filter(|value| !value.is_empty())
    });
    label.or_else(|| {
        let patterns = config.workflow.iter();
        patterns
            .filter_map(|pattern| pattern.workflow(display_name))
            .next()
    })
}

fn detail(facts: &Facts<'_>, hardware: &Hardware) -> Map<String, Value> {
    let mut detail = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            detail.insert(name.to_owned(), value);
        }
    };
    let seconds = |time: Option<u64>| time.map(|time| json!(time as f64 / SECOND as f64));
    let state = facts.kind.state_name(&facts.state);
    let state = state.unwrap_or_else(|| facts.state.word().to_owned());
    put("state", Some(Value::from(state)));
    let durations = facts.durations();
    put("queue_seconds", seconds(durations.queue));
    put("run_seconds", seconds(durations.run));
    put("total_seconds", seconds(durations.total));
    put("timeout_seconds", seconds(facts.timeout()));
    if let Some(pools) = hardware.json() {
        put("pools", Some(pools));
        put("gpus", Some(json!(hardware.gpus())));
    }
    let resource = facts.resource;
    let spec = resource.job_spec.0.as_ref();
    let scheduling = spec.and_then(|spec| spec.scheduling.0.as_ref());
    let strategy = scheduling.and_then(|scheduling| scheduling.strategy.0.as_ref());
    put("strategy", strategy.map(|text| line(text)));
    put("model", resource.model.0.as_ref().map(|text| line(text)));
    put("labels", entries(&resource.labels));
    put("web_access", entries(&resource.web_access_uris));
    if let Some(error) = &resource.error.0 {
        let code = error.code.0.map(|Integer(code)| code);
        put("error_code", code.map(Value::from));
        let name = code.map(|code| Value::from(code_name(code)));
        put("error_status", name);
        put("cause", cause(error).map(Value::from));
    }
    if let Some(stats) = &resource.completion_stats.0 {
        let count = |count: &Lenient<Integer>| {
            let count = count.0.map_or(0, |Integer(count)| count);
            (count >= 0).then(|| Value::from(count))
        };
        put("successful", count(&stats.successful_count));
        put("failed", count(&stats.failed_count));
        put("incomplete", count(&stats.incomplete_count));
    }
    detail
}

/// Why a job got no machines: what no retry of ours mends soon.
fn cause(error: &RpcStatus) -> Option<&'static str> {
    let message = error.message.0.as_deref()?;
    if error.code.0 != Some(Integer(8)) {
        return None;
    }
    if is_quota(message) {
        Some("quota")
    } else if message.contains("Resources are insufficient") {
        Some("stockout")
    } else {
        None
    }
}

/// The provider's words for a quota of machines, in an answer as in a job's error.
pub fn is_quota(message: &str) -> bool {
    message.contains("quota metrics exceed quota limits")
}

fn line(value: &str) -> Value {
    Value::from(text::line(value, NAME_MAX))
}

/// In the order of the keys: the provider's own changes from answer to answer.
fn entries(entries: &Lenient<Entries<String>>) -> Option<Value> {
    let Entries(entries) = entries.0.as_ref()?;
    let entries = entries.iter().take(LABELS_MAX);
    let map: Map<String, Value> = entries
        .map(|(key, value)| (text::line(key, NAME_MAX), line(value)))
        .collect();
    (!map.is_empty()).then_some(Value::Object(map))
}

/// The tasks of a pipeline. One that others belong to is only their frame, and would count them twice.
fn tasks(resource: &Resource) -> Vec<Step> {
    let details = resource.job_detail.0.as_ref();
    let Some(tasks) = details.and_then(|details| details.task_details.0.as_ref()) else {
        return Vec::new();
    };
    let parents: Vec<Integer> = tasks
        .good
        .iter()
        .filter_map(|task| task.parent_task_id.0)
        .collect();
    let is_frame = |task: &&Task| task.task_id.0.is_some_and(|id| parents.contains(&id));
    let mut steps: Vec<Step> = Vec::new();
    for task in tasks.good.iter().filter(|task| !is_frame(task)) {
        let step = step(task, steps.len());
        if steps.len() < STEPS_MAX && steps.iter().all(|known| known.id != step.id) {
            steps.push(step);
        }
    }
    steps
}

fn step(task: &Task, index: usize) -> Step {
    let started = task.start_time.0.map(|Time(time)| time);
    let finished = task.end_time.0.map(|Time(time)| time);
    let state = match task.state.0 {
        Some(TaskState::Pending) => StepState::Pending,
        Some(TaskState::Running) => StepState::Running,
        Some(TaskState::Succeeded) => StepState::Completed,
        Some(TaskState::Cancelled) => StepState::Cancelled,
        Some(TaskState::Failed) => StepState::Failed,
        Some(TaskState::Skipped) => StepState::Skipped,
        None if started.is_some() => StepState::Running,
        None => StepState::Pending,
    };
    let name = task.task_name.0.as_deref().unwrap_or_default();
    let name = text::line(name, NAME_MAX);
    let id = match task.task_id.0 {
        Some(Integer(id)) => id.to_string(),
        None if name.is_empty() => format!("task {index}"),
        None => name.clone(),
    };
    Step {
        name: if name.is_empty() { id.clone() } else { name },
        id,
        state,
        started,
        finished,
        done: None,
        total: None,
        error: task
            .error
            .0
            .as_ref()
            .and_then(|error| error_text(error, STEP_ERROR_MAX)),
    }
}

/// A batch prediction is one step with a count.
fn predictions(facts: &Facts<'_>) -> Option<Step> {
    let stats = facts.resource.completion_stats.0.as_ref()?;
    let count = |count: &Lenient<Integer>| count.0.map_or(0, |Integer(count)| count);
    let failed = count(&stats.failed_count).max(0);
    let done = count(&stats.successful_count).max(0).saturating_add(failed);
    // Below zero: the provider does not know how many there are.
    let total = match u64::try_from(count(&stats.incomplete_count)) {
        Ok(rest) => Some(done as f64 + rest as f64),
        Err(_) => facts.state.is_final().then_some(done as f64),
    };
    let state = match facts.job_state() {
        JobState::Completed | JobState::Partial => StepState::Completed,
        JobState::Failed | JobState::Timeout => StepState::Failed,
        JobState::Cancelled => StepState::Cancelled,
        _ if facts.started.is_some() => StepState::Running,
        _ => StepState::Pending,
    };
    Some(Step {
        id: "predictions".to_owned(),
        name: "predictions".to_owned(),
        state,
        started: facts.started,
        finished: facts.ended,
        done: Some(done as f64),
        total,
        error: (failed > 0).then(|| format!("{failed} instances failed")),
    })
}

/// `3600` or `3600.5`.
fn seconds_text(milliseconds: u64) -> String {
    (milliseconds as f64 / SECOND as f64).to_string()
}
