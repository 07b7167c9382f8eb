//! `/api/sources/{name}/progress`: what the companion beside a provider reports, shown the token of that one source.

use super::ApiState;
use super::errors::{Problem, echo};
use super::params::{self, Params};
use actix_web::http::header::AUTHORIZATION;
use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use weir_core::monitor::read_secret;

/// Bytes of a report; a companion cuts its own at half of it.
const BODY_LEN_MAX: usize = 512 << 10;
/// Frames of a report.
const FRAMES_MAX: usize = 256;

#[derive(Deserialize)]
struct Report {
    version: u32,
    /// Frames that the companion could not send before these.
    #[serde(default)]
    dropped: u32,
    frames: Vec<serde_json::Value>,
}

pub(super) async fn progress(
    request: HttpRequest,
    state: Data<ApiState>,
    name: Path<String>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    // Nothing is read from who may not report.
    authorise(&request, &state, &name)?;
    Params::of(&request, &[])?;
    let report: Report = params::body_within(&request, payload, BODY_LEN_MAX).await?;
    if report.version != 1 {
        let detail = "this weir reads reports of version 1; bring the companion up to date with `weir companion install`";
        return Err(Problem::bad_field("version", detail));
    }
    if report.frames.len() > FRAMES_MAX {
        let detail = format!("at most {FRAMES_MAX} in one report");
        return Err(Problem::bad_field("frames", detail));
    }
    let frames = report.frames.iter().map(ToString::to_string).collect();
    if !state
        .monitor
        .take_report(&name, frames, u64::from(report.dropped))
    {
        let detail = "the plugin of this source is not ready, or does not read reports";
        return Err(Problem::unavailable(detail));
    }
    Ok(HttpResponse::Accepted().finish())
}

/// The token of this source, which is looked up each time: a file that was replaced counts from then on.
fn authorise(request: &HttpRequest, state: &ApiState, name: &str) -> Result<(), Problem> {
    let config = state.monitor.config();
    let source = config.sources.iter().find(|source| source.name == name);
    let secret = source.and_then(|source| source.companion_token.as_ref());
    let mut all = request.headers().get_all(AUTHORIZATION);
    let sent = match (all.next().map(|value| value.to_str()), all.next()) {
        (Some(Ok(text)), None) => text.split_once(' '),
        _ => None,
    };
    let sent = sent
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    // Without a token nobody is told which sources there are.
    let (Some(secret), Some(sent)) = (secret, sent) else {
        return Err(Problem::no_companion());
    };
    let known = read_secret(secret).map_err(|error| {
        tracing::error!(source = %echo(name), %error, "the companion's token cannot be read, so nobody may report");
        Problem::unavailable("the companion's token cannot be read; weir's log tells more")
    })?;
    if known.is(sent) {
        Ok(())
    } else {
        Err(Problem::no_companion())
    }
}
