//! A round over `/api/jobs`: light lists, and one look into the history for each prompt that finished.
//!
//! The list shows the newest prompts of queue and history together. Whatever is older than its window was seen by an
//! earlier round, so it is either finished and told, or among the open jobs that the host hands over.

use std::collections::HashMap;

use weir_sdk::Far;
use weir_sdk::bindings::weir::plugin::types::{Job, Step};

use super::{LOOKUPS_MAX, Lookup, by_place, coverage};
use crate::client::Trouble;
use crate::cursor::Mode;
use crate::job::{Key, millis, unfinished_steps};
use crate::source::{Context, Found};
use crate::wire::{Jobs, Listed, ListedStatus, Queue};

/// Finished prompts that a regular round looks back at.
const WINDOW: usize = 32;
const WINDOW_MAX: usize = 1000;
/// Further windows, if more was posted between two rounds.
const WINDOWS_MAX: usize = 10;
/// A queue of more prompts is not read for the sake of steps: 150 kB each.
const QUEUE_MAX: usize = 32;

/// The prompts of one round, each once: in both queue and history, the finished one wins.
#[derive(Default)]
struct Seen {
    jobs: HashMap<Key, Listed>,
    odd: usize,
}

impl Seen {
    fn add(&mut self, list: Jobs) {
        self.odd += list.jobs.odd;
        for listed in list.jobs.good {
            let key = Key::of_listed(&listed);
            let known = self.jobs.get(&key);
            if known.is_none_or(|known| !known.status.is_finished()) {
                self.jobs.insert(key, listed);
            }
        }
    }

    fn unfinished(&self) -> Vec<&Listed> {
        let mut jobs: Vec<&Listed> = self
            .jobs
            .values()
            .filter(|job| !job.status.is_finished())
            .collect();
        jobs.sort_by(|a, b| by_place((a.number, &a.id), (b.number, &b.id)));
        jobs
    }
}

pub fn round<F: Far>(context: &mut Context<'_, F>) -> Result<Found, Trouble> {
    let (mut seen, has_more) = read(context)?;
    context.forget_gone();
    let waited = std::mem::take(&mut context.memory.unexplained);
    for (key, listed) in &waited {
        // It may have left the list since; it did finish.
        seen.jobs
            .entry(key.clone())
            .or_insert_with(|| listed.clone());
    }
    let mut finished = finished(context, &seen);
    let is_missing =
        |key: &&Key| has_more && !seen.jobs.contains_key(*key) && !context.is_gone(key);
    let missing: Vec<Key> = context.open.iter().filter(is_missing).cloned().collect();
    let mut is_more = finished.len() + missing.len() > LOOKUPS_MAX;
    finished.truncate(LOOKUPS_MAX);

    let mut jobs = Vec::new();
    let mut is_sure = seen.odd == 0;
    let mut room = LOOKUPS_MAX - finished.len();
    for (count, key) in finished.iter().enumerate() {
        if count > 0 && !context.has_time() {
            (is_more, room) = (true, 0);
            break;
        }
        match tell(context, key, &seen.jobs[key], waited.contains_key(key))? {
            Some(job) => {
                jobs.push(job);
                context.cursor.see(key);
            }
            None => is_sure = false,
        }
    }
    is_sure &= context.follow(missing, room, &mut jobs)?;
    jobs.sort_by_key(|job| job.finished);
    jobs.extend(waiting(context, &seen));

    if !is_more {
        // A page that is not the last one must find its way back as far as the next time.
        context.cursor.ready = true;
        let created = seen.jobs.values().filter_map(|job| job.create_time);
        let newest = created.filter_map(millis).max().unwrap_or_default();
        context.cursor.mark = context.cursor.mark.max(newest);
    }
    Ok(Found {
        jobs,
        coverage: coverage(is_more, is_sure),
    })
}

/// The lists of one round: what the newest prompts are and, where it takes that, all that wait. Says whether there
/// are older finished ones.
fn read<F: Far>(context: &mut Context<'_, F>) -> Result<(Seen, bool), Trouble> {
    const UNFINISHED: &str = "/api/jobs?status=pending,in_progress";
    let mut seen = Seen::default();
    let is_first = !context.cursor.ready || context.cursor.mode != Some(Mode::Jobs);
    let queue_first = is_first || context.open.len() >= WINDOW_MAX;
    if queue_first {
        seen.add(context.client.json(UNFINISHED)?);
    }
    context.cursor.enter(Mode::Jobs);
    let has_more = windows(context, &mut seen)?;
    let is_missing = |key: &Key| !seen.jobs.contains_key(key) && !context.is_gone(key);
    if has_more && !queue_first && context.open.iter().any(is_missing) {
        seen.add(context.client.json(UNFINISHED)?);
    }
    Ok((seen, has_more))
}

/// Reads the newest prompts, back to what earlier rounds saw. Says whether there are older ones.
fn windows<F: Far>(context: &Context<'_, F>, seen: &mut Seen) -> Result<bool, Trouble> {
    let wanted = if context.cursor.ready {
        WINDOW
    } else {
        context.config.history.max(1)
    };
    let limit = (wanted + context.open.len().max(seen.jobs.len())).min(WINDOW_MAX);
    let mut offset = 0;
    loop {
        let path = format!(
            "/api/jobs?sort_by=created_at&sort_order=desc&limit={limit}{}",
            if offset > 0 {
                format!("&offset={offset}")
            } else {
                String::new()
            }
        );
        let list: Jobs = context.client.json(&path)?;
        let has_more = list.pagination.has_more;
        let oldest = list
            .jobs
            .good
            .iter()
            .filter_map(|job| job.create_time)
            .filter_map(millis)
            .min();
        seen.add(list);
        offset += limit;
        let reaches_back =
            !context.cursor.ready || oldest.is_none_or(|oldest| oldest <= context.cursor.mark);
        if !has_more || reaches_back || offset >= limit * WINDOWS_MAX {
            return Ok(has_more);
        }
    }
}

/// The finished runs that are to be told in this round, in the order in which they ended.
fn finished<F: Far>(context: &mut Context<'_, F>, seen: &Seen) -> Vec<Key> {
    let mut finished: Vec<(&Key, &Listed)> = seen
        .jobs
        .iter()
        .filter(|(_, job)| job.status.is_finished())
        .collect();
    let created = |job: &Listed| job.create_time.and_then(millis).unwrap_or_default();
    if !context.cursor.ready {
        // First contact: the newest few; what is older stays unknown for good.
        finished.sort_by_key(|(key, job)| (std::cmp::Reverse(created(job)), (*key).clone()));
        let newest = finished.first().map_or(0, |(_, job)| created(job) + 1);
        context.cursor.floor = match context.config.history {
            0 => newest,
            history => finished.get(history - 1).map_or(0, |(_, job)| created(job)),
        };
    }
    let is_wanted = |key: &Key, job: &Listed| {
        context.open.contains(key)
            || created(job) >= context.cursor.floor && !context.cursor.has_seen(key)
    };
    finished.retain(|(key, job)| is_wanted(key, job));
    finished.sort_by_key(|(key, job)| (job.finished.and_then(millis), (*key).clone()));
    finished.into_iter().map(|(key, _)| key.clone()).collect()
}

/// A finished run with its nodes, as the history tells them. Where it does not tell, the run waits for one round (a
/// list may be ahead of the history) and is then told without nodes.
fn tell<F: Far>(
    context: &mut Context<'_, F>,
    key: &Key,
    listed: &Listed,
    has_waited: bool,
) -> Result<Option<Job>, Trouble> {
    Ok(match context.look_up(key)? {
        Lookup::Found(entry) => Some(context.views().finished(&entry)),
        Lookup::Absent if !has_waited => {
            context
                .memory
                .unexplained
                .insert(key.clone(), listed.clone());
            None
        }
        Lookup::Absent | Lookup::Unreadable => {
            Some(context.views().listed(listed, None, Vec::new()))
        }
    })
}

/// What runs and what waits, in the order of the queue.
fn waiting<F: Far>(context: &mut Context<'_, F>, seen: &Seen) -> Vec<Job> {
    let unfinished = seen.unfinished();
    let keys: Vec<Key> = unfinished.iter().map(|job| Key::of_listed(job)).collect();
    context.memory.graphs.retain(|key, _| keys.contains(key));
    let is_new = |(job, key): (&&Listed, &Key)| {
        job.status == ListedStatus::InProgress && !context.memory.graphs.contains_key(key)
    };
    if unfinished.len() <= QUEUE_MAX && unfinished.iter().zip(&keys).any(is_new) {
        read_graphs(context, &keys);
    }
    let mut position = 0;
    let mut running = Vec::new();
    let mut pending = Vec::new();
    for (job, key) in unfinished.into_iter().zip(keys) {
        let steps: Vec<Step> = context.memory.graphs.get(&key).cloned().unwrap_or_default();
        if job.status == ListedStatus::InProgress {
            running.push(context.views().listed(job, None, steps));
        } else {
            pending.push(context.views().listed(job, Some(position), steps));
            position += 1;
        }
    }
    running.append(&mut pending);
    running
}

/// One look at the queue, for the nodes of what runs and waits. Steps are a nicety: no trouble here fails the round.
fn read_graphs<F: Far>(context: &mut Context<'_, F>, wanted: &[Key]) {
    if let Ok(queue) = context.client.json::<Queue>("/queue") {
        context.memory.stream.offer(queue.queue_running.good.iter());
        for prompt in queue
            .queue_running
            .good
            .iter()
            .chain(&queue.queue_pending.good)
        {
            let key = Key::of_prompt(prompt);
            if wanted.contains(&key) {
                context.memory.graphs.insert(key, unfinished_steps(prompt));
            }
        }
    } else {
        // Not again for these prompts.
        for key in wanted {
            context.memory.graphs.entry(key.clone()).or_default();
        }
    }
}
