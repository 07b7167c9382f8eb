//! Alerts: what is wrong (or done), who is told, and what was sent.

pub mod delivery;
pub mod fact;
pub mod matcher;
pub mod mute;
pub mod notification;
pub mod route;
pub mod router;
pub mod rule;
pub mod text;
