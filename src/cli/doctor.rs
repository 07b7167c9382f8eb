//! `weir doctor`: what is wrong here, in the order in which it has to be mended.

pub mod checks;

use self::checks::Verdict;
use super::Context;
use super::exit::{CliError, Exit};
use super::printer::Tone;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration to look at [default: the one that `weir run` would use]
    #[arg(long, env = "WEIR_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory to look at [default: as configured]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// One line of the report.
#[derive(Debug)]
pub struct Finding {
    pub what: &'static str,
    pub verdict: Verdict,
    pub text: String,
    /// What to do about it.
    pub help: Option<String>,
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let findings = checks::all(ctx, args.config.as_deref(), args.data_dir.clone()).await?;
    let wrong = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Wrong)
        .count();
    if args.json {
        let items: Vec<_> = findings
            .iter()
            .map(|finding| {
                json!({
                    "what": finding.what,
                    "verdict": finding.verdict.word(),
                    "text": finding.text,
                    "help": finding.help,
                })
            })
            .collect();
        ctx.printer
            .json(&json!({ "ok": wrong == 0, "findings": items }))?;
    } else {
        for finding in &findings {
            let (word, tone) = match finding.verdict {
                Verdict::Good => ("ok   ", Tone::Good),
                Verdict::Note => ("note ", Tone::Warn),
                Verdict::Wrong => ("WRONG", Tone::Bad),
            };
            let word = ctx.printer.paint(word, tone);
            ctx.printer.line(format_args!(
                "{word}  {:<14} {}",
                finding.what, finding.text
            ))?;
            if let Some(help) = &finding.help {
                ctx.printer.line(format_args!("{:22} {help}", ""))?;
            }
        }
        match wrong {
            0 => ctx.printer.note("nothing is wrong"),
            1 => ctx.printer.note("1 thing is wrong"),
            _ => ctx.printer.note(format_args!(
                "{wrong} things are wrong; begin with the first"
            )),
        }
    }
    Ok(if wrong == 0 { Exit::Ok } else { Exit::Failed })
}
