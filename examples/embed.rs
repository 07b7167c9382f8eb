//! Embeds the monitor: a source inside the program, and its alerts as values.
//!
//! `cargo run --example embed`

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use weir_core::feed::{JobSource, PollFailed};
use weir_core::model::alert::rule::{Rule, When};
use weir_core::model::observation::{Coverage, Job, JobRef, JobState, Observation, Page};
use weir_core::{Config, Monitor};

/// Jobs that the program moves by hand.
#[derive(Default)]
struct Bench {
    jobs: Mutex<Vec<Job>>,
}

impl Bench {
    fn set(&self, id: &str, state: JobState, error: Option<&str>) {
        let mut jobs = self.jobs.lock().expect("nobody panics while holding it");
        jobs.retain(|job| job.id != id);
        jobs.push(Job {
            id: id.to_owned(),
            run: None,
            workflow: Some("render".to_owned()),
            state,
            name: None,
            position: None,
            created: None,
            started: None,
            finished: None,
            steps: Vec::new(),
            error: error.map(ToOwned::to_owned),
            labels: Vec::new(),
            detail: "{}".to_owned(),
        });
    }
}

impl JobSource for Bench {
    fn poll(
        &self,
        _cursor: Option<String>,
        _open: Vec<JobRef>,
    ) -> futures::future::BoxFuture<'_, Result<Page, PollFailed>> {
        let jobs = self
            .jobs
            .lock()
            .expect("nobody panics while holding it")
            .clone();
        let observations = jobs
            .into_iter()
            .map(|job| Observation::Job(Box::new(job)))
            .collect();
        Box::pin(async {
            Ok(Page {
                observations,
                cursor: None,
                coverage: Coverage::Complete,
            })
        })
    }
}

/// Runs one job to its failure and returns what the alert says.
pub(crate) async fn run() -> Result<String, Box<dyn std::error::Error>> {
    let bench = Arc::new(Bench::default());
    bench.set("frame-1", JobState::Running, None);
    let mut config = Config::temporary()?.source("bench", Duration::from_millis(20), bench.clone());
    config.settings.alerts.rules = vec![Rule::new("failed", When::ExecutionFailed)];
    let monitor = Monitor::start(config).await?;
    let mut notifications = monitor.notifications();
    let mut head = monitor.journal().subscribe();
    // The source's first round: what is final in it would be imported, not alerted.
    head.wait_for(|seq| seq.0 >= 3).await?;
    bench.set("frame-1", JobState::Failed, Some("out of memory"));
    let notification = notifications.recv().await?;
    monitor.settled().await;
    monitor.shutdown().await;
    Ok(notification.title.clone())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let title = run().await?;
    use std::io::Write;
    writeln!(std::io::stdout(), "{title}")?;
    Ok(())
}
