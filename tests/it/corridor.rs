//! The corridor with an in-process source: panics, restarts, reloads, alerts, embedding.

use futures::future::BoxFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use weir_core::feed::{JobSource, PollFailed};
use weir_core::journal::{ExecutionFilter, StoredExecution};
use weir_core::model::alert::mute::MuteScope;
use weir_core::model::alert::rule::{Rule, When};
use weir_core::model::event::Event;
use weir_core::model::id::Seq;
use weir_core::model::observation::{
    Coverage, Job, JobRef, JobState, JobStep, Observation, Page, StepState,
};
use weir_core::model::status::Status;
use weir_core::monitor::MuteRequest;
use weir_core::{Config, Monitor, MonitorHandle};

/// Jobs that a test moves by hand.
#[derive(Default)]
pub(crate) struct Bench {
    jobs: Mutex<Vec<Job>>,
    broken: Mutex<Option<String>>,
}

pub(crate) fn job(id: &str, state: JobState) -> Job {
    Job {
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
        error: None,
        labels: Vec::new(),
        detail: "{}".to_owned(),
    }
}

impl Bench {
    pub(crate) fn put(&self, job: Job) {
        let mut jobs = self.jobs.lock().unwrap();
        jobs.retain(|known| known.id != job.id);
        jobs.push(job);
    }

    pub(crate) fn set(&self, id: &str, state: JobState) {
        self.put(job(id, state));
    }

    fn remove(&self, id: &str) {
        self.jobs.lock().unwrap().retain(|job| job.id != id);
    }

    fn break_off(&self, error: Option<&str>) {
        *self.broken.lock().unwrap() = error.map(ToOwned::to_owned);
    }
}

impl JobSource for Bench {
    fn poll(&self, _: Option<String>, _: Vec<JobRef>) -> BoxFuture<'_, Result<Page, PollFailed>> {
        let jobs = self.jobs.lock().unwrap().clone();
        let broken = self.broken.lock().unwrap().clone();
        let observations = jobs
            .into_iter()
            .map(|job| Observation::Job(Box::new(job)))
            .collect();
        Box::pin(async {
            match broken {
                Some(error) => Err(PollFailed::transient(error)),
                None => Ok(Page {
                    observations,
                    cursor: None,
                    coverage: Coverage::Complete,
                }),
            }
        })
    }
}

const POLL: Duration = Duration::from_millis(20);

fn config(bench: &Arc<Bench>) -> Config {
    let mut config = Config::temporary()
        .unwrap()
        .source("bench", POLL, bench.clone());
    config.settings.alerts.rules = vec![
        Rule::new("failed", When::ExecutionFailed),
        Rule::new(
            "unreachable",
            When::SourceUnreachable {
                after: Duration::ZERO,
            },
        ),
    ];
    config
}

pub(crate) fn all(monitor: &MonitorHandle) -> Vec<StoredExecution> {
    let reader = monitor.journal().reader().unwrap();
    reader
        .executions(&ExecutionFilter {
            limit: 100,
            ..ExecutionFilter::default()
        })
        .unwrap()
}

/// Waits until what is committed satisfies the condition; the journal wakes it, and polls that change nothing do not.
pub(crate) async fn until(
    monitor: &MonitorHandle,
    what: &str,
    met: impl Fn(&MonitorHandle) -> bool,
) {
    let waiting = async {
        while !met(monitor) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    assert!(
        in_time.is_ok(),
        "never: {what}; status: {:?}",
        monitor.status()
    );
}

fn status_is(id: &'static str, status: Status) -> impl Fn(&MonitorHandle) -> bool {
    move |m| {
        all(m)
            .iter()
            .any(|e| e.record.key.external_id == id && e.record.status == status)
    }
}

#[tokio::test]
async fn a_panic_in_any_actor_loses_nothing_and_stops_nothing_else() {
    let bench = Arc::new(Bench::default());
    bench.set("a", JobState::Running);
    let mut with_sampler = config(&bench);
    with_sampler.sample_resources = true;
    with_sampler.settings.resources.interval = Duration::from_millis(50);
    let monitor = Monitor::start(with_sampler).await.unwrap();
    until(&monitor, "first contact", status_is("a", Status::Running)).await;
    let mut notices = monitor.notifications();
    let actors = [
        "workflow:render",
        "registry",
        "metrics",
        "alerts",
        "source:bench",
        "receiver:log",
        "sampler",
        "journal",
    ];
    for (round, actor) in actors.into_iter().enumerate() {
        assert!(monitor.panic_actor(actor).await, "there is no {actor}");
        let id: &'static str = Box::leak(format!("job-{round}").into_boxed_str());
        bench.set(id, JobState::Running);
        until(&monitor, actor, status_is(id, Status::Running)).await;
        bench.set(id, JobState::Completed);
        until(&monitor, actor, status_is(id, Status::Completed)).await;
    }
    let mut failed = job("last", JobState::Running);
    bench.put(failed.clone());
    until(&monitor, "last runs", status_is("last", Status::Running)).await;
    failed.state = JobState::Failed;
    failed.error = Some("out of memory".into());
    bench.put(failed);
    // The journal's own trouble is told too: it needed a look at the disk.
    let told = async {
        let mut told = String::new();
        while !told.contains("out of memory") {
            told.push_str(&notices.recv().await.unwrap().text);
        }
        told
    };
    let told = tokio::time::timeout(Duration::from_secs(30), told)
        .await
        .unwrap();
    assert!(
        told.contains("the journal was closed and is open again"),
        "{told}"
    );
    monitor.settled().await;
    assert_eq!(
        monitor.metrics().overall().count(Status::Completed),
        actors.len() as u64
    );
    let panics: u64 = monitor.status().actors.iter().map(|a| a.panics).sum();
    assert_eq!(
        panics,
        actors.len() as u64 - 2,
        "the workflow's is told by its registry, the journal's by its state"
    );
    monitor.shutdown().await;
}

#[tokio::test]
async fn lost_contact_changes_no_status_and_one_alert_tells_it() {
    let bench = Arc::new(Bench::default());
    bench.set("a", JobState::Running);
    let monitor = Monitor::start(config(&bench)).await.unwrap();
    until(&monitor, "running", status_is("a", Status::Running)).await;
    let mut notices = monitor.notifications();
    bench.break_off(Some("connection refused"));
    let notice = tokio::time::timeout(Duration::from_secs(30), notices.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(notice.title.contains("bench"), "{}", notice.title);
    monitor.clock().advance(Duration::from_secs(600));
    let shown = all(&monitor).remove(0);
    assert_eq!(shown.record.status, Status::Running);
    assert!(shown.stale_since.is_some());
    bench.break_off(None);
    monitor.clock().advance(Duration::from_secs(120));
    until(&monitor, "contact again", |m| {
        m.sources()[0].health.stale_since.is_none()
    })
    .await;
    assert_eq!(all(&monitor).remove(0).record.status, Status::Running);
    monitor.shutdown().await;
}

#[tokio::test]
async fn a_job_that_vanished_is_lost_and_found_again() {
    let bench = Arc::new(Bench::default());
    bench.set("a", JobState::Running);
    let monitor = Monitor::start(config(&bench)).await.unwrap();
    until(&monitor, "running", status_is("a", Status::Running)).await;
    bench.remove("a");
    until(&monitor, "two rounds", {
        let polls = monitor.sources()[0].health.polls;
        move |m| m.sources()[0].health.polls > polls + 2
    })
    .await;
    assert_eq!(
        all(&monitor)[0].record.status,
        Status::Running,
        "not before a minute has passed"
    );
    monitor.clock().advance(Duration::from_secs(61));
    until(&monitor, "lost", status_is("a", Status::Lost)).await;
    bench.set("a", JobState::Completed);
    until(&monitor, "found", status_is("a", Status::Completed)).await;
    monitor.shutdown().await;
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_restart_and_nothing_happens_twice() {
    let bench = Arc::new(Bench::default());
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let mut config = config(&bench);
        config.data_dir = dir.path().join("data");
        Monitor::start(config)
    };
    bench.set("old", JobState::Failed);
    bench.set("a", JobState::Running);
    let monitor = start().await.unwrap();
    until(&monitor, "running", status_is("a", Status::Running)).await;
    let imported = all(&monitor)
        .into_iter()
        .find(|e| e.record.key.external_id == "old")
        .unwrap();
    assert!(imported.record.imported);
    let head = monitor.journal().head();
    monitor.shutdown().await;
    drop(monitor);
    bench.set("a", JobState::Completed);
    let monitor = start().await.unwrap();
    until(&monitor, "completed", status_is("a", Status::Completed)).await;
    monitor.settled().await;
    let events = monitor
        .journal()
        .reader()
        .unwrap()
        .events_after(Seq(0), 1000)
        .unwrap();
    assert!(monitor.journal().head() > head);
    let created = events
        .iter()
        .filter(|e| e.row.kind == "execution.created")
        .count();
    assert_eq!(created, 2);
    let seqs: Vec<i64> = events.iter().map(|e| e.row.seq.0).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(
        !events
            .iter()
            .any(|e| matches!(&e.row.event, Event::Alert(..))),
        "imported failures do not alert"
    );
    let overall = monitor.metrics().overall().clone();
    assert_eq!((overall.count(Status::Completed), overall.imported), (1, 1));
    monitor.shutdown().await;
}

#[tokio::test]
async fn a_muted_workflow_is_recorded_and_not_told() {
    let bench = Arc::new(Bench::default());
    bench.set("a", JobState::Running);
    let monitor = Monitor::start(config(&bench)).await.unwrap();
    until(&monitor, "running", status_is("a", Status::Running)).await;
    let request = MuteRequest {
        scope: MuteScope::Workflow("render".into()),
        duration: Duration::from_secs(3600),
        by: "test".into(),
    };
    let mute = monitor.mute(request).await.unwrap();
    assert_eq!(monitor.status().mutes, std::slice::from_ref(&mute));
    bench.set("a", JobState::Failed);
    let ledger = |m: &MonitorHandle| m.journal().reader().unwrap().outbox_page(None, 10).unwrap();
    until(&monitor, "ledger", |m| !ledger(m).is_empty()).await;
    assert_eq!(ledger(&monitor)[0].state.as_str(), "suppressed");
    let alert = monitor
        .journal()
        .reader()
        .unwrap()
        .firing_alerts(0)
        .unwrap()
        .remove(0);
    monitor
        .acknowledge(&alert.uuid.to_string(), "kai")
        .await
        .unwrap();
    let stored = monitor
        .journal()
        .reader()
        .unwrap()
        .find_alert(&alert.fingerprint)
        .unwrap()
        .unwrap();
    assert_eq!(stored.acknowledged_by.as_deref(), Some("kai"));
    assert!(monitor.acknowledge("nothing", "kai").await.is_err());
    monitor.unmute(&mute.id).await.unwrap();
    assert!(monitor.status().mutes.is_empty());
    monitor.shutdown().await;
}

#[tokio::test]
async fn an_idle_workflow_is_let_go_and_comes_back_where_it_was() {
    let bench = Arc::new(Bench::default());
    bench.set("a", JobState::Running);
    let mut impatient = config(&bench);
    impatient.passivate_after = Duration::from_millis(30);
    let monitor = Monitor::start(impatient).await.unwrap();
    until(&monitor, "running", status_is("a", Status::Running)).await;
    bench.set("a", JobState::Completed);
    until(&monitor, "completed", status_is("a", Status::Completed)).await;
    let letting_go = async {
        while monitor.live_workflows().await > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), letting_go)
        .await
        .unwrap();
    bench.set("b", JobState::Running);
    until(&monitor, "back", status_is("b", Status::Running)).await;
    let numbers: Vec<i64> = all(&monitor).iter().map(|e| e.record.number).collect();
    assert_eq!(numbers, [2, 1]);
    assert_eq!(monitor.live_workflows().await, 1);
    monitor.shutdown().await;
}

#[tokio::test]
async fn two_monitors_live_in_one_process() {
    let benches = [Arc::new(Bench::default()), Arc::new(Bench::default())];
    benches[0].set("a", JobState::Running);
    benches[1].set("b", JobState::Running);
    let first = Monitor::start(config(&benches[0])).await.unwrap();
    let second = Monitor::start(config(&benches[1])).await.unwrap();
    until(&first, "a", status_is("a", Status::Running)).await;
    until(&second, "b", status_is("b", Status::Running)).await;
    assert_eq!((all(&first).len(), all(&second).len()), (1, 1));
    first.shutdown().await;
    drop(second);
}

#[tokio::test]
async fn a_second_daemon_in_one_data_directory_is_refused() {
    let bench = Arc::new(Bench::default());
    let dir = tempfile::tempdir().unwrap();
    let mut one = config(&bench);
    one.data_dir = dir.path().to_owned();
    let two = one.clone();
    let monitor = Monitor::start(one).await.unwrap();
    let error = Monitor::start(two).await.unwrap_err().to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    monitor.shutdown().await;
}

#[tokio::test]
async fn steps_and_progress_are_shown_while_they_run() {
    let bench = Arc::new(Bench::default());
    let step = |id: &str, state, done| JobStep {
        id: id.into(),
        name: format!("node {id}"),
        state,
        started: None,
        finished: None,
        done,
        total: Some(20.0),
        error: None,
    };
    let mut running = job("a", JobState::Running);
    running.steps = vec![
        step("1", StepState::Completed, None),
        step("2", StepState::Running, Some(10.0)),
    ];
    bench.put(running);
    let monitor = Monitor::start(config(&bench)).await.unwrap();
    until(&monitor, "running", status_is("a", Status::Running)).await;
    let seq = all(&monitor)[0].record.seq;
    until(&monitor, "progress", |m| {
        m.board().get(seq).is_some_and(|l| l.percent == Some(75.0))
    })
    .await;
    bench.set("a", JobState::Completed);
    loop {
        let live = monitor.board().get(seq);
        if status_is("a", Status::Completed)(&monitor) {
            break;
        }
        assert!(live.is_some(), "its progress goes once its end is on disk");
        tokio::task::yield_now().await;
    }
    until(&monitor, "nothing live", |m| m.board().get(seq).is_none()).await;
    monitor.shutdown().await;
}

/// The example, under every kind of executor there is.
mod embedding {
    use crate::embed;

    const TITLE: &str = "render on bench failed";

    #[test]
    fn under_a_plain_main() {
        assert_eq!(futures::executor::block_on(embed::run()).unwrap(), TITLE);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn under_a_tokio_of_one_thread() {
        assert_eq!(embed::run().await.unwrap(), TITLE);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn under_a_tokio_of_many_threads() {
        assert_eq!(embed::run().await.unwrap(), TITLE);
    }

    #[actix::test]
    async fn under_actix() {
        assert_eq!(embed::run().await.unwrap(), TITLE);
    }
}
