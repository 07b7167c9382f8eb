//! A small SDK for weir plugins in Rust.
//!
//! The types of the imported interfaces are generated here once, so that a failure, a request and an answer are the
//! same Rust types in every plugin. Nothing in this crate knows any provider or receiver.
//!
//! A whole alert handler:
//!
//! ```
//! use weir_sdk::plugin::{AlertHandler, Context, Notification, Plugin};
//! use weir_sdk::{Failure, Far, Request, config};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     url: String,
//!     credential: Option<String>,
//! }
//!
//! struct Chat(Config);
//!
//! impl Plugin for Chat {
//!     type Config = Config;
//!     const NAME: &'static str = "chat";
//!     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
//!
//!     fn open(config: Config, _context: Context) -> Result<Chat, Failure> {
//!         config::split_url("url", &config.url)?;
//!         Ok(Chat(config))
//!     }
//!
//!     fn check(&self, far: &impl Far) -> Result<String, Failure> {
//!         far.fetch(Request::get(&self.0.url).credential(self.0.credential.as_deref()))?;
//!         Ok("the chat answers".to_owned())
//!     }
//! }
//!
//! impl AlertHandler for Chat {
//!     fn deliver(
//!         &self,
//!         far: &impl Far,
//!         notification: &Notification,
//!         _prior: Option<&str>,
//!     ) -> Result<Option<String>, Failure> {
//!         let message = serde_json::json!({ "text": notification.title });
//!         let request = Request::post(&self.0.url).json(&message)?;
//!         far.fetch(request.credential(self.0.credential.as_deref()))?;
//!         Ok(None)
//!     }
//! }
//!
//! weir_sdk::alert_handler!(Chat);
//!
//! // A wrong configuration is a failure that names the field; weir parks the receiver and tells the operator.
//! let failure = config::parse::<Config>(r#"{"url": 7}"#).err().unwrap();
//! assert_eq!(failure.message, "config.url: invalid type: integer `7`, expected a string");
//! ```
//!
//! `cargo build --release --target wasm32-unknown-unknown` makes a core module that holds its contract; weir turns it
//! into a component itself, no other tool is needed.
//!
//! # Panics
//!
//! WebAssembly of this target cannot unwind: a panic is a trap. It ends the instance and is a strike against the plugin,
//! but not mute: the hook that the macros install sends the message to weir's log and into the crash report
//! (`weir plugin inspect NAME`). The call comes back as a passing failure, so nothing that was to be delivered is lost.
//! Return a [`Failure`] for everything that can happen.

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
#[doc(hidden)]
pub mod contract;
pub mod failure;
pub mod lenient;
pub mod plugin;
mod request;
pub mod text;

pub use bindings::weir::plugin::host::Level;
pub use bindings::weir::plugin::http::{Request, Response};
pub use bindings::weir::plugin::types::{
    Failure, FailureKind, Gauge, Job, JobRef, JobState, Observation, Progress, Step, StepState,
};

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
