//! The source over every sample, and over a fake of the provider that knows its quotas and faults.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it should be"
)]

mod control;
#[path = "../../../../tests/it/vertex/fake.rs"]
mod fake;
mod far;
mod hostile;
mod limits;
mod logs;
mod rounds;
mod samples;
