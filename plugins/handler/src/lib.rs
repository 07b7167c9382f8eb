//! What every bundled alert handler shares.
//!
//! A handler is a type that implements [`Handler`]; `weir_handler::export!(MyHandler);` makes a plugin of it. Nothing
//! in this crate knows any service.

pub mod answer;
pub mod fit;
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
pub mod testing;
pub mod words;

use std::sync::OnceLock;

use serde::de::DeserializeOwned;
use weir_sdk::{Failure, Far, Host, config, failure};

pub use bindings::exports::weir::plugin::alerts::{Alert, Notification, Severity, Status};

/// Generated from `wit/plugin.wit`, world `alert-handler`.
pub mod bindings {
    #![expect(
        missing_docs,
        reason = "generated; the documentation is in wit/plugin.wit"
    )]
    wit_bindgen::generate!({
        path: "../../wit",
        world: "alert-handler",
        pub_export_macro: true,
        export_macro_name: "export_bindings",
        with: {
            "weir:plugin/types@0.1.0": weir_sdk::bindings::weir::plugin::types,
            "weir:plugin/host@0.1.0": weir_sdk::bindings::weir::plugin::host,
            "weir:plugin/http@0.1.0": weir_sdk::bindings::weir::plugin::http,
        },
    });
}

/// One configured place that takes notifications.
pub trait Handler: Sized {
    /// The name that `handler:` uses.
    const NAME: &'static str;
    /// JSON schema of `config`.
    const CONFIG_SCHEMA: &'static str;
    /// What `config` holds; an error in it names the field.
    type Config: DeserializeOwned;

    fn new(config: Self::Config) -> Result<Self, Failure>;

    /// Reaches the far side, changes nothing, and says in one line what is there.
    fn check(&self, far: &impl Far) -> Result<String, Failure>;

    /// Ok = delivered; the receipt comes back as `prior` with the next message about the same group.
    fn deliver(
        &self,
        far: &impl Far,
        notification: &Notification,
        prior: Option<&str>,
    ) -> Result<Option<String>, Failure>;
}

/// A handler from the JSON of its `config`.
pub fn open<H: Handler>(json: &str) -> Result<H, Failure> {
    H::new(config::parse(json)?)
}

/// What [`export`] implements: the one instance that a plugin has.
#[doc(hidden)]
pub trait Exported: 'static {
    type Handler: Handler + Send + Sync + 'static;
    const VERSION: &'static str;
    fn slot() -> &'static OnceLock<Self::Handler>;
}

fn opened<E: Exported>() -> Result<&'static E::Handler, Failure> {
    E::slot()
        .get()
        .ok_or_else(|| failure::misconfigured("called before open"))
}

impl<E: Exported> bindings::exports::weir::plugin::lifecycle::Guest for E {
    fn describe() -> bindings::exports::weir::plugin::lifecycle::Manifest {
        bindings::exports::weir::plugin::lifecycle::Manifest {
            name: E::Handler::NAME.to_owned(),
            version: E::VERSION.to_owned(),
            config_schema: Some(E::Handler::CONFIG_SCHEMA.to_owned()),
        }
    }

    fn open(context: bindings::exports::weir::plugin::lifecycle::Context) -> Result<(), Failure> {
        weir_sdk::install_panic_hook();
        let handler = open::<E::Handler>(&context.config)?;
        // A second open of one instance changes nothing: an instance has one configuration.
        let _ = E::slot().set(handler);
        Ok(())
    }

    fn check() -> Result<String, Failure> {
        opened::<E>()?.check(&Host)
    }
}

impl<E: Exported> bindings::exports::weir::plugin::alerts::Guest for E {
    fn deliver(
        notification: Notification,
        prior: Option<String>,
    ) -> Result<Option<String>, Failure> {
        opened::<E>()?.deliver(&Host, &notification, prior.as_deref())
    }
}

/// Makes a plugin of a [`Handler`]. Nothing where the crate is built natively, for its tests.
#[macro_export]
macro_rules! export {
    ($handler:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Plugin;
            static SLOT: std::sync::OnceLock<$handler> = std::sync::OnceLock::new();
            impl $crate::Exported for Plugin {
                type Handler = $handler;
                const VERSION: &'static str = env!("CARGO_PKG_VERSION");
                fn slot() -> &'static std::sync::OnceLock<$handler> {
                    &SLOT
                }
            }
    $crate::bindings::export_bindings!(Plugin with_types_in $crate::bindings);
        };
    };
}
