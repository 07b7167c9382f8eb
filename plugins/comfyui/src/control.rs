//! Asking a ComfyUI server for changes: cancel, retry, submit.
//!
//! An answer of 200 means "asked" and no more: interruption is cooperative, and one that comes too late ends in success.
//! Whatever can hit another prompt than the one that is meant is not asked.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use serde_json::value::RawValue;
use uuid::Uuid;
use weir_sdk::bindings::weir::plugin::types::JobRef;
use weir_sdk::{Failure, FailureKind, Far, Level, Response, failure, text};

use crate::bindings::exports::weir::plugin::control::Submission;
use crate::client::{Client, Trouble, parse, segment};
use crate::job::{Key, plain};
use crate::lenient::Lenient;
use crate::source::{Source, version};
use crate::wire::{History, Listed, Prompt, Queue, SystemStats};

/// `POST /api/jobs/{id}/cancel`, which cannot hit another prompt.
const CANCEL_SINCE: Version = Version(0, 26, 0);
/// `POST /interrupt` heeds `prompt_id`; before, it ends whatever runs.
const TARGETED_SINCE: Version = Version(0, 3, 57);
/// Keys of `extra_data` that are not posted again: set by the server, or of the client that posted it first.
const NOT_REPEATED: [&str; 2] = ["client_id", "create_time"];
/// Parts of names that hold what must not be sent around.
const SECRET_NAMES: [&str; 6] = [
    "token",
    "api_key",
    "apikey",
    "secret",
    "password",
    "authorization",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32, u32);

impl Version {
    /// `0.3.75`, and `0.26.0-rc1` too; none for what is no version.
    fn parse(text: &str) -> Option<Version> {
        let mut parts = text.split('.').map(|part| {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            part[..digits].parse::<u32>().ok()
        });
        let major = parts.next()??;
        let minor = parts.next()??;
        Some(Version(major, minor, parts.next().flatten().unwrap_or(0)))
    }
}

#[derive(Deserialize)]
struct Cancelled {
    cancelled: bool,
}

/// The answer to `POST /prompt`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Posted {
    prompt_id: Lenient<String>,
}

fn refused(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure {
        message: message.into(),
        kind: Some(kind),
        retry_after_ms: None,
    }
}

fn unknown(id: &str) -> Failure {
    let id = text::line(id, 100);
    refused(
        FailureKind::NotFound,
        format!("{id} neither runs nor waits on the server"),
    )
}

impl Source {
    /// Asks for the end of one prompt.
    pub fn cancel(&mut self, far: &impl Far, job: &JobRef) -> Result<(), Failure> {
        let client = Client::new(far, &self.config);
        let version = match client.json::<SystemStats>("/system_stats") {
            Ok(stats) => version(&stats).as_deref().and_then(Version::parse),
            Err(Trouble::Status(404, _)) => None,
            Err(trouble) => return Err(trouble.into()),
        };
        if version.is_none_or(|version| version >= CANCEL_SINCE) {
            is_meant(locate(&client, &job.id)?, job)?;
            match cancel_job(&client, &job.id) {
                // A server that is older than it says.
                Err(Trouble::Status(404 | 405, _)) => {}
                Ok(true) => return Ok(()),
                Ok(false) => return Err(unknown(&job.id)),
                Err(trouble) => return Err(trouble.into()),
            }
        }
        let is_targeted = version.is_some_and(|version| version >= TARGETED_SINCE);
        cancel_queued(&client, job, is_targeted)
    }

    /// Posts the same prompt again, under a new id.
    pub fn retry(
        &mut self,
        far: &impl Far,
        key: &str,
        job: &JobRef,
    ) -> Result<Submission, Failure> {
        let client = Client::new(far, &self.config);
        let id = self.derived_id("retry", key);
        if let Some(known) = look_first(&client, &id)? {
            return Ok(known);
        }
        let (item, prompt) = find(&client, job)?;
        let body = self.again(&item, &prompt, &id)?;
        post(&client, "application/json", body)
    }

    /// Posts what a client sent, as it is; a body that names no client gets weir's own id.
    pub fn submit(
        &mut self,
        far: &impl Far,
        key: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Submission, Failure> {
        let client = Client::new(far, &self.config);
        let id = (!key.is_empty()).then(|| self.derived_id("submit", key));
        let (body, is_ours) = self.named(body, id.as_deref());
        // With an id of our own a repeated call finds what the first one posted.
        if is_ours
            && let Some(id) = &id
            && let Some(known) = look_first(&client, id)?
        {
            return Ok(known);
        }
        post(&client, content_type, body)
    }

    /// The prompt id that belongs to an idempotency key: a canonical UUID, as ComfyUI asks for since 0.25.
    fn derived_id(&self, what: &str, key: &str) -> String {
        let namespace = Uuid::parse_str(&self.uuid).unwrap_or(Uuid::NAMESPACE_OID);
        Uuid::new_v5(&namespace, format!("{what}:{key}").as_bytes()).to_string()
    }

    /// `body` with weir's client id and a prompt id, where it has none; every other byte as it was. Says whether the
    /// prompt id is ours. What is no JSON object goes as it is: the refusal is the server's.
    fn named(&self, body: Vec<u8>, id: Option<&str>) -> (Vec<u8>, bool) {
        let start = body.iter().position(|byte| !byte.is_ascii_whitespace());
        let Some(at) = start.filter(|at| body[*at] == b'{') else {
            return (body, false);
        };
        let names = match serde_json::from_slice::<Names>(&body) {
            Ok(names) => names,
            // Python's client may have written NaN.
            Err(_) => {
                let mut copy = body.clone();
                crate::lenient::repair(&mut copy);
                match serde_json::from_slice::<Names>(&copy) {
                    Ok(names) => names,
                    Err(_) => return (body, false),
                }
            }
        };
        let mut added = Vec::new();
        let has_client = names.client_id || names.extra_data.0.is_some_and(|data| data.client_id);
        if !has_client && !self.uuid.is_empty() {
            added.push(format!("\"client_id\":{}", quoted(&self.uuid)));
        }
        let id = id.filter(|_| !names.prompt_id);
        if let Some(id) = id {
            added.push(format!("\"prompt_id\":{}", quoted(id)));
        }
        let (head, rest) = body.split_at(at + 1);
        let is_empty = rest.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
        let mut added = added.join(",");
        if !added.is_empty() && !is_empty {
            added.push(',');
        }
        let named = [head, added.as_bytes(), rest].concat();
        (named, id.is_some())
    }

    /// The body that posts a prompt again: the graph to the letter, the outputs that it had, no one's keys.
    fn again(&self, item: &Item, prompt: &Prompt, id: &str) -> Result<Vec<u8>, Failure> {
        let bad = |what: &str| failure::permanent(format!("the prompt cannot be repeated: {what}"));
        let graph = item.get(2).ok_or_else(|| bad("it has no graph"))?;
        let extra: BTreeMap<String, &RawValue> = match item.get(3) {
            Some(raw) => {
                serde_json::from_str(raw.get()).map_err(|_| bad("its extra_data is no object"))?
            }
            None => BTreeMap::new(),
        };
        let extra: BTreeMap<&String, &&RawValue> =
            extra.iter().filter(|(name, _)| is_repeated(name)).collect();
        let json = |value: serde_json::Result<String>| value.map_err(|_| bad("it is no JSON"));
        let mut body = format!(
            "{{\"client_id\":{},\"prompt_id\":{},\"extra_data\":{}",
            quoted(&self.uuid),
            quoted(id),
            json(serde_json::to_string(&extra))?
        );
        // Only the outputs that were asked for and valid then (servers before 0.3.48 run all of them).
        if !prompt.outputs.is_empty() {
            let outputs = json(serde_json::to_string(&prompt.outputs))?;
            body.push_str(&format!(",\"partial_execution_targets\":{outputs}"));
        }
        body.push_str(&format!(",\"prompt\":{}}}", graph.get()));
        Ok(body.into_bytes())
    }
}

/// Which names a body has.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Names {
    #[serde(deserialize_with = "present")]
    client_id: bool,
    #[serde(deserialize_with = "present")]
    prompt_id: bool,
    extra_data: Lenient<ExtraNames>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ExtraNames {
    #[serde(deserialize_with = "present")]
    client_id: bool,
}

/// A name that is there, whatever its value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn is_repeated(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    !NOT_REPEATED.contains(&name) && !SECRET_NAMES.iter().any(|secret| lower.contains(secret))
}

/// Whether the server took the prompt out of its queue or asked it to end.
fn cancel_job<F: Far>(client: &Client<'_, F>, id: &str) -> Result<bool, Trouble> {
    let path = format!("/api/jobs/{}/cancel", segment(id));
    let body = client.post(&path, "{}".to_owned())?;
    Ok(parse::<Cancelled>(&path, body)?.cancelled)
}

/// An id that was posted again stands for another run by now, and the server knows nothing but ids.
fn is_meant(found: Option<Key>, job: &JobRef) -> Result<(), Failure> {
    let found = found.and_then(|key| key.run);
    match (&found, &job.run) {
        (Some(found), Some(meant)) if found != meant => Err(refused(
            FailureKind::Unsupported,
            "refused: this id was posted again, and the server cannot tell the runs apart",
        )),
        _ => Ok(()),
    }
}

/// Cancels on a server that has no address for it: by what stands in the queue at this moment.
fn cancel_queued<F: Far>(
    client: &Client<'_, F>,
    job: &JobRef,
    is_targeted: bool,
) -> Result<(), Failure> {
    let id = job.id.as_str();
    let queue: Queue = client.json("/queue")?;
    let count = |prompts: &[Prompt]| prompts.iter().filter(|prompt| prompt.id == id).count();
    let running = count(&queue.queue_running.good);
    let pending = count(&queue.queue_pending.good);
    if running + pending > 1 {
        return Err(refused(
            FailureKind::Unsupported,
            "refused: this id stands in the queue more than once, and the server cannot tell them apart",
        ));
    }
    let all = queue.queue_running.good.iter();
    let mut all = all.chain(&queue.queue_pending.good);
    is_meant(all.find(|prompt| prompt.id == id).map(Key::of_prompt), job)?;
    if pending == 1 {
        let body = format!("{{\"delete\":[{}]}}", quoted(id));
        client.post("/queue", body)?;
        return Ok(());
    }
    if running == 0 {
        return Err(unknown(id));
    }
    if is_targeted {
        client.post("/interrupt", format!("{{\"prompt_id\":{}}}", quoted(id)))?;
        return Ok(());
    }
    if queue.queue_running.odd > 0 || queue.queue_running.good.len() > 1 {
        return Err(refused(
            FailureKind::Unsupported,
            "refused: this server can only interrupt whatever runs, and more than this prompt does",
        ));
    }
    client.far.log(
        Level::Info,
        "this server can only interrupt whatever runs; the queue says that it is the prompt that is meant",
    );
    client.post("/interrupt", "{}".to_owned())?;
    Ok(())
}

/// What an earlier call with the same key posted, as the server would have answered it.
fn look_first<F: Far>(client: &Client<'_, F>, id: &str) -> Result<Option<Submission>, Failure> {
    let Some(key) = locate(client, id)? else {
        return Ok(None);
    };
    let number = key.run.as_deref().unwrap_or_default();
    let number = number.split(':').next().unwrap_or_default();
    let number = match number.parse::<f64>() {
        Ok(number) if number.is_finite() => plain(number),
        _ => "null".to_owned(),
    };
    let body = format!(
        "{{\"prompt_id\":{},\"number\":{number},\"node_errors\":{{}}}}",
        quoted(id)
    );
    Ok(Some(Submission {
        job: Some(JobRef {
            id: key.id,
            run: key.run,
        }),
        status: 200,
        content_type: "application/json; charset=utf-8".to_owned(),
        body: body.into_bytes(),
    }))
}

/// The run that a prompt id stands for, where the server knows it.
fn locate<F: Far>(client: &Client<'_, F>, id: &str) -> Result<Option<Key>, Failure> {
    let path = format!("/api/jobs/{}", segment(id));
    match client.json::<Listed>(&path) {
        Ok(listed) => return Ok(Some(Key::of_listed(&listed))),
        Err(Trouble::Status(404, failure)) if failure.message.contains("Job not found") => {
            return Ok(None);
        }
        // Older than the job list, or a proxy's page in its place.
        Err(Trouble::Status(..) | Trouble::Garbage(_)) => {}
        Err(trouble) => return Err(trouble.into()),
    }
    let history: History = client.json(&format!("/history/{}", segment(id)))?;
    if let Some((_, entry)) = history.0.first() {
        return Ok(Some(Key::of_prompt(&entry.prompt)));
    }
    let queue: Queue = client.json("/queue")?;
    let all = queue.queue_running.good.iter();
    let mut all = all.chain(&queue.queue_pending.good);
    Ok(all.find(|prompt| prompt.id == id).map(Key::of_prompt))
}

fn post<F: Far>(
    client: &Client<'_, F>,
    content_type: &str,
    body: Vec<u8>,
) -> Result<Submission, Failure> {
    let content_type = match content_type {
        "" => "application/json",
        given => given,
    };
    let response = client.send("POST", "/prompt", Some((content_type, body)))?;
    let job = (response.status == 200)
        .then(|| posted(client, &response))
        .flatten();
    let content_type = response
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        .map(|(_, value)| value.clone());
    Ok(Submission {
        job,
        status: response.status,
        content_type: content_type.unwrap_or_else(|| "application/json".to_owned()),
        body: response.body,
    })
}

/// The job that an answer speaks of. The answer has no creation time, so the server is asked once more; where that
/// gives nothing, the number is all there is on older servers and the id on newer ones.
fn posted<F: Far>(client: &Client<'_, F>, response: &Response) -> Option<JobRef> {
    // An error of a node may quote NaN.
    let posted: Posted = parse("/prompt", response.body.clone()).ok()?;
    let id = posted.prompt_id.0?;
    let run = match locate(client, &id) {
        Ok(Some(key)) => key.run,
        Ok(None) | Err(_) => None,
    };
    Some(JobRef { id, run })
}

/// A prompt as the server keeps it, each part to the letter.
type Item = Vec<Box<RawValue>>;

#[derive(Deserialize)]
struct RawQueue {
    queue_running: Vec<Box<RawValue>>,
    queue_pending: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct RawEntry {
    prompt: Box<RawValue>,
}

/// The prompt of one run: from the history, or from the queue while it has not ended.
fn find<F: Far>(client: &Client<'_, F>, job: &JobRef) -> Result<(Item, Prompt), Failure> {
    let matches = |raw: &RawValue| -> Option<(Item, Prompt)> {
        let prompt: Prompt = serde_json::from_str(raw.get()).ok()?;
        let key = Key::of_prompt(&prompt);
        let is_run = job.run.is_none() || key.run == job.run;
        if key.id != job.id || !is_run {
            return None;
        }
        Some((serde_json::from_str(raw.get()).ok()?, prompt))
    };
    let path = format!("/history/{}", segment(&job.id));
    let body = client.get(&path)?;
    let history: BTreeMap<String, RawEntry> =
        serde_json::from_slice(&body).map_err(|_| unreadable(&path))?;
    if let Some(found) = history.values().find_map(|entry| matches(&entry.prompt)) {
        return Ok(found);
    }
    drop(history);
    let body = client.get("/queue")?;
    let queue: RawQueue = serde_json::from_slice(&body).map_err(|_| unreadable("/queue"))?;
    let mut all = queue.queue_running.iter().chain(&queue.queue_pending);
    all.find_map(|raw| matches(raw)).ok_or_else(|| {
        refused(
            FailureKind::NotFound,
            "the server keeps this prompt no more, so there is nothing to post again",
        )
    })
}

/// A prompt that can only be read after a repair would not be the same prompt.
fn unreadable(path: &str) -> Failure {
    failure::permanent(format!(
        "GET {path} answered what is no JSON, so the prompt cannot be repeated to the letter"
    ))
}
