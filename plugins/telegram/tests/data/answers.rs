//! What the Bot API answers, as its documentation has it: bodies, and codes and sentences by what they mean.

/// To `sendMessage` and `editMessageText`.
pub(crate) const SENT: &str = r#"{"ok":true,"result":{"message_id":17,"date":1795337231,"chat":{"id":-1001234567890,"type":"supergroup","title":"Renders"},"text":"x"}}"#;
/// To `getChat`.
pub(crate) const CHAT: &str =
    r#"{"ok":true,"result":{"id":-1001234567890,"type":"supergroup","title":"Renders"}}"#;
/// 429: the wait is in the body alone.
pub(crate) const BUSY: &str = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 35","parameters":{"retry_after":35}}"#;
/// 400 to an edit.
pub(crate) const GONE: &str = "Bad Request: message to edit not found";

/// The body of a refusal; its code is the status.
pub(crate) fn refusal(code: u16, description: &str) -> String {
    format!(r#"{{"ok":false,"error_code":{code},"description":"{description}"}}"#)
}

pub(crate) const MISCONFIGURED: &[(u16, &str)] = &[
    (401, "Unauthorized"),
    (404, "Not Found"),
    (400, "Bad Request: chat not found"),
    (
        400,
        "Bad Request: not enough rights to send text messages to the chat",
    ),
    (400, "Bad Request: message thread not found"),
    (403, "Forbidden: bot was blocked by the user"),
    (403, "Forbidden: bot was kicked from the supergroup chat"),
];
pub(crate) const PERMANENT: &[(u16, &str)] = &[
    (
        400,
        "Bad Request: can't parse entities: Unsupported start tag",
    ),
    (400, "Bad Request: message is too long"),
];
pub(crate) const TRANSIENT: &[(u16, &str)] = &[(500, "Internal Server Error")];
