//! `weir init`: asks the ComfyUI servers who they are and writes an annotated configuration.

use super::Context;
use super::exit::{CliError, Exit};
use super::human::one_line;
use super::settings;
use crate::client::{http_client, reason};
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// `/system_stats` has a few kilobytes.
const ANSWER_LEN_MAX: usize = 1 << 20;
const SERVERS_MAX: usize = 100;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The ComfyUI servers to watch: http://127.0.0.1:8188 …
    #[arg(long, value_name = "URL", num_args = 1.., required = true)]
    comfyui: Vec<String>,
    /// Send alerts to this topic of ntfy.sh (or to the URL of a topic elsewhere)
    #[arg(long, value_name = "TOPIC")]
    ntfy: Option<String>,
    /// Where to write it; `-` is stdout
    #[arg(short, long, default_value = crate::paths::CONFIG_NAME, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite a file that is there
    #[arg(long)]
    force: bool,
    /// Do not ask the servers
    #[arg(long)]
    no_probe: bool,
}

/// A server to watch.
struct Server {
    name: String,
    url: String,
    /// What it said of itself.
    about: String,
}

pub async fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    let servers = servers(ctx, args).await?;
    let ntfy = args.ntfy.as_deref().map(ntfy_url).transpose()?;
    let text = compose(&servers, ntfy.as_deref());
    if let Err(findings) = settings::parse(&text) {
        let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        return Err(CliError::failed(format!(
            "this would not be a valid configuration: {}",
            findings.join("; ")
        )));
    }
    if args.output.as_os_str() == "-" {
        ctx.printer.line(text.trim_end())?;
        return Ok(Exit::Ok);
    }
    let file = args.output.display().to_string();
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    match args.force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let mut output = options.open(&args.output).map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                "it is there already; --force overwrites it".to_owned()
            }
            _ => settings::plain(&error),
        };
        CliError::usage(format!("cannot write {file}: {reason}"))
    })?;
    output.write_all(text.as_bytes())?;
    ctx.printer.note(format_args!(
        "wrote {file}. Next: weir check {file}, then: weir run --config {file}"
    ));
    Ok(Exit::Ok)
}

/// Every server is asked before anything is said, so that all that is wrong is said at once.
async fn servers(ctx: &mut Context, args: &Args) -> Result<Vec<Server>, CliError> {
    if args.comfyui.len() > SERVERS_MAX {
        return Err(CliError::usage(format!("more than {SERVERS_MAX} servers")));
    }
    let mut servers: Vec<Server> = Vec::new();
    let mut unreachable = 0;
    for text in &args.comfyui {
        let url = server_url(text)?;
        let about = if args.no_probe {
            "not asked".to_owned()
        } else {
            match probe(&url).await {
                Ok(about) => {
                    ctx.printer.note(format_args!("{url}: {about}"));
                    about
                }
                Err(reason) => {
                    ctx.printer.error(format_args!("{url}: {reason}"));
                    unreachable += 1;
                    continue;
                }
            }
        };
        servers.push(Server {
            name: name(&url, &servers),
            url: url.as_str().trim_end_matches('/').to_owned(),
            about,
        });
    }
    if unreachable > 0 {
        return Err(CliError::failed(
            "nothing was written. To write it all the same: --no-probe",
        ));
    }
    Ok(servers)
}

fn server_url(text: &str) -> Result<Url, CliError> {
    // `localhost:8188` parses as a URL with the scheme `localhost`.
    let with_scheme = match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    let wrong = |reason: &str| CliError::usage(format!("{}: {reason}", one_line(text)));
    let url = Url::parse(&with_scheme).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(
            "a ComfyUI server's URL begins with http:// or https://",
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "a password does not belong into a URL; see `credentials` in monitor.ron",
        ));
    }
    Ok(url)
}

/// `ComfyUI 0.33.0, 2 devices`.
async fn probe(url: &Url) -> Result<String, String> {
    let client = http_client(url).map_err(|error| error.to_string())?;
    let mut base = url.clone();
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    let stats = base
        .join("system_stats")
        .map_err(|error| error.to_string())?;
    let asked = async {
        let mut response = client
            .get(stats)
            .send()
            .await
            .map_err(|error| reason(&error))?;
        if !response.status().is_success() {
            return Err(format!(
                "HTTP {} for /system_stats",
                response.status().as_u16()
            ));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| reason(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_LEN_MAX {
                return Err("its answer is too long for a ComfyUI".to_owned());
            }
        }
        Ok(body)
    };
    let body = tokio::time::timeout(PROBE_TIMEOUT, asked)
        .await
        .unwrap_or_else(|_| Err("no answer in time".to_owned()))?;
    let stats: Value = serde_json::from_slice(&body).unwrap_or_default();
    if !stats["system"].is_object() {
        return Err("answers, but is no ComfyUI (no `system` in /system_stats)".to_owned());
    }
    let version = stats["system"]["comfyui_version"]
        .as_str()
        .unwrap_or("of unknown version");
    let mut version = one_line(version);
    version.truncate(version.floor_char_boundary(40));
    let devices = stats["devices"].as_array().map_or(0, Vec::len);
    Ok(format!(
        "ComfyUI {version}, {}",
        super::check::count(devices, "device")
    ))
}

/// The host where it is one, else `comfyui`; numbered where that is taken.
fn name(url: &Url, taken: &[Server]) -> String {
    let base = match url.host() {
        Some(url::Host::Domain(host)) if host != "localhost" => {
            let first = host.split('.').next().unwrap_or(host);
            first.chars().take(32).collect()
        }
        _ => "comfyui".to_owned(),
    };
    let is_free = |name: &str| taken.iter().all(|server| server.name != name);
    if is_free(&base) {
        return base;
    }
    let numbered = (2..).map(|number| format!("{base}-{number}"));
    let free = numbered.take(SERVERS_MAX + 1).find(|name| is_free(name));
    free.expect("there are fewer servers than numbers")
}

fn ntfy_url(topic: &str) -> Result<String, CliError> {
    if topic.starts_with("https://") || topic.starts_with("http://") {
        return Url::parse(topic)
            .map(String::from)
            .map_err(|error| CliError::usage(format!("--ntfy: {error}")));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if topic.is_empty() || topic.len() > 64 || !topic.chars().all(fits) {
        return Err(CliError::usage(
            "--ntfy: a topic has 1 to 64 letters, digits, `-` and `_`",
        ));
    }
    Ok(format!("https://ntfy.sh/{topic}"))
}

/// A RON string.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn compose(servers: &[Server], ntfy: Option<&str>) -> String {
    let sources: String = servers
        .iter()
        .map(|server| {
            format!(
                "        // {}\n        (name: {}, plugin: \"comfyui\", poll_interval: \"2s\", config: {{ \"url\": {} }}),\n",
                server.about,
                quoted(&server.name),
                quoted(&server.url)
            )
        })
        .collect();
    let (receiver, route) = match ntfy {
        Some(url) => (
            format!(
                "            // Who knows the topic reads along: keep it a secret.\n            (name: \"phone\", handler: \"ntfy\", config: {{ \"url\": {} }}),\n",
                quoted(url)
            ),
            "phone",
        ),
        None => (
            "            // (name: \"phone\", handler: \"ntfy\", config: { \"url\": \"https://ntfy.sh/my-secret-topic\" }),\n            // (name: \"ops\", handler: \"webhook\", config: { \"url\": \"http://127.0.0.1:9100/hook\" }),\n".to_owned(),
            "log",
        ),
    };
    include_str!("init/template.ron")
        .replace("/*SOURCES*/\n", &sources)
        .replace("/*RECEIVERS*/\n", &receiver)
        .replace("/*RECEIVER*/", route)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(taken: &[Server], url: &str) -> Server {
        let url = server_url(url).unwrap();
        Server {
            name: name(&url, taken),
            url: url.as_str().trim_end_matches('/').to_owned(),
            about: "ComfyUI 0.33.0, 1 device".to_owned(),
        }
    }

    #[test]
    fn what_is_written_is_a_valid_configuration() {
        let mut servers = Vec::new();
        for url in [
            "127.0.0.1:8188",
            "http://localhost:8189",
            "https://render.lan/comfy",
        ] {
            let next = server(&servers, url);
            servers.push(next);
        }
        let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["comfyui", "comfyui-2", "render"]);
        for ntfy in [None, Some("https://ntfy.sh/secret")] {
            let text = compose(&servers, ntfy);
            let (config, warnings) = settings::parse(&text).unwrap();
            assert_eq!(config.sources.len(), 3);
            assert!(warnings.is_empty(), "{warnings:?}");
            let receiver = if ntfy.is_some() { "phone" } else { "log" };
            assert_eq!(config.alerts.route.receiver, receiver);
        }
    }

    #[test]
    fn a_topic_cannot_smuggle_anything_into_the_file() {
        assert!(ntfy_url("my-topic_1").is_ok());
        assert!(ntfy_url("a/b").is_err() && ntfy_url("\"),").is_err() && ntfy_url("").is_err());
        assert!(server_url("ftp://x").is_err() && server_url("http://me:pw@x").is_err());
    }
}
