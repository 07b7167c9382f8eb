//! The single looks of `weir doctor`.

use super::Finding;
use crate::cli::Context;
use crate::cli::check::count;
use crate::cli::exit::CliError;
use crate::cli::human::{Local, bytes, duration, one_line};
use crate::cli::settings::{self, LoadError, Loaded, Remark};
use crate::client::view::{Receiver, Source, Status};
use crate::client::{Client, ClientError, http_client, reason};
use jiff::Timestamp;
use std::fs::{File, TryLockError};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use url::Url;
use weir_model::config::Config;

/// Below this a journal will soon have no room.
const FREE_MIN: u64 = 512 << 20;
/// A clock this far off makes durations wrong.
const SKEW_MAX: f64 = 5.0;
const SOURCES_MAX: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// Worth knowing.
    Note,
    Wrong,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Wrong => "wrong",
        }
    }
}

fn finding(what: &'static str, verdict: Verdict, text: impl Into<String>) -> Finding {
    Finding {
        what,
        verdict,
        text: text.into(),
        help: None,
    }
}

impl Finding {
    fn help(mut self, help: impl Into<String>) -> Finding {
        self.help = Some(help.into());
        self
    }
}

/// All looks, in order.
pub(super) async fn all(
    ctx: &Context,
    config: Option<&Path>,
    data_dir: Option<PathBuf>,
) -> Result<Vec<Finding>, CliError> {
    let mut findings = Vec::new();
    let (config, error) = match configuration(ctx, config, &mut findings) {
        Ok(loaded) => (loaded.config, None),
        Err(error) => (Config::default(), Some(error)),
    };
    if let (Some(error), None) = (error.filter(is_broken), ctx.url()) {
        // Whatever the defaults name is not what this file means.
        let text = settings::no_address(&error).to_string();
        findings.push(finding("daemon", Verdict::Wrong, text));
        return Ok(findings);
    }
    let data_dir = data_dir
        .or_else(|| config.data_dir.clone())
        .unwrap_or_else(|| ctx.paths.data_dir());
    let client = ctx.daemon_of(config.http.listen)?;
    let status = client.get::<Status>("status", &[]).await;
    let other = (status.as_ref().ok()).filter(|status| !is_same(status, &data_dir));
    // The daemon of this configuration; another one says nothing about what is here.
    let ours = status.is_ok() && other.is_none();
    findings.push(directory(&data_dir));
    findings.push(lock(&data_dir, ours || other.is_some()));
    findings.push(port(&config, ours));
    findings.push(daemon(&client, &status));
    if let Some(other) = other {
        findings.push(stranger(&client, other, &data_dir));
        sources(&client, &config, false, &mut findings).await;
    }
    sources(&client, &config, status.is_ok(), &mut findings).await;
    if status.is_ok() {
        receivers(
            &client,
            &Local::current(settings::zone_of(&config)),
            &mut findings,
        )
        .await;
    }
    findings.push(journal(&data_dir, &status));
    findings.push(disk(&data_dir));
    findings.push(clock(&status));
    Ok(findings)
}

fn is_broken(error: &LoadError) -> bool {
    !matches!(error, LoadError::NotFound { .. })
}

/// Whether the daemon that answers is the one whose data lies here.
fn is_same(status: &Status, data_dir: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let theirs = status.data_dir.as_deref().map(Path::new);
    theirs.is_none_or(|theirs| real(theirs) == real(data_dir))
}

/// Two daemons are meant at once: the one that answers, and the one that this configuration would be.
fn stranger(client: &Client, status: &Status, data_dir: &Path) -> Finding {
    let theirs = status.data_dir.as_deref().unwrap_or("elsewhere");
    let text = format!(
        "that is not the daemon of this configuration: its data is in {}, here {} is meant",
        one_line(theirs),
        data_dir.display()
    );
    finding("daemon", Verdict::Note, text).help(format!(
        "sources first as this configuration has them, tried from here, then as {} sees its own; leave --url and WEIR_URL out to look at this one alone",
        client.url()
    ))
}

async fn receivers(client: &Client, local: &Local, findings: &mut Vec<Finding>) {
    const WHAT: &str = "receiver";
    let receivers: Vec<Receiver> = match client.list("api/receivers", &[], SOURCES_MAX).await {
        Ok(receivers) => receivers,
        Err(error) => return findings.push(finding(WHAT, Verdict::Wrong, error.to_string())),
    };
    findings.extend(receivers.iter().map(|receiver| {
        let name = &receiver.name;
        match (receiver.status.as_str(), receiver.trouble(local)) {
            ("ok", _) => finding(WHAT, Verdict::Good, format!("{name} takes messages")),
            (status, reason) => {
                let reason = reason.as_deref().unwrap_or("no reason known");
                let text = format!("{name} is {status}: {}", one_line(reason));
                finding(WHAT, Verdict::Wrong, text)
                    .help(format!("mend it, then see: weir receiver test {name}"))
            }
        }
    }));
}

fn configuration(
    ctx: &Context,
    path: Option<&Path>,
    findings: &mut Vec<Finding>,
) -> Result<Loaded, LoadError> {
    const WHAT: &str = "configuration";
    let loaded = match settings::load(path, &ctx.paths) {
        Ok(loaded) => loaded,
        Err(error) => {
            findings.push(match &error {
                LoadError::Invalid { path, findings } => {
                    let first = findings.first().map(ToString::to_string);
                    let file = path.display();
                    let text = format!("{file}:{}", first.unwrap_or_default());
                    finding(WHAT, Verdict::Wrong, text)
                        .help(format!("all findings: weir check {file}"))
                }
                error => finding(WHAT, Verdict::Wrong, error.to_string()),
            });
            return Err(error);
        }
    };
    let file = loaded.path.display();
    let missing = settings::missing_secrets(&loaded.config);
    findings.push(match (missing.first(), loaded.warnings.first()) {
        (Some(Remark { path, message }), _) => {
            finding(WHAT, Verdict::Wrong, format!("{file}: {path}: {message}"))
        }
        (None, Some(warning)) => finding(WHAT, Verdict::Note, format!("{file}:{warning}")),
        (None, None) => finding(
            WHAT,
            Verdict::Good,
            format!("{file}, {}", count(loaded.config.sources.len(), "source")),
        ),
    });
    Ok(loaded)
}

fn directory(dir: &Path) -> Finding {
    const WHAT: &str = "data directory";
    let shown = dir.display();
    let metadata = match std::fs::metadata(dir) {
        Ok(metadata) if !metadata.is_dir() => {
            return finding(WHAT, Verdict::Wrong, format!("{shown} is no directory"));
        }
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return finding(
                WHAT,
                Verdict::Good,
                format!("{shown} is not there yet; weir run creates it"),
            );
        }
        Err(error) => {
            let reason = settings::plain(&error);
            return finding(WHAT, Verdict::Wrong, format!("{shown}: {reason}"));
        }
    };
    if let Err(error) = tempfile::tempfile_in(dir) {
        let reason = settings::plain(&error);
        return finding(
            WHAT,
            Verdict::Wrong,
            format!("{shown} is not writable: {reason}"),
        )
        .help("let its owner run weir, or name another one: --data-dir, `data_dir`");
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return finding(
            WHAT,
            Verdict::Note,
            format!("{shown} is open to others (mode {mode:o})"),
        )
        .help(format!("chmod 700 {shown}"));
    }
    finding(WHAT, Verdict::Good, format!("{shown}, writable"))
}

/// One daemon per data directory: whether one has it now.
fn lock(dir: &Path, daemon: bool) -> Finding {
    const WHAT: &str = "lock";
    let path = dir.join("weir.lock");
    let Ok(file) = File::open(&path) else {
        return finding(WHAT, Verdict::Good, "nobody uses the data directory");
    };
    match file.try_lock() {
        Ok(()) => finding(WHAT, Verdict::Good, "nobody uses the data directory"),
        Err(TryLockError::WouldBlock) => {
            let pid = std::fs::read_to_string(&path).unwrap_or_default();
            let pid: String = pid
                .trim()
                .chars()
                .filter(char::is_ascii_digit)
                .take(10)
                .collect();
            let who = if pid.is_empty() {
                "a weir".to_owned()
            } else {
                format!("weir (pid {pid})")
            };
            if daemon {
                finding(
                    WHAT,
                    Verdict::Good,
                    format!("{who} uses the data directory"),
                )
            } else {
                finding(
                    WHAT,
                    Verdict::Wrong,
                    format!("{who} uses the data directory, but does not answer at the URL"),
                )
                .help("point to it with --url, or look at its log")
            }
        }
        Err(TryLockError::Error(error)) => finding(WHAT, Verdict::Wrong, settings::plain(&error)),
    }
}

fn port(config: &Config, daemon: bool) -> Finding {
    const WHAT: &str = "port";
    let listen = config.http.listen;
    match TcpListener::bind(listen) {
        Ok(_) => finding(WHAT, Verdict::Good, format!("{listen} is free")),
        Err(_) if daemon => finding(WHAT, Verdict::Good, format!("{listen} is weir's")),
        Err(error) => finding(
            WHAT,
            Verdict::Wrong,
            format!("cannot listen on {listen}: {}", settings::plain(&error)),
        )
        .help("stop what uses it, or set another address with `http.listen`"),
    }
}

fn daemon(client: &Client, status: &Result<Status, ClientError>) -> Finding {
    const WHAT: &str = "daemon";
    match status {
        Ok(status) => {
            let own = env!("CARGO_PKG_VERSION");
            let up = status.uptime.map(duration).unwrap_or_default();
            let text = format!(
                "weir {} answers at {}, up {up}",
                status.version,
                client.url()
            );
            if let Some(reload) = status.reload.as_ref().filter(|reload| !reload.ok) {
                let error = reload.error.as_deref().unwrap_or("the file is not valid");
                finding(
                    WHAT,
                    Verdict::Wrong,
                    format!("{text}; its last reload failed: {error}"),
                )
                .help("mend the file (weir check), then: kill -HUP")
            } else if status.version == own {
                finding(WHAT, Verdict::Good, text)
            } else {
                finding(WHAT, Verdict::Note, format!("{text}; this is weir {own}"))
            }
        }
        Err(ClientError::NoDaemon { url, reason }) => finding(
            WHAT,
            Verdict::Wrong,
            format!("no weir daemon answers at {url} ({reason})"),
        )
        .help("start one: weir run   or point to it: --url / WEIR_URL"),
        Err(error) => finding(WHAT, Verdict::Wrong, error.to_string()),
    }
}

/// As the daemon sees them; without one, their hosts are tried from here.
async fn sources(client: &Client, config: &Config, daemon: bool, findings: &mut Vec<Finding>) {
    const WHAT: &str = "source";
    if daemon {
        match client.list::<Source>("api/sources", &[], SOURCES_MAX).await {
            Ok(sources) => findings.extend(sources.iter().map(seen_source)),
            Err(error) => findings.push(finding(WHAT, Verdict::Wrong, error.to_string())),
        }
        return;
    }
    if config.sources.is_empty() {
        findings.push(finding(WHAT, Verdict::Note, "none is configured"));
    }
    for source in config.sources.iter().take(SOURCES_MAX) {
        for origin in source.entry.origin_allow_list() {
            // A wildcard names no host that could be asked.
            if let (true, Ok(url)) = (origin.is_exact(), Url::parse(&origin.to_string())) {
                findings.push(try_source(&source.name, url).await);
            }
        }
    }
}

fn seen_source(source: &Source) -> Finding {
    const WHAT: &str = "source";
    let name = &source.name;
    match source.status.as_str() {
        "ok" => finding(WHAT, Verdict::Good, format!("{name} answers")),
        "starting" if source.last_error.is_none() => {
            finding(WHAT, Verdict::Note, format!("{name} is starting"))
        }
        status => {
            let error = source.last_error.as_deref().unwrap_or("no reason known");
            finding(
                WHAT,
                Verdict::Wrong,
                format!("{name} is {status}: {}", one_line(error)),
            )
        }
    }
}

async fn try_source(name: &str, url: Url) -> Finding {
    const WHAT: &str = "source";
    let shown = url.as_str().trim_end_matches('/').to_owned();
    let answer = match http_client(&url) {
        Ok(client) => {
            let request = client.get(url).timeout(std::time::Duration::from_secs(5));
            request.send().await.map_err(|error| reason(&error))
        }
        Err(error) => Err(error.to_string()),
    };
    match answer {
        // Whatever the status: somebody is there.
        Ok(_) => finding(WHAT, Verdict::Good, format!("{name}: {shown} answers")),
        Err(reason) => finding(WHAT, Verdict::Wrong, format!("{name}: {shown}: {reason}"))
            .help("weir would wait for it, and alert"),
    }
}

fn journal(dir: &Path, status: &Result<Status, ClientError>) -> Finding {
    const WHAT: &str = "journal";
    if let Ok(status) = status {
        let journal = &status.journal;
        let size = journal.size_bytes.map(bytes).unwrap_or_default();
        return match journal.state.as_str() {
            "open" | "ok" | "" => {
                let text = format!("open, {} events, {size}", journal.head);
                finding(WHAT, Verdict::Good, text)
            }
            state => {
                let reason = journal.reason.as_deref().unwrap_or("no reason known");
                finding(
                    WHAT,
                    Verdict::Wrong,
                    format!("{state}: {}", one_line(reason)),
                )
                .help("nothing is taken in until it is open again")
            }
        };
    }
    let path = dir.join("weir.db");
    match File::open(&path) {
        Ok(file) => {
            let size = file.metadata().map_or(0, |metadata| metadata.len());
            let text = format!("{}, {}", path.display(), bytes(size));
            finding(WHAT, Verdict::Good, text)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            finding(WHAT, Verdict::Good, "none yet")
        }
        Err(error) => {
            let text = format!("{}: {}", path.display(), settings::plain(&error));
            finding(WHAT, Verdict::Wrong, text)
        }
    }
}

fn disk(dir: &Path) -> Finding {
    const WHAT: &str = "disk";
    // The directory may not be there yet: then the place where it will be.
    let there = dir.ancestors().find(|path| path.exists());
    let space = there.map(rustix::fs::statvfs);
    let Some(Ok(space)) = space else {
        return finding(WHAT, Verdict::Note, "the free space is not known");
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let text = format!("{} free", bytes(free));
    if free < FREE_MIN {
        finding(WHAT, Verdict::Wrong, text)
            .help("make room, or lower `retention.size`; a full disk closes the journal")
    } else {
        finding(WHAT, Verdict::Good, text)
    }
}

fn clock(status: &Result<Status, ClientError>) -> Finding {
    const WHAT: &str = "clock";
    let now = Timestamp::now();
    let zone = jiff::tz::TimeZone::system();
    let shown = now
        .to_zoned(zone)
        .strftime("%Y-%m-%d %H:%M:%S %Z")
        .to_string();
    // This version is younger than that.
    if now.as_second() < 1_750_000_000 {
        return finding(WHAT, Verdict::Wrong, format!("{shown} lies in the past"))
            .help("set the clock: timedatectl set-ntp true");
    }
    let theirs = status.as_ref().ok().and_then(|status| status.now);
    let skew = theirs.map(|theirs| now.duration_since(theirs).as_secs_f64());
    match skew {
        Some(skew) if skew.abs() > SKEW_MAX => finding(
            WHAT,
            Verdict::Note,
            format!(
                "{shown}; the daemon's clock is {} off",
                duration(skew.abs())
            ),
        ),
        _ => finding(WHAT, Verdict::Good, shown),
    }
}
