//! The message that Slack gets.

use serde::Serialize;
use weir_handler::Notification;
use weir_handler::fit::{Style, entities};
use weir_handler::words;

/// Characters of a section's text.
const SECTION_MAX: usize = 3000;
/// Fields of a section, and characters of one.
const FIELDS_MAX: usize = 10;
const FIELD_MAX: usize = 2000;
/// A title is one line on a phone.
const TITLE_MAX: usize = 300;
/// A longer link, escaped, would leave no room for the text.
const LINK_MAX: usize = 1000;

/// `&`, `<` and `>` are all that mrkdwn lets be escaped, and all that makes mentions and links.
const MRKDWN: Style = Style {
    escape: entities,
    units: char::len_utf16,
};

/// What a webhook and a bot send alike.
#[derive(Debug, Serialize)]
pub struct Message {
    text: String,
    attachments: [Attachment; 1],
    unfurl_links: bool,
    unfurl_media: bool,
}

/// Blocks with a coloured bar at their left.
#[derive(Debug, Serialize)]
struct Attachment {
    color: String,
    blocks: Vec<Block>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Section {
        text: Text,
    },
    #[serde(rename = "section")]
    Fields {
        fields: Vec<Text>,
    },
    Context {
        elements: [Text; 1],
    },
}

#[derive(Debug, Serialize)]
struct Text {
    r#type: &'static str,
    text: String,
    /// No link is made of what looks like one, no channel of what looks like a name.
    verbatim: bool,
}

fn mrkdwn(text: String) -> Text {
    Text {
        r#type: "mrkdwn",
        text,
        verbatim: true,
    }
}

impl Message {
    pub fn of(notification: &Notification) -> Message {
        // It holds no `<`, `>` or `|`, so only `&` is left to escape.
        let link = words::link(notification)
            .map(|url| MRKDWN.line(url, usize::MAX))
            .filter(|url| MRKDWN.size(url) <= LINK_MAX);
        let title = MRKDWN.line(&weir_sdk::text::line(&notification.title, 4000), TITLE_MAX);
        let more = |missing: usize| match &link {
            Some(url) => format!("<{url}|+{missing} more>"),
            None => format!("+{missing} more"),
        };
        let body = MRKDWN.lines(
            &words::lines(notification),
            SECTION_MAX,
            notification.truncated as usize,
            more,
        );
        let mut blocks = vec![Block::Section { text: mrkdwn(body) }];
        let fields: Vec<Text> = words::labels(notification)
            .iter()
            .take(FIELDS_MAX)
            .map(|(name, value)| {
                let name = MRKDWN.line(name, 200);
                let value = MRKDWN.line(value, FIELD_MAX - 300);
                mrkdwn(format!("*{name}*\n{value}"))
            })
            .collect();
        if !fields.is_empty() {
            blocks.push(Block::Fields { fields });
        }
        if let Some(url) = &link {
            blocks.push(Block::Context {
                elements: [mrkdwn(format!("<{url}|Open in weir>"))],
            });
        }
        Message {
            text: format!("{} *{title}*", words::symbol(notification)),
            attachments: [Attachment {
                color: format!("#{:06x}", words::color(notification)),
                blocks,
            }],
            unfurl_links: false,
            unfurl_media: false,
        }
    }
}
