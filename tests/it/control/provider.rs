//! A provider inside the test that takes, refuses, forgets or ignores what it is asked, and a daemon that watches it.

use crate::corridor::job;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use url::Url;
use weir::daemon::{Server, serve};
use weir_core::control::ControlFailed;
use weir_core::feed::{JobSource, PollFailed};
use weir_core::model::control::Submission;
use weir_core::model::observation::{Coverage, Job, JobRef, JobState, Observation, Page};
use weir_core::{Config, Monitor};

/// How the provider takes what it is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Mood {
    #[default]
    Willing,
    /// Says yes, does nothing.
    Ignoring,
    Refusing(&'static str),
    Unreachable,
    /// Does it, and the answer gets lost.
    Mute,
    /// Does not do it, and says nothing.
    Dead,
    /// Answers like a server whose validation failed.
    Strict,
    /// Says yes; the job is never shown.
    Forgetful,
    /// Never answers.
    Hanging,
}

#[derive(Default)]
pub(super) struct Provider {
    pub(super) jobs: Mutex<Vec<Job>>,
    pub(super) mood: Mutex<Mood>,
    /// What was asked, in order.
    pub(super) calls: Mutex<Vec<String>>,
    /// Told when a call comes in, for a process that is killed in the middle of it.
    pub(super) on_call: Option<fn(&str)>,
    /// Names of the jobs that are made; then they are numbered.
    pub(super) names: Mutex<VecDeque<String>>,
}

impl Provider {
    pub(super) fn with(mood: Mood) -> Arc<Provider> {
        Arc::new(Provider {
            mood: Mutex::new(mood),
            ..Provider::default()
        })
    }

    pub(super) fn set(&self, id: &str, state: JobState) {
        let mut jobs = self.jobs.lock().unwrap();
        jobs.retain(|known| known.id != id);
        jobs.push(job(id, state));
    }

    pub(super) fn remove(&self, id: &str) {
        self.jobs.lock().unwrap().retain(|job| job.id != id);
    }

    pub(super) fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn called(&self, call: String) -> Mood {
        if let Some(told) = self.on_call {
            told(&call);
        }
        self.calls.lock().unwrap().push(call);
        self.mood.lock().unwrap().clone()
    }

    /// A new job; its id is the key where the answer will be lost.
    fn make(&self, key: &str, mood: &Mood) -> Result<Submission, ControlFailed> {
        let made = self.calls().len();
        let named = self.names.lock().unwrap().pop_front();
        let id = match mood {
            Mood::Mute => key.to_owned(),
            _ => named.unwrap_or_else(|| format!("made-{made}")),
        };
        let answer = |job: Option<&str>, status: u16, body: Value| Submission {
            job: job.map(|id| JobRef {
                id: id.to_owned(),
                run: None,
            }),
            status,
            content_type: "application/json; charset=utf-8".to_owned(),
            body: body.to_string().into_bytes(),
        };
        match mood {
            Mood::Willing | Mood::Ignoring | Mood::Mute | Mood::Hanging => {
                self.set(&id, JobState::Queued);
            }
            Mood::Forgetful | Mood::Strict | Mood::Dead => {}
            Mood::Refusing(reason) => return Err(ControlFailed::refused(*reason)),
            Mood::Unreachable => return Err(unreachable()),
        }
        match mood {
            Mood::Mute | Mood::Dead => Err(ControlFailed::unclear("timeout: no answer")),
            Mood::Strict => Ok(answer(
                None,
                400,
                json!({ "error": { "type": "no_prompt" } }),
            )),
            _ => Ok(answer(
                Some(&id),
                200,
                json!({ "prompt_id": id, "number": 7 }),
            )),
        }
    }
}

fn unreachable() -> ControlFailed {
    ControlFailed::NotAsked {
        message: "connect: connection refused".to_owned(),
        passing: true,
        retry_after: None,
    }
}

impl JobSource for Provider {
    fn poll(&self, _: Option<String>, _: Vec<JobRef>) -> BoxFuture<'_, Result<Page, PollFailed>> {
        let jobs = self.jobs.lock().unwrap().clone();
        let observations = jobs.into_iter().map(|job| Observation::Job(Box::new(job)));
        let page = Page {
            observations: observations.collect(),
            cursor: None,
            coverage: Coverage::Complete,
        };
        Box::pin(async { Ok(page) })
    }

    fn cancel(&self, job: JobRef) -> BoxFuture<'_, Result<(), ControlFailed>> {
        let mood = self.called(format!("cancel {}", job.id));
        Box::pin(async move {
            match mood {
                Mood::Ignoring | Mood::Forgetful | Mood::Strict => Ok(()),
                Mood::Refusing(reason) => Err(ControlFailed::refused(reason)),
                Mood::Unreachable => Err(unreachable()),
                Mood::Dead => Err(ControlFailed::unclear("timeout: no answer")),
                Mood::Hanging => std::future::pending().await,
                Mood::Willing | Mood::Mute => {
                    self.set(&job.id, JobState::Cancelled);
                    Ok(())
                }
            }
        })
    }

    fn retry(&self, key: String, job: JobRef) -> BoxFuture<'_, Result<Submission, ControlFailed>> {
        let mood = self.called(format!("retry {}", job.id));
        Box::pin(async move { self.make(&key, &mood) })
    }

    fn submit(
        &self,
        key: String,
        content_type: String,
        body: Vec<u8>,
    ) -> BoxFuture<'_, Result<Submission, ControlFailed>> {
        let body = String::from_utf8_lossy(&body).into_owned();
        let mood = self.called(format!("submit {content_type} {body}"));
        Box::pin(async move {
            if mood == Mood::Hanging {
                return std::future::pending().await;
            }
            tokio::task::yield_now().await;
            self.make(&key, &mood)
        })
    }
}

/// A real daemon over real HTTP with that provider as its source `studio`, and one without control, `shop`.
pub(crate) struct Daemon {
    pub(super) provider: Arc<Provider>,
    pub(crate) server: Server,
    http: reqwest::Client,
    pub(super) token: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(super) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// An answer with this status, as JSON.
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

impl Daemon {
    /// Around a daemon with other sources; nobody asks its provider.
    pub(crate) fn around(server: Server) -> Daemon {
        Daemon::of(server, Provider::with(Mood::Willing))
    }

    fn of(server: Server, provider: Arc<Provider>) -> Daemon {
        let url = Url::parse(&server.url()).unwrap();
        let token = weir::token::path(server.monitor().data_dir());
        Daemon {
            provider,
            http: weir::client::http_client(&url).unwrap(),
            token: weir::token::read(&token).unwrap(),
            server,
        }
    }

    pub(super) async fn new(mood: Mood) -> Daemon {
        Daemon::on(Config::temporary().unwrap(), Provider::with(mood)).await
    }

    pub(super) async fn on(config: Config, provider: Arc<Provider>) -> Daemon {
        let poll = Duration::from_millis(50);
        let mut config = config
            .source("studio", poll, provider.clone())
            .control("studio")
            .source("shop", poll, Provider::with(Mood::Willing));
        config.settings.http.listen = (Ipv4Addr::LOCALHOST, 0).into();
        let http = config.settings.http.clone();
        let server = serve(Monitor::start(config).await.unwrap(), &http).await;
        Daemon::of(server.unwrap(), provider)
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.server.url()))
            .body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        self.send("GET", path, &[], "").await.is(200)
    }

    /// With the token.
    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend(headers);
        self.send("POST", path, &all, body).await
    }

    /// What a path answers, once it is so.
    pub(crate) async fn seen(&self, path: &str, met: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let answer = self.get(path).await;
            if met(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "never: {answer}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The execution of this job, once it is there and `met`.
    pub(crate) async fn execution(&self, job: &str, met: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/api/executions?external_id={job}");
        let begun = Instant::now();
        loop {
            let page = self.get(&path).await;
            if let Some(id) = page["items"][0]["id"].as_str() {
                let whole = self.get(&format!("/api/executions/{id}")).await;
                if met(&whole) {
                    return whole;
                }
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "never: {page}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A job in this state, as its execution.
    pub(super) async fn shown(&self, id: &str, state: JobState) -> Value {
        self.provider.set(id, state);
        self.execution(id, |_| true).await
    }

    /// A control request once it is in one of these states. `advance`: seconds that pass meanwhile, each look.
    pub(crate) async fn request(&self, id: &Value, states: &[&str], advance: u64) -> Value {
        let path = format!("/api/control/{}", id.as_str().unwrap());
        let begun = Instant::now();
        loop {
            let request = self.get(&path).await;
            if states.contains(&request["state"].as_str().unwrap()) {
                return request;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "never: {request}"
            );
            if advance > 0 {
                self.server
                    .monitor()
                    .clock()
                    .advance(Duration::from_secs(advance));
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }

    /// Types of the events of an execution that are about control.
    pub(super) async fn control_events(&self, execution: &Value) -> Vec<String> {
        let id = execution["id"].as_str().unwrap();
        let page = self.get(&format!("/api/executions/{id}/events")).await;
        let items = page["items"].as_array().unwrap().iter();
        items
            .map(|event| event["type"].as_str().unwrap().to_owned())
            .filter(|kind| kind.starts_with("control."))
            .collect()
    }

    pub(crate) async fn stop(self) {
        self.server.stop().await.unwrap();
    }
}

/// The path of an execution's action.
pub(crate) fn path(execution: &Value, action: &str) -> String {
    format!(
        "/api/executions/{}/{action}",
        execution["id"].as_str().unwrap()
    )
}
