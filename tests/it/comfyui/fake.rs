//! A ComfyUI that runs prompts when a test says so. What it answers and sends is what a recorded server of the same
//! version did, under other ids; who gets which frame, and what can be cancelled how, is as in that version.

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use actix_ws::Session;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// A server of one version.
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    port: u16,
    handle: actix_web::dev::ServerHandle,
}

struct State {
    version: (u32, u32, u32),
    name: String,
    /// What the recorded submitter was sent about its prompt, in order.
    script: Vec<Value>,
    /// Of the recorded prompt.
    entry: Value,
    /// Of a recorded interruption.
    interrupted: Value,
    number: u64,
    running: Option<Value>,
    /// How many frames of `script` the running prompt sent.
    sent: usize,
    pending: Vec<Value>,
    history: Vec<Value>,
    sockets: BTreeMap<String, Session>,
    /// Frames for each client, told or not: an open socket gets them.
    frames: Vec<(String, Value)>,
    changes: Vec<String>,
}

fn recorded(name: &str) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/recordings");
    let text = std::fs::read_to_string(root.join(format!("{name}.jsonl"))).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The first entry of the last history that was polled.
fn entry(lines: &[Value]) -> Value {
    let last = lines.iter().rev().find(|line| {
        line["path"] == "/history" && line["body"].as_str().is_some_and(|body| body.len() > 2)
    });
    let history: Value = serde_json::from_str(last.unwrap()["body"].as_str().unwrap()).unwrap();
    let first = history.as_object().unwrap().values().next();
    first.unwrap().clone()
}

impl State {
    fn new(folder: &str) -> State {
        let lines = recorded(&format!("{folder}/progress_own"));
        let own = lines
            .iter()
            .filter(|line| line["k"] == "ws.text" && line["conn"] == "submitter");
        let script = own
            .map(|line| serde_json::from_str::<Value>(line["text"].as_str().unwrap()).unwrap())
            .filter(|frame| frame["data"]["prompt_id"].is_string());
        // The oldest one was not interrupted while it was recorded; its history says it as the next one's does.
        let interrupted = match folder {
            "v0.3.40" => "v0.3.64",
            folder => folder,
        };
        let name = lines[0]["comfyui_version"].as_str().unwrap().to_owned();
        let mut parts = name.split('.').map(|part| part.parse().unwrap());
        let mut part = || parts.next().unwrap();
        State {
            version: (part(), part(), part()),
            name,
            script: script.collect(),
            entry: entry(&lines),
            interrupted: entry(&recorded(&format!("{interrupted}/interrupt_running"))),
            number: 0,
            running: None,
            sent: 0,
            pending: Vec::new(),
            history: Vec::new(),
            sockets: BTreeMap::new(),
            frames: Vec::new(),
            changes: Vec::new(),
        }
    }

    fn has_jobs(&self) -> bool {
        self.version >= (0, 6, 0)
    }

    fn begin(&mut self) {
        if self.running.is_none() && !self.pending.is_empty() {
            self.running = Some(self.pending.remove(0));
            self.sent = 0;
        }
        let remaining = self.pending.len() + usize::from(self.running.is_some());
        let status = json!({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": remaining}}}});
        let all: Vec<String> = self.sockets.keys().cloned().collect();
        for client in all {
            self.send(&client, status.clone());
        }
    }

    fn send(&mut self, client: &str, frame: Value) {
        if let Some(socket) = self.sockets.get(client) {
            let (mut socket, text) = (socket.clone(), frame.to_string());
            actix_web::rt::spawn(async move { drop(socket.text(text).await) });
        }
        self.frames.push((client.to_owned(), frame));
    }

    /// As `PromptServer.send_sync` does it: to the client of the prompt; without one, progress goes to everybody.
    fn tell(&mut self, frame: Value) {
        let running = self.running.clone().unwrap();
        let broadcast = ["progress", "progress_state"];
        match running[3]["client_id"].as_str() {
            Some(client) => self.send(client, frame),
            None if broadcast.iter().any(|kind| frame["type"] == *kind) => {
                let all: Vec<String> = self.sockets.keys().cloned().collect();
                for client in all {
                    self.send(&client, frame.clone());
                }
            }
            None => {}
        }
    }

    /// The recorded frame with the id of the running prompt.
    fn renamed(&self, value: &Value) -> Value {
        let recorded = self.entry["prompt"][1].as_str().unwrap();
        let id = self.running.as_ref().unwrap()[1].as_str().unwrap();
        serde_json::from_str(&value.to_string().replace(recorded, id)).unwrap()
    }

    fn finish(&mut self, model: &Value) {
        let running = self.running.take().unwrap();
        let recorded = model["prompt"][1].as_str().unwrap();
        let text = model
            .to_string()
            .replace(recorded, running[1].as_str().unwrap());
        let mut entry: Value = serde_json::from_str(&text).unwrap();
        entry["prompt"] = running;
        self.history.push(entry);
        self.begin();
    }

    fn interrupt(&mut self) {
        let model = self.interrupted.clone();
        self.finish(&model);
    }

    fn get(&self, path: &str, query: &str) -> Option<Value> {
        let all = self.running.iter().chain(&self.pending);
        Some(match path {
            "/system_stats" => json!({"system": {"comfyui_version": self.name}, "devices": [
                {"name": "cpu", "type": "cpu", "index": null, "vram_total": 25276502016_u64, "vram_free": 22641938432_u64, "torch_vram_total": 25276502016_u64, "torch_vram_free": 22641938432_u64}
            ]}),
            "/queue" => {
                let running: Vec<&Value> = self.running.iter().collect();
                json!({"queue_running": running, "queue_pending": self.pending})
            }
            "/prompt" => json!({"exec_info": {"queue_remaining": all.count()}}),
            "/history" => self.entries(|_| true),
            "/api/jobs" if self.has_jobs() => {
                let jobs: Vec<Value> = self.jobs(query.contains("status=pending"));
                let total = jobs.len();
                json!({"jobs": jobs, "pagination": {"offset": 0, "limit": null, "total": total, "has_more": false}})
            }
            _ if path.starts_with("/history/") => {
                self.entries(|id| Some(id) == path.strip_prefix("/history/"))
            }
            _ if path.starts_with("/api/jobs/") && self.has_jobs() => {
                let id = path.strip_prefix("/api/jobs/");
                let mut jobs = self.jobs(false).into_iter();
                jobs.find(|job| job["id"].as_str() == id)?
            }
            _ => return None,
        })
    }

    fn entries(&self, wanted: impl Fn(&str) -> bool) -> Value {
        let entries = self.history.iter();
        entries
            .map(|entry| {
                (
                    entry["prompt"][1].as_str().unwrap().to_owned(),
                    entry.clone(),
                )
            })
            .filter(|(id, _)| wanted(id))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    fn jobs(&self, unfinished: bool) -> Vec<Value> {
        let listed = |item: &Value, status: &str| json!({"id": item[1], "status": status, "priority": item[0], "create_time": item[3]["create_time"], "outputs_count": 0});
        let pending = self.pending.iter().map(|item| listed(item, "pending"));
        let running = self.running.iter().map(|item| listed(item, "in_progress"));
        let finished = self.history.iter().filter(|_| !unfinished).map(|entry| {
            let messages = entry["status"]["messages"].as_array().unwrap();
            let status = match messages.last().unwrap()[0].as_str().unwrap() {
                "execution_success" => "completed",
                "execution_interrupted" => "cancelled",
                _ => "failed",
            };
            let mut job = listed(&entry["prompt"], status);
            job["execution_start_time"] = messages[0][1]["timestamp"].clone();
            job["execution_end_time"] = messages.last().unwrap()[1]["timestamp"].clone();
            job
        });
        pending.chain(running).chain(finished).collect()
    }

    fn post(&mut self, path: &str, body: &[u8]) -> (u16, String) {
        let text = String::from_utf8_lossy(body);
        self.changes
            .push(format!("{path} {text}").trim_end().to_owned());
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match path {
            "/prompt" => self.prompt(&body),
            "/queue" => {
                let wanted = body["delete"].as_array().cloned().unwrap_or_default();
                self.pending.retain(|item| !wanted.contains(&item[1]));
                self.begin();
                (200, String::new())
            }
            "/interrupt" => {
                // Before 0.3.57 the id is not looked at.
                let meant = body["prompt_id"]
                    .as_str()
                    .filter(|_| self.version >= (0, 3, 57));
                let running = self.running.as_ref().map(|item| item[1].clone());
                if running.is_some_and(|id| meant.is_none_or(|meant| id == meant)) {
                    self.interrupt();
                }
                (200, String::new())
            }
            _ if path.starts_with("/api/jobs/") && self.version >= (0, 26, 0) => {
                let id = path
                    .trim_start_matches("/api/jobs/")
                    .trim_end_matches("/cancel");
                let waiting = self.pending.len();
                self.pending.retain(|item| item[1] != id);
                let mut cancelled = self.pending.len() < waiting;
                if self.running.as_ref().is_some_and(|item| item[1] == id) {
                    self.interrupt();
                    cancelled = true;
                }
                (200, json!({"cancelled": cancelled}).to_string())
            }
            _ => (405, "405: Method Not Allowed".to_owned()),
        }
    }

    fn prompt(&mut self, body: &Value) -> (u16, String) {
        if !body["prompt"].is_object() {
            let refused = json!({"error": {"type": "no_prompt", "message": "No prompt provided", "details": "No prompt provided", "extra_info": {}}, "node_errors": {}});
            return (400, refused.to_string());
        }
        let own = body["prompt_id"]
            .as_str()
            .filter(|_| self.version >= (0, 3, 45));
        let id = own.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
        let mut extra = body["extra_data"].as_object().cloned().unwrap_or_default();
        if body["client_id"].is_string() {
            extra.insert("client_id".to_owned(), body["client_id"].clone());
        }
        if self.version >= (0, 3, 69) {
            extra.insert(
                "create_time".to_owned(),
                json!(1_795_337_166_000_u64 + self.number),
            );
        }
        let number = self.number;
        self.number += 1;
        self.pending.push(json!([
            number,
            id,
            body["prompt"],
            extra,
            self.entry["prompt"][4]
        ]));
        self.begin();
        (
            200,
            json!({"prompt_id": id, "number": number, "node_errors": {}}).to_string(),
        )
    }
}

async fn serve(
    request: HttpRequest,
    body: web::Bytes,
    state: web::Data<Mutex<State>>,
) -> HttpResponse {
    let mut state = state.lock().unwrap();
    if request.method() == "POST" {
        let (status, text) = state.post(request.path(), &body);
        let status = actix_web::http::StatusCode::from_u16(status).unwrap();
        return HttpResponse::build(status)
            .content_type("application/json; charset=utf-8")
            .body(text);
    }
    match state.get(request.path(), request.query_string()) {
        Some(answer) => HttpResponse::Ok().json(answer),
        None if state.has_jobs() && request.path().starts_with("/api/jobs/") => {
            HttpResponse::NotFound().json(json!({"error": "Job not found"}))
        }
        None => HttpResponse::NotFound().body("404: Not Found"),
    }
}

async fn socket(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<Mutex<State>>,
) -> Result<HttpResponse, actix_web::Error> {
    let (response, session, mut messages) = actix_ws::handle(&request, payload)?;
    let client = request
        .query_string()
        .trim_start_matches("clientId=")
        .to_owned();
    let mut opened = state.lock().unwrap();
    opened.sockets.insert(client.clone(), session);
    let greeting = json!({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": client}});
    opened.send(&client, greeting);
    drop(opened);
    actix_web::rt::spawn(async move {
        while messages.recv().await.is_some_and(|message| message.is_ok()) {}
        state.lock().unwrap().sockets.remove(&client);
    });
    Ok(response)
}

impl Fake {
    /// `folder`: of the recordings.
    pub(crate) fn start(folder: &str) -> Fake {
        let state = Arc::new(Mutex::new(State::new(folder)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let data = web::Data::from(Arc::clone(&state));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .route("/ws", web::get().to(socket))
                .default_service(web::to(serve))
        })
        .workers(1)
        .shutdown_timeout(1)
        .disable_signals()
        .listen(listener)
        .unwrap()
        .run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Fake {
            state,
            port,
            handle,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A prompt that somebody else posts; its id.
    pub(crate) fn post(&self, client: Option<&str>) -> String {
        let mut body = json!({"prompt": self.graph()});
        if let Some(client) = client {
            body["client_id"] = json!(client);
        }
        let (_, answer) = self.state().prompt(&body);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["prompt_id"].as_str().unwrap().to_owned()
    }

    /// The recorded graph: three nodes, of which the second tells 12 steps.
    pub(crate) fn graph(&self) -> Value {
        self.state().entry["prompt"][2].clone()
    }

    /// The running prompt goes on until this step of its second node.
    pub(crate) fn run_until(&self, step: u64) {
        let mut state = self.state();
        loop {
            let frame = state.renamed(&state.script[state.sent]);
            state.sent += 1;
            let is_there = frame["type"] == "progress" && frame["data"]["value"] == step;
            state.tell(frame);
            if is_there {
                return;
            }
        }
    }

    /// The running prompt ends well.
    pub(crate) fn finish(&self) {
        let mut state = self.state();
        while state.sent < state.script.len() {
            let frame = state.renamed(&state.script[state.sent]);
            state.sent += 1;
            state.tell(frame);
        }
        let model = state.entry.clone();
        state.finish(&model);
    }

    /// The frames that this client was sent, and those it would have been while its socket was closed.
    pub(crate) fn frames_of(&self, client: &str) -> Vec<Value> {
        let state = self.state();
        let own = state.frames.iter().filter(|(to, _)| to == client);
        own.map(|(_, frame)| frame.clone()).collect()
    }

    /// The client ids of open sockets.
    pub(crate) fn clients(&self) -> Vec<String> {
        self.state().sockets.keys().cloned().collect()
    }

    /// Every POST since the last time: path and body.
    pub(crate) fn changes(&self) -> Vec<String> {
        std::mem::take(&mut self.state().changes)
    }

    pub(crate) fn running(&self) -> Option<String> {
        let state = self.state();
        let running = state.running.as_ref()?;
        running[1].as_str().map(str::to_owned)
    }

    /// A prompt as the server keeps it.
    pub(crate) fn item(&self, id: &str) -> Value {
        let state = self.state();
        let waiting = state.running.iter().chain(&state.pending);
        let past = state.history.iter().map(|entry| &entry["prompt"]);
        let mut all = waiting.chain(past);
        all.find(|item| item[1] == id).unwrap().clone()
    }

    pub(crate) async fn stop(self) {
        self.handle.stop(false).await;
    }
}
