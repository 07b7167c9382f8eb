//! Receiver `webhook`: Alertmanager's webhook payload, version 4, posted to a URL.

pub mod payload;

pub use weir_sdk::{Failure, Far};

/// Generated from `wit/plugin.wit`, world `alert-handler`.
pub mod bindings {
    #![expect(
        missing_docs,
        reason = "generated; the documentation is in wit/plugin.wit"
    )]
    wit_bindgen::generate!({
        path: "../../wit",
        world: "alert-handler",
        with: {
            "weir:plugin/types@0.1.0": weir_sdk::bindings::weir::plugin::types,
            "weir:plugin/host@0.1.0": weir_sdk::bindings::weir::plugin::host,
            "weir:plugin/http@0.1.0": weir_sdk::bindings::weir::plugin::http,
        },
    });
}

#[cfg(target_arch = "wasm32")]
mod guest;
