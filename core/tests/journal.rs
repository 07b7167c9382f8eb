//! The journal against real SQLite files: what is acknowledged is there, what is not never was.

#[path = "journal/support.rs"]
mod support;

#[path = "journal/commits.rs"]
mod commits;
#[path = "journal/control.rs"]
mod control;
#[path = "journal/crash.rs"]
mod crash;
#[path = "journal/opening.rs"]
mod opening;
#[path = "journal/reading.rs"]
mod reading;
#[path = "journal/retention.rs"]
mod retention;
