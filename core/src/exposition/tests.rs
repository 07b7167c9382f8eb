//! The text of `/metrics`, read by Prometheus' own tool.

use std::io::Write as _;
use std::process::{Command, Stdio};

use weir_model::metrics::MetricFact;
use weir_model::status::Status;

use super::*;
use crate::sampler::{DiskSample, GpuSample, NetworkSample, OwnProcessSample, ProcessSample};

fn metrics(workflows: i64) -> Metrics {
    let mut metrics = Metrics::default();
    for workflow in 1..=workflows {
        for (from, to) in [
            (None, Status::Queued),
            (Some(Status::Queued), Status::Running),
            (Some(Status::Running), Status::Completed),
        ] {
            metrics.observe(&MetricFact {
                workflow: WorkflowId(workflow),
                source: SourceId(1),
                imported: false,
                from,
                to,
                duration: to.is_final().then(|| Duration::from_millis(1500)),
                queue_wait: (to == Status::Running).then(|| Duration::from_secs(4)),
            });
        }
    }
    metrics
}

fn resources() -> ResourceSample {
    let usage = Usage {
        used_bytes: 1 << 30,
        total_bytes: 4 << 30,
        percent: 25.0,
    };
    ResourceSample {
        cpu_percent: Some(12.5),
        cpu_cores: 2,
        memory: Some(usage),
        swap: Some(usage),
        load: Some([0.5, 0.25, 0.125]),
        disks: vec![DiskSample {
            mount: "/a \"b\"\\c\n".into(),
            file_system: "ext4".into(),
            usage,
        }],
        network: Some(NetworkSample {
            received_bytes: 7,
            transmitted_bytes: 9,
            received_bytes_per_second: None,
            transmitted_bytes_per_second: None,
        }),
        own: Some(OwnProcessSample {
            resident_bytes: 50 << 20,
            cpu_percent: Some(1.0),
            open_files: Some(30),
            threads: Some(12),
        }),
        processes: vec![ProcessSample {
            name: "python".into(),
            count: 2,
            resident_bytes: 1 << 20,
            cpu_percent: None,
        }],
        gpus: vec![GpuSample {
            index: 0,
            name: Some("RTX".into()),
            utilization_percent: Some(99.0),
            memory: Some(usage),
            temperature_celsius: Some(70.0),
            power_watts: Some(300.0),
        }],
    }
}

fn used(device: &str, value: f64) -> Gauge {
    let labels = vec![("device".to_owned(), device.to_owned())];
    Gauge::new("gpu_memory_used_bytes".into(), labels, value).unwrap()
}

fn rendered(metrics: &Metrics, resources: Option<&ResourceSample>) -> String {
    render(&Snapshot {
        version: "0.1.0",
        started_at: Timestamp::from_second(1_700_000_000).unwrap(),
        metrics,
        workflow_key: &|id| format!("workflow {id}"),
        source_name: &|_| "studio".to_owned(),
        sources: vec![
            SourceSample {
                name: "studio".into(),
                up: true,
                polls: 3,
                last_poll_at: Some(Timestamp::UNIX_EPOCH),
                last_ok_at: Some(Timestamp::UNIX_EPOCH),
                poll_duration: Some(Duration::from_millis(12)),
                stream: Some(StreamSample {
                    connected: true,
                    reconnects: 2,
                    frames: 40,
                    bytes: 4000,
                    dropped: 1,
                }),
                gauges: vec![used("cuda:0", 5.0), used("cuda:\\1 \"a\"", 7.5)],
                ..SourceSample::default()
            },
            SourceSample {
                name: "farm".into(),
                gauges: vec![used("cuda:0", 9.0)],
                gauges_refused: 3,
                ..SourceSample::default()
            },
        ],
        journal: JournalSample {
            events: 10,
            sync_p50: Some(Duration::from_millis(2)),
            sync_p99: Some(Duration::from_millis(9)),
            size_bytes: Some(1 << 20),
            ..JournalSample::default()
        },
        consumers: vec![("alerts".into(), 0)],
        receivers: vec![ReceiverSample {
            name: "phone".into(),
            sent: 2,
            ..ReceiverSample::default()
        }],
        alerts: vec![("failed".into(), Severity::Error, 1)],
        plugins: vec![PluginSample {
            entry: "studio".into(),
            plugin: "comfyui".into(),
            ..PluginSample::default()
        }],
        actors: vec![ActorSample {
            name: "registry".into(),
            starts: 1,
            ..ActorSample::default()
        }],
        reload: ReloadSample {
            succeeded: true,
            succeeded_at: Some(Timestamp::UNIX_EPOCH),
        },
        resources,
    })
}

/// Runs `promtool check metrics`; what it says is an objection. None = it is not installed.
fn promtool(text: &str) -> Option<String> {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some(format!(
        "{}{}",
        String::from_utf8_lossy(&said),
        if output.status.success() { "" } else { "exit" }
    ))
}

#[test]
fn promtool_has_nothing_to_say() {
    for (workflows, resources) in [(0, None), (3, Some(resources()))] {
        let text = rendered(&metrics(workflows), resources.as_ref());
        let Some(said) = promtool(&text) else {
            println!("skipped: promtool is not installed (Debian: apt-get install prometheus)");
            return;
        };
        assert_eq!(said, "", "of:\n{text}");
    }
}

#[test]
fn samples_are_what_was_counted() {
    let text = rendered(&metrics(1), Some(&resources()));
    for line in [
        "weir_build_info{version=\"0.1.0\"} 1",
        "# TYPE weir_executions_total counter",
        "weir_executions_total{workflow=\"workflow 1\",source=\"studio\",status=\"completed\"} 1",
        "weir_executions_running{source=\"studio\"} 0",
        "weir_execution_duration_seconds_bucket{workflow=\"workflow 1\",le=\"1\"} 0",
        "weir_execution_duration_seconds_bucket{workflow=\"workflow 1\",le=\"2\"} 1",
        "weir_execution_duration_seconds_bucket{workflow=\"workflow 1\",le=\"+Inf\"} 1",
        "weir_execution_duration_seconds_sum{workflow=\"workflow 1\"} 1.5",
        "weir_execution_queue_wait_seconds_count{workflow=\"workflow 1\"} 1",
        "weir_source_up{source=\"studio\"} 1",
        "# TYPE weir_provider_gpu_memory_used_bytes gauge",
        "weir_provider_gpu_memory_used_bytes{source=\"studio\",device=\"cuda:0\"} 5",
        "weir_provider_gpu_memory_used_bytes{source=\"studio\",device=\"cuda:\\\\1 \\\"a\\\"\"} 7.5",
        "weir_provider_gpu_memory_used_bytes{source=\"farm\",device=\"cuda:0\"} 9",
        "weir_source_gauges_refused_total{source=\"farm\"} 3",
        "weir_journal_sync_seconds{quantile=\"0.99\"} 0.009",
        "weir_host_cpu_ratio 0.125",
        "weir_host_disk_used_bytes{mount=\"/a \\\"b\\\"\\\\c\\n\",file_system=\"ext4\"} 1073741824",
        "weir_process_resident_memory_bytes 52428800",
        "weir_config_last_reload_successful 1",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in:\n{text}"
        );
    }
}

#[test]
fn workflows_beyond_the_limit_are_one_series() {
    let text = rendered(&metrics(250), None);
    let named = text
        .lines()
        .filter(|line| line.starts_with("weir_executions_total"))
        .count();
    assert_eq!(named, WORKFLOWS_MAX + 1);
    assert!(text.contains(
        "weir_executions_total{workflow=\"other\",source=\"studio\",status=\"completed\"} 50\n"
    ));
    assert!(text.contains("weir_execution_duration_seconds_count{workflow=\"other\"} 50\n"));
}

#[test]
fn every_name_begins_with_weir_and_every_family_stands_together() {
    let text = rendered(&metrics(2), Some(&resources()));
    let announced: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let unique: std::collections::HashSet<&&str> = announced.iter().collect();
    assert_eq!(unique.len(), announced.len());
    assert!(
        text.lines()
            .all(|line| line.starts_with("weir_") || line.starts_with("# "))
    );
}
