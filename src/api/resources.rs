//! `/api/resources`: the host that weir runs on, now and before.

use super::errors::{Problem, echo};
use super::params::Params;
use super::views::{HistoryView, ResourcesView, SampleView, Time};
use super::{ApiState, View, store};
use actix_web::HttpRequest;
use actix_web::web::{Data, Json};
use jiff::SignedDuration;
use weir_core::sampler::Usage;

/// Buckets of one answer.
const BUCKETS_MAX: usize = 500;
/// Widths of buckets that are kept, in seconds.
const MINUTE: u32 = 60;
const HOUR: u32 = 3600;

pub(super) async fn latest(request: HttpRequest, state: Data<ApiState>) -> View<ResourcesView> {
    let params = Params::of(&request, &["series", "since", "until", "width"])?;
    let wanted = params.text("series").map(str::to_owned);
    let width = match params.word("width", &["1m", "1h"])? {
        Some("1h") => HOUR,
        _ => MINUTE,
    };
    let until = params
        .time("until")?
        .unwrap_or_else(|| state.monitor.clock().now());
    let day = SignedDuration::from_hours(24);
    let since = match params.time("since")? {
        Some(since) => since,
        None => until.checked_sub(day).unwrap_or(until),
    };
    if wanted.is_none() {
        for name in ["since", "until", "width"] {
            if params.text(name).is_some() {
                return Err(Problem::bad_parameter(
                    name,
                    "means something only together with `series`",
                ));
            }
        }
    }
    let read = store::read(&state, move |reader| {
        let series = reader.series()?;
        let Some(name) = wanted else {
            return Ok((series, None));
        };
        if !series.contains(&name) {
            let known = series.join(", ");
            return Err(Problem::bad_parameter(
                "series",
                format_args!("`{}` is none of: {known}", echo(&name)),
            ));
        }
        let mut rows = reader.samples(&name, width, since, until)?;
        let more = rows.len() > BUCKETS_MAX;
        let next_since = rows
            .get(BUCKETS_MAX)
            .map(|row| Time(row.at))
            .filter(|_| more);
        rows.truncate(BUCKETS_MAX);
        let items = rows.iter().map(Into::into).collect();
        Ok((
            series,
            Some(HistoryView {
                series: name,
                width_seconds: width,
                items,
                next_since,
            }),
        ))
    });
    let (series, history) = read.await?;
    Ok(Json(ResourcesView {
        latest: state
            .monitor
            .resources()
            .map(|sample| SampleView::from(&*sample)),
        thresholds: (&state.monitor.config().resources).into(),
        series,
        history,
    }))
}

/// The newest sample for people: what, and how much of it.
pub(super) fn line(state: &ApiState) -> Option<Vec<(String, String)>> {
    let sample = state.monitor.resources()?;
    let percent = |percent: f64| format!("{percent:.0} %");
    let usage = |usage: Usage| format!("{:.0} % of {}", usage.percent, bytes(usage.total_bytes));
    let mut line: Vec<(String, String)> = Vec::new();
    let mut add = |what: &str, value: Option<String>| {
        line.extend(value.map(|value| (what.to_owned(), value)))
    };
    add("CPU", sample.cpu_percent.map(percent));
    add("memory", sample.memory.map(usage));
    add("swap", sample.swap.map(usage));
    add(
        "load",
        sample
            .load
            .map(|[one, five, fifteen]| format!("{one:.2} {five:.2} {fifteen:.2}")),
    );
    for disk in sample.disks.iter().take(8) {
        add(&format!("disk {}", disk.mount), Some(usage(disk.usage)));
    }
    for gpu in sample.gpus.iter().take(16) {
        let figures = [
            gpu.utilization_percent.map(percent),
            gpu.memory.map(|memory| format!("memory {}", usage(memory))),
            gpu.temperature_celsius
                .map(|celsius| format!("{celsius:.0} °C")),
        ];
        let figures: Vec<String> = figures.into_iter().flatten().collect();
        add(
            &format!("GPU {}", gpu.index),
            (!figures.is_empty()).then(|| figures.join(", ")),
        );
    }
    add(
        "weir itself",
        sample.own.as_ref().map(|own| bytes(own.resident_bytes)),
    );
    Some(line)
}

fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 9.95);
    format!("{value:.digits$} {}", UNITS.get(unit).unwrap_or(&"B"))
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_read_like_people_say_them() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (38 << 20, "38 MiB"),
            (17 << 30, "17 GiB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes(u64::MAX), "16777216 TiB");
    }
}
