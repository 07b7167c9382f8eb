//! Jobs that weir holds for unfinished and that no list of this round showed.
//!
//! Such a job ended before the window, was deleted, or is hidden by a filter (`states` above all). Only a `get` tells
//! which, once in the life of a job that ended. One that a filter hides is asked for now and then, ever more rarely
//! the more of them there are. A place that could not be listed is left alone.

use weir_sdk::Far;
use weir_sdk::bindings::weir::plugin::types::JobState;

use super::{Stage, Turn};
use crate::client::Trouble;
use crate::cursor::Round;
use crate::job;
use crate::name::{Name, Scope};
use crate::source::Hidden;
use crate::time::MINUTE;

/// Lookups of one round: a fifth of what a project may ask for in a minute.
const PER_ROUND: u32 = 120;
/// How long an answer is believed, and for each so many hidden jobs as long again.
const BELIEVED: u64 = MINUTE;
const HIDDEN_PER_STEP: u64 = 50;

impl<F: Far> Turn<'_, F> {
    pub fn lookups(&mut self, round: &mut Round) -> Stage {
        if round.failed.len() >= self.scopes.len() || round.blind {
            self.tell_held();
            return Stage::Over;
        }
        let open = self.open;
        self.forget_hidden();
        for job in open {
            if self.is_mentioned(&job.id) {
                continue;
            }
            // What is no name of ours cannot be asked for: the host judges it by its absence.
            let Some(name) = Name::parse(&job.id) else {
                continue;
            };
            let scope = Scope {
                project: self.project(&name),
                location: name.location.clone(),
                kind: name.kind,
            };
            if self.is_unread(round, &scope) {
                continue;
            }
            if self.answer_from_memory(&job.id) {
                continue;
            }
            if round.lookups >= PER_ROUND {
                round.unsure = true;
                break;
            }
            if self.is_full() {
                return Stage::Interrupted;
            }
            if self.paused(&scope).is_some() {
                round.unsure = true;
                continue;
            }
            round.lookups += 1;
            self.look_up(round, &name, &scope);
        }
        self.tell_held();
        Stage::Over
    }

    /// Whether this scope, or one that may be the same by another name of its project, failed in this round.
    fn is_unread(&self, round: &Round, scope: &Scope) -> bool {
        let is_known = self.config.projects.contains(&scope.project);
        round.failed.iter().any(|failed| {
            let other = &self.scopes[failed.scope];
            other.kind == scope.kind
                && other.location == scope.location
                && (other.project == scope.project || !is_known)
        })
    }

    fn answer_from_memory(&mut self, id: &str) -> bool {
        let now = self.now();
        let many = self.memory.hidden.len() as u64;
        let believed = BELIEVED * (1 + many / HIDDEN_PER_STEP);
        let Some(hidden) = self.memory.hidden.get(id) else {
            return false;
        };
        if now.saturating_sub(hidden.asked) >= believed || now < hidden.asked {
            return false;
        }
        // One that the provider does not know stays unmentioned.
        if let Some(view) = hidden.view.clone() {
            self.tell(view);
        }
        true
    }

    fn look_up(&mut self, round: &mut Round, name: &Name, scope: &Scope) {
        let id = name.to_string();
        let asked = self.now();
        match self.client.resource(name) {
            Ok(resource) => {
                let is_same = resource.name.0.as_deref().and_then(Name::parse);
                if is_same.is_none_or(|same| same.id != name.id) {
                    // Not the job that was asked for.
                    round.unsure = true;
                    return;
                }
                let view = job::view(self.config, name, &scope.project, &resource);
                self.unhold(&id);
                if !job::is_final(&resource) {
                    let view = Some(view.clone());
                    self.memory.hidden.insert(id, Hidden { asked, view });
                }
                self.tell(view);
            }
            Err(trouble) if trouble.is_not_found() => {
                self.memory.hidden.insert(id, Hidden { asked, view: None });
            }
            Err(trouble) => {
                self.heed(scope, &trouble);
                if !self.is_held(&id) {
                    round.unsure = true;
                    self.warn_lookup(name, &trouble);
                }
            }
        }
    }

    fn warn_lookup(&self, name: &Name, trouble: &Trouble) {
        let text = format!(
            "{name} left its list, and could not be looked up: {}",
            trouble.message()
        );
        self.client.far.log(weir_sdk::Level::Warn, &text);
    }

    fn is_held(&self, id: &str) -> bool {
        let round = self.memory.round.as_ref();
        round.is_some_and(|round| round.held.contains_key(id))
    }

    fn unhold(&mut self, id: &str) {
        if let Some(round) = &mut self.memory.round {
            round.held.remove(id);
        }
    }

    /// Pipelines that ended and whose tasks could not be read: how they ended matters more.
    fn tell_held(&mut self) {
        let held = self.memory.round.as_mut();
        let held = held.map(|round| std::mem::take(&mut round.held));
        for (_, view) in held.unwrap_or_default() {
            if !self.is_mentioned(&view.id) {
                debug_assert!(view.state != JobState::Running);
                self.tell(view);
            }
        }
    }

    /// What is remembered of jobs that the host no longer asks about is of no use.
    fn forget_hidden(&mut self) {
        if self.memory.hidden.is_empty() {
            return;
        }
        let open: std::collections::HashSet<&str> =
            self.open.iter().map(|open| open.id.as_str()).collect();
        self.memory
            .hidden
            .retain(|id, _| open.contains(id.as_str()));
    }
}
