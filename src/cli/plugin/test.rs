//! `weir plugin test`: plays a cassette to a plugin and compares, or records one.
//!
//! A cassette is a JSON file: the calls, the http exchanges each of them made, and what came of it. No network is needed to
//! play it, and no secret is in it: credentials are in it by their names.

use super::super::Context;
use super::super::exit::{CliError, Exit};
use super::super::printer::Tone;
use super::workbench::{self, Subject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use weir_core::plugin::{
    AllowRule, CallError, Credential, Exchange, PluginHandle, PluginSpec, Role, Scheme, Secret,
    Tape,
};
use weir_model::alert::notification::{AlertStatus, Notification};
use weir_model::observation::JobRef;

/// Of the file's format.
const VERSION: u32 = 1;
/// Pages of one round that are recorded.
const PAGES_MAX: usize = 20;
const CASSETTE_BYTES_MAX: u64 = 64 << 20;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    subject: Subject,
    /// The cassette
    cassette: PathBuf,
    /// Make it, from the real far side: its own calls again where it exists, else samples
    #[arg(long)]
    record: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cassette {
    weir_cassette: u32,
    role: CassetteRole,
    config: Value,
    /// Names of the credentials that the plugin may name.
    credentials: Vec<String>,
    /// `open` and `check`, which come before every other call.
    opening: Section,
    calls: Vec<Recorded>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CassetteRole {
    Handler,
    Source,
}

/// What the host said and heard during one call.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    now_ms: u64,
    exchanges: Vec<Exchange>,
    result: Value,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    call: Call,
    during: Section,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Call {
    Check,
    Deliver {
        notification: Box<Notification>,
        prior: Option<String>,
    },
    Poll {
        cursor: Option<String>,
        open: Vec<JobRef>,
    },
}

impl Call {
    fn name(&self) -> String {
        match self {
            Call::Check => "check".to_owned(),
            Call::Deliver { notification, .. } => format!("deliver {}", notification.id),
            Call::Poll { cursor, .. } => {
                format!("poll from {}", cursor.as_deref().unwrap_or("the start"))
            }
        }
    }
}

pub(super) async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    workbench::there(&args.subject.file)?;
    let known = match read(&args.cassette) {
        Ok(cassette) => Some(cassette),
        Err(_) if args.record && !args.cassette.exists() => None,
        Err(error) if !args.cassette.exists() => {
            return Err(CliError::usage(format!(
                "{error}: make the cassette first, from the real far side: --record"
            )));
        }
        Err(error) => return Err(error),
    };
    match known {
        Some(cassette) if !args.record => play(ctx, args, cassette).await,
        known => record(ctx, args, known).await,
    }
}

fn read(path: &PathBuf) -> Result<Cassette, CliError> {
    let wrong =
        |what: &dyn std::fmt::Display| CliError::usage(format!("{}: {what}", path.display()));
    let length = std::fs::metadata(path)
        .map_err(|error| wrong(&error))?
        .len();
    if length > CASSETTE_BYTES_MAX {
        return Err(wrong(&"larger than any cassette"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let cassette: Cassette = serde_json::from_str(&text)
        .map_err(|error| wrong(&format_args!("no cassette: {error}")))?;
    if cassette.weir_cassette != VERSION {
        let found = cassette.weir_cassette;
        return Err(wrong(&format_args!(
            "a cassette of version {found}, this weir reads {VERSION}"
        )));
    }
    Ok(cassette)
}

// ---- Playing -----------------------------------------------------------------------------------

async fn play(ctx: &mut Context, args: &Args, cassette: Cassette) -> Result<Exit, CliError> {
    let host = workbench::host(ctx)?;
    let role = match cassette.role {
        CassetteRole::Handler => Role::Handler,
        CassetteRole::Source => Role::Source,
    };
    let mut spec = workbench::spec(&args.subject.file, role, cassette.config);
    stand_in(&mut spec, &cassette.credentials);
    let tape = Arc::new(Tape::player());
    let Section {
        now_ms,
        exchanges,
        result,
    } = cassette.opening;
    tape.load(now_ms, exchanges);
    let handle = host.open_taped(spec, Arc::clone(&tape));
    let opened = opening(&handle).await;
    let mut failed = compare(ctx, "open", &result, &opened, tape.differences())?;
    for recorded in &cassette.calls {
        let Section {
            now_ms,
            exchanges,
            result,
        } = &recorded.during;
        tape.load(*now_ms, exchanges.clone());
        let came = make(&handle, &recorded.call).await;
        failed += compare(
            ctx,
            &recorded.call.name(),
            result,
            &came,
            tape.differences(),
        )?;
    }
    handle.close().await;
    let calls = super::super::check::count(cassette.calls.len() + 1, "call");
    ctx.printer.note(format_args!("{calls}, {failed} failed"));
    Ok(if failed == 0 { Exit::Ok } else { Exit::Failed })
}

/// The names must be there, or the plugin's requests would be refused; nothing is sent with them.
fn stand_in(spec: &mut PluginSpec, names: &[String]) {
    let Ok(nowhere) = AllowRule::parse("https://cassette.invalid") else {
        return;
    };
    for name in names {
        let scheme = Scheme::Bearer(Secret::new("no-secret-is-on-a-cassette"));
        if let Ok(credential) = Credential::new(scheme, vec![nowhere.clone()]) {
            spec.credentials.insert(name.clone(), credential);
        }
    }
}

/// 1 where the call went another way than recorded, and says how.
fn compare(
    ctx: &mut Context,
    name: &str,
    recorded: &Value,
    came: &Value,
    mut differences: Vec<String>,
) -> Result<usize, CliError> {
    if recorded != came {
        differences.push(format!("result was {recorded}, is {came}"));
    }
    let name = super::super::human::fit(name, 100);
    if differences.is_empty() {
        let ok = ctx.printer.paint("ok  ", Tone::Good);
        ctx.printer.line(format_args!("{ok}  {name}"))?;
        return Ok(0);
    }
    let fail = ctx.printer.paint("FAIL", Tone::Bad);
    ctx.printer.line(format_args!("{fail}  {name}"))?;
    for difference in differences {
        let difference = super::super::human::fit(&difference, 2000);
        ctx.printer.line(format_args!("      {difference}"))?;
    }
    Ok(1)
}

// ---- Recording ---------------------------------------------------------------------------------

async fn record(ctx: &mut Context, args: &Args, known: Option<Cassette>) -> Result<Exit, CliError> {
    workbench::log_to_stderr("info");
    let host = workbench::host(ctx)?;
    let role = workbench::role(&host, &args.subject.file).await?;
    let mut spec = args.subject.spec(ctx, role)?;
    if let Some(known) = &known
        && args.subject.config.is_none()
        && args.subject.entry.is_none()
    {
        spec = workbench::spec(&args.subject.file, role, known.config.clone());
    }
    let (config, credentials) = (
        spec.config.clone(),
        spec.credentials.keys().cloned().collect(),
    );
    let tape = Arc::new(Tape::recorder());
    let now_ms = begin(&tape);
    let handle = host.open_taped(spec, Arc::clone(&tape));
    let result = opening(&handle).await;
    let opening = Section {
        now_ms,
        exchanges: tape.take(),
        result,
    };
    let calls = match known {
        Some(known) => {
            let calls = known.calls.into_iter().map(|recorded| recorded.call);
            recorded(&handle, &tape, calls.collect()).await
        }
        None => samples(&handle, &tape, role).await,
    };
    handle.close().await;
    let cassette = Cassette {
        weir_cassette: VERSION,
        role: match role {
            Role::Handler => CassetteRole::Handler,
            Role::Source => CassetteRole::Source,
        },
        config,
        credentials,
        opening,
        calls,
    };
    write(args, &cassette)?;
    let opening = ("open".to_owned(), &cassette.opening);
    let calls = cassette.calls.iter();
    let calls = calls.map(|recorded| (recorded.call.name(), &recorded.during));
    for (name, during) in std::iter::once(opening).chain(calls) {
        let requests = during.exchanges.len();
        let result = super::super::human::fit(&during.result.to_string(), 200);
        ctx.printer
            .line(format_args!("{name}: {requests} requests, {result}"))?;
    }
    ctx.printer.note(format_args!(
        "{} is written. It holds `config` as it is, and what the far side answered: look it through before you share it",
        args.cassette.display()
    ));
    Ok(Exit::Ok)
}

fn write(args: &Args, cassette: &Cassette) -> Result<(), CliError> {
    let mut text = serde_json::to_string_pretty(cassette)
        .map_err(|error| CliError::failed(error.to_string()))?;
    text.push('\n');
    std::fs::write(&args.cassette, text)
        .map_err(|error| CliError::failed(format!("{}: {error}", args.cassette.display())))
}

/// The clock of a taped call stands still at its beginning.
fn begin(tape: &Tape) -> u64 {
    let now_ms =
        u64::try_from(weir_core::clock::Clock::default().now().as_millisecond()).unwrap_or(0);
    tape.load(now_ms, Vec::new());
    now_ms
}

async fn one(handle: &PluginHandle, tape: &Tape, call: Call) -> Recorded {
    let now_ms = begin(tape);
    let result = make(handle, &call).await;
    let during = Section {
        now_ms,
        exchanges: tape.take(),
        result,
    };
    Recorded { call, during }
}

async fn recorded(handle: &PluginHandle, tape: &Tape, calls: Vec<Call>) -> Vec<Recorded> {
    let mut made = Vec::new();
    for call in calls {
        made.push(one(handle, tape, call).await);
    }
    made
}

/// A handler's message, its update and its end; a source's round.
async fn samples(handle: &PluginHandle, tape: &Tape, role: Role) -> Vec<Recorded> {
    let mut made = vec![one(handle, tape, Call::Check).await];
    let text = |result: &Value, key: &str| result["ok"][key].as_str().map(str::to_owned);
    if role == Role::Handler {
        let mut prior = None;
        for (message, status) in [
            ("1", AlertStatus::Firing),
            ("2", AlertStatus::Firing),
            ("3", AlertStatus::Resolved),
        ] {
            let call = Call::Deliver {
                notification: Box::new(workbench::sample(message, status, 2)),
                prior: prior.clone(),
            };
            let recorded = one(handle, tape, call).await;
            prior = text(&recorded.during.result, "receipt").or(prior);
            made.push(recorded);
        }
        return made;
    }
    let mut cursor = None;
    for _ in 0..PAGES_MAX {
        let open = Vec::new();
        let recorded = one(handle, tape, Call::Poll { cursor, open }).await;
        let result = &recorded.during.result;
        let goes_on = result["ok"]["coverage"] == "more";
        cursor = text(result, "cursor");
        made.push(recorded);
        if !goes_on {
            break;
        }
    }
    made
}

// ---- Calls -------------------------------------------------------------------------------------

async fn opening(handle: &PluginHandle) -> Value {
    match handle.ready().await {
        Err(error) => workbench::error_json(&error),
        Ok(()) => match handle.status().last_check {
            Some(Err(message)) => json!({ "check_failed": message }),
            Some(Ok(said)) => json!({ "ok": said }),
            None => json!({ "ok": null }),
        },
    }
}

async fn make(handle: &PluginHandle, call: &Call) -> Value {
    let result: Result<Value, CallError> = match call.clone() {
        Call::Check => handle.check().await.map(Value::from),
        Call::Deliver {
            notification,
            prior,
        } => {
            let receipt = handle.deliver(*notification, prior).await;
            receipt.map(|receipt| json!({ "receipt": receipt }))
        }
        Call::Poll { cursor, open } => {
            let page = handle.poll(cursor, open).await;
            page.map(|page| workbench::page_json(&page))
        }
    };
    match result {
        Ok(value) => json!({ "ok": value }),
        Err(error) => workbench::error_json(&error),
    }
}
