//! The one integration test binary.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod api;
mod cli;
mod corridor;
mod delivery;
#[path = "../../examples/embed.rs"]
#[expect(dead_code, reason = "its main is not called here")]
mod embed;
mod faults;
mod huge;
mod oracle;
mod recordings;
mod reload;
mod replay;
mod tidy;
mod vertex;
