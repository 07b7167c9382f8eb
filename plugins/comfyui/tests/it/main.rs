//! The source over every recording of a real server, and over servers that misbehave.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it should be"
)]

mod control;
mod fake;
mod hostile;
mod large;
mod oracle;
mod player;
mod recordings;
mod requests;
mod stream;
