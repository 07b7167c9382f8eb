//! `/api/alerts` and `/api/mutes`: what needs somebody, who has taken it, and what is kept quiet.

use super::errors::{Problem, echo};
use super::params::{Params, body, uuid};
use super::views::{AlertView, MuteView, Page};
use super::{ApiState, View, store};
use actix_web::web::{Data, Json, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use jiff::{Span, SpanRelativeTo};
use serde::Deserialize;
use std::time::Duration;
use weir_core::journal::{AlertRow, Reader};
use weir_core::monitor::MuteRequest;
use weir_model::alert::mute::MuteScope;
use weir_model::alert::notification::AlertStatus;

/// Pages of the store that one request may look through for what a filter leaves.
const LOOKS_MAX: usize = 10;
/// Longest text that a person may give.
const TEXT_LEN_MAX: usize = 200;
const MUTE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Newest first.
pub(super) async fn list(request: HttpRequest, state: Data<ApiState>) -> View<Page<AlertView>> {
    let params = Params::of(&request, &["status", "cursor", "limit"])?;
    let status = params.word("status", &["firing", "resolved"])?;
    let status = status.map(|word| {
        if word == "firing" {
            AlertStatus::Firing
        } else {
            AlertStatus::Resolved
        }
    });
    let (before, limit) = (params.cursor()?, params.limit()?);
    let base_url = state.base_url();
    let page = store::read(&state, move |reader| {
        let (rows, next) = page(reader, status, before, limit)?;
        let items = store::alert_views(reader, &rows, &base_url)?;
        Ok(Page {
            items,
            next_cursor: next.map(|id| id.to_string()),
        })
    });
    page.await.map(Json)
}

fn page(
    reader: &Reader,
    status: Option<AlertStatus>,
    before: Option<i64>,
    limit: usize,
) -> Result<(Vec<AlertRow>, Option<i64>), Problem> {
    if status == Some(AlertStatus::Firing) {
        let mut rows = firing(reader)?;
        rows.retain(|row| before.is_none_or(|before| row.id < before));
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| row.id);
        return Ok((rows, next));
    }
    let mut rows = Vec::new();
    let mut before = before;
    for _ in 0..LOOKS_MAX {
        let found = reader.alerts(before, 100)?;
        let last = found.last().map(|row| row.id);
        for row in found
            .into_iter()
            .filter(|row| status.is_none_or(|status| row.status == status))
        {
            if rows.len() == limit {
                let next = rows.last().map(|row: &AlertRow| row.id);
                return Ok((rows, next));
            }
            rows.push(row);
        }
        before = last;
        if last.is_none() {
            return Ok((rows, None));
        }
    }
    Ok((rows, before))
}

/// All that fire, newest first, up to a bound.
pub(super) fn firing(reader: &Reader) -> Result<Vec<AlertRow>, Problem> {
    let mut rows: Vec<AlertRow> = Vec::new();
    for _ in 0..LOOKS_MAX {
        let after = rows.last().map_or(0, |row| row.id);
        let found = reader.firing_alerts(after)?;
        if found.is_empty() {
            break;
        }
        rows.extend(found);
    }
    rows.reverse();
    Ok(rows)
}

/// By UUID or fingerprint.
pub(super) async fn one(
    request: HttpRequest,
    state: Data<ApiState>,
    id: Path<String>,
) -> View<AlertView> {
    Params::of(&request, &[])?;
    find(&state, &id).await.map(Json)
}

pub(super) async fn find(state: &Data<ApiState>, id: &str) -> Result<AlertView, Problem> {
    let base_url = state.base_url();
    let id = id.to_owned();
    let view = store::read(state, move |reader| {
        let row = match uuid(&id, "an alert") {
            Ok(uuid) => reader.alert_by_uuid(uuid)?,
            Err(_) => firing(reader)?
                .into_iter()
                .find(|row| row.fingerprint == id),
        };
        let row =
            row.ok_or_else(|| Problem::not_found(format!("there is no alert `{}`", echo(&id))))?;
        Ok(store::alert_views(reader, &[row], &base_url)?.pop())
    });
    view.await?.ok_or_else(Problem::internal)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Acknowledgement {
    by: Option<String>,
}

/// Somebody takes it: notifications stop.
pub(super) async fn acknowledge(
    request: HttpRequest,
    state: Data<ApiState>,
    id: Path<String>,
    payload: Payload,
) -> View<AlertView> {
    Params::of(&request, &[])?;
    let given: Acknowledgement = body(&request, payload).await?;
    let by = bounded("by", given.by)?.unwrap_or_else(|| "somebody".to_owned());
    state.monitor.acknowledge(&id, &by).await?;
    find(&state, &id).await.map(Json)
}

/// Those that have not expired.
pub(super) async fn mutes(request: HttpRequest, state: Data<ApiState>) -> View<Page<MuteView>> {
    let params = Params::of(&request, &["cursor", "limit"])?;
    let limit = params.limit()?;
    let mut mutes = state.monitor.status().mutes;
    // An id begins with the time it was given at: oldest first.
    mutes.sort_by(|a, b| a.id.cmp(&b.id));
    if let Some(after) = params.text("cursor") {
        mutes.retain(|mute| mute.id.as_str() > after);
    }
    let more = mutes.len() > limit;
    mutes.truncate(limit);
    let next_cursor = mutes.last().filter(|_| more).map(|mute| mute.id.clone());
    Ok(Json(Page {
        items: mutes.iter().map(MuteView::new).collect(),
        next_cursor,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Muting {
    receiver: Option<String>,
    workflow: Option<String>,
    source: Option<String>,
    r#for: String,
    by: Option<String>,
    comment: Option<String>,
}

pub(super) async fn mute(
    request: HttpRequest,
    state: Data<ApiState>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    Params::of(&request, &[])?;
    let given: Muting = body(&request, payload).await?;
    let by = bounded("by", given.by)?.unwrap_or_else(|| "somebody".to_owned());
    let comment = bounded("comment", given.comment)?;
    let named = [
        bounded("receiver", given.receiver)?.map(MuteScope::Receiver),
        bounded("workflow", given.workflow)?.map(MuteScope::Workflow),
        bounded("source", given.source)?.map(MuteScope::Source),
    ];
    let mut named = named.into_iter().flatten();
    let (Some(scope), None) = (named.next(), named.next()) else {
        return Err(Problem::bad_request(
            "name exactly one of receiver, workflow and source",
        ));
    };
    let wanted = MuteRequest {
        scope,
        duration: duration(&given.r#for)?,
        by: MuteView::signed(by, comment),
    };
    let row = state.monitor.mute(wanted).await?;
    Ok(HttpResponse::Created().json(MuteView::new(&row)))
}

pub(super) async fn unmute(
    request: HttpRequest,
    state: Data<ApiState>,
    id: Path<String>,
) -> Result<HttpResponse, Problem> {
    Params::of(&request, &[])?;
    state.monitor.unmute(&id).await?;
    Ok(HttpResponse::NoContent().finish())
}

fn bounded(field: &'static str, text: Option<String>) -> Result<Option<String>, Problem> {
    match text {
        Some(text) if text.chars().count() > TEXT_LEN_MAX => Err(Problem::bad_field(
            field,
            format_args!("longer than {TEXT_LEN_MAX} characters"),
        )),
        Some(text) if text.chars().any(char::is_control) => {
            Err(Problem::bad_field(field, "has control characters"))
        }
        text => Ok(text.filter(|text| !text.trim().is_empty())),
    }
}

/// `8h`, `1h30m`, `2d`.
fn duration(text: &str) -> Result<Duration, Problem> {
    let wrong = || {
        Problem::bad_field(
            "for",
            format_args!("found `{}`, wanted a duration like 8h", echo(text)),
        )
    };
    let span: Span = text.parse().map_err(|_| wrong())?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| wrong())?;
    let duration = Duration::try_from(duration).map_err(|_| wrong())?;
    if duration.is_zero() || duration > MUTE_MAX {
        return Err(Problem::bad_field(
            "for",
            "wanted more than nothing and at most a year",
        ));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mute_lasts_as_long_as_people_write() {
        assert_eq!(duration("8h").unwrap(), Duration::from_secs(8 * 3600));
        assert_eq!(duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("2d").unwrap(), Duration::from_secs(2 * 86_400));
        for text in [
            "",
            "8",
            "-1h",
            "0s",
            "400d",
            "1 month",
            "soon",
            "999999999999999999h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
