//! A daemon on a free port with one source whose jobs a test puts on stage.

use super::client::{Answer, ask};
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use weir::daemon::{Server, serve};
use weir_core::{Config, JobSource, Monitor, MonitorHandle, PollFailed};
use weir_model::alert::rule::Rule;
use weir_model::config::Http;
use weir_model::observation::{
    Coverage, Job, JobProgress, JobRef, JobState, JobStep, Observation, Page, StepState,
};

/// What the source shows at its next poll.
pub(super) struct Script {
    scene: Mutex<Result<Vec<Observation>, String>>,
    polls: watch::Sender<u64>,
}

impl JobSource for Script {
    fn poll(&self, _: Option<String>, _: Vec<JobRef>) -> BoxFuture<'_, Result<Page, PollFailed>> {
        let scene = self.scene.lock().unwrap().clone();
        self.polls.send_modify(|polls| *polls += 1);
        Box::pin(async move {
            let observations = scene.map_err(PollFailed::transient)?;
            Ok(Page {
                observations,
                cursor: None,
                coverage: Coverage::Partial,
            })
        })
    }
}

pub(super) struct Stage {
    script: Arc<Script>,
    server: Server,
    http: Http,
}

impl Stage {
    pub(super) async fn new() -> Stage {
        Stage::with(|_| {}).await
    }

    /// A daemon whose configuration was changed before the start.
    pub(super) async fn with(change: impl FnOnce(&mut Config)) -> Stage {
        let script = Arc::new(Script {
            scene: Mutex::new(Ok(Vec::new())),
            polls: watch::channel(0).0,
        });
        let mut config = Config::temporary().unwrap().source(
            "studio",
            Duration::from_millis(20),
            script.clone(),
        );
        config.settings.http.listen = (Ipv4Addr::LOCALHOST, 0).into();
        change(&mut config);
        let http = config.settings.http.clone();
        let monitor = Monitor::start(config).await.unwrap();
        let server = serve(monitor, &http).await.unwrap();
        let stage = Stage {
            script,
            server,
            http,
        };
        // The first contact is over: what ends from now on is news.
        stage.show(Vec::new()).await;
        stage
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub(super) fn http(&self) -> &Http {
        &self.http
    }

    pub(super) fn monitor(&self) -> &MonitorHandle {
        self.server.monitor()
    }

    /// Shows jobs and returns once every one of them is recorded and taken in.
    pub(super) async fn show(&self, jobs: Vec<Job>) {
        self.observe(
            jobs.into_iter()
                .map(|job| Observation::Job(Box::new(job)))
                .collect(),
        )
        .await;
    }

    pub(super) async fn observe(&self, observations: Vec<Observation>) {
        *self.script.scene.lock().unwrap() = Ok(observations);
        let mut polls = self.script.polls.subscribe();
        // The poll after the next one begins only when all of the next one is durable.
        let begun = *polls.borrow();
        polls.wait_for(|polls| *polls >= begun + 2).await.unwrap();
        self.monitor().settled().await;
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &str,
    ) -> Answer {
        let host = format!("host: {}", self.address());
        let mut all = vec![host.as_str()];
        all.extend(headers);
        ask(self.address(), method, path, &all, body).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(
            "POST",
            path,
            &["content-type: application/json"],
            &body.to_string(),
        )
        .await
    }

    /// A good answer.
    pub(super) async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    pub(super) async fn stop(self) {
        self.server.stop().await.unwrap();
    }
}

pub(super) fn rule(name: &str, when: weir_model::alert::rule::When) -> Rule {
    Rule::new(name, when)
}

/// This many seconds after a moment that lies 1000 s before the tests.
pub(super) fn at(second: i64) -> Timestamp {
    static BEGIN: OnceLock<Timestamp> = OnceLock::new();
    let begin = BEGIN.get_or_init(|| Timestamp::now() - SignedDuration::from_secs(1000));
    *begin + SignedDuration::from_secs(second)
}

/// A job of the workflow `render` in a state, created 1000 s ago.
pub(super) fn job(id: &str, state: JobState) -> Job {
    let begun = !matches!(state, JobState::Pending | JobState::Queued);
    let ended = matches!(
        state,
        JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::Partial
    );
    Job {
        id: id.to_owned(),
        run: None,
        workflow: Some("render".to_owned()),
        state,
        name: None,
        position: (!begun).then_some(0),
        created: Some(at(0)),
        started: begun.then(|| at(10)),
        finished: ended.then(|| at(30)),
        steps: Vec::new(),
        error: (state == JobState::Failed).then(|| "CUDA out of memory".to_owned()),
        labels: vec![("gpu".to_owned(), "A100".to_owned())],
        detail: "{}".to_owned(),
    }
}

pub(super) fn step(id: &str, state: StepState, done: Option<f64>) -> JobStep {
    JobStep {
        id: id.to_owned(),
        name: format!("Step {id}"),
        state,
        started: (state != StepState::Pending).then(|| at(10)),
        finished: (state == StepState::Completed).then(|| at(12)),
        done,
        total: done.map(|_| 20.0),
        error: None,
    }
}

pub(super) fn progress(id: &str, done: f64) -> Observation {
    Observation::Progress(JobProgress {
        id: id.to_owned(),
        run: None,
        step: None,
        done,
        total: Some(100.0),
        note: Some("sampling".to_owned()),
    })
}
