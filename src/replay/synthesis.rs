//! Rounds for the few recordings that did not poll `/history`: put together from what was posted and from the frames.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::recording::{Line, Round, at};

/// A body that the recording cut ("...(153152 bytes)") is filled up to at most this size.
const FILL_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Running,
    Completed,
    Failed,
    Cancelled,
}

#[derive(Debug)]
struct Job {
    id: String,
    number: Value,
    /// `[number, id, prompt, extra_data, outputs]`, as text.
    item: String,
    state: State,
    create_time: i64,
    workflow_id: Option<String>,
    messages: Vec<Value>,
    outputs: Map<String, Value>,
}

/// Facts about jobs that some line of the recording gives away.
#[derive(Debug, Default)]
struct Hints {
    create_time: BTreeMap<String, i64>,
    start_time: BTreeMap<String, i64>,
    workflow_id: BTreeMap<String, String>,
    nodes: BTreeMap<String, Vec<String>>,
}

pub(super) fn rounds(lines: &[Line], wall_t0_ms: i64) -> Vec<Round> {
    let hints = hints(lines);
    let mut jobs: Vec<Job> = Vec::new();
    let mut rounds = Vec::new();
    for line in lines {
        let now_ms = wall_t0_ms + i64::try_from(at(line.t).as_millis()).unwrap_or(0);
        let changed = match (line.k.as_str(), line.path.as_deref()) {
            ("http", Some("/prompt" | "/api/prompt")) => posted(line, now_ms, &hints, &mut jobs),
            ("http", Some("/queue")) => gone_from_queue(line, now_ms, &mut jobs),
            ("ws.text", _) => line
                .text
                .as_deref()
                .is_some_and(|text| framed(text, now_ms, &mut jobs)),
            _ => false,
        };
        if changed {
            rounds.push(round(line, &jobs));
        }
    }
    rounds
}

fn hints(lines: &[Line]) -> Hints {
    let mut hints = Hints::default();
    for line in lines {
        if let Some(jobs) = line
            .body
            .as_deref()
            .and_then(|body| serde_json::from_str::<Value>(body).ok())
        {
            for job in jobs["jobs"].as_array().into_iter().flatten() {
                let Some(id) = job["id"].as_str() else {
                    continue;
                };
                if let Some(create_time) = job["create_time"].as_i64() {
                    hints.create_time.insert(id.to_owned(), create_time);
                }
                if let Some(workflow_id) = job["workflow_id"].as_str() {
                    hints
                        .workflow_id
                        .insert(id.to_owned(), workflow_id.to_owned());
                }
            }
        }
        let Some(frame) = line
            .text
            .as_deref()
            .and_then(|text| serde_json::from_str::<Value>(text).ok())
        else {
            continue;
        };
        let kind = frame["type"].as_str().unwrap_or_default();
        let (id, node) = (
            frame["data"]["prompt_id"].as_str(),
            frame["data"]["node"].as_str(),
        );
        if let ("execution_start", Some(id), Some(ms)) =
            (kind, id, frame["data"]["timestamp"].as_i64())
        {
            hints.start_time.insert(id.to_owned(), ms);
        }
        if let ("executing", Some(id), Some(node)) = (kind, id, node) {
            let nodes = hints.nodes.entry(id.to_owned()).or_default();
            if !nodes.iter().any(|known| known == node) {
                nodes.push(node.to_owned());
            }
        }
    }
    hints
}

fn posted(line: &Line, now_ms: i64, hints: &Hints, jobs: &mut Vec<Job>) -> bool {
    #[derive(Deserialize)]
    struct Accepted {
        prompt_id: String,
        number: Value,
    }
    if line.method.as_deref() != Some("POST") || line.status != Some(200) {
        return false;
    }
    let Some(Ok(accepted)) = line.body.as_deref().map(serde_json::from_str::<Accepted>) else {
        return false;
    };
    // An execution_start frame may have come before the answer of the POST.
    jobs.retain(|job| job.id != accepted.prompt_id || job.state != State::Pending);
    // The answer was read after the job was made, sometimes even after it began.
    let start_time = hints
        .start_time
        .get(&accepted.prompt_id)
        .copied()
        .unwrap_or(now_ms);
    let create_time = hints
        .create_time
        .get(&accepted.prompt_id)
        .copied()
        .unwrap_or(now_ms.min(start_time));
    let mut job = Job {
        item: String::new(),
        state: State::Pending,
        create_time,
        workflow_id: hints.workflow_id.get(&accepted.prompt_id).cloned(),
        messages: Vec::new(),
        outputs: Map::new(),
        id: accepted.prompt_id,
        number: accepted.number,
    };
    job.item = item(line.req_body.as_deref().unwrap_or_default(), &job, hints).to_string();
    jobs.push(job);
    true
}

fn item(req_body: &str, job: &Job, hints: &Hints) -> Value {
    let nodes = hints.nodes.get(&job.id).cloned().unwrap_or_default();
    let (prompt, mut extra_data, client_id) = match serde_json::from_str::<Value>(req_body) {
        Ok(body) => (
            body["prompt"].clone(),
            body["extra_data"].clone(),
            body["client_id"].clone(),
        ),
        Err(_) => {
            let prompt: Map<String, Value> = nodes
                .iter()
                .map(|node| {
                    (
                        node.clone(),
                        json!({ "class_type": "Recorded", "inputs": {} }),
                    )
                })
                .collect();
            let workflow = json!({ "id": job.workflow_id, "nodes": [], "fill": "x".repeat(cut_bytes(req_body)) });
            (
                prompt.into(),
                json!({ "extra_pnginfo": { "workflow": workflow } }),
                Value::Null,
            )
        }
    };
    if !extra_data.is_object() {
        extra_data = json!({});
    }
    extra_data["create_time"] = job.create_time.into();
    if !client_id.is_null() {
        extra_data["client_id"] = client_id;
    }
    json!([
        job.number,
        job.id,
        prompt,
        extra_data,
        nodes.last().into_iter().collect::<Vec<_>>()
    ])
}

/// The size that a cut body says it had.
fn cut_bytes(req_body: &str) -> usize {
    let bytes = req_body
        .strip_suffix(" bytes)")
        .and_then(|body| body.rsplit_once("...("));
    bytes
        .and_then(|(_, bytes)| bytes.parse().ok())
        .unwrap_or(0)
        .min(FILL_BYTES_MAX)
}

fn framed(text: &str, now_ms: i64, jobs: &mut [Job]) -> bool {
    let Ok(frame) = serde_json::from_str::<Value>(text) else {
        return false;
    };
    let (kind, data) = (frame["type"].as_str().unwrap_or_default(), &frame["data"]);
    let Some(id) = data["prompt_id"].as_str() else {
        return false;
    };
    let Some(job) = jobs.iter_mut().rev().find(|job| job.id == id) else {
        return false;
    };
    if !matches!(job.state, State::Pending | State::Running) {
        return false;
    }
    let before = job.state;
    match kind {
        "execution_start" | "execution_cached" => job.messages.push(json!([kind, data])),
        "executed" => {
            if let (Some(node), Some(output)) = (data["display_node"].as_str(), data.get("output"))
            {
                job.outputs.insert(node.to_owned(), output.clone());
            }
        }
        "execution_success" => job.end(State::Completed, json!([kind, data])),
        "execution_interrupted" => job.end(State::Cancelled, json!([kind, data])),
        // An ExecutionBlocker sends this frame too, without a time, and the prompt goes on.
        "execution_error" if data["exception_type"] != "ExecutionBlocked" => {
            job.end(State::Failed, json!([kind, data]));
        }
        _ => {}
    }
    if job.state == State::Pending {
        job.start(now_ms);
    }
    job.state != before
}

/// A running job of a client without a socket ends without a frame: it is only gone from the queue.
fn gone_from_queue(line: &Line, now_ms: i64, jobs: &mut [Job]) -> bool {
    let Some(queue) = line
        .body
        .as_deref()
        .filter(|_| line.status == Some(200) && line.method.as_deref() == Some("GET"))
    else {
        return false;
    };
    let mut changed = false;
    for job in jobs
        .iter_mut()
        .filter(|job| matches!(job.state, State::Pending | State::Running))
    {
        if !queue.contains(&format!("\"{}\"", job.id)) {
            job.start(now_ms);
            let message =
                json!(["execution_success", { "prompt_id": job.id, "timestamp": now_ms }]);
            job.end(State::Completed, message);
            changed = true;
        }
    }
    changed
}

impl Job {
    fn start(&mut self, now_ms: i64) {
        if self.messages.is_empty() {
            let start = json!({ "prompt_id": self.id, "timestamp": now_ms });
            self.messages.push(json!(["execution_start", start]));
        }
        self.state = State::Running;
    }

    fn end(&mut self, state: State, message: Value) {
        self.messages.push(message);
        self.state = state;
    }

    fn is_finished(&self) -> bool {
        !matches!(self.state, State::Pending | State::Running)
    }

    fn history_entry(&self) -> String {
        let success = self.state == State::Completed;
        let status = json!({
            "status_str": if success { "success" } else { "error" },
            "completed": success,
            "messages": self.messages,
        });
        let outputs = Value::from(self.outputs.clone());
        let item = &self.item;
        format!(
            r#"{}: {{"prompt": {item}, "outputs": {outputs}, "status": {status}, "meta": {{}}}}"#,
            Value::from(self.id.as_str())
        )
    }

    fn listed(&self) -> Value {
        let time =
            |message: Option<&Value>| message.and_then(|message| message[1]["timestamp"].as_i64());
        let mut listed = json!({
            "id": self.id,
            "status": match self.state {
                State::Pending => "pending",
                State::Running => "in_progress",
                State::Completed => "completed",
                State::Failed => "failed",
                State::Cancelled => "cancelled",
            },
            "priority": self.number,
            "create_time": self.create_time,
            "outputs_count": self.outputs.len(),
        });
        if let Some(workflow_id) = &self.workflow_id {
            listed["workflow_id"] = workflow_id.as_str().into();
        }
        if self.is_finished() {
            listed["execution_start_time"] = time(self.messages.first()).into();
            listed["execution_end_time"] = time(self.messages.last()).into();
        }
        if self.state == State::Failed {
            listed["execution_error"] = self
                .messages
                .last()
                .map_or(Value::Null, |message| message[1].clone());
        }
        listed
    }
}

fn round(line: &Line, jobs: &[Job]) -> Round {
    let items = |state: State| {
        let items: Vec<&str> = jobs
            .iter()
            .filter(|job| job.state == state)
            .map(|job| job.item.as_str())
            .collect();
        items.join(", ")
    };
    let queue = format!(
        r#"{{"queue_running": [{}], "queue_pending": [{}]}}"#,
        items(State::Running),
        items(State::Pending)
    );
    let history: Vec<String> = jobs
        .iter()
        .filter(|job| job.is_finished())
        .map(Job::history_entry)
        .collect();
    let mut listed: Vec<&Job> = jobs.iter().collect();
    listed.sort_by_key(|job| std::cmp::Reverse(job.create_time));
    let listed: Vec<Value> = listed.into_iter().map(Job::listed).collect();
    let total = listed.len();
    let jobs = json!({
        "jobs": listed,
        "pagination": { "offset": 0, "limit": null, "total": total, "has_more": false },
    });
    Round {
        at: at(line.t),
        down: false,
        queue: queue.into(),
        history: format!("{{{}}}", history.join(", ")).into(),
        jobs: Arc::from(jobs.to_string()),
    }
}
