//! The single looks of `weir doctor`.

use super::Finding;
use crate::cli::Context;
use crate::cli::check::count;
use crate::cli::exit::CliError;
use crate::cli::human::{bytes, duration, one_line};
use crate::cli::settings::{self, LoadError, Loaded};
use crate::client::view::{Source, Status};
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
    let loaded = configuration(ctx, config, &mut findings);
    let config = loaded.map(|loaded| loaded.config).unwrap_or_default();
    let data_dir = data_dir
        .or_else(|| config.data_dir.clone())
        .unwrap_or_else(|| ctx.paths.data_dir());
    let (client, _) = ctx.daemon()?;
    let status = client.get::<Status>("status", &[]).await;
    findings.push(directory(&data_dir));
    findings.push(lock(&data_dir, status.is_ok()));
    findings.push(port(&config, status.is_ok()));
    findings.push(daemon(&client, &status));
    sources(&client, &config, status.is_ok(), &mut findings).await;
    findings.push(journal(&data_dir, &status));
    findings.push(disk(&data_dir));
    findings.push(clock(&status));
    Ok(findings)
}

fn configuration(
    ctx: &Context,
    path: Option<&Path>,
    findings: &mut Vec<Finding>,
) -> Option<Loaded> {
    const WHAT: &str = "configuration";
    let loaded = match settings::load(path, &ctx.paths) {
        Ok(loaded) => loaded,
        Err(LoadError::Invalid {
            path,
            findings: found,
        }) => {
            let first = found.first().map(ToString::to_string).unwrap_or_default();
            let file = path.display();
            findings.push(
                finding(WHAT, Verdict::Wrong, format!("{file}:{first}"))
                    .help(format!("all findings: weir check {file}")),
            );
            return None;
        }
        Err(error) => {
            findings.push(finding(WHAT, Verdict::Wrong, error.to_string()));
            return None;
        }
    };
    let file = loaded.path.display();
    let missing = settings::missing_secrets(&loaded.config);
    findings.push(match (missing.first(), loaded.warnings.first()) {
        (Some(missing), _) => finding(WHAT, Verdict::Wrong, format!("{file}: {missing}")),
        (None, Some(warning)) => finding(WHAT, Verdict::Note, format!("{file}:{warning}")),
        (None, None) => finding(
            WHAT,
            Verdict::Good,
            format!("{file}, {}", count(loaded.config.sources.len(), "source")),
        ),
    });
    Some(loaded)
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
