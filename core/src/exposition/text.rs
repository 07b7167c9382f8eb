//! The Prometheus text format 0.0.4: families of samples, escaped, each announced once.

use std::fmt::Write as _;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

/// What `/metrics` answers, while it is written.
#[derive(Default)]
pub(super) struct Exposition {
    text: String,
}

/// One family: its samples stand together, as the format demands.
pub(super) struct Family<'a> {
    exposition: &'a mut Exposition,
    name: &'a str,
    kind: Kind,
    help: &'a str,
    /// A family without samples is not announced.
    announced: bool,
}

/// The counts of one histogram, as they are exposed.
pub(super) struct Buckets<'a> {
    /// Upper bound in seconds, and how many are at most as long.
    pub(super) cumulative: &'a [(u32, u64)],
    pub(super) sum_seconds: f64,
    pub(super) count: u64,
}

impl Exposition {
    pub(super) fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &'a str) -> Family<'a> {
        Family {
            exposition: self,
            name,
            kind,
            help,
            announced: false,
        }
    }

    pub(super) fn counter<'a>(&'a mut self, name: &'a str, help: &'a str) -> Family<'a> {
        self.family(name, Kind::Counter, help)
    }

    pub(super) fn gauge<'a>(&'a mut self, name: &'a str, help: &'a str) -> Family<'a> {
        self.family(name, Kind::Gauge, help)
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// One sample. `as f64` of a count beyond 2^53 may be off by a little, as in every Prometheus client.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, None, value);
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus has no other numbers"
    )]
    pub(super) fn count(&mut self, labels: &[(&str, &str)], value: u64) {
        self.sample(labels, value as f64);
    }

    pub(super) fn flag(&mut self, labels: &[(&str, &str)], value: bool) {
        self.sample(labels, f64::from(u8::from(value)));
    }

    /// A sample only where there is a value: what is not known is no zero.
    pub(super) fn known(&mut self, labels: &[(&str, &str)], value: Option<f64>) {
        if let Some(value) = value {
            self.sample(labels, value);
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus has no other numbers"
    )]
    pub(super) fn histogram(&mut self, labels: &[(&str, &str)], buckets: &Buckets<'_>) {
        for (bound, count) in buckets.cumulative {
            self.line(
                "_bucket",
                labels,
                Some(("le", &bound.to_string())),
                *count as f64,
            );
        }
        self.line(
            "_bucket",
            labels,
            Some(("le", "+Inf")),
            buckets.count as f64,
        );
        self.line("_sum", labels, None, buckets.sum_seconds);
        self.line("_count", labels, None, buckets.count as f64);
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus has no other numbers"
    )]
    pub(super) fn summary(&mut self, quantiles: &[(f64, f64)], sum: Option<f64>, count: u64) {
        for (quantile, value) in quantiles {
            self.line("", &[], Some(("quantile", &quantile.to_string())), *value);
        }
        if let Some(sum) = sum {
            self.line("_sum", &[], None, sum);
        }
        self.line("_count", &[], None, count as f64);
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        last: Option<(&str, &str)>,
        value: f64,
    ) {
        self.announce();
        let text = &mut self.exposition.text;
        text.push_str(self.name);
        text.push_str(suffix);
        let mut labels = labels.iter().copied().chain(last).peekable();
        if labels.peek().is_some() {
            text.push('{');
            while let Some((label, value)) = labels.next() {
                write!(text, "{label}=\"").expect("a string takes any text");
                escape(text, value, true);
                text.push('"');
                if labels.peek().is_some() {
                    text.push(',');
                }
            }
            text.push('}');
        }
        text.push(' ');
        number(text, value);
        text.push('\n');
    }

    fn announce(&mut self) {
        if std::mem::replace(&mut self.announced, true) {
            return;
        }
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        };
        let text = &mut self.exposition.text;
        write!(text, "# HELP {} ", self.name).expect("a string takes any text");
        escape(text, self.help, false);
        write!(text, "\n# TYPE {} {kind}\n", self.name).expect("a string takes any text");
    }
}

fn number(text: &mut String, value: f64) {
    let special = match value {
        value if value.is_nan() => "NaN",
        f64::INFINITY => "+Inf",
        f64::NEG_INFINITY => "-Inf",
        value => return write!(text, "{value}").expect("a string takes any text"),
    };
    text.push_str(special);
}

/// A quote is escaped in the value of a label only.
fn escape(text: &mut String, raw: &str, quotes: bool) {
    for c in raw.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            c => text.push(c),
        }
    }
}
