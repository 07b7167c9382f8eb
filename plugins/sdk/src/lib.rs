//! What every bundled plugin shares.
//!
//! The types of the imported interfaces are generated here once, so that a failure, a request and an answer are the
//! same Rust types in every plugin. Nothing in this crate knows any provider or receiver.

/// Generated from `wit/plugin.wit`, world `imports`.
pub mod bindings {
    #![expect(
        missing_docs,
        reason = "generated; the documentation is in wit/plugin.wit"
    )]
    wit_bindgen::generate!({
        path: "../../wit",
        world: "imports",
        generate_all,
    });
}

pub mod config;
pub mod failure;
pub mod lenient;
pub mod text;

pub use bindings::weir::plugin::host::Level;
pub use bindings::weir::plugin::http::{Request, Response};
pub use bindings::weir::plugin::types::{Failure, FailureKind};

/// What a plugin can do to the world around it: ask the host for the time and for HTTP, and leave a line in the log.
pub trait Far {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> u64;
    fn log(&self, level: Level, message: &str);
    /// Any status is an answer.
    fn send(&self, request: Request) -> Result<Response, Failure>;
    /// As `send`, and a status of 300 or more is a failure.
    fn fetch(&self, request: Request) -> Result<Response, Failure>;
}

/// The real host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host;

impl Far for Host {
    fn now(&self) -> u64 {
        bindings::weir::plugin::host::now()
    }

    fn log(&self, level: Level, message: &str) {
        bindings::weir::plugin::host::log(level, message);
    }

    fn send(&self, request: Request) -> Result<Response, Failure> {
        bindings::weir::plugin::http::send(&request)
    }

    fn fetch(&self, request: Request) -> Result<Response, Failure> {
        bindings::weir::plugin::http::fetch(&request)
    }
}

/// Sends the reason of a panic to the host's log: a trap alone says only "unreachable executed".
pub fn install_panic_hook() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            Host.log(Level::Error, &text::line(&info.to_string(), 1024));
        }));
    });
}
