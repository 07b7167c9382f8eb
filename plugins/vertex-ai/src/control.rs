//! Cancel, retry and submit: what reaches the provider, and never twice.
//!
//! Vertex AI has no request id: a `create` that is repeated makes a second job. So every job made here carries its
//! key as a label, and each attempt first looks for that label. Where an answer to `create` is lost, the label is
//! looked for again at once; if it is not there the call fails without a time to come back, which would say that nothing
//! was made: the host looks for the label among the jobs that come. Vertex AI cannot restart a job: a retry is a new job
//! from the old one's own specification.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use weir_sdk::bindings::weir::plugin::types::JobRef;
use weir_sdk::{Failure, FailureKind, Far, failure, text};

use crate::bindings::exports::weir::plugin::control::Submission;
use crate::client::{Client, Trouble, Why, encode, parse, permission};
use crate::config::Config;
use crate::filter;
use crate::kind::{Kind, State};
use crate::name::{Name, Scope};

/// Label of the idempotency key.
pub const KEY_LABEL: &str = "weir_key";
/// Label of a retry: the last segment of the old job's name.
pub const RETRIED_FROM: &str = "retried_from";
/// Google's bound on a label's value.
const LABEL_MAX: usize = 63;
/// After a request rate without a wait of its own.
const RATE_WAIT: u32 = 60_000;

/// What the provider sets and no `create` takes.
const OUTPUT_ONLY: [&str; 22] = [
    "name",
    "state",
    "createTime",
    "startTime",
    "endTime",
    "updateTime",
    "error",
    "webAccessUris",
    "satisfiesPzs",
    "satisfiesPzi",
    "jobDetail",
    "pipelineTaskRerunConfigs",
    "scheduleName",
    "templateMetadata",
    "outputInfo",
    "partialFailures",
    "resourcesConsumed",
    "completionStats",
    "modelVersionId",
    "modelMonitoringStatsAnomalies",
    "modelMonitoringStatus",
    "etag",
];

/// Asks the provider to cancel. It is done when the provider says so: until then the job is CANCELLING.
pub fn cancel(far: &impl Far, config: &Config, job: &JobRef) -> Result<(), Failure> {
    let name = Name::of_job(&job.id)?;
    let client = Client::new(far, config);
    let url = format!("{}:cancel", client.resource_url(&name));
    match client.send("POST", url, Some(&Value::Object(Map::new()))) {
        Ok(_) => Ok(()),
        Err(trouble) => Err(needed(
            trouble.failure("cancel"),
            &trouble,
            name.kind,
            "cancel",
        )),
    }
}

/// Creates a new job from the specification of one that ended.
pub fn retry(
    far: &impl Far,
    config: &Config,
    key: &str,
    job: &JobRef,
) -> Result<Submission, Failure> {
    let name = Name::of_job(&job.id)?;
    let client = Client::new(far, config);
    let old: Value = client.get(client.resource_url(&name)).map_err(|trouble| {
        needed(
            trouble.failure("retry: reading the job"),
            &trouble,
            name.kind,
            "get",
        )
    })?;
    let Value::Object(mut body) = old else {
        return Err(failure::transient(
            "retry: the job was answered as something else",
        ));
    };
    let state = match body.get("state") {
        Some(Value::String(state)) => State::of_name(state),
        Some(Value::Number(number)) => State::of_number(number.as_i64().unwrap_or(-1)),
        _ => State::Unspecified,
    };
    if !state.is_final() {
        return Err(failure::permanent(format!(
            "retry: the job is {}; only one that ended is run again",
            state.word()
        )));
    }
    body.retain(|field, _| !OUTPUT_ONLY.contains(&field.as_str()));
    set_label(&mut body, RETRIED_FROM, &label_value(&name.id))?;
    let scope = Scope {
        project: name.project,
        location: name.location,
        kind: name.kind,
    };
    create(&client, &scope, key, body)
}

/// Creates a job from `{"kind", "location", "project", "job"}`. Project and location must be ones of the
/// configuration, and may be left out where it has only one.
pub fn submit(
    far: &impl Far,
    config: &Config,
    key: &str,
    body: &[u8],
) -> Result<Submission, Failure> {
    let wrong = |what: String| failure::permanent(format!("submit: {what}"));
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| wrong(format!("the body is no JSON: {error}")))?;
    let Value::Object(mut body) = body else {
        return Err(wrong(
            "expected an object with kind, location and job".to_owned(),
        ));
    };
    let Some(Value::Object(job)) = body.remove("job") else {
        return Err(wrong(
            "job: expected an object, as Vertex AI's own API takes it".to_owned(),
        ));
    };
    let word = |name: &str| match body.get(name) {
        None => Ok(None),
        Some(Value::String(word)) => Ok(Some(word.clone())),
        Some(_) => Err(wrong(format!("{name}: expected a string"))),
    };
    let kind = word("kind")?.unwrap_or_else(|| Kind::Custom.word().to_owned());
    let kind = Kind::parse(&kind).ok_or_else(|| {
        let known = Kind::ALL.map(Kind::word).join(", ");
        wrong(format!(
            "kind: expected one of {known}, found {:?}",
            text::line(&kind, 100)
        ))
    })?;
    let one_of = |name: &str, known: &[String]| match (word(name)?, known) {
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(wrong(format!(
            "{name}: expected one of {}",
            known.join(", ")
        ))),
        (Some(word), _) if known.contains(&word) => Ok(word),
        (Some(word), _) => Err(wrong(format!(
            "{name}: {:?} is none of this source's: {}",
            text::line(&word, 100),
            known.join(", ")
        ))),
    };
    let scope = Scope {
        project: one_of("project", &config.projects)?,
        location: one_of("location", &config.locations)?,
        kind,
    };
    create(&Client::new(far, config), &scope, key, job)
}

fn create<F: Far>(
    client: &Client<'_, F>,
    scope: &Scope,
    key: &str,
    mut body: Map<String, Value>,
) -> Result<Submission, Failure> {
    let key = label_value(key);
    set_label(&mut body, KEY_LABEL, &key)?;
    // Not before it is known that it was not made already.
    if let Some(found) = look(client, scope, &key)? {
        return Ok(found);
    }
    let url = format!(
        "{}/v1/{}/{}",
        client.config.base(&scope.location),
        scope.parent(),
        scope.kind.collection()
    );
    let trouble = match client.send("POST", url, Some(&Value::Object(body))) {
        Ok(response) => match parse::<Value>(&response).map(|job| submission(&job, 200)) {
            Ok(Some(submission)) => return Ok(submission),
            Ok(None) => Trouble::Garbage("answered with something else than a job".to_owned()),
            Err(trouble) => trouble,
        },
        Err(trouble) => trouble,
    };
    refused(client, scope, &key, trouble)
}

/// A `create` that gave no job: refused for good, to be repeated, or nobody knows.
fn refused<F: Far>(
    client: &Client<'_, F>,
    scope: &Scope,
    key: &str,
    trouble: Trouble,
) -> Result<Submission, Failure> {
    match trouble {
        Trouble::Refused(refusal) if refusal.why == Why::Rate => {
            let mut failure = Trouble::Refused(refusal).failure("create");
            // It was not taken: whoever says when to come back says so.
            failure.retry_after_ms.get_or_insert(RATE_WAIT);
            Err(failure)
        }
        Trouble::Refused(refusal)
            if (300..500).contains(&refusal.status) && refusal.status != 408 =>
        {
            // The provider's own words, for whoever submitted; a quota of machines is one of them.
            client.far.log(
                weir_sdk::Level::Warn,
                &format!("create in {}: {}", scope.key(), refusal.message),
            );
            Ok(Submission {
                job: None,
                status: refusal.status,
                content_type: refusal.content_type,
                body: refusal.body,
            })
        }
        Trouble::NoAnswer(failure) if was_not_sent(&failure) => {
            Err(Trouble::NoAnswer(failure).failure("create"))
        }
        trouble => match look(client, scope, key) {
            Ok(Some(found)) => Ok(found),
            Ok(None) | Err(_) => Err(Failure {
                message: format!(
                    "create: {}; whether the job was made is not known: it would carry the label {KEY_LABEL}={key}",
                    trouble.message()
                ),
                kind: Some(FailureKind::Transient),
                retry_after_ms: None,
            }),
        },
    }
}

/// The host's causes that stand before a request.
fn was_not_sent(failure: &Failure) -> bool {
    let cause = failure.message.split([':', ' ']).next();
    matches!(cause, Some("dns" | "connect" | "tls" | "denied"))
}

/// The job that was made with this key, if there is one.
fn look<F: Far>(
    client: &Client<'_, F>,
    scope: &Scope,
    key: &str,
) -> Result<Option<Submission>, Failure> {
    let url = format!(
        "{}/v1/{}/{}?pageSize=10&filter={}",
        client.config.base(&scope.location),
        scope.parent(),
        scope.kind.collection(),
        encode(&filter::label(KEY_LABEL, key))
    );
    let mut token = String::new();
    loop {
        let mut page = url.clone();
        if !token.is_empty() {
            page.push_str(&format!("&pageToken={}", encode(&token)));
        }
        let list: Value = client.get(page).map_err(|trouble| {
            let failure = trouble.failure("looking for an earlier attempt");
            needed(failure, &trouble, scope.kind, "list")
        })?;
        let jobs = list.get(scope.kind.collection()).and_then(Value::as_array);
        // A far side that ignores the filter must not pass off another job.
        let has_key = |job: &&Value| job["labels"][KEY_LABEL] == *key;
        let found = jobs.into_iter().flatten().filter(has_key);
        if let Some(found) = found.filter_map(|job| submission(job, 200)).next() {
            return Ok(Some(found));
        }
        match list.get("nextPageToken").and_then(Value::as_str) {
            None | Some("") => return Ok(None),
            Some(_) if !client.has_room() => {
                return Err(failure::transient(
                    "looking for an earlier attempt: too many pages",
                ));
            }
            Some(next) => token = next.to_owned(),
        }
    }
}

fn submission(job: &Value, status: u16) -> Option<Submission> {
    let name = Name::parse(job.get("name")?.as_str()?)?;
    Some(Submission {
        job: Some(JobRef {
            id: name.to_string(),
            run: None,
        }),
        status,
        content_type: "application/json".to_owned(),
        body: job.to_string().into_bytes(),
    })
}

fn set_label(body: &mut Map<String, Value>, name: &str, value: &str) -> Result<(), Failure> {
    let labels = body
        .entry("labels")
        .or_insert_with(|| Value::Object(Map::new()));
    match labels {
        Value::Object(labels) => {
            labels.insert(name.to_owned(), Value::from(value));
            Ok(())
        }
        _ => Err(failure::permanent("labels: expected an object")),
    }
}

/// `text` where it may be a label's value, else a digest of it.
fn label_value(text: &str) -> String {
    let is_good = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    };
    if !text.is_empty() && text.len() <= LABEL_MAX && text.bytes().all(is_good) {
        return text.to_owned();
    }
    let digest = Sha256::digest(text.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256-{}", &hex[..LABEL_MAX - 7])
}

/// A refusal for want of a permission names it.
fn needed(mut failure: Failure, trouble: &Trouble, kind: Kind, verb: &str) -> Failure {
    let is_refused = matches!(trouble, Trouble::Refused(refusal) if refusal.status == 403);
    if is_refused && !failure.message.contains("missing permission") {
        failure
            .message
            .push_str(&format!(" (needed: {})", permission(kind, verb)));
    }
    failure
}
