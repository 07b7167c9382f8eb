//! A ComfyUI that a test writes down: a queue, a history, and what goes wrong.

use std::cell::{Cell, RefCell};

use serde_json::{Value, json};
use weir_sdk::{Failure, Far, Level, Request, Response, failure};

/// Status and body, or none.
type Answer = Result<(u16, Vec<u8>), Failure>;

#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) now: Cell<u64>,
    pub(crate) running: RefCell<Vec<Value>>,
    pub(crate) pending: RefCell<Vec<Value>>,
    pub(crate) history: RefCell<Vec<Value>>,
    /// Has the job list.
    pub(crate) has_jobs: bool,
    /// An answer of more bytes fails as the host makes it fail.
    pub(crate) limit: Cell<usize>,
    /// Instead of every real answer.
    pub(crate) instead: RefCell<Option<Answer>>,
    pub(crate) requests: RefCell<Vec<String>>,
    /// Changes are asked for; else one is an error of the test.
    pub(crate) is_controlled: Cell<bool>,
    /// Path and body of every POST.
    pub(crate) posts: RefCell<Vec<(String, Vec<u8>)>>,
    /// What it says of itself; empty = nothing.
    pub(crate) version: RefCell<String>,
    pub(crate) log: RefCell<Vec<String>>,
    /// Of `/system_stats`; null = it says nothing about devices.
    pub(crate) devices: RefCell<Value>,
    /// It has no `/system_stats`.
    pub(crate) is_silent: Cell<bool>,
    /// How long each answer takes, in milliseconds.
    pub(crate) delay: Cell<u64>,
    /// When something was asked last.
    pub(crate) asked_at: Cell<u64>,
}

impl Fake {
    pub(crate) fn new(has_jobs: bool) -> Fake {
        Fake {
            has_jobs,
            version: RefCell::new(if has_jobs { "0.33.0" } else { "0.3.64" }.to_owned()),
            limit: Cell::new(64 << 20),
            now: Cell::new(1_800_000_000_000),
            ..Fake::default()
        }
    }

    /// The requests since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.requests.take()
    }

    pub(crate) fn later(&self, milliseconds: u64) {
        self.now.set(self.now.get() + milliseconds);
    }

    fn entries(&self, keep: impl Fn(usize, &Value) -> bool) -> Value {
        let history = self.history.borrow();
        let kept = history
            .iter()
            .enumerate()
            .filter(|(index, item)| keep(*index, item));
        kept.map(|(_, item)| (item[1].as_str().unwrap().to_owned(), entry(item)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    fn listed(&self, query: &str) -> Value {
        let mut jobs = Vec::new();
        for (list, status) in [
            (&self.pending, "pending"),
            (&self.running, "in_progress"),
            (&self.history, "completed"),
        ] {
            jobs.extend(list.borrow().iter().map(|item| {
                let mut job = json!({"id": item[1], "status": status, "priority": item[0], "create_time": item[3]["create_time"]});
                if status == "completed" {
                    job["execution_start_time"] = json!(1);
                    job["execution_end_time"] = json!(2);
                }
                job
            }));
        }
        jobs.sort_by_key(|job| std::cmp::Reverse(job["create_time"].as_u64()));
        if query.contains("status=pending,in_progress") {
            jobs.retain(|job| job["status"] != "completed");
        }
        let number = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.parse::<usize>().ok())
        };
        let (total, offset) = (jobs.len(), number("offset=").unwrap_or(0));
        let jobs: Vec<Value> = jobs
            .into_iter()
            .skip(offset)
            .take(number("limit=").unwrap_or(usize::MAX))
            .collect();
        let has_more = offset + jobs.len() < total;
        json!({"jobs": jobs, "pagination": {"offset": offset, "limit": null, "total": total, "has_more": has_more}})
    }

    fn answer(&self, path: &str) -> Option<Value> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Some(match path {
            "/system_stats" if self.is_silent.get() => return None,
            "/system_stats" => {
                let version = self.version.borrow().clone();
                let system = json!({"comfyui_version": (!version.is_empty()).then_some(version)});
                json!({"system": system, "devices": *self.devices.borrow()})
            }
            "/queue" => {
                json!({"queue_running": *self.running.borrow(), "queue_pending": *self.pending.borrow()})
            }
            "/prompt" => {
                json!({"exec_info": {"queue_remaining": self.running.borrow().len() + self.pending.borrow().len()}})
            }
            "/history" => {
                let items: usize = query
                    .strip_prefix("max_items=")
                    .expect("never the whole history")
                    .parse()
                    .unwrap();
                let skip = self.history.borrow().len().saturating_sub(items);
                self.entries(|index, _| index >= skip)
            }
            "/api/jobs" if self.has_jobs => self.listed(query),
            _ if path.starts_with("/api/jobs/") => {
                let id = path.strip_prefix("/api/jobs/").filter(|_| self.has_jobs)?;
                let listed = self.listed("");
                let mut jobs = listed["jobs"].as_array().unwrap().iter();
                jobs.find(|job| job["id"] == id)?.clone()
            }
            _ => {
                let id = path.strip_prefix("/history/")?;
                self.entries(|_, item| item[1] == id)
            }
        })
    }

    /// What ComfyUI does, as far as the recordings show it.
    fn change(&self, path: &str, body: Vec<u8>) -> (u16, String) {
        assert!(self.is_controlled.get(), "a monitor changes nothing");
        self.posts
            .borrow_mut()
            .push((path.to_owned(), body.clone()));
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let waits = |id: &Value| {
            let lists = [&self.running, &self.pending];
            lists
                .iter()
                .any(|list| list.borrow().iter().any(|item| item[1] == *id))
        };
        if let Some(id) = path
            .strip_prefix("/api/jobs/")
            .and_then(|rest| rest.strip_suffix("/cancel"))
        {
            if !self.has_jobs {
                return (405, "405: Method Not Allowed".to_owned());
            }
            let cancelled = waits(&json!(id));
            self.pending.borrow_mut().retain(|item| item[1] != id);
            return (200, json!({"cancelled": cancelled}).to_string());
        }
        if path == "/prompt" {
            if !body["prompt"].is_object() {
                return (
                    400,
                    r#"{"error": {"type": "no_prompt"}, "node_errors": {}}"#.to_owned(),
                );
            }
            let id = body["prompt_id"]
                .as_str()
                .unwrap_or("made-by-the-server")
                .to_owned();
            let mut extra = body["extra_data"].as_object().cloned().unwrap_or_default();
            extra.insert("create_time".to_owned(), json!(self.now.get()));
            let item = json!([77, id, body["prompt"], extra, ["2"]]);
            self.pending.borrow_mut().push(item);
            return (
                200,
                format!("{{\"prompt_id\": \"{id}\", \"number\": 77, \"node_errors\": {{}}}}"),
            );
        }
        (200, String::new())
    }
}

/// `[number, id, prompt, extra_data, outputs]` of a graph of two nodes; created at `number`.
pub(crate) fn item(number: u64, extra: Value) -> Value {
    let mut extra_data = json!({"client_id": "secret-client", "create_time": number});
    extra_data
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    let prompt = json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "text": ["a", 1, 2]}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}, "_meta": {"title": "Save it"}},
        "3": {"class_type": "NotNeeded", "inputs": {}},
    });
    json!([number, format!("id-{number}"), prompt, extra_data, ["2"]])
}

fn entry(item: &Value) -> Value {
    json!({
        "prompt": item, "outputs": {"2": {"images": []}},
        "status": {"status_str": "success", "completed": true, "messages": [
            ["execution_start", {"timestamp": 1}], ["execution_cached", {"nodes": []}], ["execution_success", {"timestamp": 2}],
        ]},
    })
}

impl Far for Fake {
    fn now(&self) -> u64 {
        self.now.get()
    }

    fn log(&self, _level: Level, message: &str) {
        self.log.borrow_mut().push(message.to_owned());
    }

    fn send(&self, request: Request) -> Result<Response, Failure> {
        self.asked_at.set(self.now.get());
        self.later(self.delay.get());
        let path = request.url.strip_prefix("http://comfy:8188").unwrap();
        if request.method == "POST" {
            let (status, body) = self.change(path, request.body.unwrap());
            return Ok(Response {
                status,
                headers: vec![(
                    "Content-Type".to_owned(),
                    "application/json; charset=utf-8".to_owned(),
                )],
                body: body.into_bytes(),
            });
        }
        assert_eq!(request.method, "GET");
        self.requests.borrow_mut().push(path.to_owned());
        let (status, body) = match &*self.instead.borrow() {
            Some(instead) => instead.clone()?,
            None => match self.answer(path) {
                Some(answer) => (200, answer.to_string().into_bytes()),
                None if self.has_jobs && path.starts_with("/api/jobs/") => {
                    (404, br#"{"error": "Job not found"}"#.to_vec())
                }
                None => (404, b"404: Not Found".to_vec()),
            },
        };
        if body.len() > self.limit.get() {
            return Err(failure::permanent(
                "too-large: the response exceeds the limit",
            ));
        }
        Ok(Response {
            status,
            headers: Vec::new(),
            body,
        })
    }

    fn fetch(&self, _request: Request) -> Result<Response, Failure> {
        Err(failure::permanent("not used"))
    }
}
