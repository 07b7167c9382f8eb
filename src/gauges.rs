//! Gauges of providers in words, for the terminal and the page.

use crate::cli::human;
use std::collections::BTreeMap;

/// One gauge as clients are shown it.
#[derive(Debug)]
pub struct Shown<'a> {
    pub name: &'a str,
    pub labels: Vec<(&'a str, &'a str)>,
    pub value: f64,
}

/// What is measured and its value, a line each: `gpu memory used (cuda:0)`, `12.1 GiB of 24.0 GiB`.
pub fn words(gauges: &[Shown<'_>]) -> Vec<(String, String)> {
    let known: BTreeMap<_, f64> = gauges
        .iter()
        .map(|gauge| ((gauge.name, gauge.labels.clone()), gauge.value))
        .collect();
    let twin = |gauge: &Shown<'_>, from: &str, to: &str| {
        let name = format!("{}{to}", gauge.name.strip_suffix(from)?);
        known.get(&(name.as_str(), gauge.labels.clone())).copied()
    };
    let line = |gauge: &Shown<'_>| {
        // What is used says of how much.
        if twin(gauge, "_total_bytes", "_used_bytes").is_some() {
            return None;
        }
        let total = twin(gauge, "_used_bytes", "_total_bytes");
        let (what, value) = plain(gauge.name, gauge.value);
        let value = match total {
            Some(total) => format!("{value} of {}", plain(gauge.name, total).1),
            None => value,
        };
        let about: Vec<&str> = gauge.labels.iter().map(|(_, value)| *value).collect();
        let what = match about.is_empty() {
            true => what,
            false => format!("{what} ({})", about.join(", ")),
        };
        Some((what, value))
    };
    gauges.iter().filter_map(line).collect()
}

/// The name without its unit, and the value with it.
fn plain(name: &str, value: f64) -> (String, String) {
    let (what, shown) = if let Some(what) = name.strip_suffix("_bytes") {
        (what, human::bytes(value.max(0.0) as u64))
    } else if let Some(what) = name.strip_suffix("_ratio") {
        (what, format!("{:.0} %", 100.0 * value))
    } else if let Some(what) = name.strip_suffix("_seconds") {
        (what, human::duration(value))
    } else {
        (name, value.to_string())
    };
    (what.replace('_', " "), shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_reads_like_people_say_it() {
        let gauge = |name, labels: &[(&'static str, &'static str)], value| Shown {
            name,
            labels: labels.to_vec(),
            value,
        };
        let device = [("device", "cuda:0"), ("model", "RTX 4090")];
        let told = words(&[
            gauge(
                "gpu_memory_total_bytes",
                &device,
                24.0 * (1u64 << 30) as f64,
            ),
            gauge("gpu_memory_used_bytes", &device, 1536.0),
            gauge("gpu_memory_used_bytes", &[("device", "cuda:1")], 0.0),
            gauge("gpu_utilization_ratio", &[], 0.5),
            gauge("oldest_seconds", &[], 90.0),
            gauge("waiting", &[], 7.0),
            gauge("x_bytes", &[], -3.0),
        ]);
        let told: Vec<(&str, &str)> = told.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(
            told,
            [
                ("gpu memory used (cuda:0, RTX 4090)", "1.5 KiB of 24.0 GiB"),
                ("gpu memory used (cuda:1)", "0 B"),
                ("gpu utilization", "50 %"),
                ("oldest", "1 min 30 s"),
                ("waiting", "7"),
                ("x", "0 B"),
            ]
        );
    }
}
