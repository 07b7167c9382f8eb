//! The message that Discord gets: one embed.

use serde::Serialize;
use weir_handler::Notification;
use weir_handler::fit::Style;
use weir_handler::words;

/// Limits of an embed. Together its texts may have 6000; these, with the labels below, stay under that.
const TITLE_MAX: usize = 256;
const DESCRIPTION_MAX: usize = 3500;
const NAME_MAX: usize = 60;
const VALUE_MAX: usize = 180;
/// A longer link would leave no room for the text.
const LINK_MAX: usize = 1000;

/// Discord's markdown; a backslash before punctuation shows the punctuation.
const MARKDOWN: Style = Style {
    escape: markdown,
    units: char::len_utf16,
};

fn markdown(c: char, out: &mut String) {
    if matches!(
        c,
        '\\' | '*'
            | '_'
            | '~'
            | '`'
            | '|'
            | '>'
            | '<'
            | '#'
            | '['
            | ']'
            | '('
            | ')'
            | '@'
            | '-'
            | ':'
    ) {
        out.push('\\');
    }
    out.push(c);
}

#[derive(Debug, Serialize)]
pub struct Message {
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    embeds: [Embed; 1],
    allowed_mentions: Mentions,
}

/// Nobody is mentioned, whatever a text holds.
#[derive(Debug, Serialize)]
struct Mentions {
    parse: [&'static str; 0],
}

#[derive(Debug, Serialize)]
struct Embed {
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    description: String,
    color: u32,
    fields: Vec<Field>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
}

#[derive(Debug, Serialize)]
struct Field {
    name: String,
    value: String,
    inline: bool,
}

impl Message {
    pub fn post(notification: &Notification, username: Option<&str>) -> Message {
        Message {
            username: username.map(str::to_owned),
            ..Message::edit(notification)
        }
    }

    /// An edit cannot change who posted.
    pub fn edit(notification: &Notification) -> Message {
        let link = words::link(notification).filter(|url| url.len() <= LINK_MAX);
        let title = weir_sdk::text::line(&notification.title, 4000);
        let more = |missing: usize| match link {
            // The parentheses of the URL would end the link.
            Some(url) => format!(
                "[+{missing} more]({})",
                url.replace('(', "%28").replace(')', "%29")
            ),
            None => format!("+{missing} more"),
        };
        let description = MARKDOWN.lines(
            &words::lines(notification),
            DESCRIPTION_MAX,
            notification.truncated as usize,
            more,
        );
        let fields = words::labels(notification)
            .iter()
            .map(|(name, value)| Field {
                name: MARKDOWN.line(name, NAME_MAX),
                value: MARKDOWN.line(value, VALUE_MAX),
                inline: true,
            })
            .collect();
        let since = notification.alerts.first().map(|alert| alert.since);
        let title = MARKDOWN.line(&title, TITLE_MAX - 4);
        Message {
            username: None,
            embeds: [Embed {
                title: format!("{} {title}", words::symbol(notification)),
                url: link.map(str::to_owned),
                description,
                color: words::color(notification),
                fields,
                timestamp: since.and_then(words::time),
            }],
            allowed_mentions: Mentions { parse: [] },
        }
    }
}
