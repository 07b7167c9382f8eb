//! A source's rounds: which jobs changed, which are missing, and when a missing one is called lost.

use crate::observation::{Coverage, Job, JobRef, Observation, Page};
use crate::status::Status;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Pages of one round; a provider that never ends a round is cut off here.
pub const PAGES_PER_ROUND_MAX: u32 = 100;
/// A mass disappearance is not believed before this long.
const SUSPICION: SignedDuration = SignedDuration::from_mins(5);

/// What a source keeps between polls of the jobs that are not closed.
#[derive(Clone, Debug)]
pub struct Rounds {
    lost_after: SignedDuration,
    /// The absence of a job that was not seen since the configuration changed is evidence.
    unseen_counts: bool,
    open: BTreeMap<JobRef, OpenJob>,
    /// Of the next job that comes to `open`.
    next_arrival: u64,
    mentioned: HashSet<JobRef>,
    gone: HashSet<JobRef>,
    /// Cancelled through weir: their absence is what was asked for.
    leaving: HashSet<JobRef>,
    pages: u32,
    /// When the round under way was begun.
    begun_at: Option<Timestamp>,
    /// The configuration before this one told of everything in its view that had ended by then. None once this one has
    /// seen everything of its own.
    told_before: Option<Timestamp>,
    suspect_since: Option<Timestamp>,
    /// The newest time without contact, from its first failed poll to the first good one.
    outage: Option<(Timestamp, Timestamp)>,
    failing_since: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct OpenJob {
    /// Its place among the open jobs in the order in which they came.
    arrival: u64,
    /// Of the last view that was acknowledged; none after a restart, when every view counts as changed.
    view: Option<u64>,
    status: Status,
    last_seen: Option<Timestamp>,
    missing_rounds: u32,
    missing_since: Option<Timestamp>,
}

/// A job that the host calls lost, and the evidence in words.
#[derive(Clone, Debug, PartialEq)]
pub struct LostJob {
    pub job: JobRef,
    pub reason: String,
    /// It waited, weir had asked to cancel it, and it left without ever running: cancelled, not lost.
    pub cancelled: bool,
}

/// What the end of a round says about the jobs it did not mention.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoundEnd {
    pub lost: Vec<LostJob>,
    /// It saw everything: when it was begun. What had ended by then is told.
    pub complete: Option<Timestamp>,
    /// So many vanished together that it is not believed yet: (missing, of).
    pub suspect: Option<(u32, u32)>,
    pub suspicion_cleared: bool,
}

impl Rounds {
    /// `open`: the executions of this source that are not closed, as the store has them, oldest first. `unseen_counts` is false
    /// after a change of configuration: absence is no evidence until a job was seen again.
    pub fn new(
        lost_after: SignedDuration,
        unseen_counts: bool,
        open: impl IntoIterator<Item = (JobRef, Status)>,
    ) -> Rounds {
        let numbered = (0..).zip(open);
        let open: BTreeMap<JobRef, OpenJob> = numbered
            .map(|(arrival, (job, status))| (job, OpenJob::new(status, arrival)))
            .collect();
        Rounds {
            lost_after,
            unseen_counts,
            next_arrival: open.values().map(|job| job.arrival + 1).max().unwrap_or(0),
            open,
            mentioned: HashSet::new(),
            gone: HashSet::new(),
            leaving: HashSet::new(),
            pages: 0,
            begun_at: None,
            told_before: None,
            suspect_since: None,
            outage: None,
            failing_since: None,
        }
    }

    /// A change of the configuration: `complete`, the beginning of the last round in which the one before saw everything.
    #[must_use]
    pub fn after_change(mut self, complete: Option<Timestamp>) -> Rounds {
        self.told_before = complete;
        self
    }

    /// Whether a job that is seen for the first time is no news: it had ended when the configuration before last saw
    /// everything, which would have told of it, had it been in its view. So it was never to be told of.
    pub fn is_history(&self, job: &Job) -> bool {
        let ended = self.told_before.zip(job.finished);
        ended.is_some_and(|(told, end)| end < told)
    }

    /// A poll begins, perhaps a round with it.
    pub fn begin_poll(&mut self, now: Timestamp) {
        if self.pages == 0 {
            self.begun_at = Some(now);
        }
    }

    /// The jobs a poll is asked about, at most `limit`, oldest first.
    pub fn open(&self, limit: usize) -> Vec<JobRef> {
        let mut jobs: Vec<(&JobRef, u64)> = self
            .open
            .iter()
            .map(|(job, known)| (job, known.arrival))
            .collect();
        jobs.sort_unstable_by_key(|(_, arrival)| *arrival);
        jobs.truncate(limit);
        jobs.into_iter().map(|(job, _)| job.clone()).collect()
    }

    /// The provider took (true) or did not keep to (false) a cancel of this job.
    pub fn expect_to_leave(&mut self, job: &JobRef, leaving: bool) {
        if !leaving {
            self.leaving.remove(job);
        } else if self.open.contains_key(job) {
            self.leaving.insert(job.clone());
        }
    }

    /// Whether a job is open, or was mentioned in this round. Without a run, any run of its id counts.
    pub fn knows(&self, job: &JobRef) -> bool {
        let any_run = JobRef {
            id: job.id.clone(),
            run: None,
        };
        let same =
            |known: &JobRef| known.id == job.id && (job.run.is_none() || known.run == job.run);
        self.open
            .range(any_run..)
            .take_while(|(known, _)| known.id == job.id)
            .any(|(known, _)| same(known))
            || self.mentioned.iter().any(same)
    }

    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Drops what says nothing new. Nothing is remembered before it is acknowledged.
    pub fn changed(&self, observations: &[Observation]) -> Vec<Observation> {
        let unchanged = |job: &Job| {
            let known = self.open.get(&job_ref(job));
            known.is_some_and(|k| k.missing_rounds == 0 && k.view == Some(view_hash(job)))
        };
        let news = observations.iter().filter(|o| match o {
            Observation::Job(job) => !unchanged(job),
            Observation::Progress(_) => true,
            Observation::Gone(job) => self.open.contains_key(job),
            // About no job.
            Observation::Gauge(_) => false,
        });
        news.cloned().collect()
    }

    /// Every observation of the page is durable: remember it. True when the round goes on.
    pub fn acknowledge(&mut self, page: &Page, now: Timestamp) -> bool {
        self.acknowledge_aside(&page.observations, now);
        self.pages += 1;
        page.coverage == Coverage::More && self.pages < PAGES_PER_ROUND_MAX
    }

    /// Observations that came beside the pages, as those of a stream, are durable: remember them. What is gone is
    /// judged at the end of the round.
    pub fn acknowledge_aside(&mut self, observations: &[Observation], now: Timestamp) {
        for observation in observations {
            match observation {
                Observation::Job(job) => self.saw(job, now),
                Observation::Gone(job) => {
                    self.gone.insert(job.clone());
                }
                Observation::Progress(_) | Observation::Gauge(_) => {}
            }
        }
    }

    /// The unfinished job that is meant. Where a stream does not tell the runs of an id apart: the last one that was begun.
    pub fn meant(&self, id: &str, run: Option<&str>) -> Option<JobRef> {
        let exact = JobRef {
            id: id.to_owned(),
            run: run.map(str::to_owned),
        };
        if self.open.contains_key(&exact) {
            return Some(exact);
        }
        if run.is_some() {
            return None;
        }
        let runs = self.open.range(exact..).take_while(|(job, _)| job.id == id);
        let begun = |status: Status| !status.is_waiting();
        runs.max_by_key(|(_, known)| begun(known.status))
            .map(|(job, _)| job.clone())
    }

    fn saw(&mut self, job: &Job, now: Timestamp) {
        let reference = job_ref(job);
        // The newer word counts.
        self.gone.remove(&reference);
        let status = Status::from(job.state);
        if status.is_closed() {
            self.leaving.remove(&reference);
            self.open.remove(&reference);
        } else {
            let arrival = self.open.get(&reference).map(|known| known.arrival);
            let arrival = arrival.unwrap_or_else(|| {
                self.next_arrival += 1;
                self.next_arrival - 1
            });
            let known = OpenJob {
                view: Some(view_hash(job)),
                last_seen: Some(now),
                ..OpenJob::new(status, arrival)
            };
            self.open.insert(reference.clone(), known);
        }
        self.mentioned.insert(reference);
    }

    /// The round is over: who is missing?
    pub fn end_round(&mut self, coverage: Coverage, now: Timestamp) -> RoundEnd {
        let mentioned = std::mem::take(&mut self.mentioned);
        let gone = std::mem::take(&mut self.gone);
        self.pages = 0;
        let mut end = RoundEnd::default();
        if coverage == Coverage::Complete {
            end.complete = self.begun_at.or(Some(now));
            self.told_before = None;
            for (reference, job) in &mut self.open {
                let counts = self.unseen_counts || job.last_seen.is_some();
                if counts && !mentioned.contains(reference) {
                    job.missing_rounds += 1;
                    job.missing_since.get_or_insert(now);
                }
            }
            self.judge_suspicion(now, &mut end);
        }
        let outage = self.outage;
        let held = self.suspect_since.is_some();
        let lost_after = self.lost_after;
        let leaving = &self.leaving;
        let cancelled = |reference: &JobRef, job: &OpenJob| {
            leaving.contains(reference) && job.status.is_waiting()
        };
        let due = |reference: &JobRef, job: &OpenJob| {
            let missing = job
                .missing_since
                .is_some_and(|s| now.duration_since(s) >= lost_after);
            let expected = cancelled(reference, job);
            let absent = job.missing_rounds >= 2 && (missing || expected);
            (gone.contains(reference) || absent) && (!held || expected)
        };
        let lost: Vec<JobRef> = self
            .open
            .iter()
            .filter(|(r, j)| due(r, j))
            .map(|(r, _)| r.clone())
            .collect();
        for job in lost {
            if let Some(known) = self.open.get(&job) {
                end.lost.push(LostJob {
                    reason: known.reason(outage),
                    cancelled: cancelled(&job, known),
                    job,
                });
            }
        }
        end
    }

    /// Three or more, and over half of the unfinished, vanished together: hold for five minutes.
    fn judge_suspicion(&mut self, now: Timestamp, end: &mut RoundEnd) {
        let total = self.open.len();
        let missing = self.open.iter();
        let missing =
            missing.filter(|(job, j)| j.missing_rounds > 0 && !self.leaving.contains(job));
        let missing = missing.count();
        // After an outage a provider that lost its queue is no surprise: it restarted.
        let restarted = self.open.values().any(|j| j.outage_since_seen(self.outage));
        let mass = missing >= 3 && missing * 2 > total && !restarted;
        match self.suspect_since {
            None if mass => {
                self.suspect_since = Some(now);
                let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                end.suspect = Some((count(missing), count(total)));
            }
            Some(_) if !mass => {
                self.suspect_since = None;
                end.suspicion_cleared = true;
            }
            Some(since) if now.duration_since(since) >= SUSPICION => {
                self.suspect_since = None;
                end.suspicion_cleared = true;
            }
            _ => {}
        }
    }

    /// The verdict is durable: nothing more is expected of this job.
    pub fn forget(&mut self, job: &JobRef) {
        self.leaving.remove(job);
        self.open.remove(job);
    }

    /// A poll failed: the round begins anew, and absence is no evidence.
    pub fn failed(&mut self, now: Timestamp) {
        self.mentioned.clear();
        self.gone.clear();
        self.pages = 0;
        self.failing_since.get_or_insert(now);
    }

    /// The provider answered but weir could not record it: the round begins anew, the provider is not to blame.
    pub fn failed_here(&mut self) {
        self.mentioned.clear();
        self.gone.clear();
        self.pages = 0;
    }

    /// A poll succeeded.
    pub fn succeeded(&mut self, now: Timestamp) {
        if let Some(since) = self.failing_since.take() {
            self.outage = Some((since, now));
        }
    }

    /// weir itself did not look between these times: absence during it is no evidence.
    pub fn blind(&mut self) {
        for job in self.open.values_mut() {
            job.missing_rounds = 0;
            job.missing_since = None;
        }
    }
}

impl OpenJob {
    fn new(status: Status, arrival: u64) -> OpenJob {
        OpenJob {
            arrival,
            view: None,
            status,
            last_seen: None,
            missing_rounds: 0,
            missing_since: None,
        }
    }

    fn outage_since_seen(&self, outage: Option<(Timestamp, Timestamp)>) -> bool {
        outage.is_some_and(|(_, until)| self.last_seen.is_none_or(|seen| seen <= until))
    }

    fn reason(&self, outage: Option<(Timestamp, Timestamp)>) -> String {
        let was = if self.status.is_waiting() {
            "waiting"
        } else {
            self.status.as_str()
        };
        match outage {
            Some((from, until)) if self.outage_since_seen(outage) => format!(
                "lost in a restart: the provider was unreachable from {from:.0} to {until:.0}, and no longer knows this job, which was {was}"
            ),
            _ if self.status.is_waiting() => {
                "vanished while waiting: it left the provider's queue without ever running (deleted or cleared)".into()
            }
            _ => format!("vanished while {was}: the provider no longer knows this job"),
        }
    }
}

fn job_ref(job: &Job) -> JobRef {
    JobRef {
        id: job.id.clone(),
        run: job.run.clone(),
    }
}

/// Identifies a view within one process; 64 bits of the standard hasher over its JSON.
fn view_hash(job: &Job) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(job)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
