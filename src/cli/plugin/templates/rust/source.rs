//! Job source {{name}}: reads a JSON list of jobs, `[{"id": "7", "state": "running", "name": "render"}, ...]`.
//!
//! ```ron
//! config: { "url": "http://127.0.0.1:9000/jobs" }
//! ```

use serde::Deserialize;
use weir_sdk::plugin::{Context, Coverage, JobSource, Page, Plugin};
use weir_sdk::{Failure, Far, Job, JobRef, JobState, Observation, Request, config};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    url: String,
    credential: Option<String>,
}

pub struct Source(Config);

/// A job in the provider's own words. A state that is not listed makes the poll a failure, never an empty list.
#[derive(Deserialize)]
struct Item {
    id: String,
    state: State,
    name: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Queued,
    Running,
    #[serde(alias = "done")]
    Completed,
    Failed,
    Cancelled,
}

impl Plugin for Source {
    type Config = Config;
    const NAME: &'static str = "{{name}}";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const CONFIG_SCHEMA: Option<&'static str> = Some(
        r#"{
  "type": "object", "additionalProperties": false, "required": ["url"],
  "properties": {
    "url": {"type": "string", "description": "Answers with the list of jobs"},
    "credential": {"type": "string", "description": "Name of a credential of this source"}
  }
}"#,
    );

    fn open(config: Config, _context: Context) -> Result<Source, Failure> {
        config::split_url("url", &config.url)?;
        Ok(Source(config))
    }

    fn check(&self, far: &impl Far) -> Result<String, Failure> {
        Ok(format!("{} jobs at {}", self.listed(far)?.len(), self.0.url))
    }
}

impl JobSource for Source {
    fn poll(
        &self,
        far: &impl Far,
        _cursor: Option<&str>,
        _open: &[JobRef],
    ) -> Result<Page, Failure> {
        let items = self.listed(far)?;
        Ok(Page {
            observations: items.into_iter().map(view).map(Observation::Job).collect(),
            cursor: None,
            // Says that every unfinished job was named. Where the provider shows only the newest: Partial.
            coverage: Coverage::Complete,
        })
    }
}

impl Source {
    fn listed(&self, far: &impl Far) -> Result<Vec<Item>, Failure> {
        let request = Request::get(&self.0.url).credential(self.0.credential.as_deref());
        far.fetch(request)?.json()
    }
}

/// All that is known of the job now; the host finds out what changed.
fn view(item: Item) -> Job {
    Job {
        id: item.id,
        run: None,
        workflow: item.name.clone(),
        state: match item.state {
            State::Queued => JobState::Queued,
            State::Running => JobState::Running,
            State::Completed => JobState::Completed,
            State::Failed => JobState::Failed,
            State::Cancelled => JobState::Cancelled,
        },
        name: item.name,
        position: None,
        created: None,
        started: None,
        finished: None,
        steps: Vec::new(),
        error: item.error,
        labels: Vec::new(),
        detail: "{}".to_owned(),
    }
}

weir_sdk::job_source!(Source);
