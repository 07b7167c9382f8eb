//! The one integration test binary.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod api;
mod cli;
mod comfyui;
mod control;
mod corridor;
mod delivery;
#[path = "../../examples/embed.rs"]
#[expect(dead_code, reason = "its main is not called here")]
mod embed;
mod faults;
#[path = "../../core/tests/plugin/guest.rs"]
#[expect(dead_code, reason = "the tests of the core use the rest of it")]
mod guest;
mod guests;
mod handlers;
mod huge;
mod live;
mod mail;
mod oracle;
mod plugins;
mod receivers;
mod recordings;
mod reload;
mod replay;
mod services;
mod tidy;
mod vertex;
