//! Recorded ComfyUI sessions, served again as the ComfyUI server would have served them.
//!
//! `Recording` is the file, `Moment` what the server knew at one recorded time, `ReplayServer` the HTTP and WebSocket
//! server and `DemoWorld` the handful of servers that the demo shows. Nothing here contacts a real provider.

pub mod demo;
mod frames;
mod jobs;
mod moment;
mod rebase;
mod recording;
mod server;
mod socket;
mod synthesis;

pub use demo::DemoWorld;
pub use recording::{Recording, ReplayError};
pub use server::{Fault, ReplayOptions, ReplayServer};
