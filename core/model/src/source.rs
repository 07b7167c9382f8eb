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
mod tests {
    use super::*;
    use crate::observation::JobState;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).expect("in range")
    }

    fn reference(id: &str) -> JobRef {
        JobRef {
            id: id.into(),
            run: None,
        }
    }

    fn job(id: &str, state: JobState) -> Observation {
        Observation::Job(Box::new(Job {
            id: id.into(),
            run: None,
            workflow: None,
            state,
            name: None,
            position: None,
            created: None,
            started: None,
            finished: None,
            steps: Vec::new(),
            error: None,
            labels: Vec::new(),
            detail: "{}".into(),
        }))
    }

    fn round(rounds: &mut Rounds, second: i64, jobs: Vec<Observation>) -> RoundEnd {
        let page = Page {
            observations: jobs,
            cursor: None,
            coverage: Coverage::Complete,
        };
        rounds.succeeded(at(second));
        rounds.acknowledge(&page, at(second));
        let end = rounds.end_round(Coverage::Complete, at(second));
        for lost in &end.lost {
            rounds.forget(&lost.job);
        }
        end
    }

    fn rounds() -> Rounds {
        Rounds::new(SignedDuration::from_secs(60), true, [])
    }

    #[test]
    fn a_poll_is_asked_about_the_oldest_first() {
        let stored = [("z", Status::Queued), ("m", Status::Running)];
        let stored = stored.map(|(id, status)| (reference(id), status));
        let mut r = Rounds::new(SignedDuration::from_secs(60), true, stored);
        let states = ["c", "b", "m", "z"].map(|id| job(id, JobState::Running));
        round(&mut r, 0, states.to_vec());
        let ids = |limit| -> Vec<String> { r.open(limit).into_iter().map(|job| job.id).collect() };
        assert_eq!(ids(9), ["z", "m", "c", "b"]);
        assert_eq!(ids(2), ["z", "m"]);
    }

    #[test]
    fn an_unchanged_view_says_nothing_new() {
        let mut r = rounds();
        let page = Page {
            observations: vec![job("a", JobState::Running)],
            cursor: None,
            coverage: Coverage::Complete,
        };
        assert_eq!(r.changed(&page.observations).len(), 1);
        r.acknowledge(&page, at(0));
        assert!(r.changed(&page.observations).is_empty());
    }

    #[test]
    fn what_a_stream_says_counts_like_a_page_and_the_newer_word_wins() {
        let mut r = rounds();
        round(&mut r, 0, vec![job("a", JobState::Running)]);
        let gone = Observation::Gone(reference("a"));
        r.acknowledge_aside(std::slice::from_ref(&gone), at(5));
        r.acknowledge_aside(&[job("a", JobState::Running)], at(6));
        assert!(round(&mut r, 10, vec![]).lost.is_empty());
        r.acknowledge_aside(&[gone], at(15));
        assert_eq!(round(&mut r, 20, vec![]).lost[0].job, reference("a"));
    }

    #[test]
    fn progress_without_a_run_is_of_the_run_that_was_begun() {
        let mut r = rounds();
        let run = |run: &str, state| match job("a", state) {
            Observation::Job(mut job) => {
                job.run = Some(run.into());
                Observation::Job(job)
            }
            other => other,
        };
        let jobs = vec![
            run("1", JobState::Running),
            run("2", JobState::Queued),
            job("ab", JobState::Running),
        ];
        round(&mut r, 0, jobs);
        let meant = |id, run| r.meant(id, run).and_then(|job| job.run);
        assert_eq!(meant("a", None).as_deref(), Some("1"));
        assert_eq!(meant("a", Some("2")).as_deref(), Some("2"));
        assert_eq!(r.meant("a", Some("3")), None);
        assert_eq!(r.meant("ab", None), Some(reference("ab")));
        assert_eq!(r.meant("b", None), None);
    }

    #[test]
    fn a_job_is_lost_after_two_rounds_and_a_minute_not_earlier() {
        let mut r = rounds();
        round(&mut r, 0, vec![job("a", JobState::Queued)]);
        assert!(round(&mut r, 10, vec![]).lost.is_empty());
        assert!(round(&mut r, 20, vec![]).lost.is_empty());
        let end = round(&mut r, 71, vec![]);
        assert_eq!(end.lost[0].job, reference("a"));
        assert!(
            end.lost[0].reason.starts_with("vanished while waiting"),
            "{}",
            end.lost[0].reason
        );
    }

    #[test]
    fn a_job_seen_again_is_not_missing_any_more() {
        let mut r = rounds();
        round(&mut r, 0, vec![job("a", JobState::Running)]);
        round(&mut r, 10, vec![]);
        round(&mut r, 20, vec![job("a", JobState::Running)]);
        assert!(round(&mut r, 75, vec![]).lost.is_empty());
        assert!(round(&mut r, 80, vec![]).lost.is_empty());
    }

    #[test]
    fn a_mass_disappearance_is_held_for_five_minutes() {
        let mut r = rounds();
        let all = ["a", "b", "c", "d"]
            .map(|id| job(id, JobState::Running))
            .to_vec();
        round(&mut r, 0, all);
        assert_eq!(round(&mut r, 10, vec![]).suspect, Some((4, 4)));
        assert!(round(&mut r, 200, vec![]).lost.is_empty());
        let end = round(&mut r, 311, vec![]);
        assert!(end.suspicion_cleared);
        assert_eq!(end.lost.len(), 4);
    }

    #[test]
    fn jobs_gone_after_an_outage_are_lost_in_a_restart() {
        let mut r = rounds();
        let all = ["a", "b", "c"].map(|id| job(id, JobState::Queued)).to_vec();
        round(&mut r, 0, all);
        r.failed(at(5));
        assert_eq!(round(&mut r, 30, vec![]).suspect, None);
        let end = round(&mut r, 91, vec![]);
        assert_eq!(end.lost.len(), 3);
        assert!(
            end.lost[0].reason.starts_with("lost in a restart"),
            "{}",
            end.lost[0].reason
        );
    }

    #[test]
    fn jobs_that_leave_after_a_cancel_are_cancelled_and_arouse_no_suspicion() {
        let mut r = rounds();
        let ids = ["a", "b", "c", "d"];
        round(&mut r, 0, ids.map(|id| job(id, JobState::Queued)).to_vec());
        ids.iter()
            .for_each(|id| r.expect_to_leave(&reference(id), true));
        // One cannot say of a job that ran whether the cancel ended it.
        round(
            &mut r,
            1,
            ids.map(|id| {
                job(
                    id,
                    if id == "d" {
                        JobState::Running
                    } else {
                        JobState::Queued
                    },
                )
            })
            .to_vec(),
        );
        assert_eq!(round(&mut r, 2, vec![]).suspect, None);
        let end = round(&mut r, 3, vec![]);
        assert_eq!(end.lost.len(), 3);
        assert!(end.lost.iter().all(|lost| lost.cancelled));
        let end = round(&mut r, 70, vec![]);
        assert_eq!((end.lost.len(), end.lost[0].cancelled), (1, false));
    }

    #[test]
    fn a_cancel_that_was_not_kept_leaves_the_rules_as_they_are() {
        let mut r = rounds();
        round(&mut r, 0, vec![job("a", JobState::Queued)]);
        r.expect_to_leave(&reference("a"), true);
        r.expect_to_leave(&reference("a"), false);
        round(&mut r, 1, vec![]);
        assert!(round(&mut r, 2, vec![]).lost.is_empty());
        assert!(!round(&mut r, 70, vec![]).lost[0].cancelled);
    }

    #[test]
    fn a_partial_round_says_nothing_about_the_others() {
        let mut r = rounds();
        round(&mut r, 0, vec![job("a", JobState::Running)]);
        for second in [60, 120, 180] {
            r.acknowledge(
                &Page {
                    observations: vec![],
                    cursor: None,
                    coverage: Coverage::Partial,
                },
                at(second),
            );
            assert!(r.end_round(Coverage::Partial, at(second)).lost.is_empty());
        }
    }

    #[test]
    fn after_a_changed_configuration_absence_is_no_evidence_until_a_job_was_seen() {
        let open = [(reference("a"), Status::Running)];
        let mut r = Rounds::new(SignedDuration::from_secs(60), false, open.clone());
        for second in [0, 60, 120] {
            assert!(round(&mut r, second, vec![]).lost.is_empty());
        }
        let mut r = Rounds::new(SignedDuration::from_secs(60), true, open);
        round(&mut r, 0, vec![]);
        assert_eq!(round(&mut r, 60, vec![]).lost.len(), 1);
    }

    fn ended(id: &str, second: i64) -> Job {
        match job(id, JobState::Failed) {
            Observation::Job(mut job) => {
                job.finished = Some(at(second));
                *job
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn after_a_changed_configuration_what_ended_before_the_last_complete_round_is_history() {
        let mut r = rounds().after_change(Some(at(100)));
        assert!(r.is_history(&ended("old", 99)));
        // Nobody looked since then, whatever the configuration.
        assert!(!r.is_history(&ended("missed", 100)));
        assert!(!r.is_history(&ended("new", 500)));
        // Nobody knows when: it is told rather than not.
        let Observation::Job(timeless) = job("timeless", JobState::Failed) else {
            unreachable!()
        };
        assert!(!r.is_history(&timeless));
        // A round that did not see everything, and one that failed, change nothing about it.
        r.begin_poll(at(600));
        assert_eq!(r.end_round(Coverage::Partial, at(601)).complete, None);
        r.failed(at(610));
        assert!(r.is_history(&ended("behind a fault", 99)));
        r.begin_poll(at(620));
        assert_eq!(
            r.end_round(Coverage::Complete, at(630)).complete,
            Some(at(620))
        );
        assert!(!r.is_history(&ended("found later", 99)));
    }

    #[test]
    fn without_a_change_nothing_is_history() {
        assert!(!rounds().is_history(&ended("a", 1)));
    }

    #[test]
    fn a_round_of_many_pages_began_with_its_first_one() {
        let mut r = rounds();
        let page = |coverage| Page {
            observations: vec![],
            cursor: None,
            coverage,
        };
        r.begin_poll(at(0));
        assert!(r.acknowledge(&page(Coverage::More), at(5)));
        r.begin_poll(at(6));
        assert!(!r.acknowledge(&page(Coverage::Complete), at(9)));
        assert_eq!(r.end_round(Coverage::Complete, at(9)).complete, Some(at(0)));
        // A round that broke off begins anew.
        r.begin_poll(at(20));
        r.acknowledge(&page(Coverage::More), at(21));
        r.failed(at(22));
        r.begin_poll(at(30));
        assert_eq!(
            r.end_round(Coverage::Complete, at(31)).complete,
            Some(at(30))
        );
    }

    #[test]
    fn the_providers_word_that_a_job_is_gone_needs_no_grace() {
        let mut r = rounds();
        round(&mut r, 0, vec![job("a", JobState::Running)]);
        assert_eq!(
            round(&mut r, 1, vec![Observation::Gone(reference("a"))])
                .lost
                .len(),
            1
        );
    }
}
