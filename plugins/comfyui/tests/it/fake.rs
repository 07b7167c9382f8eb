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
    pub(crate) log: RefCell<Vec<String>>,
}

impl Fake {
    pub(crate) fn new(has_jobs: bool) -> Fake {
        Fake {
            has_jobs,
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
            "/system_stats" => {
                json!({"system": {"comfyui_version": if self.has_jobs { "0.33.0" } else { "0.3.64" }}})
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
            _ => {
                let id = path.strip_prefix("/history/")?;
                self.entries(|_, item| item[1] == id)
            }
        })
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
        assert_eq!(request.method, "GET", "a monitor changes nothing");
        let path = request.url.strip_prefix("http://comfy:8188").unwrap();
        self.requests.borrow_mut().push(path.to_owned());
        let (status, body) = match &*self.instead.borrow() {
            Some(instead) => instead.clone()?,
            None => match self.answer(path) {
                Some(answer) => (200, answer.to_string().into_bytes()),
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
