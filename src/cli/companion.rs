//! `weir companion install`: puts weir's node into a ComfyUI, with the address and the token it reports with.

use super::exit::{CliError, Exit};
use super::settings::{self, plain};
use super::{Context, DEFAULT_URL};
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use url::Url;
use weir_core::model::config::PluginRef;

/// The node itself: one file, no dependencies.
const NODE: &str = include_str!("../../plugins/comfyui/companion/weir_companion.py");
/// How a node of ours begins.
const OURS: &str = "\"\"\"Tells weir how far every prompt of this ComfyUI server is";
const FOLDER: &str = "weir_companion";
const TOKEN_LEN_MAX: u64 = 4096;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write the node into DIR, make a token where there is none, and print the line for monitor.ron
    Install(Install),
}

#[derive(Debug, clap::Args)]
struct Install {
    /// ComfyUI's folder, or its `custom_nodes`
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Where the token is, as ComfyUI sees it; made if it is not there
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// The configuration in which the source is looked up [default: as for `weir run`]
    #[arg(long, env = "WEIR_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The source it reports for [default: the only one that watches a ComfyUI]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let Command::Install(install) = &args.command;
    let source = match &install.source {
        Some(source) => source.clone(),
        None => only_source(ctx, install.config.as_deref())?,
    };
    let weir = match &ctx.url {
        Some(url) => url.clone(),
        None => Url::parse(DEFAULT_URL).expect("it is a URL"),
    };
    let endpoint = endpoint(weir, &source)?;
    let folder = nodes_folder(&install.dir)?.join(FOLDER);
    let token = std::path::absolute(&install.token_file)
        .map_err(|error| unwritable(&install.token_file, &error))?;
    // Everything is looked at before anything is written.
    let node = folder.join("__init__.py");
    refuse_foreign(&folder, &node)?;
    let is_new = make_token(&token)?;
    fs::create_dir_all(&folder).map_err(|error| unwritable(&folder, &error))?;
    let told = json!({ "url": endpoint.as_str(), "token_file": token });
    let told = serde_json::to_string_pretty(&told).expect("a map of texts is JSON");
    replace(&folder.join("companion.json"), &format!("{told}\n"))?;
    replace(&node, NODE)?;
    ctx.printer.note(format_args!(
        "wrote {}{}",
        folder.display(),
        if is_new {
            format!(" and a new token, {}", token.display())
        } else {
            String::new()
        }
    ));
    ctx.printer.note(format_args!(
        "put this line into the source `{source}` of monitor.ron, then restart ComfyUI:"
    ));
    let path = serde_json::Value::from(token.display().to_string());
    ctx.printer
        .line(format!("companion_token: (file: {path}),"))?;
    Ok(Exit::Ok)
}

/// The source that is meant where nobody says which.
fn only_source(ctx: &mut Context, config: Option<&Path>) -> Result<String, CliError> {
    let loaded =
        settings::load(config, &ctx.paths).map_err(|error| error.explain(&mut ctx.printer))?;
    let is_comfyui =
        |plugin: &PluginRef| matches!(plugin, PluginRef::Bundled(name) if name == "comfyui");
    let mut sources = loaded.config.sources.iter();
    let mut sources = sources
        .by_ref()
        .filter(|source| is_comfyui(&source.entry.plugin));
    match (sources.next(), sources.next()) {
        (Some(only), None) => Ok(only.name.clone()),
        (Some(_), Some(_)) => Err(CliError::usage(
            "several sources watch a ComfyUI: say which one with --source",
        )),
        (None, _) => Err(CliError::usage(
            "no source of the configuration watches a ComfyUI: say which one with --source",
        )),
    }
}

/// Where the node posts to.
fn endpoint(mut weir: Url, source: &str) -> Result<Url, CliError> {
    let bad = |what: &str| CliError::usage(format!("--url: {what}"));
    if !matches!(weir.scheme(), "http" | "https") {
        return Err(bad("weir's address begins with http:// or https://"));
    }
    if !weir.username().is_empty() || weir.password().is_some() {
        return Err(bad("a user or password does not belong there"));
    }
    weir.set_query(None);
    weir.set_fragment(None);
    weir.path_segments_mut()
        .map_err(|()| bad("it is no address of a server"))?
        .pop_if_empty()
        .extend(["api", "sources", source, "progress"]);
    Ok(weir)
}

fn nodes_folder(dir: &Path) -> Result<PathBuf, CliError> {
    let inside = dir.join("custom_nodes");
    if inside.is_dir() {
        return Ok(inside);
    }
    if dir.is_dir() && dir.file_name().is_some_and(|name| name == "custom_nodes") {
        return Ok(dir.to_owned());
    }
    Err(CliError::usage(format!(
        "{} is neither ComfyUI's folder nor its `custom_nodes`",
        dir.display()
    )))
}

/// A folder of that name that is another's stays as it is.
fn refuse_foreign(folder: &Path, node: &Path) -> Result<(), CliError> {
    if fs::symlink_metadata(folder).is_err() {
        return Ok(());
    }
    match fs::read_to_string(node) {
        Ok(text) if text.starts_with(OURS) => Ok(()),
        _ => Err(CliError::usage(format!(
            "{} is there already and not weir's; nothing was written",
            folder.display()
        ))),
    }
}

/// Makes the token if it is not there. Says whether it did.
fn make_token(path: &Path) -> Result<bool, CliError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    match options.open(path) {
        Ok(mut file) => {
            let token = format!(
                "{}{}\n",
                uuid::Uuid::new_v4().simple(),
                uuid::Uuid::new_v4().simple()
            );
            file.write_all(token.as_bytes())
                .map_err(|error| unwritable(path, &error))?;
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let unreadable =
                |reason: &str| CliError::usage(format!("{}: {reason}", path.display()));
            let length = fs::metadata(path).map_err(|error| unreadable(&plain(&error)))?;
            if length.len() > TOKEN_LEN_MAX {
                return Err(unreadable("it is too large for a token"));
            }
            let token = fs::read_to_string(path).map_err(|error| unreadable(&plain(&error)))?;
            if token.trim().len() < 16 || !token.trim().bytes().all(|byte| byte.is_ascii_graphic())
            {
                return Err(unreadable(
                    "it holds no token: one line of 16 characters or more",
                ));
            }
            Ok(false)
        }
        Err(error) => Err(unwritable(path, &error)),
    }
}

/// All of the new text, or the old one.
fn replace(path: &Path, text: &str) -> Result<(), CliError> {
    let fresh = path.with_extension("new");
    let written = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, path));
    written.map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("cannot write {}: {}", path.display(), plain(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_recognised_as_ours() {
        assert!(NODE.starts_with(OURS));
    }

    #[test]
    fn the_address_is_that_of_one_source() {
        let of = |weir: &str, source: &str| {
            endpoint(Url::parse(weir).unwrap(), source)
                .map(String::from)
                .ok()
        };
        for (weir, source, expected) in [
            (
                "http://h:8000",
                "studio",
                Some("http://h:8000/api/sources/studio/progress"),
            ),
            (
                "https://h/weir/?a=b#c",
                "a b/c",
                Some("https://h/weir/api/sources/a%20b%2Fc/progress"),
            ),
            ("http://me:pw@h/", "s", None),
            ("ftp://h/", "s", None),
        ] {
            assert_eq!(of(weir, source).as_deref(), expected, "{weir}");
        }
    }
}
