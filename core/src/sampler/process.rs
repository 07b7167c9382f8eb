//! This process, and the processes that the configuration names.

use serde::{Deserialize, Serialize};
use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use super::PROCESSES_MAX;

/// The kernel keeps so many bytes of a process name.
const KERNEL_NAME_BYTES: usize = 15;

/// The monitor itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnProcessSample {
    pub resident_bytes: u64,
    /// Of one core, so it can exceed 100; since the sample before.
    pub cpu_percent: Option<f64>,
    pub open_files: Option<u64>,
    pub threads: Option<u64>,
}

/// All processes of one name together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessSample {
    pub name: String,
    pub count: u64,
    pub resident_bytes: u64,
    /// Of one core, so it can exceed 100; since the sample before.
    pub cpu_percent: Option<f64>,
}

#[derive(Debug)]
pub(super) struct Processes {
    own: Option<Pid>,
    names: Vec<String>,
}

impl Processes {
    pub(super) fn new(mut names: Vec<String>) -> Processes {
        names.truncate(PROCESSES_MAX);
        Processes {
            own: sysinfo::get_current_pid().ok(),
            names,
        }
    }

    /// Without a name to look for, the processes of the host are left alone.
    pub(super) fn refresh(&self, system: &mut System) {
        let wanted = ProcessRefreshKind::nothing().with_cpu().with_memory();
        if !self.names.is_empty() {
            let wanted = wanted.with_exe(UpdateKind::OnlyIfNotSet).without_tasks();
            system.refresh_processes_specifics(ProcessesToUpdate::All, true, wanted);
        } else if let Some(own) = self.own {
            system.refresh_processes_specifics(
                ProcessesToUpdate::Some(&[own]),
                true,
                wanted.without_tasks(),
            );
        }
    }

    pub(super) fn own(&self, system: &System, measured: bool) -> Option<OwnProcessSample> {
        let process = system.process(self.own?)?;
        Some(OwnProcessSample {
            resident_bytes: process.memory(),
            cpu_percent: measured.then(|| f64::from(process.cpu_usage())),
            open_files: process.open_files().map(|files| files as u64),
            threads: threads(),
        })
    }

    pub(super) fn named(&self, system: &System, measured: bool) -> Vec<ProcessSample> {
        let sample = |name: &String| {
            let processes: Vec<&Process> = system
                .processes()
                .values()
                .filter(|process| is_named(process, name))
                .collect();
            let cpu_percent = processes
                .iter()
                .map(|process| f64::from(process.cpu_usage()))
                .sum();
            ProcessSample {
                name: name.clone(),
                count: processes.len() as u64,
                resident_bytes: processes.iter().map(|process| process.memory()).sum(),
                cpu_percent: (measured && !processes.is_empty()).then_some(cpu_percent),
            }
        };
        self.names.iter().map(sample).collect()
    }
}

/// By the name of its program, or by the name it gave itself.
fn is_named(process: &Process, wanted: &str) -> bool {
    // A thread is no process of its own.
    if process.thread_kind().is_some() {
        return false;
    }
    let program = process.exe().and_then(|exe| exe.file_name());
    same_name(&process.name().to_string_lossy(), wanted)
        || program.is_some_and(|program| program.to_string_lossy() == wanted)
}

fn same_name(kernel_name: &str, wanted: &str) -> bool {
    kernel_name == wanted
        || kernel_name.len() == KERNEL_NAME_BYTES && wanted.starts_with(kernel_name)
}

/// sysinfo would read every thread to tell how many there are.
fn threads() -> Option<u64> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_recognised_although_the_kernel_cut_it() {
        assert!(same_name("weir", "weir"));
        assert!(same_name(
            "a-very-long-nam",
            "a-very-long-name-of-a-program"
        ));
        assert!(!same_name("weir", "weird"));
        assert!(!same_name("python3", "python"));
    }

    #[test]
    fn the_list_of_names_is_bounded() {
        assert_eq!(
            Processes::new(vec!["x".into(); 1000]).names.len(),
            PROCESSES_MAX
        );
    }
}
