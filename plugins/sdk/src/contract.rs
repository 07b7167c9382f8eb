//! The exports' generated types and traits, of every interface, and the description of each world.

/// Generated from `wit/plugin.wit`, world `everything`.
pub mod bindings {
    #![expect(
        missing_docs,
        reason = "generated; the documentation is in wit/plugin.wit"
    )]
    wit_bindgen::generate!({
        path: "../../wit",
        world: "everything",
        with: {
            "weir:plugin/types@0.1.0": crate::bindings::weir::plugin::types,
            "weir:plugin/host@0.1.0": crate::bindings::weir::plugin::host,
            "weir:plugin/http@0.1.0": crate::bindings::weir::plugin::http,
        },
        pub_export_macro: true,
        default_bindings_module: "weir_sdk::contract::bindings",
    });
}

/// What the macros put into a section of the module: the world that it is a component of.
pub const ALERT_HANDLER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/alert-handler"));
pub const JOB_SOURCE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/job-source"));
