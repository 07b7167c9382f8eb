//! The sections of the file, top to bottom: from the text to the whole configuration.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Time;
use url::Url;

use super::check::Declares;
use super::decode::{Decoder, Fields, Finding, describe, shortened};
use super::diagnostic::{Diagnostic, did_you_mean};
use super::tree::{self, Node};
use super::{
    Config, Deadline, Durability, HealthCheck, Http, Log, LogFormat, LogLevel, ParseContext,
    Resources, Retention, SourceConfig, TEXT_LEN_MAX, alerts, plugin,
};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
pub(super) const YEAR: Duration = Duration::from_secs(366 * 86_400);
const NOT_YET: &str = "accepted, not acted on by this version";

pub(super) fn parse(
    text: &str,
    ctx: &ParseContext<'_>,
) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut decoder = Decoder::new(text, ctx);
    if text.len() > TEXT_LEN_MAX {
        decoder.error(
            0,
            "",
            Finding::new(format!("the file is larger than {TEXT_LEN_MAX} bytes")),
        );
        return Err(decoder.into_diagnostics());
    }
    // Editors on Windows put a byte order mark in front; it is no mistake of the operator.
    let body = text
        .strip_prefix('\u{feff}')
        .map_or_else(|| text.to_owned(), |rest| format!("   {rest}"));
    let (node, syntax_errors) = tree::read(&body);
    for error in syntax_errors {
        decoder.error(
            error.offset,
            "",
            Finding::new(error.message).maybe_help(error.help),
        );
    }
    let config = node.and_then(|node| config(&mut decoder, &node));
    decoder.check();
    match config {
        Some(config) if !decoder.has_errors() => Ok((config, decoder.into_diagnostics())),
        _ => Err(decoder.into_diagnostics()),
    }
}

fn config(d: &mut Decoder<'_>, node: &Node) -> Option<Config> {
    let mut fields = d.fields(node, "")?;
    let config = Config {
        data_dir: fields.optional(d, "data_dir", Decoder::path),
        timezone: fields.optional(d, "timezone", timezone),
        durability: fields
            .optional(d, "durability", durability)
            .unwrap_or_default(),
        http: fields.optional(d, "http", http).unwrap_or_default(),
        sources: fields
            .optional(d, "sources", |d, node, path| d.list(node, path, source))
            .unwrap_or_default(),
        resources: fields
            .optional(d, "resources", resources)
            .unwrap_or_default(),
        health: not_yet(d, &mut fields, "health", health_check),
        deadlines: not_yet(d, &mut fields, "deadlines", deadline),
        alerts: fields
            .optional(d, "alerts", alerts::alerts)
            .unwrap_or_default(),
        retention: fields
            .optional(d, "retention", retention)
            .unwrap_or_default(),
        log: fields.optional(d, "log", log).unwrap_or_default(),
    };
    fields.finish(d);
    Some(config)
}

/// A list that is checked now and used by a later version.
fn not_yet<T>(
    d: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
    element: fn(&mut Decoder<'_>, &Node, &str) -> Option<T>,
) -> Vec<T> {
    let offset = fields.offset_of(name);
    let elements = fields
        .optional(d, name, |d, node, path| d.list(node, path, element))
        .unwrap_or_default();
    if !elements.is_empty() {
        d.warning(offset, name, Finding::new(NOT_YET));
    }
    elements
}

fn timezone(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<String> {
    let name = d.text(node, path)?;
    let known = d.ctx.known_timezones;
    if known.is_empty() || known.contains(&name.as_str()) {
        return Some(name);
    }
    let finding =
        Finding::new("expected a time zone such as \"Europe/Prague\"").found(describe(node));
    d.error(
        node.offset,
        path,
        finding.maybe_help(did_you_mean(&name, known.iter().copied())),
    );
    None
}

fn durability(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Durability> {
    d.word(
        node,
        path,
        &[
            ("Power", Durability::Power),
            ("Process", Durability::Process),
        ],
    )
}

fn http(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Http> {
    let mut fields = d.fields(node, path)?;
    let default = Http::default();
    let http = Http {
        listen: fields
            .optional(d, "listen", listen)
            .unwrap_or(default.listen),
        public_url: fields.optional(d, "public_url", public_url),
        allowed_hosts: fields
            .optional(d, "allowed_hosts", |d, node, path| {
                d.list(node, path, allowed_host)
            })
            .unwrap_or_default(),
    };
    fields.finish(d);
    Some(http)
}

fn listen(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<SocketAddr> {
    let text = d.text(node, path)?;
    let Ok(address) = text.parse::<SocketAddr>() else {
        let port = text
            .rsplit(':')
            .next()
            .filter(|port| port.parse::<u16>().is_ok())
            .unwrap_or("8000");
        let finding = Finding::new("expected an address and a port such as \"127.0.0.1:8000\"")
            .found(describe(node));
        d.error(
            node.offset,
            path,
            finding.help(format!("for this machine alone write \"127.0.0.1:{port}\"")),
        );
        return None;
    };
    if !address.ip().is_loopback() {
        let finding = Finding::new("other machines can reach this address")
            .help("reading needs no password there");
        d.warning(node.offset, path, finding);
    }
    Some(address)
}

fn public_url(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Url> {
    let url = d.url(node, path)?;
    if url.query().is_some() || url.fragment().is_some() {
        d.error(
            node.offset,
            path,
            Finding::new("the base of links has no `?` or `#`").found(describe(node)),
        );
        return None;
    }
    Some(url)
}

/// `name` or `name:port`, as a request's Host header says it.
fn allowed_host(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<String> {
    let text = d.text(node, path)?;
    let url = Url::parse(&format!("http://{text}")).ok();
    let url =
        url.filter(|url| url.path() == "/" && !text.contains(['/', '@', '?', '#', '*', '\\']));
    let host = url.as_ref().and_then(Url::host_str);
    let Some(host) = host else {
        let finding =
            Finding::new("expected a host such as \"weir.example.net\" or \"weir.lan:8000\"");
        d.error(node.offset, path, finding.found(describe(node)));
        return None;
    };
    // `url` drops the port that http has by default.
    let port = text
        .rsplit_once(':')
        .map(|(_, port)| port)
        .filter(|port| port.parse::<u16>().is_ok());
    Some(match port {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

fn source(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<SourceConfig> {
    let Some(mut fields) = d.fields(node, path) else {
        d.references.sources.incomplete = true;
        return None;
    };
    let name = declared_name(d, &mut fields, Declares::Source);
    let entry = plugin::entry(d, &mut fields, "plugin");
    let interval =
        |d: &mut Decoder<'_>, node: &Node, path: &str| d.duration(node, path, SECOND / 10, DAY);
    let poll_interval = fields
        .optional(d, "poll_interval", interval)
        .unwrap_or(SECOND * 2);
    let control = fields
        .optional(d, "control", Decoder::bool)
        .unwrap_or(false);
    let lost_after =
        |d: &mut Decoder<'_>, node: &Node, path: &str| d.duration(node, path, SECOND, DAY);
    let lost_after = fields
        .optional(d, "lost_after", lost_after)
        .unwrap_or(MINUTE);
    let forgotten_before = fields.optional(d, "forgotten_before", timestamp);
    let companion_token = fields.optional(d, "companion_token", super::credential::alone);
    fields.finish(d);
    Some(SourceConfig {
        name: name?,
        entry: entry?,
        poll_interval,
        control,
        lost_after,
        forgotten_before,
        companion_token,
    })
}

/// The `name` of something that others may refer to.
pub(super) fn declared_name(
    d: &mut Decoder<'_>,
    fields: &mut Fields<'_>,
    what: Declares,
) -> Option<String> {
    let offset = fields.offset_of("name");
    let path = format!("{}.name", fields.path);
    let name = fields.required(d, "name", Decoder::name);
    d.references.declare(what, name.as_deref(), offset, path);
    name
}

fn timestamp(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Timestamp> {
    let text = d.text(node, path)?;
    let timestamp = text.parse().ok();
    if timestamp.is_none() {
        let finding =
            Finding::new("expected a time with its zone such as \"2026-01-31T00:00:00Z\"");
        d.error(node.offset, path, finding.found(describe(node)));
    }
    timestamp
}

fn resources(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Resources> {
    let mut fields = d.fields(node, path)?;
    let default = Resources::default();
    let interval =
        |d: &mut Decoder<'_>, node: &Node, path: &str| d.duration(node, path, SECOND, DAY / 24);
    let resources = Resources {
        interval: fields
            .optional(d, "interval", interval)
            .unwrap_or(default.interval),
        memory_percent: fields
            .optional(d, "memory_percent", Decoder::percent)
            .unwrap_or(default.memory_percent),
        cpu_percent: fields
            .optional(d, "cpu_percent", Decoder::percent)
            .unwrap_or(default.cpu_percent),
        disk_percent: fields
            .optional(d, "disk_percent", Decoder::percent)
            .unwrap_or(default.disk_percent),
        processes: fields
            .optional(d, "processes", |d, node, path| {
                d.list(node, path, process_name)
            })
            .unwrap_or_default(),
    };
    fields.finish(d);
    Some(resources)
}

fn process_name(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<String> {
    let name = d.text(node, path)?;
    if name.trim().is_empty() || name.contains('/') || name.len() > 255 {
        let finding = Finding::new("expected the name of a process such as \"python3\"")
            .found(describe(node));
        d.error(node.offset, path, finding.help("a name, not a path"));
        return None;
    }
    Some(name)
}

fn health_check(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<HealthCheck> {
    let mut fields = d.fields(node, path)?;
    let name = declared_name(d, &mut fields, Declares::HealthCheck);
    let url = fields.required(d, "url", Decoder::url);
    let interval =
        |d: &mut Decoder<'_>, node: &Node, path: &str| d.duration(node, path, SECOND, DAY);
    let interval = fields.optional(d, "interval", interval).unwrap_or(MINUTE);
    fields.finish(d);
    Some(HealthCheck {
        name: name?,
        url: url?,
        interval,
    })
}

fn deadline(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Deadline> {
    let mut fields = d.fields(node, path)?;
    let workflow = fields.required(d, "workflow", Decoder::text);
    let start_by = fields.optional(d, "start_by", time_of_day);
    let max_run =
        |d: &mut Decoder<'_>, node: &Node, path: &str| d.duration(node, path, SECOND, YEAR);
    let max_run = fields.optional(d, "max_run", max_run);
    if !fields.has("start_by") && !fields.has("max_run") {
        d.error(
            fields.offset,
            path,
            Finding::new("give `start_by` or `max_run`, or both"),
        );
    }
    fields.finish(d);
    Some(Deadline {
        workflow: workflow?,
        start_by,
        max_run,
    })
}

fn time_of_day(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Time> {
    let text = d.text(node, path)?;
    // jiff also reads "02"; a bare hour is more likely a slip.
    let time = text.parse().ok().filter(|_| text.contains(':'));
    if time.is_none() {
        let finding =
            Finding::new("expected a time of day such as \"02:30\"").found(describe(node));
        d.error(node.offset, path, finding);
    }
    time
}

fn retention(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Retention> {
    let mut fields = d.fields(node, path)?;
    let default = Retention::default();
    let age =
        |d: &mut Decoder<'_>, node: &Node, path: &str| d.duration(node, path, DAY / 24, YEAR * 100);
    let size = |d: &mut Decoder<'_>, node: &Node, path: &str| d.size(node, path, 16 << 20, 1 << 50);
    let retention = Retention {
        age: fields.optional(d, "age", age).unwrap_or(default.age),
        size_bytes: fields
            .optional(d, "size", size)
            .unwrap_or(default.size_bytes),
    };
    fields.finish(d);
    Some(retention)
}

pub(super) const LOG_LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

fn log(d: &mut Decoder<'_>, node: &Node, path: &str) -> Option<Log> {
    let mut fields = d.fields(node, path)?;
    let level = fields.optional(d, "level", |d, node, path| d.word(node, path, &LOG_LEVELS));
    let formats = [("Text", LogFormat::Text), ("Json", LogFormat::Json)];
    let format = fields.optional(d, "format", |d, node, path| d.word(node, path, &formats));
    fields.finish(d);
    Some(Log {
        level: level.unwrap_or_default(),
        format: format.unwrap_or_default(),
    })
}

/// Free text of labels and annotations: a map of strings.
pub(super) fn text_map(
    d: &mut Decoder<'_>,
    node: &Node,
    path: &str,
) -> Option<Vec<(usize, String, String)>> {
    let entries = d.entries(node, path)?;
    Some(
        entries
            .into_iter()
            .filter_map(|(offset, key, value)| {
                let path = format!("{path}[\"{}\"]", shortened(&key));
                d.text(value, &path).map(|text| (offset, key, text))
            })
            .collect(),
    )
}
