//! What the Events API answers, as its documentation has it: bodies, and statuses and bodies by what they mean.

/// 202.
pub(crate) const TAKEN: &str =
    r#"{"status":"success","message":"Event processed","dedup_key":"c0ffee-19aa"}"#;
/// 400.
pub(crate) const WRONG_KEY: &str = r#"{"status":"invalid event","message":"Event object is invalid","errors":["Length of 'routing_key' is incorrect (should be 32 characters)"]}"#;

pub(crate) const MISCONFIGURED: &[(u16, &str)] = &[
    (400, WRONG_KEY),
    (
        400,
        r#"{"status":"invalid event","message":"Invalid Routing Key","errors":[]}"#,
    ),
    (404, ""),
];
pub(crate) const PERMANENT: &[(u16, &str)] = &[
    (
        400,
        r#"{"status":"invalid event","message":"Event object is invalid","errors":["'payload.severity' is invalid"]}"#,
    ),
    (413, ""),
];
pub(crate) const TRANSIENT: &[(u16, &str)] = &[(429, ""), (500, ""), (503, "")];
