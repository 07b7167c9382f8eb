//! Logs: the provider's own lines about one job.

use jiff::Timestamp;

/// One line, as the provider wrote it: escape it before a terminal or a page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// None where the provider gives no time.
    pub at: Option<Timestamp>,
    /// Which part of the job wrote it: a worker, a node, a stream.
    pub origin: String,
    pub text: String,
}

/// Lines in the order of time, whatever the direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    pub lines: Vec<LogLine>,
    /// Where the next page in the same direction begins.
    pub cursor: Option<String>,
    /// Whether there is a next page already.
    pub more: bool,
}

/// Where a page lies from its cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Newer lines; without a cursor from the first line on.
    Forward,
    /// Older lines; without a cursor the last lines there are.
    Backward,
}
