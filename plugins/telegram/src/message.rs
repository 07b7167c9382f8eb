//! The message that Telegram gets, in its HTML.

use weir_handler::Notification;
use weir_handler::fit::{Style, entities};
use weir_handler::words;

/// Characters of a message once its entities are read; counted before that, so never too many.
const MESSAGE_MAX: usize = 4096;
const TITLE_MAX: usize = 300;
const LABEL_MAX: usize = 120;
/// A longer link, escaped, would leave no room for the text.
const LINK_MAX: usize = 1000;

const HTML: Style = Style {
    escape: entities,
    units: char::len_utf16,
};

pub fn html(notification: &Notification) -> String {
    let title = HTML.line(&weir_sdk::text::line(&notification.title, 4000), TITLE_MAX);
    let head = format!("{} <b>{title}</b>\n", words::symbol(notification));
    let link = words::link(notification)
        .map(|url| HTML.line(url, usize::MAX))
        .filter(|url| HTML.size(url) <= LINK_MAX);
    let labels: Vec<String> = words::labels(notification)
        .iter()
        .map(|(name, value)| {
            let name = HTML.line(name, LABEL_MAX);
            format!("{name}: {}", HTML.line(value, LABEL_MAX))
        })
        .collect();
    let mut foot = String::new();
    if !labels.is_empty() {
        foot.push_str(&format!("\n<i>{}</i>", labels.join(" · ")));
    }
    if let Some(url) = &link {
        foot.push_str(&format!("\n<a href=\"{url}\">Open in weir</a>"));
    }
    let more = |missing: usize| match &link {
        Some(url) => format!("<a href=\"{url}\">+{missing} more</a>"),
        None => format!("+{missing} more"),
    };
    let room = MESSAGE_MAX.saturating_sub(HTML.size(&head) + HTML.size(&foot));
    let body = HTML.lines(
        &words::lines(notification),
        room,
        notification.truncated as usize,
        more,
    );
    format!("{head}{body}{foot}")
}
