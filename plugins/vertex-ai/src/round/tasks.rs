//! Tasks of running pipelines, which only a `get` returns: a few in each round, one after the other.

use weir_sdk::Far;

use super::{Stage, Turn};
use crate::client::Trouble;
use crate::cursor::Round;
use crate::job;
use crate::name::{Name, Scope};

/// Pipelines asked for in one round.
const PER_ROUND: usize = 5;
const STEPS_MAX: usize = 1000;

impl<F: Far> Turn<'_, F> {
    pub fn tasks(&mut self, round: &mut Round) -> Stage {
        if round.tasks_done {
            return Stage::Over;
        }
        let running = self.memory.round.as_ref();
        let running: Vec<String> = running
            .map(|round| round.running.iter().cloned().collect())
            .unwrap_or_default();
        self.memory.steps.retain(|id, _| running.contains(id));
        for id in self.due(&running) {
            if self.is_full() {
                // Not again from the beginning: the others have their turn in the next round.
                break;
            }
            if running.len() > PER_ROUND {
                self.cursor.turn = Some(id.clone());
            }
            self.read_tasks(&id);
        }
        round.tasks_done = true;
        Stage::Over
    }

    /// The next ones after the last one asked for, in the order of their names.
    fn due(&self, running: &[String]) -> Vec<String> {
        let turn = self.cursor.turn.as_ref();
        let start = running
            .iter()
            .position(|id| turn.is_none_or(|turn| id > turn))
            .unwrap_or(0);
        let circle = running[start..].iter().chain(&running[..start]);
        circle.take(PER_ROUND).cloned().collect()
    }

    /// Tasks are a nicety: no trouble here fails the round, but a request rate is heeded.
    fn read_tasks(&mut self, id: &str) {
        let Some(name) = Name::parse(id) else {
            return;
        };
        let project = self.project(&name);
        let scope = Scope {
            project: project.clone(),
            location: name.location.clone(),
            kind: name.kind,
        };
        if self.paused(&scope).is_some() {
            return;
        }
        match self.client.resource(&name) {
            Ok(resource) => {
                let view = job::view(self.config, &name, &project, &resource);
                if resource.job_detail.0.is_some() && self.memory.steps.len() < STEPS_MAX {
                    self.memory.steps.insert(id.to_owned(), view.steps.clone());
                }
                // It replaces what the list showed: the newer view, and the one with tasks.
                self.jobs.retain(|job| job.id != id);
                self.tell(view);
            }
            Err(trouble @ Trouble::Refused(_)) => self.heed(&scope, &trouble),
            Err(_) => {}
        }
    }
}
