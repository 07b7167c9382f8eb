//! Alerts: what is wrong (or done), who is told, and what was sent.

pub mod matcher;
pub mod notification;
pub mod route;
pub mod rule;
