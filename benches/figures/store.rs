//! Stores of the bench: where they lie, what a step takes on disk, and the large one that is kept between runs.

use crate::Scale;
use crate::pipeline::{self, Load, Run};
use crate::table::Figure;
use rusqlite::Connection;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use weir_core::journal::Durability;

/// Beside the build, not in /tmp: that may be memory.
const PLACE: &str = env!("CARGO_TARGET_TMPDIR");
/// Retention deletes what is older than 30 days: the kept store is made anew before that.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Changes with what the kept store holds.
const KEPT_AS: &str = "weir-bench-store-1";

pub(crate) fn temporary() -> TempDir {
    tempfile::tempdir_in(PLACE).unwrap()
}

pub(crate) fn figures(scale: Scale) -> Vec<Figure> {
    let measured = [(10, 400.0), (3, 600.0)].map(|(steps, limit)| {
        let dir = temporary();
        let load = Load {
            executions: scale.of(42_000, 2_000),
            steps,
            durability: Durability::Process,
        };
        bytes(&pipeline::run(dir.path(), load), steps, limit)
    });
    measured.into()
}

/// The file after everything was moved into it.
fn bytes(run: &Run, steps: usize, limit: f64) -> Figure {
    let connection = Connection::open(&run.path).unwrap();
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let sum = |sql: &str| -> i64 { connection.query_row(sql, [], |row| row.get(0)).unwrap() };
    let given = sum("SELECT sum(length(external_id) + length(run)) FROM executions")
        + sum("SELECT sum(length(external_id) + length(name)) FROM steps");
    let payloads = sum("SELECT ifnull(sum(length(payload)), 0) FROM events");
    let total = (run.executions * steps) as f64;
    let file = std::fs::metadata(&run.path).unwrap().len() as f64;
    let note = format!(
        "payload texts {:.0} beside it; in it the provider's own names {:.0}",
        payloads as f64 / total,
        given as f64 / total
    );
    let name = format!("bytes on disk a step, {steps} steps an execution");
    Figure::at_most(name, (file - payloads as f64) / total, "B", limit).note(note)
}

/// What the disk itself takes for one page: p50 and p99.
pub(crate) fn fdatasync() -> (Duration, Duration) {
    let dir = temporary();
    let mut file = File::create(dir.path().join("page")).unwrap();
    let mut times: Vec<Duration> = (0..200)
        .map(|n: u8| {
            file.rewind().unwrap();
            file.write_all(&[n; 4096]).unwrap();
            let begun = Instant::now();
            file.sync_data().unwrap();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[100], times[198])
}

/// A store of so many executions of three steps, ten events each; made through the journal and kept between runs.
pub(crate) fn large(executions: usize) -> PathBuf {
    let dir = Path::new(PLACE).join(format!("{KEPT_AS}-{executions}"));
    let made = dir.join("made");
    let age = std::fs::metadata(&made)
        .and_then(|m| m.modified())
        .ok()
        .and_then(|at| at.elapsed().ok());
    if age.is_some_and(|age| age < KEPT_FOR) {
        return dir;
    }
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let load = Load {
        executions,
        steps: 3,
        durability: Durability::Process,
    };
    let run = pipeline::run(&dir, load);
    assert_eq!(run.events, executions as u64 * 10);
    std::fs::write(&made, "").unwrap();
    dir
}

/// Makes the kernel forget what it read of a store, so that the next start asks the disk.
pub(crate) fn forget_cached(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let file = File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}
