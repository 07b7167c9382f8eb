//! `make bench`: the figures that weir promises, each against its limit, measured in one run.
//!
//! `WEIR_BENCH_SCALE` (1 by default) scales the amount of work; below 1 it only shows that everything runs and no
//! limit is enforced. Names as arguments (`pipeline`, `bytes`, `daemon`, `memory`, `plugin`) run those parts alone.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::unwrap_used, reason = "a bench that fails shall say where")]

mod bare;
mod child;
mod daemon;
mod memory;
mod pipeline;
mod plugin;
mod store;
mod table;

use std::process::ExitCode;
use table::Figure;

/// The daemon's own allocator: what is measured here is what runs there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much of the full amount of work is done.
#[derive(Clone, Copy)]
pub(crate) struct Scale(f64);

impl Scale {
    fn from_environment() -> Scale {
        let given = std::env::var("WEIR_BENCH_SCALE").ok();
        Scale(given.map_or(1.0, |text| {
            text.parse().expect("WEIR_BENCH_SCALE is a number")
        }))
    }

    /// So much of `full`, but at least `least`.
    pub(crate) fn of(self, full: usize, least: usize) -> usize {
        ((full as f64 * self.0) as usize).max(least)
    }

    pub(crate) fn is_full(self) -> bool {
        self.0 >= 1.0
    }
}

type Part = (&'static str, fn(Scale) -> Vec<Figure>);

const PARTS: [Part; 5] = [
    ("pipeline", pipeline::figures),
    ("bytes", store::figures),
    ("daemon", daemon::figures),
    ("memory", memory::figures),
    ("plugin", plugin::figures),
];

fn main() -> ExitCode {
    if let Some(kind) = child::asked_for() {
        child::run(&kind);
        return ExitCode::SUCCESS;
    }
    let scale = Scale::from_environment();
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    println!("{}", table::heading(scale.0));
    let mut missed = false;
    for (name, part) in PARTS {
        if !wanted.is_empty() && !wanted.iter().any(|w| w == name) {
            continue;
        }
        for figure in part(scale) {
            missed |= figure.is_missed();
            println!("{}", figure.line(scale.is_full()));
        }
    }
    println!("load at the end {}", table::load());
    if !scale.is_full() {
        println!("not at full scale: no limit is enforced");
    } else if missed {
        println!("a figure misses its limit");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
