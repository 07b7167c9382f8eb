//! What Slack answers, as its documentation has it: bodies, and statuses and bodies by what they mean.

/// To `chat.postMessage` and `chat.update`.
pub(crate) const POSTED: &str = r#"{"ok":true,"channel":"C024BE91L","ts":"1503435956.000247","message":{"text":"x","type":"message"}}"#;
/// To `auth.test`.
pub(crate) const WHO: &str = r#"{"ok":true,"url":"https://x.slack.com/","team":"Studio","user":"weir","team_id":"T1","user_id":"U1"}"#;

/// To a method of the Web API that was not done: 200 all the same.
pub(crate) fn not_ok(error: &str) -> String {
    format!(r#"{{"ok":false,"error":"{error}"}}"#)
}

/// Errors of the Web API.
pub(crate) const API_MISCONFIGURED: &[&str] = &[
    "invalid_auth",
    "not_authed",
    "account_inactive",
    "token_revoked",
    "channel_not_found",
    "not_in_channel",
    "is_archived",
    "restricted_action",
];
pub(crate) const API_PERMANENT: &[&str] = &["msg_too_long", "invalid_blocks"];
pub(crate) const API_TRANSIENT: &[&str] = &["internal_error", "fatal_error", "ratelimited"];

/// Of an incoming webhook.
pub(crate) const WEBHOOK_TAKEN: &str = "ok";
pub(crate) const WEBHOOK_BUSY: &str = "rate_limited";
pub(crate) const WEBHOOK_PERMANENT: &[(u16, &str)] = &[
    (400, "invalid_payload"),
    (400, "invalid_blocks"),
    (400, "user_not_found"),
];
pub(crate) const WEBHOOK_MISCONFIGURED: &[(u16, &str)] = &[
    (403, "action_prohibited"),
    (403, "invalid_token"),
    (404, "channel_not_found"),
    (404, "no_service"),
    (404, "no_team"),
    (410, "channel_is_archived"),
    (302, ""),
];
pub(crate) const WEBHOOK_TRANSIENT: &[(u16, &str)] = &[
    (500, "rollup_error"),
    (503, "<html>"),
    // Something else answers in Slack's place.
    (200, "<html>please log in"),
];
