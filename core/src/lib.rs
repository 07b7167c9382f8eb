//! The monitor itself: sources in, journal in the middle, metrics and alerts out.

pub mod plugin;
