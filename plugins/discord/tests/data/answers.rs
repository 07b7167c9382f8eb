//! What Discord answers to a webhook, as its documentation has it: bodies, and statuses and bodies by what they mean.

/// To a message that is posted with `wait=true` or edited.
pub(crate) const POSTED: &str = r#"{"id":"1061733541263966259","type":0,"content":"","channel_id":"155101607195836416","webhook_id":"1"}"#;
/// To a GET of the webhook.
pub(crate) const HOOK: &str =
    r#"{"id":"1","type":1,"name":"renders","channel_id":"2","token":"t"}"#;
/// 404 to an edit.
pub(crate) const GONE: &str = r#"{"message": "Unknown Message", "code": 10008}"#;
/// 429; the header rounds up.
pub(crate) const BUSY: &str =
    r#"{"message": "You are being rate limited.", "retry_after": 64.57, "global": false}"#;

pub(crate) const MISCONFIGURED: &[(u16, &str)] = &[
    (
        401,
        r#"{"message": "Invalid Webhook Token", "code": 50027}"#,
    ),
    (404, r#"{"message": "Unknown Webhook", "code": 10015}"#),
    (400, r#"{"message": "Unknown Channel", "code": 10003}"#),
    (
        400,
        r#"{"message": "Webhooks posted to forum channels must have a thread_name or thread_id", "code": 220001}"#,
    ),
    (403, r#"{"message": "Missing Permissions", "code": 50013}"#),
];
pub(crate) const PERMANENT: &[(u16, &str)] = &[(
    400,
    r#"{"code": 50035, "errors": {"embeds": {}}, "message": "Invalid Form Body"}"#,
)];
pub(crate) const TRANSIENT: &[(u16, &str)] = &[
    (500, ""),
    (502, "<html>cloudflare"),
    (200, "<html>please log in"),
];
