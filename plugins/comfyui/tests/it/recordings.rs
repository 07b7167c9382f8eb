//! For every recording: what the source says at its end equals what the recording says.

use std::collections::BTreeMap;

use comfyui::bindings::exports::weir::plugin::jobs::{Coverage, Page};
use comfyui::config::Config;
use comfyui::source::Source;
use weir_sdk::Far;
use weir_sdk::bindings::weir::plugin::types::{Job, JobRef, JobState, Observation, StepState};

use crate::oracle::{Run, Truth, truths};
use crate::player::{Player, recordings};

/// A host in small: keeps the last view of each run, hands the unfinished ones over, drops the instance at will.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) jobs: BTreeMap<(String, Option<String>), Job>,
    pub(crate) cursor: Option<String>,
    pub(crate) failures: Vec<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) gauges: Vec<(String, f64)>,
}

pub(crate) fn is_final(state: JobState) -> bool {
    matches!(
        state,
        JobState::Completed | JobState::Failed | JobState::Cancelled
    )
}

impl Host {
    pub(crate) fn open(&self) -> Vec<JobRef> {
        let open = self.jobs.values().filter(|job| !is_final(job.state));
        open.map(|job| JobRef {
            id: job.id.clone(),
            run: job.run.clone(),
        })
        .collect()
    }

    /// One round, with all its pages. Gives the unfinished runs that a complete round did not mention.
    pub(crate) fn round(&mut self, source: &mut Source, far: &impl Far) -> Option<Vec<JobRef>> {
        let mut missing = self.open();
        loop {
            let page = match source.poll(far, self.cursor.as_deref(), &self.open()) {
                Ok(page) => page,
                Err(failure) => {
                    self.failures.push(failure.message);
                    return None;
                }
            };
            let coverage = page.coverage;
            self.take(page, &mut missing);
            match coverage {
                Coverage::More => {}
                Coverage::Complete => return Some(missing),
                Coverage::Partial => return None,
            }
        }
    }

    /// One page of a round.
    pub(crate) fn poll(&mut self, source: &mut Source, far: &impl Far) {
        let page = source
            .poll(far, self.cursor.as_deref(), &self.open())
            .unwrap();
        self.take(page, &mut Vec::new());
    }

    fn take(&mut self, page: Page, missing: &mut Vec<JobRef>) {
        assert!(page.cursor.as_ref().unwrap().len() < 64 * 1024);
        self.cursor = page.cursor;
        for observation in page.observations {
            let mut job = match observation {
                Observation::Job(job) => job,
                Observation::Progress(progress) => {
                    assert_eq!(
                        (progress.step, progress.total),
                        (None, None),
                        "a note alone"
                    );
                    self.notes.extend(progress.note);
                    continue;
                }
                Observation::Gone(_) => panic!("a prompt does not say that it is gone"),
                Observation::Gauge(gauge) => {
                    self.gauges.push((gauge.name, gauge.value));
                    continue;
                }
            };
            let key = (job.id.clone(), job.run.clone());
            missing.retain(|missing| (&missing.id, &missing.run) != (&key.0, &key.1));
            if let Some(known) = self.jobs.remove(&key) {
                assert!(
                    !is_final(known.state) || known.state == job.state,
                    "{key:?} rose from the dead"
                );
                if job.steps.is_empty() {
                    job.steps = known.steps;
                }
            }
            self.jobs.insert(key, job);
        }
    }
}

pub(crate) fn source(config: &str) -> Source {
    Source::new(
        Config::parse(config).unwrap(),
        "0191e000-0000-7000-8000-000000000001".to_owned(),
    )
}

const CONFIG: &str = r#"{"url": "http://comfy:8188"}"#;

/// Plays a recording to its end; `fresh`: every poll in a new instance.
fn play(player: &Player, fresh: bool) -> Host {
    let mut host = Host::default();
    let mut instance = source(CONFIG);
    // Some recordings are about single requests only.
    let Some(end) = player.cycles.last().copied() else {
        return host;
    };
    for t in player.cycles.iter().copied().chain([end + 5.0, end + 10.0]) {
        player.t.set(t);
        if fresh {
            instance = source(CONFIG);
        }
        host.round(&mut instance, player);
    }
    host
}

fn word(state: JobState) -> &'static str {
    match state {
        JobState::Completed => "completed",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
        _ => "unfinished",
    }
}

fn said(job: &Job, steps: bool) -> Truth {
    let step = |state: StepState| match state {
        StepState::Pending => "pending",
        StepState::Running => "running",
        StepState::Completed => "completed",
        StepState::Failed => "failed",
        StepState::Skipped => "skipped",
        StepState::Cancelled => "cancelled",
    };
    Truth {
        state: word(job.state),
        created: job.created,
        started: job.started,
        finished: job.finished,
        workflow: job.workflow.clone(),
        error: job.error.clone(),
        steps: steps.then(|| {
            job.steps
                .iter()
                .map(|s| (s.id.clone(), s.name.clone(), step(s.state)))
                .collect()
        }),
    }
}

fn run_name((_, number, created): &Run) -> String {
    created.map_or(number.clone(), |created| format!("{number}:{created}"))
}

fn compare(player: &Player, host: &Host) -> usize {
    let truths = truths(player);
    let known: Vec<_> = truths
        .keys()
        .map(|run| (run.0.clone(), Some(run_name(run))))
        .collect();
    for key in host.jobs.keys() {
        assert!(known.contains(key), "{}: {key:?} is invented", player.name);
    }
    let mut finished = 0;
    for (run, truth) in &truths {
        let job = host.jobs.get(&(run.0.clone(), Some(run_name(run))));
        let Some(truth) = truth else {
            assert!(
                job.is_none_or(|job| !is_final(job.state)),
                "{}: {run:?} never ended",
                player.name
            );
            continue;
        };
        let job = job.unwrap_or_else(|| panic!("{}: {run:?} is missing", player.name));
        let said = said(job, truth.steps.is_some());
        let bounded = truth.error.as_ref().is_none_or(|error| error.len() <= 2048);
        if bounded {
            assert_eq!(said, *truth, "{}: {run:?}", player.name);
        } else {
            let (short, long) = (said.error.clone().unwrap(), truth.error.clone().unwrap());
            assert!(
                short.len() <= 2048 && long.starts_with(short.trim_end_matches('…')),
                "{}: {short}",
                player.name
            );
        }
        for step in &job.steps {
            assert!(
                step.started.is_none() && step.finished.is_none() && step.done.is_none(),
                "nobody said so"
            );
            assert_eq!(step.error.is_some(), step.state == StepState::Failed);
        }
        finished += 1;
    }
    finished
}

/// The server went away in the middle of it.
fn is_killed_in(recording: &str) -> bool {
    ["restart_sigkill", "stop_sigint"]
        .iter()
        .any(|name| recording.ends_with(name))
}

/// The frames of the WebSocket tell the same ends.
fn compare_frames(player: &Player, host: &Host) {
    for frame in &player.frames {
        let state = match frame["type"].as_str().unwrap_or_default() {
            "execution_success" => JobState::Completed,
            "execution_error" if frame["data"]["exception_type"] != "ExecutionBlocked" => {
                JobState::Failed
            }
            "execution_interrupted" => JobState::Cancelled,
            _ => continue,
        };
        let at = frame["data"]["timestamp"].as_u64();
        let id = frame["data"]["prompt_id"].as_str().unwrap();
        let job = host
            .jobs
            .values()
            .find(|job| job.id == id && job.finished == at);
        // Killed before the next poll, or after the last poll that was recorded: nobody could see it.
        let last = player.t0 + 1000.0 * player.cycles.last().copied().unwrap_or_default();
        let is_killed = is_killed_in(&player.name) || at.is_some_and(|at| at as f64 > last);
        assert!(
            job.is_some_and(|job| job.state == state) || is_killed,
            "{}: frame of {id} at {at:?}",
            player.name
        );
    }
}

#[test]
fn what_the_source_says_equals_every_recording() {
    let mut total = 0;
    let files = recordings();
    assert_eq!(files.len(), 59);
    for file in files {
        for fresh in [false, true] {
            let player = Player::load(&file);
            let host = play(&player, fresh);
            total += compare(&player, &host);
            compare_frames(&player, &host);
            let text = format!("{:?}{:?}{:?}", host.jobs, host.cursor, host.failures);
            for secret in [
                "/srv/",
                "traceback",
                "current_inputs",
                "auth_token",
                "api_key",
                "client_id",
                "extra_data",
            ] {
                assert!(!text.contains(secret), "{}: {secret}", player.name);
            }
            if !host.failures.is_empty() {
                assert!(
                    is_killed_in(&player.name),
                    "{}: {:?}",
                    player.name,
                    host.failures
                );
            }
        }
    }
    assert!(total > 150, "{total} finished runs compared");
}

#[test]
fn jobs_of_a_killed_server_are_missing_in_complete_rounds_and_never_failed() {
    for folder in ["v0.33.0", "v0.3.64"] {
        let file = recordings()
            .into_iter()
            .find(|file| file.ends_with(format!("{folder}/restart_sigkill.jsonl")))
            .unwrap();
        let player = Player::load(&file);
        let mut host = Host::default();
        let mut instance = source(CONFIG);
        let mut missing = None;
        for t in &player.cycles {
            player.t.set(*t);
            if let Some(round) = host.round(&mut instance, &player) {
                missing = Some(round);
            }
        }
        assert!(
            !host.failures.is_empty(),
            "while the server is down every poll fails"
        );
        assert_eq!(missing.map(|missing| missing.len()), Some(3), "{folder}");
        assert!(host.open().len() >= 3);
    }
}

#[test]
fn waiting_jobs_have_their_place_in_the_order_of_execution() {
    for folder in ["v0.33.0", "v0.3.64"] {
        let file = recordings()
            .into_iter()
            .find(|file| file.ends_with(format!("{folder}/queue_several.jsonl")))
            .unwrap();
        let player = Player::load(&file);
        let mut host = Host::default();
        let mut instance = source(CONFIG);
        let mut longest = 0;
        for t in &player.cycles {
            player.t.set(*t);
            let missing = host.round(&mut instance, &player).unwrap();
            for gone in missing {
                host.jobs.remove(&(gone.id, gone.run));
            }
            let mut waiting: Vec<&Job> = host
                .jobs
                .values()
                .filter(|job| job.state == JobState::Queued)
                .collect();
            waiting.sort_by_key(|job| job.position);
            let number = |job: &&Job| {
                serde_json::from_str::<serde_json::Value>(&job.detail).unwrap()["number"]
                    .as_f64()
                    .unwrap()
            };
            assert!(waiting.is_sorted_by(|a, b| number(a) <= number(b)));
            assert!(
                waiting
                    .iter()
                    .zip(0..)
                    .all(|(job, place)| job.position == Some(place))
            );
            longest = longest.max(waiting.len());
        }
        assert!(longest >= 4);
    }
}

#[test]
fn a_running_job_has_its_nodes_before_it_ends() {
    for folder in ["v0.33.0", "v0.3.64", "v0.3.40"] {
        let file = recordings()
            .into_iter()
            .find(|file| file.ends_with(format!("{folder}/progress_own.jsonl")))
            .unwrap();
        let player = Player::load(&file);
        let mut host = Host::default();
        let mut instance = source(CONFIG);
        let mut nodes = 0;
        for t in &player.cycles {
            player.t.set(*t);
            host.round(&mut instance, &player);
            for job in host
                .jobs
                .values()
                .filter(|job| job.state == JobState::Running)
            {
                assert!(
                    job.steps
                        .iter()
                        .all(|step| step.state == StepState::Pending),
                    "which node runs is not told"
                );
                nodes = nodes.max(job.steps.len());
            }
        }
        assert_eq!(nodes, 3, "{folder}");
    }
}
