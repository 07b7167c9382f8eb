//! The host's resources as clients see them.

use super::Time;
use serde::Serialize;
use weir_core::journal::SampleRow;
use weir_core::sampler::{ResourceSample, Usage};
use weir_model::config::Resources;

#[derive(Debug, Serialize)]
pub struct ResourcesView {
    /// None before the first measurement, or when measuring is off.
    pub latest: Option<SampleView>,
    pub thresholds: ThresholdsView,
    /// Names for `?series=`.
    pub series: Vec<String>,
    pub history: Option<HistoryView>,
}

#[derive(Debug, Serialize)]
pub struct ThresholdsView {
    pub memory_percent: f64,
    pub cpu_percent: f64,
    pub disk_percent: f64,
}

#[derive(Debug, Serialize)]
pub struct HistoryView {
    pub series: String,
    pub width_seconds: u32,
    pub items: Vec<BucketView>,
    /// Give it as `since` for what comes after; none = this was all.
    pub next_since: Option<Time>,
}

#[derive(Debug, Serialize)]
pub struct BucketView {
    pub at: Time,
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    pub count: u32,
}

#[derive(Debug, Serialize)]
pub struct SampleView {
    pub cpu_percent: Option<f64>,
    pub cpu_cores: usize,
    pub memory: Option<UsageView>,
    pub swap: Option<UsageView>,
    pub load: Option<[f64; 3]>,
    pub disks: Vec<DiskView>,
    pub network: Option<NetworkView>,
    pub own: Option<OwnView>,
    pub processes: Vec<ProcessView>,
    pub gpus: Vec<GpuView>,
}

#[derive(Debug, Serialize)]
pub struct UsageView {
    pub used_bytes: u64,
    pub total_bytes: u64,
    pub percent: f64,
}

#[derive(Debug, Serialize)]
pub struct DiskView {
    pub mount: String,
    pub usage: UsageView,
}

#[derive(Debug, Serialize)]
pub struct NetworkView {
    pub received_bytes: u64,
    pub transmitted_bytes: u64,
    pub received_bytes_per_second: Option<f64>,
    pub transmitted_bytes_per_second: Option<f64>,
}

/// The daemon itself.
#[derive(Debug, Serialize)]
pub struct OwnView {
    pub resident_bytes: u64,
    pub cpu_percent: Option<f64>,
    pub open_files: Option<u64>,
    pub threads: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct ProcessView {
    pub name: String,
    pub count: u64,
    pub resident_bytes: u64,
    pub cpu_percent: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct GpuView {
    pub index: u32,
    pub name: Option<String>,
    pub utilization_percent: Option<f64>,
    pub memory: Option<UsageView>,
    pub temperature_celsius: Option<f64>,
    pub power_watts: Option<f64>,
}

impl From<&Resources> for ThresholdsView {
    fn from(resources: &Resources) -> ThresholdsView {
        ThresholdsView {
            memory_percent: resources.memory_percent,
            cpu_percent: resources.cpu_percent,
            disk_percent: resources.disk_percent,
        }
    }
}

impl From<&SampleRow> for BucketView {
    fn from(row: &SampleRow) -> BucketView {
        BucketView {
            at: row.at.into(),
            min: row.min,
            max: row.max,
            mean: row.mean,
            count: row.count,
        }
    }
}

impl From<Usage> for UsageView {
    fn from(usage: Usage) -> UsageView {
        UsageView {
            used_bytes: usage.used_bytes,
            total_bytes: usage.total_bytes,
            percent: usage.percent,
        }
    }
}

impl From<&ResourceSample> for SampleView {
    fn from(sample: &ResourceSample) -> SampleView {
        let disks = sample.disks.iter().map(|disk| DiskView {
            mount: disk.mount.clone(),
            usage: disk.usage.into(),
        });
        let processes = sample.processes.iter().map(|process| ProcessView {
            name: process.name.clone(),
            count: process.count,
            resident_bytes: process.resident_bytes,
            cpu_percent: process.cpu_percent,
        });
        let gpus = sample.gpus.iter().map(|gpu| GpuView {
            index: gpu.index,
            name: gpu.name.clone(),
            utilization_percent: gpu.utilization_percent,
            memory: gpu.memory.map(UsageView::from),
            temperature_celsius: gpu.temperature_celsius,
            power_watts: gpu.power_watts,
        });
        SampleView {
            cpu_percent: sample.cpu_percent,
            cpu_cores: sample.cpu_cores,
            memory: sample.memory.map(UsageView::from),
            swap: sample.swap.map(UsageView::from),
            load: sample.load,
            disks: disks.collect(),
            network: sample.network.as_ref().map(|network| NetworkView {
                received_bytes: network.received_bytes,
                transmitted_bytes: network.transmitted_bytes,
                received_bytes_per_second: network.received_bytes_per_second,
                transmitted_bytes_per_second: network.transmitted_bytes_per_second,
            }),
            own: sample.own.as_ref().map(|own| OwnView {
                resident_bytes: own.resident_bytes,
                cpu_percent: own.cpu_percent,
                open_files: own.open_files,
                threads: own.threads,
            }),
            processes: processes.collect(),
            gpus: gpus.collect(),
        }
    }
}
