//! Job source: the jobs of a Slurm cluster, by its REST service (slurmrestd).
//!
//! ```ron
//! config: { "url": "http://slurm:6820", "credential": "slurm" }
//! credentials: { "slurm": Header(name: "X-SLURM-USER-TOKEN", file: "slurm.jwt", origins: ["http://slurm:6820"]) }
//! ```
//!
//! The controller forgets a job minutes after its end (`MinJobAge`); poll more often than that.

use serde::Deserialize;
use weir_sdk::plugin::{Context, Coverage, JobSource, Page, Plugin};
use weir_sdk::{Failure, Far, Job, JobRef, JobState, Level, Observation, Request, config, text};

const JOBS_MAX: usize = 5000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    url: String,
    credential: Option<String>,
    /// The data parser's version in the path.
    #[serde(default = "api")]
    api: String,
    /// Only this user's jobs.
    user: Option<String>,
}

fn api() -> String {
    "v0.0.40".to_owned()
}

#[derive(Debug)]
pub struct Slurm(Config);

/// Slurm's own: a number that may be unset or infinite; older versions have it bare.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Number {
    Bare(i64),
    Wrapped {
        #[serde(default)]
        set: bool,
        #[serde(default)]
        number: i64,
    },
    #[default]
    None,
}

impl Number {
    /// Seconds since 1970 as milliseconds; 0 means that it has not happened.
    fn time(&self) -> Option<u64> {
        let seconds = match self {
            Number::Bare(seconds) => *seconds,
            Number::Wrapped { set: true, number } => *number,
            _ => return None,
        };
        u64::try_from(seconds)
            .ok()
            .filter(|seconds| *seconds > 0)
            .map(|seconds| seconds * 1000)
    }
}

/// One word, or since v0.0.40 a list of flags with the state in front.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum State {
    One(String),
    Flags(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct SlurmJob {
    job_id: u64,
    job_state: State,
    name: Option<String>,
    user_name: Option<String>,
    partition: Option<String>,
    nodes: Option<String>,
    state_reason: Option<String>,
    #[serde(default)]
    restart_cnt: u64,
    #[serde(default)]
    submit_time: Number,
    #[serde(default)]
    start_time: Number,
    #[serde(default)]
    end_time: Number,
}

#[derive(Debug, Deserialize)]
struct Jobs {
    jobs: Vec<serde_json::Value>,
}

impl Plugin for Slurm {
    type Config = Config;
    const NAME: &'static str = "slurm";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CONFIG_SCHEMA: Option<&'static str> = Some(
        r#"{
  "type": "object", "additionalProperties": false, "required": ["url"],
  "properties": {
    "url": {"type": "string", "description": "Where slurmrestd answers"},
    "credential": {"type": "string", "description": "The credential with the token (X-SLURM-USER-TOKEN)"},
    "api": {"type": "string", "description": "Version in the path, v0.0.40 if left out"},
    "user": {"type": "string", "description": "Only this user's jobs"}
  }
}"#,
    );

    fn open(mut config: Config, _context: Context) -> Result<Slurm, Failure> {
        let (origin, path) = config::split_url("url", &config.url)?;
        config.url = format!("{origin}{path}");
        Ok(Slurm(config))
    }

    fn check(&self, far: &impl Far) -> Result<String, Failure> {
        far.fetch(self.get("ping"))?;
        Ok(format!("slurmrestd at {}", self.0.url))
    }
}

impl JobSource for Slurm {
    fn poll(
        &self,
        far: &impl Far,
        _cursor: Option<&str>,
        _open: &[JobRef],
    ) -> Result<Page, Failure> {
        let answer: Jobs = far.fetch(self.get("jobs"))?.json()?;
        let mut observations = Vec::new();
        let mut left_out = Vec::new();
        let more = answer.jobs.len() > JOBS_MAX;
        for value in answer.jobs.into_iter().take(JOBS_MAX) {
            match serde_json::from_value::<SlurmJob>(value) {
                Ok(job) if self.0.user.is_some() && job.user_name != self.0.user => {}
                Ok(job) => match view(job) {
                    Ok(job) => observations.push(Observation::Job(job)),
                    Err(reason) => left_out.push(reason),
                },
                Err(error) => left_out.push(error.to_string()),
            }
        }
        if let Some(reason) = left_out.first() {
            let reason = text::line(reason, 200);
            let message = format!("{} jobs left out: {reason}", left_out.len());
            far.log(Level::Warn, &message);
        }
        Ok(Page {
            observations,
            cursor: None,
            // What was left out may be unfinished; then nobody may be called missing.
            coverage: if left_out.is_empty() && !more {
                Coverage::Complete
            } else {
                Coverage::Partial
            },
        })
    }
}

impl Slurm {
    fn get(&self, what: &str) -> Request {
        let url = format!("{}/slurm/{}/{what}", self.0.url, self.0.api);
        Request::get(url).credential(self.0.credential.as_deref())
    }
}

/// Or why not: a state that this plugin does not know may mean anything.
fn view(job: SlurmJob) -> Result<Job, String> {
    let flags = match &job.job_state {
        State::One(word) => std::slice::from_ref(word),
        State::Flags(words) => words.as_slice(),
    };
    let state = state(flags).ok_or_else(|| format!("unknown state {flags:?}"))?;
    let is_over = matches!(
        state,
        JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::Timeout
    );
    // A pending job's times are the scheduler's plan, not facts.
    let has_begun = is_over || matches!(state, JobState::Running | JobState::Completing);
    let reason = job
        .state_reason
        .filter(|reason| !reason.is_empty() && reason != "None");
    let labels = [
        ("partition", job.partition),
        ("user", job.user_name),
        ("nodes", job.nodes),
    ];
    Ok(Job {
        id: job.job_id.to_string(),
        // A requeued job keeps its id.
        run: Some(job.restart_cnt.to_string()),
        workflow: job.name.clone(),
        state,
        name: job.name,
        position: None,
        created: job.submit_time.time(),
        started: job.start_time.time().filter(|_| has_begun),
        finished: job.end_time.time().filter(|_| is_over),
        steps: Vec::new(),
        error: reason.filter(|_| matches!(state, JobState::Failed | JobState::Timeout)),
        labels: labels
            .into_iter()
            .filter_map(|(name, value)| {
                Some((name.to_owned(), value.filter(|value| !value.is_empty())?))
            })
            .collect(),
        detail: "{}".to_owned(),
    })
}

fn state(flags: &[String]) -> Option<JobState> {
    let has = |word: &str| flags.iter().any(|flag| flag == word);
    if has("COMPLETING") {
        return Some(JobState::Completing);
    }
    Some(match flags.first()?.as_str() {
        "PENDING" => JobState::Queued,
        "RUNNING" if has("CONFIGURING") => JobState::Initializing,
        "CONFIGURING" => JobState::Initializing,
        "RUNNING" => JobState::Running,
        "SUSPENDED" | "STOPPED" => JobState::Paused,
        "COMPLETED" => JobState::Completed,
        "CANCELLED" | "REVOKED" | "PREEMPTED" => JobState::Cancelled,
        "TIMEOUT" | "DEADLINE" => JobState::Timeout,
        "FAILED" | "NODE_FAIL" | "BOOT_FAIL" | "OUT_OF_MEMORY" | "LAUNCH_FAILED"
        | "RECONFIG_FAIL" => JobState::Failed,
        _ => return None,
    })
}

weir_sdk::job_source!(Slurm);
