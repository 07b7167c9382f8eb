//! Alerts: what is wrong (or done), who is told, and what was sent.

pub mod notification;
