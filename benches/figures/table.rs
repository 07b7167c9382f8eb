//! The table: one line per figure, with its limit and how much of it is used.

/// Which side of its limit a figure has to be on.
#[derive(Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
    /// Printed beside the others, promised by nobody.
    None,
}

pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    limit: Limit,
    note: String,
}

impl Figure {
    fn new(name: impl Into<String>, value: f64, unit: &'static str, limit: Limit) -> Figure {
        Figure {
            name: name.into(),
            value,
            unit,
            limit,
            note: String::new(),
        }
    }

    pub(crate) fn at_least(
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        limit: f64,
    ) -> Figure {
        Figure::new(name, value, unit, Limit::AtLeast(limit))
    }

    pub(crate) fn at_most(
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        limit: f64,
    ) -> Figure {
        Figure::new(name, value, unit, Limit::AtMost(limit))
    }

    pub(crate) fn beside(name: impl Into<String>, value: f64, unit: &'static str) -> Figure {
        Figure::new(name, value, unit, Limit::None)
    }

    /// What explains it, printed at the end of its line.
    #[must_use]
    pub(crate) fn note(mut self, note: impl Into<String>) -> Figure {
        self.note = note.into();
        self
    }

    pub(crate) fn is_missed(&self) -> bool {
        match self.limit {
            Limit::AtLeast(limit) => self.value < limit,
            Limit::AtMost(limit) => self.value > limit,
            Limit::None => false,
        }
    }
}

/// Three digits that mean something, but never less than the whole number.
fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

impl Figure {
    /// Its line in the table; `judged`: the work was done in full, so that it can be held against its limit.
    pub(crate) fn line(&self, judged: bool) -> String {
        let (limit, ratio) = match self.limit {
            Limit::AtLeast(limit) => (format!(">= {limit}"), digits(self.value / limit)),
            Limit::AtMost(limit) => (format!("<= {limit}"), digits(self.value / limit)),
            Limit::None => (String::new(), String::new()),
        };
        let verdict = match self.limit {
            Limit::None => "",
            _ if !judged => "-",
            _ if self.is_missed() => "MISSED",
            _ => "ok",
        };
        let value = format!("{} {}", digits(self.value), self.unit);
        let line = format!(
            "{:<46} {value:>16} {limit:>9} {ratio:>8}  {verdict:<6} {}",
            self.name, self.note
        );
        line.trim_end().to_owned()
    }
}

pub(crate) fn heading(scale: f64) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let profile = if cfg!(debug_assertions) {
        "a build with debug assertions"
    } else {
        "an optimised build"
    };
    format!(
        "figures of weir {} at scale {scale}: {profile}, {cores} cores, load {}\n{:<46} {:>16} {:>9} {:>8}",
        env!("CARGO_PKG_VERSION"),
        load(),
        "figure",
        "measured",
        "limit",
        "of limit"
    )
}

/// The load of the machine in the last minute: what else ran.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}
