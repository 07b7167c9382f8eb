//! The stored form of events: a kind from a frozen table, and a payload of only what is in no column.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weir_model::event::{AlertEvent, Event, ExecutionEvent, Outcome, SourceEvent, SystemEvent};
use weir_model::id::{ExecutionSeq, SourceId};
use weir_model::status::{Status, StepStatus};

/// Version of the payloads written today. Older ones stay readable forever.
pub(super) const PAYLOAD_VERSION: u8 = 1;

/// Frozen: a code is never given to another kind. New kinds get new codes.
pub(super) const KINDS: [(u8, &str); 48] = [
    (1, "execution.created"),
    (2, "execution.queued"),
    (3, "execution.initializing"),
    (4, "execution.started"),
    (5, "execution.completing"),
    (6, "execution.paused"),
    (7, "execution.cancelling"),
    (8, "execution.pending"),
    (9, "execution.completed"),
    (10, "execution.partial"),
    (11, "execution.failed"),
    (12, "execution.timeout"),
    (13, "execution.cancelled"),
    (14, "execution.lost"),
    (15, "execution.found"),
    (16, "execution.corrected"),
    (17, "execution.declared"),
    (18, "step.started"),
    (19, "step.completed"),
    (20, "step.failed"),
    (21, "step.skipped"),
    (22, "step.cancelled"),
    (23, "execution.unwatched"),
    (24, "execution.watched"),
    (32, "source.stale"),
    (33, "source.recovered"),
    (34, "source.suspect"),
    (35, "source.suspicion_cleared"),
    (36, "source.removed"),
    (37, "source.returned"),
    (48, "alert.fired"),
    (49, "alert.updated"),
    (50, "alert.resolved"),
    (51, "alert.acknowledged"),
    (64, "system.started"),
    (65, "system.stopped"),
    (66, "system.blind"),
    (67, "system.trouble"),
    (68, "system.trouble_cleared"),
    (69, "resource.over"),
    (70, "resource.recovered"),
    (71, "config.reloaded"),
    (72, "config.reload_failed"),
    (73, "alert.muted"),
    (74, "alert.unmuted"),
    (80, "control.requested"),
    (81, "control.asked"),
    (82, "control.settled"),
];

pub(super) fn code_of(kind: &str) -> Option<u8> {
    KINDS
        .iter()
        .find(|(_, k)| *k == kind)
        .map(|(code, _)| *code)
}

pub(super) fn kind_of(code: u8) -> Option<&'static str> {
    KINDS
        .iter()
        .find(|(c, _)| *c == code)
        .map(|(_, kind)| *kind)
}

/// An event cannot be stored, or what is stored cannot be an event.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("an event of kind {kind} cannot carry {what}")]
    Unstorable { kind: &'static str, what: String },
    #[error("unknown event kind {code}")]
    UnknownKind { code: i64 },
    #[error("unknown payload version {version} of {kind}")]
    UnknownVersion { kind: &'static str, version: i64 },
    #[error("payload of {kind}: {source}")]
    Payload {
        kind: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("{kind} without {what}")]
    Missing {
        kind: &'static str,
        what: &'static str,
    },
}

/// The columns of an event, but for its number, time and workflow.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Encoded {
    pub(super) code: u8,
    pub(super) execution: Option<ExecutionSeq>,
    pub(super) step: Option<u32>,
    pub(super) payload: Option<String>,
}

/// An event as far as its own row tells it; two kinds are told by the projections.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decoded {
    Whole(Event),
    /// What was created is the execution's row.
    Created,
    /// What was declared are the steps' rows from `first` on.
    Declared {
        first: u32,
        count: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct StartedPayload {
    #[serde(
        rename = "s",
        default,
        skip_serializing_if = "Option::is_none",
        with = "micros"
    )]
    started_at: Option<Timestamp>,
    #[serde(rename = "n", default = "one", skip_serializing_if = "is_one")]
    attempt: u32,
}

#[derive(Serialize, Deserialize, Default)]
struct OutcomePayload {
    #[serde(
        rename = "s",
        default,
        skip_serializing_if = "Option::is_none",
        with = "micros"
    )]
    started_at: Option<Timestamp>,
    #[serde(
        rename = "c",
        default,
        skip_serializing_if = "Option::is_none",
        with = "micros"
    )]
    completed_at: Option<Timestamp>,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(rename = "l", default, skip_serializing_if = "is_false")]
    late: bool,
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    from: Option<Status>,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    to: Option<Status>,
}

#[derive(Serialize, Deserialize)]
struct StepPayload {
    #[serde(
        rename = "s",
        default,
        skip_serializing_if = "Option::is_none",
        with = "micros"
    )]
    started_at: Option<Timestamp>,
    #[serde(
        rename = "a",
        default,
        skip_serializing_if = "Option::is_none",
        with = "micros"
    )]
    at: Option<Timestamp>,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct DeclaredPayload(u32, u32);

#[derive(Serialize, Deserialize)]
struct LostPayload {
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct FoundPayload {
    status: Status,
}

#[derive(Serialize, Deserialize)]
struct SourcePayload {
    source: SourceId,
    event: SourceEvent,
}

#[derive(Serialize, Deserialize)]
struct AlertPayload {
    fingerprint: String,
    event: AlertEvent,
}

impl OutcomePayload {
    fn of(outcome: &Outcome) -> OutcomePayload {
        OutcomePayload {
            started_at: outcome.started_at,
            completed_at: outcome.completed_at,
            error: outcome.error.clone(),
            ..OutcomePayload::default()
        }
    }

    fn outcome(self) -> Outcome {
        Outcome {
            started_at: self.started_at,
            completed_at: self.completed_at,
            error: self.error,
        }
    }
}

/// The columns of an execution's event. `first_step` is where a declaration's steps begin.
pub(super) fn encode_execution(
    seq: ExecutionSeq,
    event: &ExecutionEvent,
    first_step: u32,
) -> Result<Encoded, CodecError> {
    let kind = event.kind();
    let (step, payload) = execution_payload(kind, event, first_step)?;
    Ok(Encoded {
        code: stored_code(kind)?,
        execution: Some(seq),
        step,
        payload,
    })
}

/// The columns of an event that is about no execution; one that is declares no steps.
pub(super) fn encode(event: &Event) -> Result<Encoded, CodecError> {
    let kind = event.kind();
    let payload = match event {
        Event::Execution(seq, event) => return encode_execution(*seq, event, 0),
        Event::Source(source, event) => {
            let payload = SourcePayload {
                source: *source,
                event: event.clone(),
            };
            json(kind, &payload)?
        }
        Event::Alert(fingerprint, event) => {
            let payload = AlertPayload {
                fingerprint: fingerprint.clone(),
                event: event.clone(),
            };
            json(kind, &payload)?
        }
        Event::System(SystemEvent::Stopped | SystemEvent::Reloaded) => None,
        // JSON has no word for these, so the row could not be read back.
        Event::System(
            SystemEvent::ResourceOver { value, limit, .. }
            | SystemEvent::ResourceRecovered { value, limit, .. },
        ) if !value.is_finite() || !limit.is_finite() => {
            return Err(CodecError::Unstorable {
                kind,
                what: format!("value {value} and limit {limit}"),
            });
        }
        Event::System(event) => json(kind, event)?,
        Event::Control(_, event) => json(kind, event)?,
    };
    let execution = match event {
        Event::Control(execution, _) => *execution,
        _ => None,
    };
    Ok(Encoded {
        code: stored_code(kind)?,
        execution,
        step: None,
        payload,
    })
}

fn stored_code(kind: &'static str) -> Result<u8, CodecError> {
    code_of(kind).ok_or_else(|| CodecError::Unstorable {
        kind,
        what: "a kind that has no code".to_owned(),
    })
}

fn execution_payload(
    kind: &'static str,
    event: &ExecutionEvent,
    first_step: u32,
) -> Result<(Option<u32>, Option<String>), CodecError> {
    use ExecutionEvent as E;
    let payload = match event {
        E::Created { .. } | E::Queued | E::Initializing | E::Completing | E::Paused => None,
        E::Cancelling | E::Pending | E::Unwatched | E::Watched => None,
        E::Started {
            started_at,
            attempt,
        } => json(
            kind,
            &StartedPayload {
                started_at: *started_at,
                attempt: *attempt,
            },
        )?,
        E::Finished { status, .. } if !status.is_final() => return Err(unstorable(kind, status)),
        E::Finished { late, outcome, .. } => json(
            kind,
            &OutcomePayload {
                late: *late,
                ..OutcomePayload::of(outcome)
            },
        )?,
        E::Lost { reason } => json(
            kind,
            &LostPayload {
                reason: reason.clone(),
            },
        )?,
        E::Found { status } => json(kind, &FoundPayload { status: *status })?,
        E::Corrected { from, to, outcome } => json(
            kind,
            &OutcomePayload {
                from: Some(*from),
                to: Some(*to),
                ..OutcomePayload::of(outcome)
            },
        )?,
        E::Declared { steps } => {
            let count = u32::try_from(steps.len()).unwrap_or(u32::MAX);
            json(kind, &DeclaredPayload(first_step, count))?
        }
        E::StepStarted { step, at } => {
            let payload = StepPayload {
                started_at: None,
                at: *at,
                error: None,
            };
            return Ok((Some(*step), json(kind, &payload)?));
        }
        E::StepFinished { status, .. } if !status.is_final() => {
            return Err(unstorable(kind, status));
        }
        E::StepFinished {
            step,
            started_at,
            at,
            error,
            ..
        } => {
            let payload = StepPayload {
                started_at: *started_at,
                at: *at,
                error: error.clone(),
            };
            return Ok((Some(*step), json(kind, &payload)?));
        }
    };
    Ok((None, payload))
}

fn unstorable(kind: &'static str, status: &dyn std::fmt::Display) -> CodecError {
    CodecError::Unstorable {
        kind,
        what: format!("status {status}"),
    }
}

/// The payload as JSON; none where there is nothing in it.
fn json(kind: &'static str, payload: &impl Serialize) -> Result<Option<String>, CodecError> {
    let text =
        serde_json::to_string(payload).map_err(|source| CodecError::Payload { kind, source })?;
    Ok((text != "{}").then_some(text))
}

/// The event of a row.
pub(super) fn decode(
    code: i64,
    version: i64,
    execution: Option<ExecutionSeq>,
    step: Option<u32>,
    payload: Option<&str>,
) -> Result<Decoded, CodecError> {
    let code = u8::try_from(code).map_err(|_| CodecError::UnknownKind { code })?;
    let kind = kind_of(code).ok_or(CodecError::UnknownKind {
        code: i64::from(code),
    })?;
    if version != i64::from(PAYLOAD_VERSION) {
        return Err(CodecError::UnknownVersion { kind, version });
    }
    match code {
        1..=24 => {
            let missing = |what| CodecError::Missing { kind, what };
            let seq = execution.ok_or_else(|| missing("its execution"))?;
            let event = match code {
                1 => return Ok(Decoded::Created),
                17 => {
                    let DeclaredPayload(first, count) = parse(kind, payload)?;
                    return Ok(Decoded::Declared { first, count });
                }
                18..=22 => decode_step(
                    kind,
                    code,
                    step.ok_or_else(|| missing("its step"))?,
                    payload,
                )?,
                _ => decode_execution(kind, code, payload)?,
            };
            Ok(Decoded::Whole(Event::Execution(seq, event)))
        }
        32..=37 => {
            let SourcePayload { source, event } = parse(kind, payload)?;
            Ok(Decoded::Whole(Event::Source(source, event)))
        }
        48..=51 => {
            let AlertPayload { fingerprint, event } = parse(kind, payload)?;
            Ok(Decoded::Whole(Event::Alert(fingerprint, event)))
        }
        65 => Ok(Decoded::Whole(Event::System(SystemEvent::Stopped))),
        71 => Ok(Decoded::Whole(Event::System(SystemEvent::Reloaded))),
        80..=82 => Ok(Decoded::Whole(Event::Control(
            execution,
            parse(kind, payload)?,
        ))),
        _ => Ok(Decoded::Whole(Event::System(parse(kind, payload)?))),
    }
}

fn decode_execution(
    kind: &'static str,
    code: u8,
    payload: Option<&str>,
) -> Result<ExecutionEvent, CodecError> {
    use ExecutionEvent as E;
    let missing = |what| CodecError::Missing { kind, what };
    Ok(match code {
        2 => E::Queued,
        3 => E::Initializing,
        4 => {
            let StartedPayload {
                started_at,
                attempt,
            } = parse(kind, payload)?;
            E::Started {
                started_at,
                attempt,
            }
        }
        5 => E::Completing,
        6 => E::Paused,
        7 => E::Cancelling,
        8 => E::Pending,
        14 => {
            let LostPayload { reason } = parse(kind, payload)?;
            E::Lost { reason }
        }
        15 => {
            let FoundPayload { status } = parse(kind, payload)?;
            E::Found { status }
        }
        16 => {
            let payload: OutcomePayload = parse(kind, payload)?;
            E::Corrected {
                from: payload.from.ok_or_else(|| missing("the old verdict"))?,
                to: payload.to.ok_or_else(|| missing("the new verdict"))?,
                outcome: payload.outcome(),
            }
        }
        23 => E::Unwatched,
        24 => E::Watched,
        _ => {
            let status = match code {
                9 => Status::Completed,
                10 => Status::Partial,
                11 => Status::Failed,
                12 => Status::Timeout,
                _ => Status::Cancelled,
            };
            let payload: OutcomePayload = parse(kind, payload)?;
            E::Finished {
                status,
                late: payload.late,
                outcome: payload.outcome(),
            }
        }
    })
}

fn decode_step(
    kind: &'static str,
    code: u8,
    step: u32,
    payload: Option<&str>,
) -> Result<ExecutionEvent, CodecError> {
    let payload: StepPayload = parse(kind, payload)?;
    let status = match code {
        18 => {
            return Ok(ExecutionEvent::StepStarted {
                step,
                at: payload.at,
            });
        }
        19 => StepStatus::Completed,
        20 => StepStatus::Failed,
        21 => StepStatus::Skipped,
        _ => StepStatus::Cancelled,
    };
    Ok(ExecutionEvent::StepFinished {
        step,
        status,
        started_at: payload.started_at,
        at: payload.at,
        error: payload.error,
    })
}

fn parse<T: DeserializeOwned>(kind: &'static str, payload: Option<&str>) -> Result<T, CodecError> {
    serde_json::from_str(payload.unwrap_or("{}"))
        .map_err(|source| CodecError::Payload { kind, source })
}

fn one() -> u32 {
    1
}

fn is_one(n: &u32) -> bool {
    *n == 1
}

fn is_false(b: &bool) -> bool {
    !*b
}

/// Times in payloads are integer microseconds, as in the columns.
mod micros {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(Timestamp::as_microsecond).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let micros = Option::<i64>::deserialize(deserializer)?;
        micros
            .map(Timestamp::from_microsecond)
            .transpose()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
