//! The words and links of a notification that every service shows in its own way.

use weir_sdk::text;

use crate::{Notification, Severity, Status};

/// Labels shown beside the text: more of them tell nobody anything.
pub const LABELS_MAX: usize = 8;

/// `firing` or `resolved`.
pub fn status(status: Status) -> &'static str {
    match status {
        Status::Firing => "firing",
        Status::Resolved => "resolved",
    }
}

/// `info`, `warning`, `error` or `critical`.
pub fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
        Severity::Critical => "critical",
    }
}

/// One symbol for how it stands.
pub fn symbol(notification: &Notification) -> &'static str {
    match (notification.status, notification.severity) {
        (Status::Resolved, _) => "✅",
        (Status::Firing, Severity::Info) => "ℹ️",
        (Status::Firing, Severity::Warning) => "⚠️",
        (Status::Firing, Severity::Error) => "❌",
        (Status::Firing, Severity::Critical) => "🚨",
    }
}

/// Red, green, blue of how it stands.
pub fn color(notification: &Notification) -> u32 {
    match (notification.status, notification.severity) {
        (Status::Resolved, _) => 0x2e_b8_67,
        (Status::Firing, Severity::Info) => 0x3b_88_c3,
        (Status::Firing, Severity::Warning) => 0xf2_c7_44,
        (Status::Firing, Severity::Error) => 0xd0_34_2c,
        (Status::Firing, Severity::Critical) => 0x8b_00_00,
    }
}

/// Where a tap leads: the only alert's own page, else weir's. Nothing but http and https is a link.
pub fn link(notification: &Notification) -> Option<&str> {
    let url = match notification.alerts.as_slice() {
        [alert] => alert
            .url
            .as_deref()
            .or(notification.external_url.as_deref()),
        _ => notification.external_url.as_deref(),
    }?;
    is_link(url).then_some(url)
}

/// An absolute http(s) URL without white space, control characters or quotes: it can stand in any markup.
pub fn is_link(url: &str) -> bool {
    let scheme = ["http://", "https://"].iter().any(|scheme| {
        url.get(..scheme.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(scheme))
    });
    let plain = |c: char| {
        !c.is_whitespace() && !c.is_control() && !matches!(c, '<' | '>' | '"' | '\'' | '|' | '`')
    };
    scheme && url.len() <= 2048 && url.chars().all(plain)
}

/// The labels that all alerts share, as they are shown: name and value, each one line.
pub fn labels(notification: &Notification) -> Vec<(String, String)> {
    let mut shown: Vec<(String, String)> = notification
        .common_labels
        .iter()
        .filter(|(name, value)| !value.is_empty() && name != "workspace" && name != "severity")
        .map(|(name, value)| (text::line(name, 100), text::line(value, 300)))
        .collect();
    shown.truncate(LABELS_MAX);
    shown
}

/// The lines of the text, clean; the title where there is no text.
pub fn lines(notification: &Notification) -> Vec<String> {
    // Longer lines are of no use to anybody, and the cut to a service's limit follows.
    const LINE_MAX: usize = 16 * 1024;
    let lines: Vec<String> = notification
        .text
        .lines()
        .map(|line| text::line(line, LINE_MAX))
        .collect();
    if lines.iter().all(String::is_empty) {
        vec![text::line(&notification.title, LINE_MAX)]
    } else {
        lines
    }
}

/// RFC 3339 in UTC with milliseconds; none for a time that no calendar holds.
pub fn time(milliseconds: u64) -> Option<String> {
    let milliseconds = i64::try_from(milliseconds).ok()?;
    let timestamp = jiff::Timestamp::from_millisecond(milliseconds).ok()?;
    Some(format!("{timestamp:.3}"))
}
