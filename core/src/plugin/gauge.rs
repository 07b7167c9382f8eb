//! How much of each limit an entry uses: high-water marks that outlive its instances.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::limits::Limits;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Seconds,
    Count,
    Percent,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Seconds => "seconds",
            Unit::Count => "count",
            Unit::Percent => "percent",
        }
    }
}

/// One limit of one entry, and the most that was used of it since the entry was opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitUse {
    /// As in `limits: (…)` of monitor.ron.
    pub name: &'static str,
    pub unit: Unit,
    pub limit: f64,
    /// None where it cannot be measured apart. Of `retire_*`: what the instance of now has reached.
    pub used: Option<f64>,
}

/// Name, unit, and where the limit stands.
type Row = (&'static str, Unit, fn(&Limits) -> f64);

macro_rules! marks {
    ($( $mark:ident = $name:literal, $unit:ident, $of:expr; )*) => {
        /// A limit, most of them measured.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(dead_code, reason = "http_connect has a row and cannot be measured apart")]
        pub(super) enum Mark { $( $mark, )* }

        const ROWS: &[Row] = &[ $( ($name, Unit::$unit, $of), )* ];
    };
}

marks! {
    Memory = "memory", Bytes, |l| l.memory_bytes as f64;
    Tables = "tables", Count, |l| l.table_elements as f64;
    CpuOpen = "cpu_open", Seconds, |l| l.cpu_open.as_secs_f64();
    Cpu = "cpu", Seconds, |l| l.cpu_call.as_secs_f64();
    WallOpen = "wall_open", Seconds, |l| l.wall_open.as_secs_f64();
    WallCheck = "wall_check", Seconds, |l| l.wall_check.as_secs_f64();
    WallFrames = "wall_frames", Seconds, |l| l.wall_frames.as_secs_f64();
    Wall = "wall", Seconds, |l| l.wall_call.as_secs_f64();
    HttpConnect = "http_connect", Seconds, |l| l.http_connect.as_secs_f64();
    HttpTotal = "http_total", Seconds, |l| l.http_total.as_secs_f64();
    Request = "request", Bytes, |l| l.http_request_bytes as f64;
    Submit = "submit", Bytes, |l| l.http_submit_bytes as f64;
    Response = "response", Bytes, |l| l.http_response_bytes as f64;
    Requests = "requests", Count, |l| f64::from(l.http_requests_per_call);
    RequestsPerSecond = "requests_per_second", Count, |l| f64::from(l.http_requests_per_second);
    Observations = "observations", Count, |l| l.observations as f64;
    String = "string", Bytes, |l| l.string_bytes as f64;
    Detail = "detail", Bytes, |l| l.detail_bytes as f64;
    Cursor = "cursor", Bytes, |l| l.cursor_bytes as f64;
    Receipt = "receipt", Bytes, |l| l.receipt_bytes as f64;
    LogLines = "log_lines", Count, |l| f64::from(l.log_lines_per_minute);
    LogLine = "log_line", Bytes, |l| l.log_line_bytes as f64;
    File = "file", Bytes, |l| l.file_bytes as f64;
    RetireCalls = "retire_calls", Count, |l| l.instance_calls as f64;
    RetireAge = "retire_age", Seconds, |l| l.instance_age.as_secs_f64();
    RetireMemory = "retire_memory", Percent, |l| f64::from(l.instance_memory_percent);
}

/// The limits of one entry and its marks. Shared by its instances, its log and its calls aside.
#[derive(Debug)]
pub(super) struct Gauge {
    limits: Limits,
    /// In the order of `Mark`; times in nanoseconds.
    marks: Vec<AtomicU64>,
    second: Mutex<(Option<Instant>, u64)>,
}

impl Gauge {
    pub(super) fn new(limits: Limits) -> Gauge {
        Gauge {
            limits,
            marks: ROWS.iter().map(|_| AtomicU64::new(0)).collect(),
            second: Mutex::default(),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Raises a mark to `used`.
    pub(super) fn note(&self, mark: Mark, used: u64) {
        self.mark(mark).fetch_max(used, Ordering::Relaxed);
    }

    pub(super) fn note_len(&self, mark: Mark, used: usize) {
        self.note(mark, u64::try_from(used).unwrap_or(u64::MAX));
    }

    pub(super) fn note_time(&self, mark: Mark, used: Duration) {
        self.note(mark, nanoseconds(used));
    }

    /// Puts a mark where the instance of now is.
    pub(super) fn set(&self, mark: Mark, used: u64) {
        self.mark(mark).store(used, Ordering::Relaxed);
    }

    pub(super) fn set_time(&self, mark: Mark, used: Duration) {
        self.set(mark, nanoseconds(used));
    }

    /// One more request in the second that runs.
    pub(super) fn note_request(&self, now: Instant) {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        let began = second
            .0
            .filter(|began| now.duration_since(*began) < Duration::from_secs(1));
        *second = match began {
            Some(began) => (Some(began), second.1 + 1),
            None => (Some(now), 1),
        };
        self.note(Mark::RequestsPerSecond, second.1);
    }

    pub(super) fn uses(&self) -> Vec<LimitUse> {
        let row = |((name, unit, limit), mark): (&Row, &AtomicU64)| {
            let used = mark.load(Ordering::Relaxed) as f64;
            LimitUse {
                name,
                unit: *unit,
                limit: limit(&self.limits),
                used: (*name != "http_connect").then_some(match unit {
                    Unit::Seconds => used / 1e9,
                    _ => used,
                }),
            }
        };
        ROWS.iter().zip(&self.marks).map(row).collect()
    }

    fn mark(&self, mark: Mark) -> &AtomicU64 {
        // Invariant: `marks` has one place for each `Mark`, in their order.
        &self.marks[mark as usize]
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_only_rise_and_each_has_its_row() {
        let gauge = Gauge::new(Limits::default());
        gauge.note(Mark::Memory, 5);
        gauge.note(Mark::Memory, 3);
        gauge.note_time(Mark::Wall, Duration::from_millis(1500));
        gauge.set(Mark::RetireMemory, 50);
        gauge.set(Mark::RetireMemory, 40);
        let uses = gauge.uses();
        let of = |name: &str| uses.iter().find(|of| of.name == name).unwrap();
        assert_eq!(
            (of("memory").limit, of("memory").used),
            (67_108_864.0, Some(5.0))
        );
        assert_eq!((of("wall").limit, of("wall").used), (30.0, Some(1.5)));
        assert_eq!(of("retire_memory").used, Some(40.0));
        assert_eq!(of("http_connect").used, None);
        assert_eq!(uses.len(), 26);
    }

    #[test]
    fn requests_are_counted_within_one_second() {
        let gauge = Gauge::new(Limits::default());
        let start = Instant::now();
        for n in 0..6 {
            gauge.note_request(start + Duration::from_millis(250 * n));
        }
        assert_eq!(
            gauge.mark(Mark::RequestsPerSecond).load(Ordering::Relaxed),
            4
        );
    }
}
