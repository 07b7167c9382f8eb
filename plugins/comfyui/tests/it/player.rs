//! Answers as a recorded server gave them at a given moment.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weir_sdk::{Failure, Far, Level, Request, Response, failure};

/// What the server answered to one path, from `t` on.
struct Recorded {
    t: f64,
    answer: Answer,
}

#[derive(Clone)]
enum Answer {
    Body(u16, String),
    Omitted,
    None,
}

impl Recorded {
    /// `source`: the line with the body, if `line` refers to another one.
    fn new(line: &Value, source: &Value) -> Recorded {
        let answer = match (line["status"].as_u64(), source["body"].as_str()) {
            (Some(status), Some(body)) => Answer::Body(status as u16, body.to_owned()),
            (Some(_), None) => Answer::Omitted,
            (None, _) => Answer::None,
        };
        Recorded {
            t: line["t"].as_f64().unwrap(),
            answer,
        }
    }
}

pub(crate) struct Player {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) t0: f64,
    /// When a whole cycle of polls was read.
    pub(crate) cycles: Vec<f64>,
    /// Frames of every connection.
    pub(crate) frames: Vec<Value>,
    /// The same with time and connection, as they came.
    pub(crate) wire: Vec<(f64, String, String)>,
    /// Answer as the server does at once after a frame, which no poll of the recording caught: with what the next one saw.
    pub(crate) ahead: Cell<bool>,
    passed: OnceCell<Vec<Value>>,
    answers: HashMap<String, Vec<Recorded>>,
    pub(crate) t: Cell<f64>,
    pub(crate) requests: RefCell<Vec<String>>,
}

pub(crate) fn recordings() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/recordings");
    let mut files: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .flat_map(|folder| {
            std::fs::read_dir(folder.unwrap().path())
                .into_iter()
                .flatten()
        })
        .map(|file| file.unwrap().path())
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| extension == "jsonl")
        })
        .collect();
    files.sort();
    files
}

impl Player {
    pub(crate) fn load(file: &Path) -> Player {
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let bodies: HashMap<u64, &Value> = lines
            .iter()
            .map(|line| (line["seq"].as_u64().unwrap(), line))
            .collect();
        let folder = file
            .parent()
            .unwrap()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap();
        let mut player = Player {
            name: format!("{folder}/{}", file.file_stem().unwrap().to_str().unwrap()),
            version: lines[0]["comfyui_version"].as_str().unwrap().to_owned(),
            t0: lines[0]["wall_t0_ms"].as_f64().unwrap(),
            cycles: Vec::new(),
            frames: Vec::new(),
            wire: Vec::new(),
            ahead: Cell::new(false),
            passed: OnceCell::new(),
            answers: HashMap::new(),
            t: Cell::new(0.0),
            requests: RefCell::default(),
        };
        let has = |who: &str, path: &str| {
            lines
                .iter()
                .any(|line| line["who"] == who && line["path"] == path)
        };
        let who = if has("poll", "/queue") {
            "poll"
        } else {
            "client"
        };
        let last = if has(who, "/api/jobs") {
            "/api/jobs"
        } else {
            "/history"
        };
        for line in &lines {
            if line["k"] == "ws.text" {
                let text = line["text"].as_str().unwrap();
                player.frames.extend(serde_json::from_str::<Value>(text));
                player.wire.push((
                    line["t"].as_f64().unwrap(),
                    line["conn"].as_str().unwrap().to_owned(),
                    text.to_owned(),
                ));
            }
            let path = line["path"].as_str().unwrap_or_default();
            if line["who"] == who && path == last {
                player.cycles.extend(line["t"].as_f64());
            }
            let is_polled = ["/queue", "/history", "/api/jobs"].contains(&path);
            if line["method"] == "GET" && line["status"] != 403 && is_polled {
                let source = line["same_as"].as_u64().map_or(line, |seq| bodies[&seq]);
                player
                    .answers
                    .entry(path.to_owned())
                    .or_default()
                    .push(Recorded::new(line, source));
            }
        }
        player
    }

    /// Every body that a path ever had.
    pub(crate) fn bodies(&self, path: &str) -> Vec<Value> {
        let answers = self.answers.get(path).map_or(&[][..], Vec::as_slice);
        answers
            .iter()
            .filter_map(|recorded| match &recorded.answer {
                Answer::Body(200, body) => Some(serde_json::from_str(body).unwrap()),
                _ => None,
            })
            .collect()
    }

    fn at(&self, path: &str) -> Result<Value, Failure> {
        let answers = self.answers.get(path).map_or(&[][..], Vec::as_slice);
        let now = self.t.get();
        let latest = if self.ahead.get() {
            let next = answers.iter().find(|recorded| recorded.t >= now);
            next.or(answers.last())
        } else {
            let latest = answers.iter().rev().find(|recorded| recorded.t <= now);
            latest.or(answers.first())
        };
        match latest.map(|recorded| &recorded.answer) {
            Some(Answer::Body(200, body)) => Ok(serde_json::from_str(body).unwrap()),
            Some(Answer::None) => Err(failure::transient("connect: refused")),
            Some(Answer::Omitted) => Ok(Value::Null),
            Some(Answer::Body(..)) | None => Ok(json!({"status": 404})),
        }
    }

    /// The queue, and what came and went between two polls of the recording: it stood there for a moment.
    fn queue_ahead(&self) -> Result<Value, Failure> {
        let mut queue = self.at("/queue")?;
        let passed = self.passed.get_or_init(|| {
            let mut passed = Vec::<Value>::new();
            for history in self.bodies("/history") {
                let entries = history.as_object().unwrap().values();
                let prompts = entries.map(|entry| entry["prompt"].clone());
                for prompt in prompts {
                    if !passed.contains(&prompt) {
                        passed.push(prompt);
                    }
                }
            }
            passed
        });
        if let Some(pending) = queue["queue_pending"].as_array_mut() {
            pending.extend(passed.iter().cloned());
        }
        Ok(queue)
    }

    fn history_entry(&self, id: &str) -> Result<Value, Failure> {
        let history = self.at("/history")?;
        if history.is_null() {
            return Ok(history);
        }
        let entry = history.get(id);
        Ok(entry.map_or(json!({}), |entry| json!({ id: entry })))
    }

    fn jobs(&self, query: &HashMap<&str, &str>) -> Result<Value, Failure> {
        let whole = self.at("/api/jobs")?;
        let Some(jobs) = whole["jobs"].as_array() else {
            return Ok(whole);
        };
        let wanted: Vec<Value> = jobs
            .iter()
            .filter(|job| {
                query
                    .get("status")
                    .is_none_or(|status| status.split(',').any(|status| job["status"] == status))
            })
            .cloned()
            .collect();
        let number = |name: &str| {
            query
                .get(name)
                .map(|number| number.parse::<usize>().unwrap())
        };
        let (total, offset) = (wanted.len(), number("offset").unwrap_or(0));
        let limit = number("limit").unwrap_or(usize::MAX);
        let page: Vec<Value> = wanted.into_iter().skip(offset).take(limit).collect();
        let has_more = offset + page.len() < total;
        Ok(
            json!({"jobs": page, "pagination": {"offset": offset, "limit": null, "total": total, "has_more": has_more}}),
        )
    }
}

impl Far for Player {
    fn now(&self) -> u64 {
        (self.t0 + 1000.0 * self.t.get()) as u64
    }

    fn log(&self, _level: Level, _message: &str) {}

    fn send(&self, request: Request) -> Result<Response, Failure> {
        let path = request.url.strip_prefix("http://comfy:8188").unwrap();
        self.requests.borrow_mut().push(path.to_owned());
        assert_eq!(request.method, "GET", "a monitor changes nothing");
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query: HashMap<&str, &str> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let answer = match path {
            "/system_stats" => {
                self.at("/queue")?;
                json!({"system": {"comfyui_version": self.version}})
            }
            "/prompt" => json!({"exec_info": {"queue_remaining": 1}}),
            "/queue" if self.ahead.get() => self.queue_ahead()?,
            "/queue" => self.at(path)?,
            "/api/jobs" => self.jobs(&query)?,
            "/history" => {
                let items: usize = query
                    .get("max_items")
                    .expect("never the whole history")
                    .parse()
                    .unwrap();
                match self.at(path)? {
                    Value::Object(entries) => {
                        let skip = entries.len().saturating_sub(items);
                        Value::Object(entries.into_iter().skip(skip).collect())
                    }
                    other => other,
                }
            }
            _ => self.history_entry(path.strip_prefix("/history/").unwrap())?,
        };
        let status = answer["status"]
            .as_u64()
            .unwrap_or(if answer.is_null() { 500 } else { 200 });
        Ok(Response {
            status: status as u16,
            headers: Vec::new(),
            body: answer.to_string().into_bytes(),
        })
    }

    fn fetch(&self, _request: Request) -> Result<Response, Failure> {
        Err(failure::permanent("not used"))
    }
}
