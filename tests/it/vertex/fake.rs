//! A Vertex AI and a Cloud Logging that a test writes down: jobs from the samples, filters, pages, quotas and faults.
//!
//! No socket in here: the daemon's tests serve it over HTTP, the plugin's tests call it. It applies the filter and
//! the mask it is given, so a wrong question shows as a wrong answer, and it writes down what nobody may do.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The number of every project, as answers have it.
pub(crate) const NUMBER: &str = "123456789012";

macro_rules! sample {
    ($name:literal) => {
        include_str!(concat!("../../data/vertex/", $name, ".json"))
    };
}

/// What the next request that fits gets instead of its answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The real answer after all.
    None,
    Status(u16, String),
    Json(u16, Value),
    Html(u16),
    /// The sample of a request rate, with its RetryInfo, and a header if there is one.
    Rate(Option<u32>),
    /// A success whose body ends in the middle.
    Half,
    /// It is done, and the answer is lost.
    Lost(u16),
    /// More than the host takes.
    TooLarge,
    /// No answer at all.
    Silent,
}

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
}

impl Asked {
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) fault: Option<Fault>,
}

#[derive(Default)]
pub(crate) struct Fake {
    /// Whole resources, newest first.
    pub(crate) jobs: Vec<Value>,
    pub(crate) entries: Vec<Value>,
    /// Tokens that are accepted; empty = no look at them.
    pub(crate) tokens: Vec<String>,
    /// (part of `METHOD /path`, what happens, how often).
    pub(crate) faults: Vec<(String, Fault, u32)>,
    pub(crate) asked: Vec<Asked>,
    /// What nobody may do, in words.
    pub(crate) wrongs: Vec<String>,
    /// By project and location: nobody may ask before this time.
    not_before: BTreeMap<String, u64>,
    made: u64,
}

pub(crate) fn sample(name: &str) -> Value {
    let text = match name {
        "01-queued" => sample!("01-queued"),
        "02-pending" => sample!("02-pending"),
        "03-running-t4" => sample!("03-running-t4"),
        "03-running-t4.enum-int" => sample!("03-running-t4.enum-int"),
        "04-running-two-pools-web" => sample!("04-running-two-pools-web"),
        "05-succeeded" => sample!("05-succeeded"),
        "06-failed-exit-code" => sample!("06-failed-exit-code"),
        "07-failed-timeout" => sample!("07-failed-timeout"),
        "08-failed-quota-never-started" => sample!("08-failed-quota-never-started"),
        "09-failed-stockout" => sample!("09-failed-stockout"),
        "10-cancelling" => sample!("10-cancelling"),
        "11-cancelled" => sample!("11-cancelled"),
        "12-cancelled-while-pending" => sample!("12-cancelled-while-pending"),
        "13-paused" => sample!("13-paused"),
        "14-expired" => sample!("14-expired"),
        "15-updating" => sample!("15-updating"),
        "16-partially-succeeded" => sample!("16-partially-succeeded"),
        "17-minimal-no-scheduling" => sample!("17-minimal-no-scheduling"),
        "18-tpu-spot-unicode" => sample!("18-tpu-spot-unicode"),
        "19-unspecified-empty-pool" => sample!("19-unspecified-empty-pool"),
        "20-nanosecond-and-millisecond-timestamps" => {
            sample!("20-nanosecond-and-millisecond-timestamps")
        }
        "pipelinejob-running" => sample!("pipelinejob-running"),
        "batchpredictionjob-succeeded" => sample!("batchpredictionjob-succeeded"),
        "list-page-1" => sample!("list-page-1"),
        "list-empty" => sample!("list-empty"),
        "error-400-filter" => sample!("error-400-filter"),
        "error-401" => sample!("error-401"),
        "error-403" => sample!("error-403"),
        "error-404" => sample!("error-404"),
        "error-429-gpu" => sample!("error-429-gpu"),
        "error-429-rate" => sample!("error-429-rate"),
        "error-500" => sample!("error-500"),
        "error-503" => sample!("error-503"),
        _ => panic!("there is no sample {name}"),
    };
    serde_json::from_str(text).unwrap()
}

/// RFC 3339 with microseconds, as Google writes it.
pub(crate) fn stamp(milliseconds: u64) -> String {
    let at = Timestamp::from_millisecond(i64::try_from(milliseconds).unwrap()).unwrap();
    format!("{at:.6}")
}

/// A sample as another job: id and creation time.
pub(crate) fn job(name: &str, collection: &str, location: &str, id: &str, created: u64) -> Value {
    let mut job = sample(name);
    job["name"] = json!(format!(
        "projects/{NUMBER}/locations/{location}/{collection}/{id}"
    ));
    job["createTime"] = json!(stamp(created));
    for field in ["startTime", "endTime", "updateTime"] {
        if job.get(field).is_some() {
            job[field] = json!(stamp(created + 1000));
        }
    }
    job
}

impl Fake {
    pub(crate) fn fault(&mut self, at: &str, fault: Fault, times: u32) {
        self.faults.push((at.to_owned(), fault, times));
    }

    /// The requests since the last time.
    pub(crate) fn take_asked(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.asked)
    }

    pub(crate) fn find(&mut self, id: &str) -> &mut Value {
        let end = format!("/{id}");
        let found = self
            .jobs
            .iter_mut()
            .find(|job| job["name"].as_str().unwrap().ends_with(&end));
        found.unwrap_or_else(|| panic!("no job {id}"))
    }

    /// Moves a job on; a state that is final ends it.
    pub(crate) fn set(&mut self, id: &str, state: &str, now: u64) {
        let job = self.find(id);
        job["state"] = json!(state);
        job["updateTime"] = json!(stamp(now));
        if state.ends_with("RUNNING") && job.get("startTime").is_none() {
            job["startTime"] = json!(stamp(now));
        }
        if ["SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"]
            .iter()
            .any(|end| state.ends_with(end))
        {
            job["endTime"] = json!(stamp(now));
        }
    }

    /// Answers one request. `url`: path and query.
    pub(crate) fn answer(
        &mut self,
        method: &str,
        url: &str,
        authorization: Option<&str>,
        body: &[u8],
        now: u64,
    ) -> Answer {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let query = parse_query(query);
        let line = format!("{method} {path}");
        let place = place(path);
        if let Some(until) = self.not_before.get(&place)
            && now < *until
        {
            let early = until - now;
            self.wrongs
                .push(format!("{line} came {early} ms before it was allowed to"));
        }
        let fault = self.take_fault(&line);
        let (status, value) = match &fault {
            Some(Fault::Status(status, name)) => (*status, sample(name)),
            Some(Fault::Json(status, value)) => (*status, value.clone()),
            Some(Fault::Rate(header)) => {
                let wait = header.map_or(7_500, |seconds| u64::from(seconds) * 1000);
                self.not_before.insert(place, now + wait);
                (429, sample("error-429-rate"))
            }
            Some(Fault::Html(status)) => (*status, Value::Null),
            Some(Fault::Silent) => (0, Value::Null),
            _ if !self.is_welcome(authorization) => (401, sample("error-401")),
            _ => self.real(method, path, &query, body, now),
        };
        let mut answer = Answer {
            status,
            headers: vec![(
                "content-type".into(),
                "application/json; charset=UTF-8".into(),
            )],
            body: value.to_string().into_bytes(),
            fault: fault.clone(),
        };
        match fault {
            Some(Fault::Html(_)) => {
                answer.headers = vec![("content-type".into(), "text/html; charset=UTF-8".into())];
                answer.body = b"<!DOCTYPE html>\n<html lang=en><title>Error 502 (Server Error)!!1</title><p>That's an error.".to_vec();
            }
            Some(Fault::Half) => answer.body.truncate(answer.body.len() / 2),
            Some(Fault::Lost(status)) => {
                answer.status = status;
                answer.body = sample("error-503").to_string().into_bytes();
            }
            Some(Fault::Rate(Some(seconds))) => answer
                .headers
                .push(("retry-after".into(), seconds.to_string())),
            _ => {}
        }
        self.asked.push(Asked {
            method: method.to_owned(),
            path: path.to_owned(),
            query,
        });
        answer
    }

    fn is_welcome(&self, authorization: Option<&str>) -> bool {
        let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
        self.tokens.is_empty() || token.is_some_and(|token| self.tokens.iter().any(|t| t == token))
    }

    fn take_fault(&mut self, line: &str) -> Option<Fault> {
        let at = self
            .faults
            .iter()
            .position(|(part, _, times)| *times > 0 && line.contains(part.as_str()))?;
        self.faults[at].2 -= 1;
        Some(self.faults[at].1.clone())
    }

    fn real(
        &mut self,
        method: &str,
        path: &str,
        query: &BTreeMap<String, String>,
        body: &[u8],
        now: u64,
    ) -> (u16, Value) {
        if path == "/v2/entries:list" {
            return self.log_entries(body);
        }
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method, segments.as_slice()) {
            ("GET", ["v1", "projects", _, "locations", location, collection]) => {
                self.list(location, collection, query)
            }
            ("POST", ["v1", "projects", _, "locations", location, collection]) => {
                self.create(location, collection, body, now)
            }
            ("GET", ["v1", "projects", _, "locations", _, _, id]) => match self.by_id(id) {
                Some(at) => (200, self.jobs[at].clone()),
                None => (404, sample("error-404")),
            },
            ("POST", ["v1", "projects", _, "locations", _, _, id]) => {
                let id = id.strip_suffix(":cancel").unwrap();
                match self.by_id(id) {
                    Some(at) => {
                        let is_pipeline = path.contains("pipelineJobs");
                        let prefix = if is_pipeline { "PIPELINE" } else { "JOB" };
                        self.jobs[at]["state"] = json!(format!("{prefix}_STATE_CANCELLING"));
                        (200, json!({}))
                    }
                    None => (404, sample("error-404")),
                }
            }
            _ => {
                self.wrongs.push(format!("{method} {path} is no request"));
                (404, sample("error-404"))
            }
        }
    }

    fn by_id(&self, id: &str) -> Option<usize> {
        let end = format!("/{id}");
        self.jobs
            .iter()
            .position(|job| job["name"].as_str().unwrap().ends_with(&end))
    }

    fn list(
        &mut self,
        location: &str,
        collection: &str,
        query: &BTreeMap<String, String>,
    ) -> (u16, Value) {
        let filter = query.get("filter").map_or("", String::as_str);
        let part = format!("/locations/{location}/{collection}/");
        let Some(filter_tree) = Filter::parse(filter) else {
            self.wrongs.push(format!("the filter {filter:?} is none"));
            return (400, sample("error-400-filter"));
        };
        let found: Vec<&Value> = self
            .jobs
            .iter()
            .filter(|job| job["name"].as_str().unwrap().contains(&part))
            .filter(|job| filter_tree.fits(job))
            .collect();
        let size: usize = query
            .get("pageSize")
            .map_or(50, |size| size.parse().unwrap());
        // A token is bound to its parent and its filter.
        let bound = format!("{part}{filter}").len();
        let offset = match query.get("pageToken") {
            None => 0,
            Some(token) => {
                let parts = token.strip_prefix("Cg+/=").and_then(|t| t.split_once('.'));
                match parts {
                    Some((offset, length)) if length == bound.to_string() => {
                        offset.parse().unwrap()
                    }
                    _ => {
                        self.wrongs
                            .push(format!("the token {token} is of another list"));
                        return (400, sample("error-400-filter"));
                    }
                }
            }
        };
        let page = found.iter().skip(offset).take(size);
        let page: Vec<Value> = page
            .map(|job| masked(job, query.get("readMask"), collection))
            .collect();
        let mut list = Map::new();
        if !page.is_empty() {
            list.insert(collection.to_owned(), Value::Array(page));
        }
        if offset + size < found.len() {
            let token = format!("Cg+/={}.{bound}", offset + size);
            list.insert("nextPageToken".to_owned(), json!(token));
        }
        (200, Value::Object(list))
    }

    fn create(&mut self, location: &str, collection: &str, body: &[u8], now: u64) -> (u16, Value) {
        let Ok(Value::Object(mut job)) = serde_json::from_slice(body) else {
            return (400, sample("error-400-filter"));
        };
        for field in [
            "name",
            "state",
            "createTime",
            "startTime",
            "endTime",
            "error",
        ] {
            if job.contains_key(field) {
                self.wrongs
                    .push(format!("create with the output field {field}"));
            }
        }
        self.made += 1;
        let id = format!("90000000000000000{:02}", self.made);
        let name = format!("projects/{NUMBER}/locations/{location}/{collection}/{id}");
        job.insert("name".into(), json!(name));
        let prefix = if collection == "pipelineJobs" {
            "PIPELINE"
        } else {
            "JOB"
        };
        job.insert("state".into(), json!(format!("{prefix}_STATE_PENDING")));
        job.insert("createTime".into(), json!(stamp(now)));
        job.insert("updateTime".into(), json!(stamp(now)));
        self.jobs.insert(0, Value::Object(job.clone()));
        (200, Value::Object(job))
    }

    fn log_entries(&mut self, body: &[u8]) -> (u16, Value) {
        let body: Value = serde_json::from_slice(body).unwrap();
        let filter = body["filter"].as_str().unwrap();
        let Some(tree) = Filter::parse(filter) else {
            self.wrongs.push(format!("the filter {filter:?} is none"));
            return (400, sample("error-400-filter"));
        };
        let mut found: Vec<&Value> = self.entries.iter().filter(|e| tree.fits(e)).collect();
        found.sort_by_key(|entry| entry["timestamp"].as_str().unwrap().to_owned());
        if body["orderBy"] == "timestamp desc" {
            found.reverse();
        }
        let size = body["pageSize"].as_u64().unwrap() as usize;
        let offset = match body["pageToken"].as_str() {
            None => 0,
            Some(token) => {
                let (offset, length) = token.split_once('.').unwrap();
                if length != filter.len().to_string() {
                    self.wrongs
                        .push("a log page token of another question".into());
                }
                offset.parse().unwrap()
            }
        };
        let mut answer = Map::new();
        let page: Vec<Value> = found
            .iter()
            .skip(offset)
            .take(size)
            .map(|e| (*e).clone())
            .collect();
        if !page.is_empty() {
            answer.insert("entries".into(), Value::Array(page));
        }
        if offset + size < found.len() {
            let token = format!("{}.{}", offset + size, filter.len());
            answer.insert("nextPageToken".into(), json!(token));
        }
        (200, Value::Object(answer))
    }
}

/// Only the fields that were asked for; no list has the tasks of a pipeline.
fn masked(job: &Value, mask: Option<&String>, collection: &str) -> Value {
    let mut job = job.clone();
    let fields = job.as_object_mut().unwrap();
    if let Some(mask) = mask {
        fields.retain(|field, _| mask.split(',').any(|wanted| wanted == field));
    }
    if collection == "pipelineJobs" {
        fields.remove("jobDetail");
    }
    job
}

/// `project/location`: what quotas are counted by.
fn place(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').collect();
    match segments.as_slice() {
        ["", "v1", "projects", _, "locations", location, ..] => (*location).to_owned(),
        _ => path.to_owned(),
    }
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            let digits = std::str::from_utf8(&digits).unwrap();
            bytes.push(u8::from_str_radix(digits, 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// AIP-160, as far as Vertex AI takes it: OR binds tighter than AND.
enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Compare(String, String, String),
}

impl Filter {
    fn parse(text: &str) -> Option<Filter> {
        let tokens = tokens(text)?;
        let mut at = 0;
        let filter = Filter::all(&tokens, &mut at)?;
        (at == tokens.len()).then_some(filter)
    }

    fn all(tokens: &[String], at: &mut usize) -> Option<Filter> {
        let mut parts = Vec::new();
        if tokens.is_empty() {
            return Some(Filter::All(parts));
        }
        loop {
            let mut any = vec![Filter::term(tokens, at)?];
            while tokens.get(*at).is_some_and(|token| token == "OR") {
                *at += 1;
                any.push(Filter::term(tokens, at)?);
            }
            parts.push(Filter::Any(any));
            if tokens.get(*at).is_none_or(|token| token != "AND") {
                return Some(Filter::All(parts));
            }
            *at += 1;
        }
    }

    fn term(tokens: &[String], at: &mut usize) -> Option<Filter> {
        let token = tokens.get(*at)?;
        *at += 1;
        if token == "(" {
            let inner = Filter::all(tokens, at)?;
            let is_closed = tokens.get(*at)? == ")";
            *at += 1;
            return is_closed.then_some(inner);
        }
        let operator = tokens.get(*at)?.clone();
        let value = tokens.get(*at + 1)?.clone();
        *at += 2;
        let is_operator = ["=", "!=", "<", "<=", ">", ">=", ":"].contains(&operator.as_str());
        let is_field = [
            "state",
            "display_name",
            "create_time",
            "timestamp",
            "resource.type",
        ]
        .contains(&token.as_str())
            || token.starts_with("labels.")
            || token.starts_with("resource.labels.");
        (is_operator && is_field).then_some(Filter::Compare(token.clone(), operator, value))
    }

    fn fits(&self, job: &Value) -> bool {
        match self {
            Filter::All(parts) => parts.iter().all(|part| part.fits(job)),
            Filter::Any(parts) => parts.iter().any(|part| part.fits(job)),
            Filter::Compare(field, operator, value) => {
                let value = value.trim_start_matches('\u{1}');
                let found = match field.as_str() {
                    "state" => job.get("state"),
                    "display_name" => job.get("displayName"),
                    "create_time" => job.get("createTime"),
                    "timestamp" => job.get("timestamp"),
                    "resource.type" => job["resource"].get("type"),
                    _ => match field.strip_prefix("resource.labels.") {
                        Some(key) => job["resource"]["labels"].get(key),
                        None => job["labels"].get(field.trim_start_matches("labels.")),
                    },
                };
                let found = found.and_then(Value::as_str);
                compare(field, found, operator, value)
            }
        }
    }
}

fn compare(field: &str, found: Option<&str>, operator: &str, value: &str) -> bool {
    let Some(found) = found else {
        return operator == "!=";
    };
    if ["create_time", "timestamp"].contains(&field) {
        let (found, value): (Timestamp, Timestamp) =
            (found.parse().unwrap(), value.parse().unwrap());
        return match operator {
            "<" => found < value,
            "<=" => found <= value,
            ">" => found > value,
            ">=" => found >= value,
            _ => found == value,
        };
    }
    match operator {
        "=" => found == value,
        "!=" => found != value,
        ":" if value == "*" => true,
        ":" => match value.strip_suffix('*') {
            Some(start) => found.starts_with(start),
            None => found.contains(value),
        },
        _ => false,
    }
}

/// Words, operators and strings; a string begins with U+0001, so that `"AND"` is no word.
fn tokens(text: &str) -> Option<Vec<String>> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' => {}
            '(' | ')' => tokens.push(c.to_string()),
            '"' => {
                let mut string = String::from('\u{1}');
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => string.push(chars.next()?),
                        c => string.push(c),
                    }
                }
                tokens.push(string);
            }
            '=' | ':' => tokens.push(c.to_string()),
            '!' | '<' | '>' => {
                let mut operator = c.to_string();
                if chars.peek() == Some(&'=') {
                    operator.push(chars.next()?);
                }
                tokens.push(operator);
            }
            c => {
                let mut word = c.to_string();
                let is_word = |c: &char| !" ()\"=:!<>".contains(*c);
                while let Some(c) = chars.next_if(is_word) {
                    word.push(c);
                }
                tokens.push(word);
            }
        }
    }
    Some(tokens)
}
