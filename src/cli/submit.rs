//! `weir submit`: hands a job to a source, and follows it when asked to.

use super::Context;
use super::cancel::{followed, is_vain, tone};
use super::exit::{CliError, Exit};
use super::human::{Local, one_line};
use super::settings;
use crate::client::view::{Execution, Request, Source};
use crate::client::{Act, Client};
use crate::tui::feed::Feed;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the daemon takes.
const BODY_LEN_MAX: u64 = 16 << 20;
const INTERVAL: Duration = Duration::from_millis(500);
/// How long the new execution is waited for.
const EXECUTION_PATIENCE: Duration = Duration::from_secs(60);
/// Of what a provider answered, this much is shown to people.
const ANSWER_LEN_MAX: usize = 2000;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source, as monitor.ron names it
    source: String,
    /// The job as the provider wants it, - for stdin. ComfyUI: a workflow in API format
    file: PathBuf,
    /// Follow it to its end; the exit code is 0 only if it completed
    #[arg(long)]
    wait: bool,
    /// Idempotency key: the same key makes one job, however often it is asked for (kept 24 h)
    #[arg(long)]
    key: Option<String>,
    #[arg(long, default_value = "application/json", value_name = "TYPE")]
    content_type: String,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// How much is told, and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) wait: bool,
    pub(super) json: bool,
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let body = read(&args.file)?;
    if args.source.contains(['/', '?', '#']) || args.source.is_empty() {
        return Err(CliError::usage(format!(
            "`{}` is no name of a source",
            one_line(&args.source)
        )));
    }
    let (client, local) = ctx.acting_daemon().await?;
    let path = format!("api/sources/{}", args.source);
    let source: Source = client.get(&path, &[]).await?;
    let act = Act {
        key: args.key.clone(),
        content_type: Some(args.content_type.clone()),
        body: if source.plugin_name.as_deref() == Some("comfyui") {
            comfyui_prompt(body)?
        } else {
            body
        },
    };
    let outcome = client.act(&format!("{path}/submit"), act).await?;
    let told = Told {
        wait: args.wait,
        json: args.json,
    };
    conclude(ctx, &client, local, outcome, told).await
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let unreadable = |error: std::io::Error| {
        let reason = settings::plain(&error);
        CliError::usage(format!("cannot read {}: {reason}", path.display()))
    };
    let mut body = Vec::new();
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(unreadable)?)
    };
    input
        .take(BODY_LEN_MAX + 1)
        .read_to_end(&mut body)
        .map_err(unreadable)?;
    if u64::try_from(body.len()).unwrap_or(u64::MAX) > BODY_LEN_MAX {
        let mib = BODY_LEN_MAX >> 20;
        return Err(CliError::usage(format!(
            "{} is larger than {mib} MiB",
            path.display()
        )));
    }
    Ok(body)
}

/// ComfyUI saves a graph, and takes it as `prompt`. What already is a whole request goes as it is.
fn comfyui_prompt(body: Vec<u8>) -> Result<Vec<u8>, CliError> {
    let Ok(Value::Object(object)) = serde_json::from_slice::<Value>(&body) else {
        return Err(CliError::usage("a ComfyUI workflow is a JSON object"));
    };
    if object.contains_key("prompt") {
        return Ok(body);
    }
    if object.get("nodes").is_some_and(Value::is_array) {
        return Err(CliError::usage(
            "this workflow is in the editor's format; export it in ComfyUI with `Export (API)` and submit that file",
        ));
    }
    serde_json::to_vec(&json!({ "prompt": object }))
        .map_err(|error| CliError::failed(error.to_string()))
}

/// Tells what became of a submission or retry, and follows the new execution.
pub(super) async fn conclude(
    ctx: &mut Context,
    client: &Client,
    local: Local,
    mut outcome: Value,
    told: Told,
) -> Result<Exit, CliError> {
    if told.wait {
        let request = outcome["request"].take();
        let known = |r: &Request| r.settled || r.new_execution.is_some();
        outcome["request"] = followed(client, request, EXECUTION_PATIENCE, known).await?;
    }
    let request: Request = client.view(outcome["request"].clone())?;
    if is_vain(&request.state) {
        return refused(ctx, client, &request, &outcome, told);
    }
    let execution = match &request.new_execution {
        Some(id) => Some(client.raw(&format!("api/executions/{id}"), &[]).await?),
        None => None,
    };
    if !told.json {
        announce(ctx, client, &request, execution.as_ref())?;
    }
    let (true, Some(id)) = (told.wait, &request.new_execution) else {
        if told.json {
            outcome["execution"] = execution.unwrap_or_default();
            ctx.printer.json(&outcome)?;
        }
        return Ok(if told.wait { Exit::Failed } else { Exit::Ok });
    };
    let ended = follow(ctx, client, local, id, told).await?;
    let exit = if ended["status"] == "completed" {
        Exit::Ok
    } else {
        Exit::Failed
    };
    if told.json {
        outcome["execution"] = ended;
        ctx.printer.json(&outcome)?;
    }
    Ok(exit)
}

async fn follow(
    ctx: &mut Context,
    client: &Client,
    local: Local,
    id: &str,
    told: Told,
) -> Result<Value, CliError> {
    let path = format!("api/executions/{id}");
    if !told.json {
        let feed = Feed::new(client.clone(), INTERVAL, Some(id.to_owned()));
        super::watch::follow(ctx, client, feed, local).await?;
        return Ok(client.raw(&path, &[]).await?);
    }
    loop {
        let value = client.raw(&path, &[]).await?;
        let execution: Execution = client.view(value.clone())?;
        if !execution.is_active() {
            return Ok(value);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn announce(
    ctx: &mut Context,
    client: &Client,
    request: &Request,
    execution: Option<&Value>,
) -> Result<(), CliError> {
    let Some(value) = execution else {
        let told = one_line(&request.told());
        ctx.printer.note(format_args!(
            "{told}; the new execution is not seen yet: weir list"
        ));
        return Ok(());
    };
    let execution: Execution = client.view(value.clone())?;
    ctx.printer.line(format_args!(
        "{}  {}  number {}, id {}",
        one_line(&execution.title()),
        execution.status,
        execution.execution_seq,
        execution.id
    ))?;
    Ok(())
}

/// The reason, and what the provider said: validation errors are what people need most.
fn refused(
    ctx: &mut Context,
    client: &Client,
    request: &Request,
    outcome: &Value,
    told: Told,
) -> Result<Exit, CliError> {
    if told.json {
        ctx.printer.json(outcome)?;
        return Ok(Exit::Failed);
    }
    let state = ctx.printer.paint(&request.state, tone(&request.state));
    let reason = one_line(request.reason.as_deref().unwrap_or_default());
    ctx.printer.error(format_args!("{state}: {reason}"));
    let body: Value = client.view(outcome["answer"]["body"].clone())?;
    let mut text = match &body {
        Value::Null => String::new(),
        Value::String(text) => one_line(text),
        body => serde_json::to_string_pretty(body).unwrap_or_default(),
    };
    text.truncate(text.floor_char_boundary(ANSWER_LEN_MAX));
    if !text.is_empty() {
        ctx.printer.note(text);
    }
    Ok(Exit::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_graph_becomes_a_prompt_and_a_whole_request_stays_as_it_is() {
        let graph = br#"{"3":{"class_type":"KSampler","inputs":{}}}"#.to_vec();
        let body: Value = serde_json::from_slice(&comfyui_prompt(graph).unwrap()).unwrap();
        assert_eq!(body["prompt"]["3"]["class_type"], "KSampler");
        let whole = br#"{ "prompt": {}, "client_id": "me" }"#.to_vec();
        assert_eq!(comfyui_prompt(whole.clone()).unwrap(), whole);
        let editor = br#"{"nodes":[],"links":[]}"#.to_vec();
        let error = comfyui_prompt(editor).unwrap_err().to_string();
        assert!(error.contains("Export (API)"), "{error}");
        assert!(comfyui_prompt(b"[]".to_vec()).is_err());
    }
}
