//! Events as clients see them: self-contained, dated, with the id to resume from.

use super::{Time, object};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use weir_core::journal::StoredEvent;
use weir_model::event::{
    AlertEvent, ControlEvent, Event, ExecutionEvent, Outcome, SourceEvent, SystemEvent,
};
use weir_model::id::Seq;

#[derive(Debug, Serialize)]
pub struct EventView {
    pub seq: i64,
    /// First eight digits of the store's origin, and the number.
    pub id: String,
    pub r#type: &'static str,
    pub time: Time,
    pub workflow: Option<EventWorkflow>,
    pub execution: Option<EventExecution>,
    pub step: Option<EventStep>,
    pub data: Value,
}

#[derive(Debug, Serialize)]
pub struct EventWorkflow {
    pub id: i64,
    pub name: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct EventExecution {
    pub id: Uuid,
    pub execution_seq: i64,
    pub external_id: Option<String>,
    pub source: Option<String>,
    pub number: Option<i64>,
    pub name: Option<String>,
    pub imported: bool,
}

#[derive(Debug, Serialize)]
pub struct EventStep {
    pub index: u32,
    pub name: Option<String>,
}

/// The first eight digits of an origin: enough to tell two stores apart.
pub fn origin8(origin: Uuid) -> String {
    let mut text = origin.simple().to_string();
    text.truncate(8);
    text
}

/// The id of an event on a stream.
pub fn event_id(origin: Uuid, seq: Seq) -> String {
    format!("{}-{seq}", origin8(origin))
}

impl EventView {
    pub fn new(event: &StoredEvent, origin: Uuid, step_name: Option<String>) -> EventView {
        let row = &event.row;
        EventView {
            seq: row.seq.0,
            id: event_id(origin, row.seq),
            r#type: row.kind,
            time: row.at.into(),
            workflow: row.workflow.map(|id| EventWorkflow {
                id: id.0,
                name: event.workflow_name.clone(),
            }),
            execution: row
                .execution
                .zip(event.execution_uuid)
                .map(|(seq, id)| EventExecution {
                    id,
                    execution_seq: seq.0,
                    external_id: event.external_id.clone(),
                    source: event.source_name.clone(),
                    number: event.execution_number,
                    name: event.execution_name.clone(),
                    imported: event.imported,
                }),
            step: row.step.map(|index| EventStep {
                index,
                name: step_name,
            }),
            data: data(&row.event, event.source_name.as_deref()),
        }
    }
}

fn at(time: Option<Timestamp>) -> Option<Time> {
    time.map(Time)
}

fn data(event: &Event, source: Option<&str>) -> Value {
    match event {
        Event::Execution(_, event) => execution(event),
        Event::Source(_, event) => of_source(event, source),
        Event::Alert(fingerprint, event) => alert(event, fingerprint),
        Event::System(event) => system(event),
        Event::Control(_, event) => control(event, source),
    }
}

fn outcome(outcome: &Outcome) -> Map<String, Value> {
    let fields = [
        ("started_at", json!(at(outcome.started_at))),
        ("completed_at", json!(at(outcome.completed_at))),
        ("error_message", json!(outcome.error)),
    ];
    fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

fn execution(event: &ExecutionEvent) -> Value {
    use ExecutionEvent as E;
    match event {
        E::Created {
            key,
            name,
            imported,
            created_at,
            labels,
            ..
        } => json!({
            "name": name, "run": key.run, "imported": imported, "created_at": at(*created_at), "labels": object(labels),
        }),
        E::Started {
            started_at,
            attempt,
        } => json!({ "started_at": at(*started_at), "attempt": attempt }),
        E::Finished {
            status,
            late,
            outcome: end,
        } => {
            let mut data = outcome(end);
            data.insert("status".into(), status.as_str().into());
            data.insert("late".into(), (*late).into());
            Value::Object(data)
        }
        E::Corrected {
            from,
            to,
            outcome: end,
        } => {
            let mut data = outcome(end);
            data.insert("from".into(), from.as_str().into());
            data.insert("to".into(), to.as_str().into());
            Value::Object(data)
        }
        E::Lost { reason } => json!({ "reason": reason }),
        E::Found { status } => json!({ "status": status.as_str() }),
        E::Declared { steps } => {
            let steps = steps
                .iter()
                .map(|step| json!({ "step_id": step.external_id, "name": step.name }));
            json!({ "steps": steps.collect::<Vec<_>>() })
        }
        E::StepStarted { at: started, .. } => json!({ "started_at": at(*started) }),
        E::StepFinished {
            status,
            started_at,
            at: end,
            error,
            ..
        } => json!({
            "status": status.as_str(), "started_at": at(*started_at), "completed_at": at(*end), "error_message": error,
        }),
        E::Queued | E::Initializing | E::Completing | E::Paused | E::Cancelling | E::Pending => {
            json!({})
        }
        E::Unwatched | E::Watched => json!({}),
    }
}

fn of_source(event: &SourceEvent, source: Option<&str>) -> Value {
    match event {
        SourceEvent::Stale { error } => json!({ "source": source, "error": error }),
        SourceEvent::Suspect { missing, of } => {
            json!({ "source": source, "missing": missing, "of": of })
        }
        SourceEvent::Recovered | SourceEvent::SuspicionCleared => json!({ "source": source }),
        SourceEvent::Removed | SourceEvent::Returned => json!({ "source": source }),
    }
}

fn alert(event: &AlertEvent, fingerprint: &str) -> Value {
    match event {
        AlertEvent::Fired { severity, title } => {
            json!({ "fingerprint": fingerprint, "severity": super::severity(*severity), "title": title })
        }
        AlertEvent::Updated { count, title } => {
            json!({ "fingerprint": fingerprint, "count": count, "title": title })
        }
        AlertEvent::Resolved { reason } => json!({ "fingerprint": fingerprint, "reason": reason }),
        AlertEvent::Acknowledged { by } => json!({ "fingerprint": fingerprint, "by": by }),
    }
}

fn control(event: &ControlEvent, source: Option<&str>) -> Value {
    match event {
        ControlEvent::Requested {
            request, action, ..
        } => json!({ "request": request, "source": source, "action": action.as_str() }),
        ControlEvent::Asked {
            request,
            action,
            note,
            ..
        } => {
            json!({ "request": request, "source": source, "action": action.as_str(), "note": note })
        }
        ControlEvent::Settled {
            request,
            action,
            state,
            reason,
            ..
        } => json!({
            "request": request, "source": source, "action": action.as_str(), "state": state.as_str(), "reason": reason,
        }),
    }
}

fn system(event: &SystemEvent) -> Value {
    use SystemEvent as S;
    match event {
        S::Started { version } => json!({ "version": version }),
        S::Stopped | S::Reloaded => json!({}),
        S::Blind { from, to, reason } => {
            json!({ "from": Time(*from), "to": Time(*to), "reason": reason })
        }
        S::Trouble { subject, message } => json!({ "subject": subject, "message": message }),
        S::TroubleCleared { subject } => json!({ "subject": subject }),
        S::ResourceOver {
            resource,
            value,
            limit,
        }
        | S::ResourceRecovered {
            resource,
            value,
            limit,
        } => {
            json!({ "resource": resource, "value": value, "limit": limit })
        }
        S::ReloadFailed { message } => json!({ "message": message }),
        S::Muted { what, until } => json!({ "what": what, "until": Time(*until) }),
        S::Unmuted { what } => json!({ "what": what }),
    }
}
