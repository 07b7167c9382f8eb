//! The mail that a notification becomes: plain text, the same as HTML, and the headers that keep it in its thread.

use std::time::SystemTime;

use jiff::Timestamp;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Message, MessageBuilder, MultiPart};
use maud::{DOCTYPE, html};
use uuid::Uuid;
use weir_model::alert::notification::{AlertStatus, Notification, Severity};
use weir_model::alert::text;
use weir_model::config::{Email, Mailbox};

/// Characters of a subject.
const SUBJECT_LEN_MAX: usize = 200;
/// What is more is cut, with a link to the rest.
const LINES_MAX: usize = 200;
const LINE_LEN_MAX: usize = 2000;
const TEXT_BYTES_MAX: usize = 32 * 1024;
/// Labels shown beside the text: more of them tell nobody anything.
const LABELS_MAX: usize = 8;
const LINK_LEN_MAX: usize = 2048;
/// Of a Message-ID that is taken up again.
const ID_LEN_MAX: usize = 320;

/// A message ready to be sent.
#[derive(Debug)]
pub(super) struct Written {
    /// The Message-ID of the group's first message.
    pub(super) thread: String,
    /// Headers and body, ASCII.
    pub(super) bytes: Vec<u8>,
}

/// `prior`: what `Written::thread` was with the message before. The same notification has the same Message-ID each time.
pub(super) fn write(
    settings: &Email,
    entry: Uuid,
    notification: &Notification,
    prior: Option<&str>,
    now: Timestamp,
) -> Result<Written, String> {
    let words = Words::of(notification);
    let id = Uuid::new_v5(&entry, notification.id.as_bytes()).simple();
    let id = format!("<weir.{id}@{}>", settings.from.domain);
    let first = prior.filter(|prior| is_message_id(prior) && *prior != id);
    // Dates of mail begin with the epoch.
    let date = SystemTime::from(now.max(Timestamp::UNIX_EPOCH));
    let mut builder = Message::builder()
        .date(date)
        .from(mailbox(&settings.from)?)
        .subject(words.subject.clone());
    for to in &settings.to {
        builder = builder.to(mailbox(to)?);
    }
    builder = ascii(builder, "Message-ID", &id);
    if let Some(first) = first {
        builder = ascii(builder, "In-Reply-To", first);
        builder = ascii(builder, "References", first);
    }
    // Nobody's holiday notice answers, and no list does.
    builder = ascii(builder, "Auto-Submitted", "auto-generated");
    builder = ascii(builder, "X-Auto-Response-Suppress", "All");
    if (notification.status, notification.severity) == (AlertStatus::Firing, Severity::Critical) {
        builder = ascii(builder, "X-Priority", "1 (Highest)");
        builder = ascii(builder, "Importance", "high");
        builder = ascii(builder, "Priority", "urgent");
    }
    let body = MultiPart::alternative_plain_html(words.plain(), words.html());
    let message = builder.multipart(body).map_err(|error| error.to_string())?;
    Ok(Written {
        thread: first.map_or(id, str::to_owned),
        bytes: message.formatted(),
    })
}

fn mailbox(mailbox: &Mailbox) -> Result<lettre::message::Mailbox, String> {
    let address = lettre::Address::new(&mailbox.local_part, &mailbox.domain);
    let address = address.map_err(|error| format!("{}: {error}", mailbox.address()))?;
    Ok(lettre::message::Mailbox::new(mailbox.name.clone(), address))
}

/// Adds a header whose value is known to be short and plain: ids are not folded, as they would be by the encoder.
fn ascii(builder: MessageBuilder, name: &'static str, value: &str) -> MessageBuilder {
    debug_assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    let name = HeaderName::new_from_ascii_str(name);
    let value = HeaderValue::dangerous_new_pre_encoded(name, value.to_owned(), value.to_owned());
    builder.raw_header(value)
}

/// Only one of ours is taken up: a receipt may come from another handler that had this receiver's name.
fn is_message_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@".contains(&byte);
    let inner = text
        .strip_prefix("<weir.")
        .and_then(|it| it.strip_suffix('>'));
    text.len() <= ID_LEN_MAX
        && inner.is_some_and(|it| it.bytes().all(plain) && it.matches('@').count() == 1)
}

/// What a mail says, each piece clean and short enough.
struct Words {
    subject: String,
    lines: Vec<String>,
    /// Lines and alerts that are not here.
    missing: usize,
    labels: Vec<(String, String)>,
    link: Option<String>,
    color: u32,
}

impl Words {
    fn of(notification: &Notification) -> Words {
        let subject = format!("{} {}", symbol(notification), notification.title);
        let mut lines = Vec::new();
        let (mut bytes, mut missing) = (0, 0);
        for line in notification.text.lines() {
            let line = text::line(line, LINE_LEN_MAX);
            bytes += line.len();
            if lines.len() < LINES_MAX && bytes <= TEXT_BYTES_MAX {
                lines.push(line);
            } else {
                missing += 1;
            }
        }
        if lines.iter().all(String::is_empty) {
            lines = vec![text::line(&notification.title, LINE_LEN_MAX)];
        }
        let shown = |(name, value): &&(String, String)| {
            !value.is_empty() && name != "workspace" && name != "severity"
        };
        let labels = notification.common_labels.iter().filter(shown);
        let labels = labels.map(|(name, value)| (text::line(name, 100), text::line(value, 300)));
        Words {
            subject: text::line(&subject, SUBJECT_LEN_MAX),
            lines,
            missing: missing + notification.truncated as usize,
            labels: labels.take(LABELS_MAX).collect(),
            link: link(notification).map(str::to_owned),
            color: color(notification),
        }
    }

    fn plain(&self) -> String {
        let mut text = self.lines.join("\n");
        if self.missing > 0 {
            text.push_str(&format!("\n+{} more", self.missing));
        }
        text.push('\n');
        if !self.labels.is_empty() {
            text.push('\n');
            for (name, value) in &self.labels {
                text.push_str(&format!("{name}: {value}\n"));
            }
        }
        // Where the words name it themselves, once is enough.
        if let Some(link) = self.link.as_ref().filter(|link| !self.lines.contains(link)) {
            text.push_str(&format!("\nOpen in weir: {link}\n"));
        }
        text
    }

    fn html(&self) -> String {
        let bar = format!(
            "border-left:4px solid #{:06x};padding-left:12px;font-family:sans-serif",
            self.color
        );
        let page = html! {
            (DOCTYPE)
            html {
                head {
                    meta charset="utf-8";
                    title { (self.subject) }
                }
                body {
                    div style=(bar) {
                        p dir="auto" { strong { (self.subject) } }
                        p dir="auto" {
                            @for line in &self.lines { (line) br; }
                            @if self.missing > 0 { "+" (self.missing) " more" br; }
                        }
                        @if !self.labels.is_empty() {
                            table {
                                @for (name, value) in &self.labels {
                                    tr { td { (name) } td dir="auto" { (value) } }
                                }
                            }
                        }
                        @if let Some(link) = &self.link {
                            p { a href=(link) { "Open in weir" } }
                        }
                    }
                }
            }
        };
        page.into_string()
    }
}

/// One symbol for how it stands.
fn symbol(notification: &Notification) -> &'static str {
    match (notification.status, notification.severity) {
        (AlertStatus::Resolved, _) => "✅",
        (AlertStatus::Firing, Severity::Info) => "ℹ️",
        (AlertStatus::Firing, Severity::Warning) => "⚠️",
        (AlertStatus::Firing, Severity::Error) => "❌",
        (AlertStatus::Firing, Severity::Critical) => "🚨",
    }
}

/// Red, green, blue of how it stands.
fn color(notification: &Notification) -> u32 {
    match (notification.status, notification.severity) {
        (AlertStatus::Resolved, _) => 0x2e_b8_67,
        (AlertStatus::Firing, Severity::Info) => 0x3b_88_c3,
        (AlertStatus::Firing, Severity::Warning) => 0xf2_c7_44,
        (AlertStatus::Firing, Severity::Error) => 0xd0_34_2c,
        (AlertStatus::Firing, Severity::Critical) => 0x8b_00_00,
    }
}

/// Where a tap leads: the only alert's own page, else weir's. Nothing but http and https is a link.
fn link(notification: &Notification) -> Option<&str> {
    let url = match notification.alerts.as_slice() {
        [alert] => alert
            .url
            .as_deref()
            .or(notification.external_url.as_deref()),
        _ => notification.external_url.as_deref(),
    }?;
    let scheme = ["http://", "https://"];
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"<>\"'|`".contains(c);
    let is_link = scheme.iter().any(|scheme| url.starts_with(scheme))
        && url.len() <= LINK_LEN_MAX
        && url.chars().all(plain);
    is_link.then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::alert::notification::NotifiedAlert;
    use weir_model::config::EmailTls;

    fn settings() -> Email {
        Email {
            server: "smtp.example.net".into(),
            port: 587,
            tls: EmailTls::StartTls,
            ca_file: None,
            from: Mailbox::parse("weir <weir@example.net>").unwrap(),
            to: vec![Mailbox::parse("ops@example.net").unwrap()],
            timeout: std::time::Duration::from_secs(60),
            login: None,
        }
    }

    fn notification(text: &str) -> Notification {
        let alert = NotifiedAlert {
            fingerprint: "f".into(),
            status: AlertStatus::Firing,
            severity: Severity::Critical,
            title: "weir is in trouble".into(),
            body: String::new(),
            labels: Vec::new(),
            annotations: Vec::new(),
            since: Timestamp::UNIX_EPOCH,
            ends: None,
            count: 1,
            executions: Vec::new(),
            url: Some("https://weir.example.net/a?b=1&c=2".into()),
        };
        Notification {
            id: "g-1-mail".into(),
            key: "g".into(),
            severity: Severity::Critical,
            title: alert.title.clone(),
            text: text.into(),
            test: false,
            receiver: "mail".into(),
            status: AlertStatus::Firing,
            group_labels: Vec::new(),
            common_labels: vec![("rule".into(), "weir_trouble".into())],
            common_annotations: Vec::new(),
            alerts: vec![alert],
            truncated: 0,
            external_url: None,
        }
    }

    fn written(notification: &Notification, prior: Option<&str>) -> (String, String) {
        let (entry, now) = (Uuid::nil(), Timestamp::UNIX_EPOCH);
        let written = write(&settings(), entry, notification, prior, now).unwrap();
        (written.thread, String::from_utf8(written.bytes).unwrap())
    }

    #[test]
    fn what_is_critical_says_so_and_its_end_does_not() {
        let mut notification = notification("a");
        let headers = [
            "X-Priority: 1 (Highest)",
            "Importance: high",
            "Priority: urgent",
        ];
        let (_, text) = written(&notification, None);
        assert!(headers.iter().all(|header| text.contains(header)), "{text}");
        notification.status = AlertStatus::Resolved;
        let (_, text) = written(&notification, None);
        assert!(
            !headers.iter().any(|header| text.contains(header)),
            "{text}"
        );
    }

    #[test]
    fn only_a_receipt_of_ours_is_replied_to() {
        let notification = notification("a");
        let (id, _) = written(&notification, None);
        assert_eq!(written(&notification, None).0, id, "the same each time");
        let ours = "<weir.0123456789abcdef@example.net>";
        let (thread, text) = written(&notification, Some(ours));
        assert_eq!(thread, ours);
        assert!(
            text.contains(&format!("\r\nReferences: {ours}\r\n")),
            "{text}"
        );
        assert!(
            text.contains(&format!("\r\nMessage-ID: {id}\r\n")),
            "{text}"
        );
        for other in [
            r#"{"channel":"C1","ts":"17"}"#,
            "<weir.1@a>\r\nBcc: all@example.net",
            "<weir.1@a> <weir.2@b>",
            id.as_str(),
        ] {
            let (thread, text) = written(&notification, Some(other));
            assert_eq!(thread, id, "{other}");
            assert!(!text.contains("References"), "{text}");
        }
    }

    #[test]
    fn what_is_too_much_is_cut_and_counted() {
        let lines: Vec<String> = (0..500).map(|n| format!("line {n} <&>")).collect();
        let mut notification = notification(&lines.join("\n"));
        notification.truncated = 7;
        let words = Words::of(&notification);
        let (plain, html) = (words.plain(), words.html());
        for text in [&plain, &html] {
            assert!(
                text.contains("line 199") && !text.contains("line 200"),
                "{text}"
            );
            assert!(text.contains("+307 more"), "{text}");
        }
        assert!(
            plain.ends_with("\nOpen in weir: https://weir.example.net/a?b=1&c=2\n"),
            "{plain}"
        );
        assert!(
            html.contains("href=\"https://weir.example.net/a?b=1&amp;c=2\""),
            "{html}"
        );
        assert!(html.contains("line 0 &lt;&amp;&gt;<br>"), "{html}");
        notification.text = "long ".repeat(100_000);
        let plain = Words::of(&notification).plain();
        assert!(plain.len() < 3_000 && plain.contains("+7 more"), "{plain}");
        notification.text = String::new();
        assert!(
            Words::of(&notification)
                .plain()
                .starts_with("weir is in trouble\n")
        );
        notification.alerts[0].url = Some("javascript:alert(1)".into());
        assert!(!Words::of(&notification).html().contains("href"));
    }
}
