//! The memory of the devices that prompts are computed on, as gauges.

use weir_sdk::bindings::weir::plugin::types::{Gauge, Observation};
use weir_sdk::text;

use crate::wire::{Device, SystemStats};

/// A host has room for 64 series of a source.
const DEVICES_MAX: usize = 16;
const TEXT_MAX: usize = 100;
/// Types for which torch reserves nothing of its own: the server repeats the host's memory there.
const WITHOUT_TORCH: [&str; 2] = ["cpu", "mps"];

/// Up to four series for each device; what the server does not say, or what cannot be, is left out.
pub fn gauges(stats: &SystemStats) -> Vec<Observation> {
    let devices = stats.devices.0.iter().flat_map(|devices| &devices.good);
    devices.take(DEVICES_MAX).flat_map(of).collect()
}

fn of(device: &Device) -> Vec<Observation> {
    let kind = text::line(device.r#type.0.as_deref().unwrap_or_default(), TEXT_MAX);
    let kind = if kind.is_empty() {
        "unknown".to_owned()
    } else {
        kind
    };
    let place = match device.index.0 {
        Some(index) => format!("{kind}:{index}"),
        None => kind.clone(),
    };
    let mut labels = vec![("device".to_owned(), place.clone())];
    if let Some(model) = model(device, &place) {
        labels.push(("model".to_owned(), model));
    }
    let used = |total: Option<f64>, free: Option<f64>| {
        let (total, free) = (bytes(total)?, bytes(free)?);
        // Read one after the other, so a little less than nothing can be used.
        Some((total - free).max(0.0))
    };
    let mut told = vec![
        ("gpu_memory_total_bytes", bytes(device.vram_total.0)),
        (
            "gpu_memory_used_bytes",
            used(device.vram_total.0, device.vram_free.0),
        ),
    ];
    if !WITHOUT_TORCH.contains(&kind.as_str()) {
        let (reserved, free) = (device.torch_vram_total.0, device.torch_vram_free.0);
        told.push(("gpu_memory_torch_reserved_bytes", bytes(reserved)));
        told.push(("gpu_memory_torch_used_bytes", used(reserved, free)));
    }
    let gauge = |(name, value): (&str, Option<f64>)| {
        Some(Observation::Gauge(Gauge {
            name: name.to_owned(),
            labels: labels.clone(),
            value: value?,
        }))
    };
    told.into_iter().filter_map(gauge).collect()
}

/// A size that can be one.
fn bytes(size: Option<f64>) -> Option<f64> {
    size.filter(|size| size.is_finite() && *size >= 0.0)
}

/// `NVIDIA GeForce RTX 4090` of `cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync`.
fn model(device: &Device, place: &str) -> Option<String> {
    let name = text::line(device.name.0.as_deref()?, TEXT_MAX);
    let name = name.strip_prefix(place).unwrap_or(&name);
    let name = name.split(" : ").next().unwrap_or_default().trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(stats: &str) -> Vec<String> {
        let stats: SystemStats = serde_json::from_str(stats).unwrap();
        let gauges = gauges(&stats).into_iter().map(|observation| {
            let Observation::Gauge(gauge) = observation else {
                panic!("{observation:?}");
            };
            let labels: Vec<String> = gauge
                .labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            format!("{}{{{}}} {}", gauge.name, labels.join(","), gauge.value)
        });
        gauges.collect()
    }

    #[test]
    fn what_recorded_servers_say_of_their_devices_is_told() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/recordings");
        for version in ["v0.3.40", "v0.3.64", "v0.3.75", "v0.33.0"] {
            let text =
                std::fs::read_to_string(format!("{root}/{version}/idle_and_endpoints.jsonl"))
                    .unwrap();
            let lines = text
                .lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let line = lines
                .into_iter()
                .find(|line| line["path"] == "/system_stats")
                .unwrap();
            let body = line["body"].as_str().unwrap();
            let stats: serde_json::Value = serde_json::from_str(body).unwrap();
            let device = &stats["devices"][0];
            let size = |name: &str| device[name].as_u64().unwrap();
            let (total, used) = (size("vram_total"), size("vram_total") - size("vram_free"));
            assert_eq!(
                told(body),
                [
                    format!("gpu_memory_total_bytes{{device=cpu}} {total}"),
                    format!("gpu_memory_used_bytes{{device=cpu}} {used}"),
                ],
                "{version}: torch reserves nothing of a host's memory"
            );
        }
    }

    /// The fields are those of the recordings; a device as `get_torch_device_name` of ComfyUI names a CUDA one.
    #[test]
    fn a_gpu_has_what_torch_reserved_of_it_too() {
        assert_eq!(
            told(
                r#"{"system": {}, "devices": [
                {"name": "cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync", "type": "cuda", "index": 0, "vram_total": 25000, "vram_free": 20000, "torch_vram_total": 4000, "torch_vram_free": 1000},
                {"name": "cuda:1", "type": "cuda", "index": 1, "vram_total": 100, "vram_free": 101}
            ]}"#
            ),
            [
                "gpu_memory_total_bytes{device=cuda:0,model=NVIDIA GeForce RTX 4090} 25000",
                "gpu_memory_used_bytes{device=cuda:0,model=NVIDIA GeForce RTX 4090} 5000",
                "gpu_memory_torch_reserved_bytes{device=cuda:0,model=NVIDIA GeForce RTX 4090} 4000",
                "gpu_memory_torch_used_bytes{device=cuda:0,model=NVIDIA GeForce RTX 4090} 3000",
                "gpu_memory_total_bytes{device=cuda:1} 100",
                "gpu_memory_used_bytes{device=cuda:1} 0",
            ]
        );
    }

    #[test]
    fn odd_devices_are_left_out_and_break_nothing() {
        for odd in [
            r#"{"system": {}}"#,
            r#"{"system": {}, "devices": null}"#,
            r#"{"system": {}, "devices": "none"}"#,
            r#"{"system": {}, "devices": [7, null, "x", []]}"#,
            r#"{"system": {}, "devices": [{"type": "cuda", "vram_total": "much", "vram_free": -1}]}"#,
        ] {
            assert_eq!(told(odd), Vec::<String>::new(), "{odd}");
        }
        let odd = r#"{"system": {}, "devices": [{"name": 7, "type": null, "index": -1, "vram_total": 5}]}"#;
        assert_eq!(told(odd), ["gpu_memory_total_bytes{device=unknown} 5"]);
    }
}
