//! Processes of the bench's own: what is measured from outside runs in one of these, told what by its environment.

use crate::{memory, plugin};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const KIND: &str = "WEIR_BENCH_CHILD";
/// What the kernel counts processor time in; 100 on every Linux that weir runs on.
const TICKS_PER_SECOND: f64 = 100.0;

pub(crate) fn asked_for() -> Option<String> {
    std::env::var(KIND).ok()
}

pub(crate) fn run(kind: &str) {
    match kind {
        "memory" => memory::child(),
        "instances" => plugin::child(),
        other => panic!("there is no child {other}"),
    }
}

/// This program again, as a child of that kind.
pub(crate) fn command(kind: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(KIND, kind).stdin(Stdio::null());
    command
}

/// A process that does not outlive the bench.
pub(crate) struct Watched(pub(crate) Child);

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Watched {
    /// Asks it to stop and waits until it has.
    pub(crate) fn terminate(mut self) {
        let id = i32::try_from(self.0.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(id.unwrap(), rustix::process::Signal::TERM).unwrap();
        let status = self.0.wait().unwrap();
        assert!(status.success(), "it ended with {status}");
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&PathBuf::from(format!("/proc/{}", self.0.id())))
    }
}

/// What the kernel says a process uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Resident bytes.
    pub(crate) resident: f64,
    /// Of them those of no file: not the program itself.
    pub(crate) anonymous: f64,
    /// Time on a processor, in user and kernel mode.
    pub(crate) cpu: Duration,
}

impl Usage {
    pub(crate) fn of_self() -> Usage {
        Usage::of(Path::new("/proc/self"))
    }

    fn of(process: &Path) -> Usage {
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib: f64 = line
                .unwrap()
                .trim()
                .trim_end_matches(" kB")
                .parse()
                .unwrap();
            kib * 1024.0
        };
        let stat = std::fs::read_to_string(process.join("stat")).unwrap();
        // The name may hold anything, but after its parenthesis come the numbers: from the third field on.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let ticks: f64 = [11, 12]
            .iter()
            .map(|field| fields[*field].parse::<f64>().unwrap())
            .sum();
        Usage {
            resident: bytes("VmRSS:"),
            anonymous: bytes("RssAnon:"),
            cpu: Duration::from_secs_f64(ticks / TICKS_PER_SECOND),
        }
    }
}
