//! The host's resources, read through sysinfo (and NVML where there is an NVIDIA driver).
//!
//! A sample reads files of the kernel and may take milliseconds: the caller gives it a thread on which it may block.

mod disk;
mod gpu;
mod process;

use std::time::Instant;

use serde::{Deserialize, Serialize};
use sysinfo::{Disks, Networks, System};

pub use disk::DiskSample;
pub use gpu::GpuSample;
pub use process::{OwnProcessSample, ProcessSample};

use gpu::Gpus;
use process::Processes;

/// Processes that can be named in the configuration.
pub const PROCESSES_MAX: usize = 32;

/// What to look at besides the host itself.
#[derive(Debug, Clone, Default)]
pub struct SamplerOptions {
    /// Names of processes (of the program, without its path); beyond `PROCESSES_MAX` they are left out.
    pub processes: Vec<String>,
}

/// The host at one moment. What cannot be read is `None` or left out, never zero.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourceSample {
    /// Of all cores together, since the sample before; none on the first.
    pub cpu_percent: Option<f64>,
    pub cpu_cores: usize,
    pub memory: Option<Usage>,
    /// None where there is no swap.
    pub swap: Option<Usage>,
    /// Load averages of 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    pub disks: Vec<DiskSample>,
    pub network: Option<NetworkSample>,
    pub own: Option<OwnProcessSample>,
    /// In the order of the configuration; a name without a process has the count 0.
    pub processes: Vec<ProcessSample>,
    pub gpus: Vec<GpuSample>,
}

/// How much of something is in use.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    pub used_bytes: u64,
    pub total_bytes: u64,
    pub percent: f64,
}

impl Usage {
    /// `None` of nothing.
    fn of(used_bytes: u64, total_bytes: u64) -> Option<Usage> {
        (total_bytes > 0).then(|| Usage {
            used_bytes,
            total_bytes,
            percent: 100.0 * used_bytes as f64 / total_bytes as f64,
        })
    }
}

/// All interfaces but the loopback ones together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NetworkSample {
    pub received_bytes: u64,
    pub transmitted_bytes: u64,
    /// Since the sample before; none on the first.
    pub received_bytes_per_second: Option<f64>,
    pub transmitted_bytes_per_second: Option<f64>,
}

impl ResourceSample {
    /// Every number that has a history, by a name that stays the same from sample to sample.
    #[expect(
        clippy::too_many_lines,
        reason = "one line a series: a list reads better whole"
    )]
    pub fn series(&self) -> Vec<(String, f64)> {
        let mut series = Vec::new();
        let mut add =
            |name: String, value: Option<f64>| series.extend(value.map(|value| (name, value)));
        add("cpu_percent".into(), self.cpu_percent);
        add(
            "memory_percent".into(),
            self.memory.map(|memory| memory.percent),
        );
        add(
            "memory_used_bytes".into(),
            self.memory.map(|memory| memory.used_bytes as f64),
        );
        add("swap_percent".into(), self.swap.map(|swap| swap.percent));
        for (minutes, index) in [(1, 0), (5, 1), (15, 2)] {
            add(format!("load{minutes}"), self.load.map(|load| load[index]));
        }
        for disk in &self.disks {
            add(
                format!("disk_percent:{}", disk.mount),
                Some(disk.usage.percent),
            );
        }
        let network = self.network.as_ref();
        add(
            "network_received_bytes_per_second".into(),
            network.and_then(|network| network.received_bytes_per_second),
        );
        add(
            "network_transmitted_bytes_per_second".into(),
            network.and_then(|network| network.transmitted_bytes_per_second),
        );
        if let Some(own) = &self.own {
            add("own_resident_bytes".into(), Some(own.resident_bytes as f64));
            add("own_cpu_percent".into(), own.cpu_percent);
            add(
                "own_open_files".into(),
                own.open_files.map(|files| files as f64),
            );
            add(
                "own_threads".into(),
                own.threads.map(|threads| threads as f64),
            );
        }
        for process in &self.processes {
            add(
                format!("process_count:{}", process.name),
                Some(process.count as f64),
            );
            add(
                format!("process_resident_bytes:{}", process.name),
                Some(process.resident_bytes as f64),
            );
            add(
                format!("process_cpu_percent:{}", process.name),
                process.cpu_percent,
            );
        }
        for gpu in &self.gpus {
            add(
                format!("gpu_percent:{}", gpu.index),
                gpu.utilization_percent,
            );
            add(
                format!("gpu_memory_percent:{}", gpu.index),
                gpu.memory.map(|memory| memory.percent),
            );
            add(
                format!("gpu_celsius:{}", gpu.index),
                gpu.temperature_celsius,
            );
            add(format!("gpu_watts:{}", gpu.index), gpu.power_watts);
        }
        series
    }
}

/// Reads the host; keeps what the next sample is compared with.
#[derive(Debug)]
pub struct Sampler {
    /// None on a system that sysinfo does not know.
    system: Option<System>,
    disks: Option<Disks>,
    networks: Option<Networks>,
    processes: Processes,
    gpus: Gpus,
    sampled_at: Option<Instant>,
}

impl Sampler {
    pub fn new(options: SamplerOptions) -> Sampler {
        Sampler {
            system: System::new().ok(),
            disks: Disks::new().ok(),
            networks: Networks::new().ok(),
            processes: Processes::new(options.processes),
            gpus: Gpus::open(),
            sampled_at: None,
        }
    }

    pub fn sample(&mut self) -> ResourceSample {
        let now = now();
        let elapsed = self
            .sampled_at
            .replace(now)
            .map(|before| now.duration_since(before).as_secs_f64());
        let mut sample = ResourceSample {
            load: System::load_average()
                .ok()
                .map(|load| [load.one, load.five, load.fifteen]),
            disks: self.disks.as_mut().map(disk::sample).unwrap_or_default(),
            network: self
                .networks
                .as_mut()
                .map(|networks| network(networks, elapsed)),
            gpus: self.gpus.sample(),
            ..ResourceSample::default()
        };
        if let Some(system) = &mut self.system {
            system.refresh_memory();
            system.refresh_cpu_usage();
            self.processes.refresh(system);
            // Shares of the CPU are differences: the first sample has nothing to compare with.
            let measured = elapsed.is_some();
            sample.cpu_percent = measured.then(|| f64::from(system.global_cpu_usage()));
            sample.cpu_cores = system.cpus().len();
            let total = system.total_memory();
            sample.memory = Usage::of(total.saturating_sub(system.available_memory()), total);
            sample.swap = Usage::of(system.used_swap(), system.total_swap());
            sample.own = self.processes.own(system, measured);
            sample.processes = self.processes.named(system, measured);
        }
        sample
    }
}

fn network(networks: &mut Networks, elapsed: Option<f64>) -> NetworkSample {
    networks.refresh(true);
    let mut sample = NetworkSample {
        received_bytes: 0,
        transmitted_bytes: 0,
        received_bytes_per_second: None,
        transmitted_bytes_per_second: None,
    };
    let (mut received, mut transmitted) = (0u64, 0u64);
    for (_, interface) in networks
        .iter()
        .filter(|(name, _)| !is_loopback(&name.to_string_lossy()))
    {
        sample.received_bytes = sample
            .received_bytes
            .saturating_add(interface.total_received());
        sample.transmitted_bytes = sample
            .transmitted_bytes
            .saturating_add(interface.total_transmitted());
        received = received.saturating_add(interface.received());
        transmitted = transmitted.saturating_add(interface.transmitted());
    }
    if let Some(elapsed) = elapsed.filter(|elapsed| *elapsed > 0.0) {
        sample.received_bytes_per_second = Some(received as f64 / elapsed);
        sample.transmitted_bytes_per_second = Some(transmitted as f64 / elapsed);
    }
    sample
}

fn is_loopback(interface: &str) -> bool {
    interface == "lo"
        || interface
            .strip_prefix("lo")
            .is_some_and(|number| number.parse::<u8>().is_ok())
}

/// Rates are per second of real time, whatever the monitor's clock says.
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_shows_this_host_and_this_process() {
        let own_name = std::env::current_exe()
            .unwrap()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let mut sampler = Sampler::new(SamplerOptions {
            processes: vec![own_name.clone(), "no-such-process".into()],
        });
        let first = sampler.sample();
        assert_eq!(
            first.cpu_percent, None,
            "there is nothing to compare with yet"
        );
        let sample = sampler.sample();
        let memory = sample.memory.unwrap();
        assert!(memory.used_bytes > 0 && memory.used_bytes < memory.total_bytes);
        assert!((0.0..=100.0).contains(&memory.percent));
        assert!((0.0..=100.0).contains(&sample.cpu_percent.unwrap()));
        assert!(sample.cpu_cores > 0);
        assert!(sample.load.unwrap().iter().all(|load| *load >= 0.0));
        let own = sample.own.as_ref().unwrap();
        assert!(own.resident_bytes > 1024 * 1024);
        assert!(own.open_files.unwrap() >= 3);
        assert!(
            own.threads.unwrap() >= 2,
            "the test's thread and the harness's"
        );
        assert_eq!(sample.processes[0].name, own_name);
        assert!(sample.processes[0].count >= 1);
        assert!(sample.processes[0].resident_bytes >= own.resident_bytes / 2);
        assert_eq!(
            (sample.processes[1].count, sample.processes[1].cpu_percent),
            (0, None)
        );
        assert!(sample.network.unwrap().received_bytes_per_second.unwrap() >= 0.0);
    }

    #[test]
    fn series_have_unique_names_and_finite_values() {
        let mut sampler = Sampler::new(SamplerOptions {
            processes: vec!["weir".into()],
        });
        sampler.sample();
        let series = sampler.sample().series();
        let mut names: Vec<&str> = series.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), series.len());
        assert!(
            names.contains(&"cpu_percent") && names.contains(&"process_count:weir"),
            "{names:?}"
        );
        assert!(series.iter().all(|(_, value)| value.is_finite()));
    }

    #[test]
    fn a_sample_survives_json() {
        let sample = Sampler::new(SamplerOptions::default()).sample();
        let json = serde_json::to_string(&sample).unwrap();
        let read: ResourceSample = serde_json::from_str(&json).unwrap();
        assert_eq!(
            read.memory.map(|memory| memory.total_bytes),
            sample.memory.map(|memory| memory.total_bytes)
        );
        assert_eq!(read.disks.len(), sample.disks.len());
    }

    #[test]
    fn only_loopback_interfaces_are_left_out() {
        assert!(is_loopback("lo") && is_loopback("lo0"));
        assert!(!is_loopback("long0") && !is_loopback("eth0") && !is_loopback("lora"));
    }
}
