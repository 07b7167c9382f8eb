//! What a plugin may use: every limit with its name in `monitor.ron`, its bounds and its default, in one table.

use std::time::Duration;

use super::PluginRef;
use super::decode::Decoder;
use super::show::{Shown, duration, plain, size};
use super::tree::Node;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// One row: the field, its name in the file, how it is read and shown, its least, its most and its default.
macro_rules! limits {
    ($( $(#[$doc:meta])* $field:ident: $type:ty = $name:literal, $read:ident / $show:ident, $min:expr, $max:expr, $default:expr; )*) => {
        /// What a plugin may use.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Limits {
            $( $(#[$doc])* pub $field: $type, )*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl Limits {
            /// Reads `limits: (…)`; what it does not name is as in `default`.
            pub(super) fn decode(d: &mut Decoder<'_>, node: &Node, path: &str, default: Self) -> Option<Self> {
                let mut fields = d.fields(node, path)?;
                let limits = Self {
                    $( $field: fields
                        .optional(d, $name, |d: &mut Decoder<'_>, node: &Node, path: &str| {
                            d.$read(node, path, $min, $max)
                        })
                        .unwrap_or(default.$field), )*
                };
                fields.finish(d);
                Some(limits)
            }

            /// The limits that people ask for, and every other one that is not as it is by default.
            pub(super) fn shown(&self) -> Shown {
                let default = Self::default();
                let mut shown = Vec::new();
                $(
                    if ALWAYS_SHOWN.contains(&$name) || self.$field != default.$field {
                        shown.push(($name, $show(self.$field)));
                    }
                )*
                Shown::Fields(shown)
            }
        }
    };
}

const ALWAYS_SHOWN: [&str; 5] = ["memory", "cpu", "wall", "response", "requests"];

limits! {
    /// All memories of one instance together.
    memory_bytes: u64 = "memory", size / size, MIB, 4 * GIB, 64 * MIB;
    /// CPU time per call.
    cpu: Duration = "cpu", duration / duration, MILLISECOND * 10, MINUTE, MILLISECOND * 500;
    /// Time from call to result.
    wall: Duration = "wall", duration / duration, MILLISECOND * 100, MINUTE * 10, SECOND * 30;
    /// One answer of the far side.
    response_bytes: u64 = "response", size / size, KIB, GIB, 8 * MIB;
    /// HTTP requests per call.
    requests: u32 = "requests", count / plain, 1, 1000, 32;
    tables: u32 = "tables", count / plain, 1_000, 10_000_000, 100_000;
    /// CPU time of `describe` and `open`.
    cpu_open: Duration = "cpu_open", duration / duration, MILLISECOND * 10, MINUTE, SECOND * 2;
    wall_open: Duration = "wall_open", duration / duration, MILLISECOND * 100, MINUTE * 10, SECOND * 10;
    wall_check: Duration = "wall_check", duration / duration, MILLISECOND * 100, MINUTE * 10, SECOND * 15;
    /// Frames of a stream that are pushed in.
    wall_frames: Duration = "wall_frames", duration / duration, MILLISECOND * 100, MINUTE, SECOND * 2;
    http_connect: Duration = "http_connect", duration / duration, MILLISECOND * 100, MINUTE, SECOND * 5;
    /// One request, from the name to the last byte.
    http_total: Duration = "http_total", duration / duration, MILLISECOND * 100, MINUTE * 10, SECOND * 15;
    request_bytes: u64 = "request", size / size, KIB, GIB, MIB;
    /// A request that submits a job.
    submit_bytes: u64 = "submit", size / size, KIB, GIB, 16 * MIB;
    requests_per_second: u32 = "requests_per_second", count / plain, 1, 10_000, 20;
    /// Observations, or log lines, of one result.
    observations: u32 = "observations", count / plain, 1, 100_000, 5_000;
    /// A text of a result that has no limit of its own.
    string_bytes: u64 = "string", size / size, KIB, 16 * MIB, 64 * KIB;
    detail_bytes: u64 = "detail", size / size, KIB, 16 * MIB, 256 * KIB;
    cursor_bytes: u64 = "cursor", size / size, KIB, MIB, 64 * KIB;
    receipt_bytes: u64 = "receipt", size / size, KIB, 64 * KIB, 4 * KIB;
    /// Log lines per minute.
    log_lines: u32 = "log_lines", count / plain, 1, 100_000, 200;
    log_line_bytes: u64 = "log_line", size / size, KIB / 4, 64 * KIB, 4 * KIB;
    /// The plugin's own file.
    file_bytes: u64 = "file", size / size, MIB, GIB, 64 * MIB;
    /// An instance makes room for a fresh one after so many calls,
    retire_calls: u32 = "retire_calls", count / plain, 1, 1_000_000_000, 10_000;
    /// so long a time,
    retire_age: Duration = "retire_age", duration / duration, SECOND, DAY * 365, HOUR * 24;
    /// or once it holds this share of its memory, in percent.
    retire_memory: u32 = "retire_memory", count / plain, 1, 100, 75;
}

impl Limits {
    /// The defaults for a plugin. On ComfyUI servers without `/api/jobs` a long queue is huge (153 kB a job).
    pub fn default_for(plugin: &PluginRef) -> Self {
        match plugin {
            PluginRef::Bundled(name) if name == "comfyui" => Self {
                memory_bytes: 192 * MIB,
                response_bytes: 64 * MIB,
                ..Self::default()
            },
            _ => Self::default(),
        }
    }
}
