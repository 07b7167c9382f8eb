//! Reading: events come back as they were, pages are in order, rows are what was committed.

use crate::support::{
    Actor, Fixture, SOURCE, START, append, created, declared, finished, finished_runs, key, source,
};
use jiff::Timestamp;
use std::sync::atomic::{AtomicBool, Ordering};
use uuid::Uuid;
use weir_core::journal::{
    AlertCommit, AlertRow, Checkpoint, Commit, ExecutionFilter, JournalHandle, OutboxRow,
    OutboxState, OutboxUpdate, ProgressRow, SampleRow,
};
use weir_model::alert::notification::{AlertStatus, Severity};
use weir_model::event::{AlertEvent, DeclaredStep, Event, ExecutionEvent};
use weir_model::id::{ExecutionSeq, Seq, WorkflowId};
use weir_model::status::Status;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(START + micros).expect("a time of this year")
}

#[test]
fn events_come_back_as_they_were_committed() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    handle.commit_blocking(source(fixture.now())).unwrap();
    let mut actor = Actor::new(handle.next_workflow_id(), "one");
    let seq = handle.next_execution_seq();
    let more = ExecutionEvent::Declared {
        steps: vec![DeclaredStep {
            external_id: "12".to_owned(),
            name: "late".to_owned(),
        }],
    };
    let chain = vec![
        vec![(seq, created(&key("a"), 1)), (seq, declared())],
        vec![
            (seq, more),
            (seq, ExecutionEvent::StepStarted { step: 2, at: None }),
        ],
        vec![(seq, finished(Status::Failed))],
    ];
    for events in &chain {
        append(&handle, actor.append(events.clone(), fixture.now()));
    }
    let expected: Vec<Event> = chain
        .into_iter()
        .flatten()
        .map(|(seq, event)| Event::Execution(seq, event))
        .collect();
    let reader = handle.reader().unwrap();
    let stored = reader.events_after(Seq(0), 100).unwrap();
    let events: Vec<Event> = stored.iter().map(|e| e.row.event.clone()).collect();
    assert_eq!(events, expected);
    assert!(stored.iter().all(|e| {
        e.workflow_name.as_deref() == Some("Portrait")
            && e.workflow_key.as_deref() == Some("one")
            && e.external_id.as_deref() == Some("a")
            && e.source_name.as_deref() == Some("studio")
            && e.execution_number == Some(1)
    }));
    assert_eq!(
        reader.execution_events_after(seq, Seq(2), 2).unwrap(),
        stored[2..4]
    );
}

/// Thirty finished runs and ten open ones ("o0", "o3", …), newest first.
fn forty_runs(handle: &JournalHandle, actor: &mut Actor, fixture: &Fixture) -> Vec<ExecutionSeq> {
    let mut expected = Vec::new();
    for n in 0..30 {
        let seq = finished_runs(handle, actor, 1, fixture.now())[0];
        if n % 3 == 0 {
            let open = handle.next_execution_seq();
            append(
                handle,
                actor.begin(open, &key(&format!("o{n}")), fixture.now()),
            );
            expected.push(open);
        }
        expected.push(seq);
    }
    expected.sort_unstable_by_key(|seq| std::cmp::Reverse(*seq));
    expected
}

#[test]
fn pages_go_from_the_newest_to_the_oldest_without_holes() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    handle.commit_blocking(source(fixture.now())).unwrap();
    let mut actor = Actor::new(handle.next_workflow_id(), "one");
    let expected = forty_runs(&handle, &mut actor, &fixture);
    let reader = handle.reader().unwrap();
    let walk = |mut filter: ExecutionFilter| -> Vec<ExecutionSeq> {
        let mut found = Vec::new();
        loop {
            let page = reader.executions(&filter).unwrap();
            let Some(last) = page.last() else {
                return found;
            };
            filter.before = Some(last.record.seq);
            found.extend(page.iter().map(|e| e.record.seq));
        }
    };
    let all = ExecutionFilter {
        limit: 7,
        ..ExecutionFilter::default()
    };
    assert_eq!(walk(all.clone()), expected);
    let by_workflow = ExecutionFilter {
        workflow: Some(actor.workflow.id),
        source: Some(SOURCE),
        statuses: vec![Status::Running, Status::Completed, Status::Running],
        ..all.clone()
    };
    assert_eq!(walk(by_workflow), expected);
    let running = ExecutionFilter {
        statuses: vec![Status::Running],
        ..all.clone()
    };
    assert_eq!(walk(running).len(), 10);
    let one = ExecutionFilter {
        external_id: Some("o3".to_owned()),
        ..all.clone()
    };
    assert_eq!(walk(one).len(), 1);
    let every_filter = ExecutionFilter {
        external_id: Some("o3".to_owned()),
        source: Some(SOURCE),
        workflow: Some(actor.workflow.id),
        statuses: Status::ALL.to_vec(),
        ..all.clone()
    };
    assert_eq!(walk(every_filter).len(), 1);
    let nobody = ExecutionFilter {
        workflow: Some(WorkflowId(99)),
        ..all
    };
    assert!(walk(nobody).is_empty());
    assert_eq!(
        reader.open_counts(Some(SOURCE)).unwrap(),
        [(Status::Running, 10)]
    );
    assert_eq!(reader.seq_at(fixture.now()).unwrap(), handle.head());
    assert_eq!(reader.seq_at(at(-1)).unwrap(), Seq(0));
}

#[test]
fn an_execution_is_found_by_each_of_its_identities() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    handle.commit_blocking(source(fixture.now())).unwrap();
    let mut actor = Actor::new(handle.next_workflow_id(), "one");
    let seq = handle.next_execution_seq();
    append(&handle, actor.begin(seq, &key("a"), fixture.now()));
    let progress = ProgressRow {
        execution: seq,
        progress: Some(40.0),
        note: Some("sampling".to_owned()),
        position: Some(2),
        next_deadline: Some(at(50)),
    };
    handle
        .commit_blocking(Commit::Progress(vec![progress.clone()]))
        .unwrap();
    let reader = handle.reader().unwrap();
    let stored = reader.execution_by_key(&key("a")).unwrap().unwrap();
    assert_eq!(stored.progress, progress);
    assert_eq!(stored.workflow.version, 1);
    assert_eq!(reader.execution(seq).unwrap().unwrap(), stored);
    let by_uuid = reader.execution_by_uuid(stored.record.uuid).unwrap();
    assert_eq!(by_uuid.unwrap(), stored);
    assert_eq!(reader.execution_by_uuid(Uuid::nil()).unwrap(), None);
    assert_eq!(reader.deadlines(at(49)).unwrap(), []);
    let deadline = (seq, actor.workflow.id, at(50));
    assert_eq!(reader.deadlines(at(50)).unwrap(), [deadline]);

    let end = actor.append(vec![(seq, finished(Status::Completed))], fixture.now());
    append(&handle, end);
    let done = reader.execution(seq).unwrap().unwrap();
    assert_eq!(done.progress.progress, Some(100.0));
    assert_eq!(
        (done.progress.position, done.progress.next_deadline),
        (None, None)
    );
}

fn alert() -> AlertRow {
    AlertRow {
        id: 1,
        uuid: Uuid::from_u128(5),
        fingerprint: "f".to_owned(),
        rule: "failed".to_owned(),
        severity: Severity::Error,
        status: AlertStatus::Firing,
        title: "one failed".to_owned(),
        body: String::new(),
        labels: vec![("source".to_owned(), "studio".to_owned())],
        annotations: Vec::new(),
        since: at(1),
        ends: None,
        updated_at: at(1),
        count: 1,
        executions: vec![Uuid::from_u128(3)],
        acknowledged_by: None,
        acknowledged_at: None,
        state: Some("{}".to_owned()),
    }
}

fn message() -> OutboxRow {
    OutboxRow {
        id: 1,
        alert: Some(1),
        key: "group".to_owned(),
        receiver: "phone".to_owned(),
        payload: "{}".to_owned(),
        state: OutboxState::Queued,
        attempts: 0,
        created_at: at(1),
        next_attempt_at: Some(at(1)),
        updated_at: at(1),
        answer: None,
        receipt: None,
    }
}

#[test]
fn an_alert_its_message_and_the_cursor_are_one_commit() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    let fired = AlertEvent::Fired {
        severity: Severity::Error,
        title: "one failed".to_owned(),
    };
    let commit = AlertCommit {
        events: vec![("f".to_owned(), fired.clone())],
        system: Vec::new(),
        alerts: vec![alert()],
        outbox: vec![message()],
        outbox_updates: Vec::new(),
        checkpoint: Some(Checkpoint {
            name: "alerts".to_owned(),
            cursor: Seq(9),
            blob: Some(vec![1, 2]),
        }),
        recorded_at: at(1),
    };
    handle
        .commit_blocking(Commit::Alerts(commit.clone()))
        .unwrap();
    let reader = handle.reader().unwrap();
    assert_eq!(reader.firing_alerts(0).unwrap(), [alert()]);
    assert_eq!(
        reader.alert_by_uuid(Uuid::from_u128(5)).unwrap(),
        Some(alert())
    );
    assert_eq!(reader.outbox_due("phone", at(0), 10).unwrap(), []);
    assert_eq!(reader.outbox_next("phone", at(0)).unwrap(), Some(at(1)));
    assert_eq!(reader.outbox_due("phone", at(1), 10).unwrap(), [message()]);
    let checkpoint = reader.checkpoint("alerts").unwrap().unwrap();
    assert_eq!(
        (checkpoint.cursor, checkpoint.blob),
        (Seq(9), Some(vec![1, 2]))
    );
    let event = &reader.events_after(Seq(0), 10).unwrap()[0].row.event;
    assert_eq!(*event, Event::Alert("f".to_owned(), fired));

    let sent = OutboxUpdate {
        id: 1,
        state: OutboxState::Sent,
        attempts: 1,
        next_attempt_at: None,
        updated_at: at(2),
        answer: Some("200".to_owned()),
        receipt: Some("r1".to_owned()),
        receiver: None,
    };
    handle.commit_blocking(Commit::Outbox(sent)).unwrap();
    assert_eq!(reader.outbox_due("phone", at(5), 10).unwrap(), []);
    let receipt = reader.last_receipt("phone", "group").unwrap();
    assert_eq!(receipt.as_deref(), Some("r1"));
    // The same message twice: nothing of that commit.
    assert!(handle.commit_blocking(Commit::Alerts(commit)).is_err());
    assert_eq!(handle.head(), Seq(1));
}

#[test]
fn samples_are_read_back() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    let sample = |n: i64| SampleRow {
        series: "cpu".to_owned(),
        width_seconds: 10,
        at: at(n * 10_000_000),
        min: 1.0,
        max: 3.0,
        mean: 2.0,
        count: 5,
    };
    let samples: Vec<_> = (0..5).map(sample).collect();
    handle
        .commit_blocking(Commit::Samples(samples.clone()))
        .unwrap();
    let reader = handle.reader().unwrap();
    let range = (at(10_000_000), at(40_000_000));
    let found = reader.samples("cpu", 10, range.0, range.1).unwrap();
    assert_eq!(found, samples[1..4]);
}

#[test]
fn readers_see_whole_commits_while_the_writer_goes_on() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    handle.commit_blocking(source(fixture.now())).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut actor = Actor::new(handle.next_workflow_id(), "one");
            finished_runs(&handle, &mut actor, 300, fixture.now());
            stop.store(true, Ordering::SeqCst);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut cursor = Seq(0);
                loop {
                    let last_look = stop.load(Ordering::SeqCst);
                    let reader = handle.reader().unwrap();
                    let head = reader.head();
                    let events = reader.events_after(cursor, 64).unwrap();
                    for event in &events {
                        assert_eq!(event.row.seq, Seq(cursor.0 + 1));
                        cursor = event.row.seq;
                    }
                    // What is published can be read.
                    assert!(events.len() == 64 || cursor >= head);
                    if last_look && cursor == handle.head() {
                        return;
                    }
                }
            });
        }
    });
    assert_eq!(handle.head(), Seq(300 * 6));
}
