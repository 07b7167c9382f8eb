//! Source `comfyui`: the prompts of a ComfyUI server, read only.
//!
//! A prompt is a job, a node that its outputs need is a step. ComfyUI tells a monitor nothing about the progress of
//! prompts that another client posted, so this source polls: the queue first, what finished second, so that a job on
//! its way from one to the other is never missed. Everything here but `guest` runs natively too, over `weir_sdk::Far`.

pub mod client;
pub mod config;
pub mod control;
pub mod cursor;
pub mod frame;
pub mod graph;
pub mod job;
pub mod lenient;
pub mod live;
pub mod logs;
pub mod memory;
pub mod round;
pub mod source;
pub mod stall;
pub mod stream;
pub mod wire;

/// Generated from `wit/plugin.wit`, world `full-job-source`.
pub mod bindings {
    #![expect(
        missing_docs,
        reason = "generated; the documentation is in wit/plugin.wit"
    )]
    wit_bindgen::generate!({
        path: "../../wit",
        world: "full-job-source",
        with: {
            "weir:plugin/types@0.1.0": weir_sdk::bindings::weir::plugin::types,
            "weir:plugin/host@0.1.0": weir_sdk::bindings::weir::plugin::host,
            "weir:plugin/http@0.1.0": weir_sdk::bindings::weir::plugin::http,
        },
    });
}

#[cfg(target_arch = "wasm32")]
mod guest;
