//! Tests of the machine: tables, and properties over arbitrary orders of observations.

use super::*;
use crate::id::SourceId;
use crate::observation::{JobState, StepState};
use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).expect("in range")
}

fn key() -> RunKey {
    RunKey {
        source: SourceId(1),
        external_id: "p1".into(),
        run: "0".into(),
    }
}

fn job(state: JobState) -> Job {
    Job {
        id: "p1".into(),
        run: Some("0".into()),
        workflow: None,
        state,
        name: None,
        position: None,
        created: Some(at(0)),
        started: None,
        finished: None,
        steps: Vec::new(),
        error: None,
        labels: Vec::new(),
        detail: "{}".into(),
    }
}

fn step(id: &str, state: StepState) -> JobStep {
    JobStep {
        id: id.into(),
        name: format!("node {id}"),
        state,
        started: None,
        finished: None,
        done: None,
        total: None,
        error: None,
    }
}

/// A machine that keeps what it emitted.
struct Bench {
    live: Workflow,
    journal: Vec<(ExecutionSeq, ExecutionEvent, Timestamp)>,
    clock: i64,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            live: Workflow::new(WorkflowId(1), "w".into()),
            journal: Vec::new(),
            clock: 0,
        }
    }

    fn take(&mut self, events: Events) -> Vec<&'static str> {
        let now = at(self.clock);
        let kinds = events.iter().map(|(_, e)| e.kind()).collect();
        for (seq, event) in events {
            self.live.apply(seq, &event, now);
            self.journal.push((seq, event, now));
        }
        kinds
    }

    fn see(&mut self, job: &Job, contact: Contact) -> Vec<&'static str> {
        self.clock += 1;
        let new = NewExecution {
            seq: ExecutionSeq(self.clock),
            uuid: Uuid::from_u128(1),
        };
        let events = self.live.observe(&key(), job, contact, new, at(self.clock));
        let kinds = self.take(events);
        self.live.report_view(&key(), job);
        kinds
    }

    fn status(&self) -> Status {
        self.live.find(&key()).expect("seen").record.status
    }
}

#[test]
fn a_job_runs_through_its_life_with_one_event_per_change() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.see(&job(JobState::Queued), Contact::default()),
        ["execution.created", "execution.queued"]
    );
    assert_eq!(
        bench.see(&job(JobState::Queued), Contact::default()),
        [""; 0]
    );
    let mut running = job(JobState::Running);
    running.steps = vec![step("1", StepState::Running), step("2", StepState::Pending)];
    assert_eq!(
        bench.see(&running, Contact::default()),
        ["execution.started", "execution.declared", "step.started"]
    );
    let mut done = job(JobState::Completed);
    done.started = Some(at(1));
    done.finished = Some(at(9));
    done.steps = vec![
        step("1", StepState::Completed),
        step("2", StepState::Skipped),
    ];
    assert_eq!(
        bench.see(&done, Contact::default()),
        ["step.completed", "step.skipped", "execution.completed"]
    );
    let record = &bench.live.find(&key()).expect("seen").record;
    assert_eq!(record.duration(), Some(std::time::Duration::from_secs(8)));
    assert_eq!(record.queue_wait(), Some(std::time::Duration::from_secs(1)));
}

#[test]
fn a_job_that_was_final_at_first_contact_is_imported() {
    let mut bench = Bench::new();
    let first = Contact {
        first: true,
        late: false,
    };
    bench.see(&job(JobState::Failed), first);
    assert!(bench.live.find(&key()).expect("seen").record.imported);
    let mut bench = Bench::new();
    bench.see(&job(JobState::Running), first);
    assert!(!bench.live.find(&key()).expect("seen").record.imported);
}

#[test]
fn a_verdict_is_corrected_once() {
    let mut bench = Bench::new();
    bench.see(&job(JobState::Failed), Contact::default());
    assert_eq!(
        bench.see(&job(JobState::Completed), Contact::default()),
        ["execution.corrected"]
    );
    assert_eq!(
        bench.see(&job(JobState::Failed), Contact::default()),
        [""; 0]
    );
    assert_eq!(bench.status(), Status::Completed);
}

#[test]
fn a_lost_job_that_is_shown_again_is_found() {
    let mut bench = Bench::new();
    bench.see(&job(JobState::Running), Contact::default());
    let events = bench.live.lose(&key(), "restart");
    assert_eq!(bench.take(events), ["execution.lost"]);
    assert!(bench.live.lose(&key(), "again").is_empty());
    assert_eq!(
        bench.see(&job(JobState::Completed), Contact::default()),
        ["execution.found", "execution.completed"]
    );
    assert_eq!(bench.status(), Status::Completed);
}

#[test]
fn a_job_that_waits_again_starts_its_next_attempt_with_fresh_steps() {
    let mut bench = Bench::new();
    let mut running = job(JobState::Running);
    running.steps = vec![step("1", StepState::Completed)];
    bench.see(&running, Contact::default());
    assert_eq!(
        bench.see(&job(JobState::Queued), Contact::default()),
        ["execution.queued"]
    );
    let mut again = job(JobState::Running);
    again.steps = vec![step("1", StepState::Running)];
    assert_eq!(
        bench.see(&again, Contact::default()),
        ["execution.started", "step.started"]
    );
    let execution = bench.live.find(&key()).expect("seen");
    assert_eq!(execution.record.attempt, 2);
    assert_eq!(execution.steps[0].status, StepStatus::Running);
}

#[test]
fn an_unwatched_job_is_never_lost() {
    let mut bench = Bench::new();
    bench.see(&job(JobState::Running), Contact::default());
    let events = bench.live.watch(&key(), false);
    bench.take(events);
    assert!(bench.live.lose(&key(), "gone").is_empty());
}

#[test]
fn absurd_provider_times_give_no_negative_duration() {
    let mut bench = Bench::new();
    let mut done = job(JobState::Completed);
    done.started = Some(at(9));
    done.finished = Some(at(1));
    bench.see(&done, Contact::default());
    let record = &bench.live.find(&key()).expect("seen").record;
    assert_eq!(record.duration(), Some(std::time::Duration::ZERO));
}

fn any_state() -> impl Strategy<Value = JobState> {
    use JobState::*;
    prop::sample::select(vec![
        Pending,
        Queued,
        Initializing,
        Running,
        Completing,
        Paused,
        Cancelling,
        Completed,
        Partial,
        Failed,
        Cancelled,
        Timeout,
    ])
}

fn any_step() -> impl Strategy<Value = JobStep> {
    use StepState::*;
    (
        prop::sample::select(vec!["1", "2", "3", "4:5"]),
        prop::sample::select(vec![
            Pending, Running, Completed, Failed, Skipped, Cancelled,
        ]),
        prop::option::of(-5.0..20.0f64),
        prop::option::of(-1.0..20.0f64),
    )
        .prop_map(|(id, state, done, total)| JobStep {
            done,
            total,
            ..step(id, state)
        })
}

#[derive(Clone, Debug)]
enum Act {
    See(JobState, Vec<JobStep>, bool),
    Lose,
    Watch(bool),
    Report(f64, Option<f64>),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (any_state(), prop::collection::vec(any_step(), 0..5), any::<bool>())
            .prop_map(|(s, steps, first)| Act::See(s, steps, first)),
        1 => Just(Act::Lose),
        1 => any::<bool>().prop_map(Act::Watch),
        2 => (any::<f64>(), prop::option::of(any::<f64>())).prop_map(|(d, t)| Act::Report(d, t)),
    ]
}

proptest! {
    #[test]
    fn any_order_of_observations_keeps_the_promises(acts in prop::collection::vec(any_act(), 1..40)) {
        let mut bench = Bench::new();
        let mut final_seen: Option<Status> = None;
        let mut corrections = 0;
        let mut progress: Option<(u32, f64)> = None;
        for act in acts {
            match act {
                Act::See(state, steps, first) => {
                    let view = Job { steps, ..job(state) };
                    let kinds = bench.see(&view, Contact { first, late: false });
                    corrections += kinds.iter().filter(|k| **k == "execution.corrected").count();
                }
                Act::Lose => { let e = bench.live.lose(&key(), "gone"); bench.take(e); }
                Act::Watch(on) => { let e = bench.live.watch(&key(), on); bench.take(e); }
                Act::Report(done, total) => {
                    let p = JobProgress { id: "p1".into(), run: Some("0".into()), step: None, done, total, note: None };
                    bench.live.report(&key(), &p);
                }
            }
            let Some(execution) = bench.live.find(&key()) else { continue };
            let status = execution.record.status;
            if final_seen.is_some() {
                prop_assert!(status.is_final(), "a final status was left for {status}");
            }
            if status.is_final() { final_seen = Some(status); }
            if let Some(now) = execution.live.progress {
                prop_assert!((0.0..=100.0).contains(&now));
                prop_assert!(now < 100.0 || status == Status::Completed || corrections > 0);
                if let Some((attempt, before)) = progress && attempt == execution.record.attempt {
                    prop_assert!(now >= before, "progress fell from {before} to {now}");
                }
                progress = Some((execution.record.attempt, now));
            }
        }
        prop_assert!(corrections <= 1);
        let mut replayed = Workflow::new(WorkflowId(1), "w".into());
        for (seq, event, when) in &bench.journal {
            replayed.apply(*seq, event, *when);
        }
        prop_assert_eq!(&replayed, &bench.live);
    }
}
