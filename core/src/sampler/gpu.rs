//! NVIDIA GPUs, where their driver's library is there at run time.

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::{Device, Nvml};
use serde::{Deserialize, Serialize};

use super::Usage;

const GPUS_MAX: u32 = 64;

/// One GPU; what its driver does not tell is `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuSample {
    pub index: u32,
    pub name: Option<String>,
    pub utilization_percent: Option<f64>,
    pub memory: Option<Usage>,
    pub temperature_celsius: Option<f64>,
    pub power_watts: Option<f64>,
}

/// The driver, if there is one.
#[derive(Debug)]
pub(super) struct Gpus(Option<Nvml>);

impl Gpus {
    /// Most hosts have no NVIDIA driver: that is no error and not worth a word.
    pub(super) fn open() -> Gpus {
        // Without the development package there is only the versioned name.
        let versioned = || {
            Nvml::builder()
                .lib_path("libnvidia-ml.so.1".as_ref())
                .init()
        };
        Gpus(Nvml::init().or_else(|_| versioned()).ok())
    }

    pub(super) fn sample(&self) -> Vec<GpuSample> {
        let Some(nvml) = &self.0 else {
            return Vec::new();
        };
        let count = nvml.device_count().unwrap_or(0).min(GPUS_MAX);
        (0..count)
            .filter_map(|index| {
                nvml.device_by_index(index)
                    .ok()
                    .map(|device| sample(index, &device))
            })
            .collect()
    }
}

fn sample(index: u32, device: &Device<'_>) -> GpuSample {
    GpuSample {
        index,
        name: device.name().ok(),
        utilization_percent: device
            .utilization_rates()
            .ok()
            .map(|rates| f64::from(rates.gpu)),
        memory: device
            .memory_info()
            .ok()
            .and_then(|memory| Usage::of(memory.used, memory.total)),
        temperature_celsius: device
            .temperature(TemperatureSensor::Gpu)
            .ok()
            .map(f64::from),
        // NVML counts milliwatts.
        power_watts: device
            .power_usage()
            .ok()
            .map(|milliwatts| f64::from(milliwatts) / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_driver_has_no_gpus() {
        assert!(Gpus(None).sample().is_empty());
    }
}
