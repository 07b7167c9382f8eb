//! What a live workflow costs: a process with a monitor and a source inside it grows from none to many.

use crate::child::{self, Usage};
use crate::table::Figure;
use crate::{Scale, pipeline};
use futures::future::BoxFuture;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use weir_core::feed::{JobSource, PollFailed};
use weir_core::model::observation::{Coverage, JobRef, Observation, Page};
use weir_core::{Config, Monitor, MonitorHandle};

/// How many, as the child is told.
const COUNTS: &str = "WEIR_BENCH_WORKFLOWS";
const PAGE: usize = 250;
const LIMIT_KIB: f64 = 8.0;

pub(crate) fn figures(scale: Scale) -> Vec<Figure> {
    let counts = [scale.of(10_000, 100), scale.of(50_000, 500)];
    let told = counts.map(|n| n.to_string()).join(" ");
    let output = child::command("memory").env(COUNTS, told).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let measured: Vec<f64> = text
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    let (before, after) = measured.split_first().unwrap();
    let figure = |(count, resident): (usize, &f64)| {
        let each = (resident - before) / count as f64 / 1024.0;
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let name = format!("resident per live workflow, at {count}");
        Figure::at_most(name, each, "KiB", LIMIT_KIB).note(format!(
            "{:.1} MiB before, {:.1} MiB then",
            mib(*before),
            mib(*resident)
        ))
    };
    counts.into_iter().zip(after).map(figure).collect()
}

/// Shows so many running jobs, each of a workflow of its own.
#[derive(Default)]
struct Many {
    wanted: AtomicUsize,
    shown: AtomicUsize,
}

impl JobSource for Many {
    fn poll(&self, _: Option<String>, _: Vec<JobRef>) -> BoxFuture<'_, Result<Page, PollFailed>> {
        let from = self.shown.load(Ordering::SeqCst);
        let until = self.wanted.load(Ordering::SeqCst).min(from + PAGE);
        self.shown.store(until, Ordering::SeqCst);
        let job = |n: usize| {
            let id = uuid::Uuid::new_v4().to_string();
            Observation::Job(Box::new(pipeline::running_job(
                &id,
                format!("workflow {n}"),
            )))
        };
        let observations = (from..until).map(job).collect();
        // Partial: what a page does not name is as it was.
        Box::pin(async {
            Ok(Page {
                observations,
                cursor: None,
                coverage: Coverage::Partial,
            })
        })
    }
}

/// Prints the resident bytes with no workflow and with each number of them.
#[expect(clippy::print_stdout, reason = "a child's answer to the bench")]
pub(crate) fn child() {
    let counts = std::env::var(COUNTS).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let answer = runtime.block_on(async {
        let many = Arc::new(Many::default());
        let config =
            Config::temporary()
                .unwrap()
                .source("many", Duration::from_millis(20), many.clone());
        let monitor = Monitor::start(config).await.unwrap();
        let mut answer = String::new();
        write!(answer, "{}", resident(&monitor).await).unwrap();
        for count in counts
            .split(' ')
            .map(|count| count.parse::<usize>().unwrap())
        {
            many.wanted.store(count, Ordering::SeqCst);
            all_open(&monitor, count).await;
            write!(answer, " {}", resident(&monitor).await).unwrap();
        }
        monitor.shutdown().await;
        answer
    });
    println!("{answer}");
}

async fn all_open(monitor: &MonitorHandle, count: usize) {
    let begun = Instant::now();
    while monitor
        .sources()
        .iter()
        .map(|s| s.health.open_jobs)
        .sum::<usize>()
        < count
    {
        assert!(
            begun.elapsed() < Duration::from_secs(300),
            "{:?}",
            monitor.sources()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Once everything was counted, the checkpoints of that are stored, and the allocator has given back what it keeps
/// for a second.
async fn resident(monitor: &MonitorHandle) -> f64 {
    monitor.settled().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    Usage::of_self().resident
}
