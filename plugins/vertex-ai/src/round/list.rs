//! The lists of a round: one per scope, page by page, looping on the token alone.

use std::collections::HashSet;

use weir_sdk::{Failure, FailureKind, Far, Level, text};

use super::{OVERLAP, Stage, Turn};
use crate::client::{Client, Trouble, encode, permission};
use crate::cursor::{Failed, NUMBERS_MAX, Round, TOKEN_MAX};
use crate::filter;
use crate::job;
use crate::kind::Kind;
use crate::name::{Name, Scope};
use crate::source::digest;
use crate::time;
use crate::wire::{List, Resource};

const MESSAGE_MAX: usize = 400;
/// The window where `states` hides jobs that are not finished.
const WIDE: u64 = 30 * time::DAY;

/// The fields that a view is made of. Top-level only: what stands in lists cannot be masked. It leaves out the whole
/// definition of a pipeline, which may be megabytes.
fn read_mask(kind: Kind) -> String {
    let own = match kind {
        Kind::Custom => "jobSpec,webAccessUris",
        Kind::Pipeline => "",
        Kind::Batch => "model,completionStats,dedicatedResources",
    };
    let common = "name,displayName,state,createTime,startTime,endTime,updateTime,error,labels";
    if own.is_empty() {
        common.to_owned()
    } else {
        format!("{common},{own}")
    }
}

fn url<F: Far>(
    client: &Client<'_, F>,
    scope: &Scope,
    filter: &str,
    size: u32,
    token: Option<&str>,
) -> String {
    let mut url = format!(
        "{}/v1/{}/{}?pageSize={size}&readMask={}&filter={}",
        client.config.base(&scope.location),
        scope.parent(),
        scope.kind.collection(),
        encode(&read_mask(scope.kind)),
        encode(filter)
    );
    if let Some(token) = token {
        url.push_str(&format!("&pageToken={}", encode(token)));
    }
    url
}

/// Asks for one job of a scope.
pub fn probe<F: Far>(client: &Client<'_, F>, scope: &Scope) -> Result<(), Failure> {
    let filter = filter::text(client.config, scope.kind, client.far.now());
    let list: Result<List, Trouble> = client.get(url(client, scope, &filter, 1, None));
    match list {
        Ok(_) => Ok(()),
        Err(trouble) => Err(Failure {
            message: explain(scope, &trouble),
            ..trouble.failure("")
        }),
    }
}

/// A refused list in words: where, what came back, and what an operator can do.
fn explain(scope: &Scope, trouble: &Trouble) -> String {
    let place = format!(
        "{} in project {}, {}",
        scope.kind.word(),
        scope.project,
        scope.location
    );
    let message = trouble.message();
    let hint = match trouble {
        Trouble::Refused(refusal) if refusal.status == 404 => {
            format!(
                " (is {} a location of Vertex AI, and the project's id right?)",
                scope.location
            )
        }
        Trouble::Refused(refusal)
            if refusal.status == 403 && !message.contains("missing permission") =>
        {
            format!(" (needed: {})", permission(scope.kind, "list"))
        }
        Trouble::Refused(refusal) if refusal.status == 400 => {
            " (a filter of the configuration?)".to_owned()
        }
        _ => String::new(),
    };
    format!("{place}: {message}{hint}")
}

impl<F: Far> Turn<'_, F> {
    /// Reads on until every scope was listed or this call did what it may.
    pub fn lists(&mut self, round: &mut Round, open: &HashSet<u64>) -> Stage {
        while let Some(scope) = self.scopes.get(round.scope) {
            if let Some(pause) = self.paused(scope) {
                let until = time::format(pause.until);
                let failed = Failed {
                    scope: round.scope,
                    message: format!("{} (not asked again before {until})", pause.why),
                    lasting: pause.lasting,
                    asked: false,
                };
                fail(round, failed);
                continue;
            }
            if self.is_full() {
                return Stage::Interrupted;
            }
            match self.list_page(scope, round) {
                Ok(list) => self.take(scope, round, list, open),
                Err(Trouble::TooLarge(_)) if self.page_size(round) > 1 => {
                    round.size = self.page_size(round) / 2;
                }
                Err(trouble) => {
                    self.heed(scope, &trouble);
                    let lasting = matches!(
                        trouble.kind(),
                        FailureKind::Misconfigured | FailureKind::NotFound | FailureKind::Permanent
                    );
                    let failed = Failed {
                        scope: round.scope,
                        message: text::line(&explain(scope, &trouble), MESSAGE_MAX),
                        lasting,
                        asked: true,
                    };
                    fail(round, failed);
                }
            }
        }
        Stage::Over
    }

    /// Where the window of a scope begins.
    fn since(&self, scope: &Scope, round: &Round) -> u64 {
        match self.cursor.marks.get(&scope.key()) {
            None => round.since,
            Some(mark) if self.config.sees_unfinished() => mark.saturating_sub(OVERLAP),
            // It may end without ever having been known: what ended lately is all there is to see.
            Some(_) => round.since.max(round.started.saturating_sub(WIDE)),
        }
    }

    fn page_size(&self, round: &Round) -> u32 {
        match round.size {
            0 => self.config.page_size,
            size => size,
        }
    }

    fn list_page(&self, scope: &Scope, round: &Round) -> Result<List, Trouble> {
        let filter = filter::text(self.config, scope.kind, self.since(scope, round));
        let token = round.token.as_deref();
        let list: List = self.client.get(url(
            &self.client,
            scope,
            &filter,
            self.page_size(round),
            token,
        ))?;
        if list.error.is_some() {
            return Err(Trouble::Garbage(
                "answered 200, but with an error instead of a list".to_owned(),
            ));
        }
        if list.next_page_token.len() > TOKEN_MAX {
            return Err(Trouble::Garbage(
                "answered with a page token of more than 16 KiB".to_owned(),
            ));
        }
        if !list.next_page_token.is_empty() && Some(list.next_page_token.as_str()) == token {
            // It would never end.
            return Err(Trouble::Garbage(
                "answered with the page token it was asked with".to_owned(),
            ));
        }
        Ok(list)
    }

    fn take(&mut self, scope: &Scope, round: &mut Round, list: List, open: &HashSet<u64>) {
        let mut odd = list.jobs.odd;
        for resource in list.jobs.good {
            match resource.name.0.as_deref().and_then(Name::parse) {
                Some(name) if name.kind == scope.kind && name.location == scope.location => {
                    self.take_job(scope, name, &resource, open);
                }
                _ => odd += 1,
            }
        }
        if odd > 0 {
            round.unsure = true;
            let text = format!(
                "{}: {odd} entries of the list could not be read",
                scope.key()
            );
            self.client.far.log(Level::Warn, &text);
        }
        if list.next_page_token.is_empty() {
            self.listed(scope, round);
            next_scope(round);
        } else {
            round.token = Some(list.next_page_token);
        }
    }

    fn take_job(&mut self, scope: &Scope, name: Name, resource: &Resource, open: &HashSet<u64>) {
        let numbers = &mut self.cursor.numbers;
        if name.project != scope.project && numbers.len() < NUMBERS_MAX {
            numbers.insert(name.project.clone(), scope.project.clone());
        }
        let mut view = job::view(self.config, &name, &scope.project, resource);
        let id = digest(&view.id);
        let is_open = open.contains(&id);
        if !is_open && !filter::wants(self.config, scope.kind, resource) {
            return;
        }
        let is_final = job::is_final(resource);
        let is_pipeline = scope.kind == Kind::Pipeline;
        if is_final && is_open && is_pipeline {
            // No list has its tasks: it is told when they were read.
            if let Some(round) = &mut self.memory.round {
                round.held.insert(view.id.clone(), view);
            }
            return;
        }
        if is_final && !is_open {
            let end = digest(&format!("{} {}", view.id, view.detail));
            if self.memory.seen.contains(end) {
                return;
            }
            self.told.push(end);
        }
        if is_pipeline && !is_final {
            if let Some(steps) = self.memory.steps.get(&view.id) {
                view.steps.clone_from(steps);
            }
            if let Some(round) = &mut self.memory.round {
                round.running.insert(view.id.clone());
            }
        }
        self.tell(view);
    }
}

fn fail(round: &mut Round, failed: Failed) {
    round.failed.push(failed);
    next_scope(round);
}

fn next_scope(round: &mut Round) {
    round.scope += 1;
    round.token = None;
    round.size = 0;
}
