//! A round over `/queue` and `/history`, for servers without a job list.
//!
//! Both repeat every prompt with its whole UI graph, so this reads them no more often than it must: a large queue
//! only when its length changed or it was not read for a while, the history in the smallest window that shows
//! something known, single prompts by id. A queue beyond the host's limit is not read at all but counted.

use std::collections::HashSet;

use weir_sdk::bindings::weir::plugin::types::Job;
use weir_sdk::{Far, Level};

use super::{LOOKUPS_MAX, Lookup, by_place, coverage};
use crate::bindings::exports::weir::plugin::jobs::Coverage;
use crate::client::{Trouble, parse};
use crate::cursor::Mode;
use crate::job::Key;
use crate::source::{Context, Found};
use crate::wire::{Entry, History, Prompt, Queue, Remaining};

/// A short prompt may come and go between two looks at the queue; then the history alone knows it. So it is read in
/// every round while something happens, and now and then on a quiet server.
const HISTORY_EVERY: u64 = 4000;
const QUIET_AFTER: u64 = 30_000;
const HISTORY_FIRST: usize = 2;
const HISTORY_MAX: usize = 128;
/// A queue answer of this size is worth asking first whether its length changed.
const LARGE: usize = 1024 * 1024;
const LARGE_EVERY: u64 = 15_000;
/// How often a queue that was too large is tried again.
const UNREADABLE_EVERY: u64 = 60_000;

/// What an instance remembers of the last looks.
#[derive(Debug, Default)]
pub struct Memory {
    history_at: u64,
    /// When the queue last changed or something finished.
    changed_at: u64,
    large: Option<Large>,
    unreadable_at: u64,
    /// Where the last round stopped following open jobs of an unreadable queue.
    followed: Option<Key>,
}

#[derive(Debug)]
struct Large {
    remaining: u64,
    at: u64,
}

pub fn round<F: Far>(context: &mut Context<'_, F>) -> Result<Found, Trouble> {
    if let Some(before) = context.cursor.unreadable {
        let remaining = remaining(context)?;
        let is_shorter = remaining < before - before / 4;
        let is_due = context
            .now
            .saturating_sub(context.memory.queue.unreadable_at)
            >= UNREADABLE_EVERY;
        if !is_shorter && !is_due {
            return unreadable(context, remaining);
        }
    } else if let Some(large) = &context.memory.queue.large {
        let is_due = context.now.saturating_sub(large.at) >= LARGE_EVERY;
        let before = large.remaining;
        if !is_due && context.cursor.ready && remaining(context)? == before {
            return Ok(Found {
                jobs: Vec::new(),
                coverage: Coverage::Partial,
            });
        }
    }
    let body = match context.client.get("/queue") {
        Ok(body) => body,
        Err(Trouble::TooLarge(_)) => {
            let remaining = remaining(context)?;
            context.memory.queue.unreadable_at = context.now;
            return unreadable(context, remaining);
        }
        Err(trouble) => return Err(trouble),
    };
    readable(context, body)
}

fn readable<F: Far>(context: &mut Context<'_, F>, body: Vec<u8>) -> Result<Found, Trouble> {
    let (digest, size) = (digest(&body), body.len());
    let queue: Queue = parse("/queue", body)?;
    context.cursor.enter(Mode::Queue);
    if context.cursor.unreadable.take().is_some() {
        context
            .client
            .far
            .log(Level::Info, "the queue can be read again");
    }
    let waiting = Waiting::new(queue);
    context.memory.stream.offer(waiting.running.iter());
    context.memory.queue.large = (size > LARGE).then_some(Large {
        remaining: waiting.len(),
        at: context.now,
    });
    context.forget_gone();

    if digest != context.cursor.queue || !context.cursor.ready {
        context.memory.queue.changed_at = context.now;
    }
    let since = |at: u64| context.now.saturating_sub(at);
    let is_busy = since(context.memory.queue.changed_at) < QUIET_AFTER;
    let is_due = since(context.memory.queue.history_at) >= HISTORY_EVERY;
    let is_missing =
        |context: &Context<'_, F>, key: &Key| !waiting.keys.contains(key) && !context.is_gone(key);
    let mut jobs = Vec::new();
    let mut told = HashSet::new();
    let has_news = context.memory.stream.take_news();
    if is_due || is_busy || has_news || context.open.iter().any(|key| is_missing(context, key)) {
        for entry in finished(context, HISTORY_FIRST)? {
            told.insert(Key::of_prompt(&entry.prompt));
            jobs.push(context.views().finished(&entry));
        }
        context.memory.queue.history_at = context.now;
        if !told.is_empty() {
            context.memory.queue.changed_at = context.now;
        }
    }
    let missing: Vec<Key> = context
        .open
        .iter()
        .filter(|key| !told.contains(*key) && is_missing(context, key))
        .cloned()
        .collect();
    let is_more = missing.len() > LOOKUPS_MAX;
    let is_sure = context.follow(missing, LOOKUPS_MAX, &mut jobs)? && waiting.odd == 0;
    jobs.sort_by_key(|job| job.finished);
    let done: HashSet<Key> = jobs.iter().map(Key::of).collect();
    jobs.extend(
        waiting
            .jobs(context)
            .into_iter()
            .filter(|job| !done.contains(&Key::of(job))),
    );

    context.cursor.queue = digest;
    context.cursor.ready = true;
    let coverage = coverage(is_more, is_sure);
    Ok(Found { jobs, coverage })
}

/// The queue cannot be read: nothing is said about what waits, and what is known is followed one by one.
fn unreadable<F: Far>(context: &mut Context<'_, F>, remaining: u64) -> Result<Found, Trouble> {
    context.cursor.enter(Mode::Queue);
    if context.cursor.unreadable.is_none() {
        context.warn(&format!(
            "queue_unreadable: the queue of {remaining} prompts is larger than the response limit allows; known jobs are followed one by one, waiting ones are only counted"
        ));
    }
    context.cursor.unreadable = Some(remaining);
    let entries = finished(context, 8)?;
    let mut jobs: Vec<Job> = entries
        .iter()
        .map(|entry| context.views().finished(entry))
        .collect();
    let told: HashSet<Key> = jobs.iter().map(Key::of).collect();
    let after = context.memory.queue.followed.take();
    let mut turn: Vec<Key> = context
        .open
        .iter()
        .filter(|key| !told.contains(*key))
        .cloned()
        .collect();
    if let Some(after) = after {
        let start = turn.partition_point(|key| *key <= after);
        turn.rotate_left(start);
    }
    turn.truncate(LOOKUPS_MAX);
    for (count, key) in turn.into_iter().enumerate() {
        if count > 0 && !context.has_time() {
            break;
        }
        context.memory.queue.followed = Some(key.clone());
        // Absent means nothing here: it may wait in the queue.
        if let Lookup::Found(entry) = context.look_up(&key)? {
            jobs.push(context.views().finished(&entry));
            context.cursor.see(&key);
        }
    }
    jobs.sort_by_key(|job| job.finished);
    context.cursor.ready = true;
    Ok(Found {
        jobs,
        coverage: Coverage::Partial,
    })
}

fn remaining<F: Far>(context: &Context<'_, F>) -> Result<u64, Trouble> {
    let remaining: Remaining = context.client.json("/prompt")?;
    Ok(remaining.exec_info.queue_remaining)
}

/// Finished prompts that were not told yet, oldest first. Widens the window until it shows one that was.
fn finished<F: Far>(context: &mut Context<'_, F>, first: usize) -> Result<Vec<Entry>, Trouble> {
    let is_first_contact = !context.cursor.ready;
    let mut size = if is_first_contact {
        context.config.history.max(1)
    } else {
        first
    };
    let mut too_large = usize::MAX;
    loop {
        let history = match context
            .client
            .json::<History>(&format!("/history?max_items={size}"))
        {
            Ok(history) => history.0,
            Err(Trouble::TooLarge(_)) if size > 1 => {
                too_large = size;
                size /= 2;
                continue;
            }
            Err(trouble) => return Err(trouble),
        };
        let entries: Vec<Entry> = history.into_iter().map(|(_, entry)| entry).collect();
        let keys: Vec<Key> = entries
            .iter()
            .map(|entry| Key::of_prompt(&entry.prompt))
            .collect();
        let known = keys.iter().position(|key| context.cursor.has_seen(key));
        let wider = (size * 4).min(HISTORY_MAX);
        let is_enough = is_first_contact
            || known.is_some()
            || entries.len() < size
            || wider <= size
            || wider >= too_large;
        if !is_enough {
            size = wider;
            continue;
        }
        let skip = match known {
            _ if is_first_contact => entries.len().saturating_sub(context.config.history),
            // What stands before a known one was there before first contact.
            Some(known) => known,
            None => 0,
        };
        let mut wanted = Vec::new();
        for (index, (entry, key)) in entries.into_iter().zip(keys).enumerate() {
            if context.open.contains(&key) || index >= skip && !context.cursor.has_seen(&key) {
                wanted.push(entry);
            }
            context.cursor.see(&key);
        }
        return Ok(wanted);
    }
}

/// The queue in the order of execution.
struct Waiting {
    running: Vec<Prompt>,
    pending: Vec<Prompt>,
    keys: HashSet<Key>,
    odd: usize,
}

impl Waiting {
    fn new(queue: Queue) -> Waiting {
        let odd = queue.queue_running.odd + queue.queue_pending.odd;
        let running = queue.queue_running.good;
        let mut pending = queue.queue_pending.good;
        pending.sort_by(|a, b| by_place((a.number, &a.id), (b.number, &b.id)));
        let keys = running.iter().chain(&pending).map(Key::of_prompt).collect();
        Waiting {
            running,
            pending,
            keys,
            odd,
        }
    }

    fn len(&self) -> u64 {
        (self.running.len() + self.pending.len() + self.odd) as u64
    }

    fn jobs<F: Far>(&self, context: &Context<'_, F>) -> Vec<Job> {
        let views = context.views();
        let running = self.running.iter().map(|prompt| views.queued(prompt, None));
        let pending = self
            .pending
            .iter()
            .zip(0..)
            .map(|(prompt, position)| views.queued(prompt, Some(position)));
        running.chain(pending).collect()
    }
}

/// Tells one answer from another; eight bytes at a time, since answers may have megabytes.
fn digest(body: &[u8]) -> u64 {
    let chunks = body.chunks_exact(8);
    let rest = chunks
        .remainder()
        .iter()
        .fold(0_u64, |rest, byte| rest << 8 | u64::from(*byte));
    let words = chunks
        .map(|chunk| chunk.try_into().map_or(0, u64::from_le_bytes))
        .chain([rest]);
    let mixed = words.fold(body.len() as u64, |hash, word| {
        (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
    });
    // 53 bits, so that any JSON reader keeps it whole.
    mixed >> 11
}
