//! Source `vertex-ai`: custom jobs, pipeline jobs and batch prediction jobs of Vertex AI.
//!
//! One list per kind, project and location in each round, never one `get` per job. A list is asked for what is not
//! finished yet and for what was created lately (`filter`), so that its length does not grow with the history. A job
//! that weir knows and no list shows any more ended, was deleted or is hidden by a filter: that is looked up, within
//! bounds (`round::lookup`). Only running pipelines are asked for one by one, five in a round, since no list returns
//! their tasks. What one project or location refuses hides nothing of the others: the round is then `partial`.
//! Everything here but `guest` runs natively too, over `weir_sdk::Far`.

pub mod client;
pub mod config;
pub mod control;
pub mod cursor;
pub mod filter;
pub mod hardware;
pub mod job;
pub mod kind;
pub mod logs;
pub mod name;
pub mod round;
pub mod source;
pub mod time;
pub mod wire;
pub mod workflow;

/// Generated from `wit/plugin.wit`, world `controlled-job-source`.
pub mod bindings {
    #![expect(
        missing_docs,
        reason = "generated; the documentation is in wit/plugin.wit"
    )]
    wit_bindgen::generate!({
        path: "../../wit",
        world: "controlled-job-source",
        with: {
            "weir:plugin/types@0.1.0": weir_sdk::bindings::weir::plugin::types,
            "weir:plugin/host@0.1.0": weir_sdk::bindings::weir::plugin::host,
            "weir:plugin/http@0.1.0": weir_sdk::bindings::weir::plugin::http,
        },
    });
}

#[cfg(target_arch = "wasm32")]
mod guest;
