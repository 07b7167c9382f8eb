//! Commits: order, refusal, failure.

use crate::support::{
    Actor, Fixture, append, count, created, declared, finished, finished_runs, key, source,
};
use std::time::Duration;
use weir_core::journal::{Append, Commit, CommitError, Fault, JournalError, JournalState};
use weir_model::event::{ExecutionEvent, SystemEvent};
use weir_model::id::{Seq, WorkflowId};
use weir_model::status::Status;

fn rejected(handle: &weir_core::journal::JournalHandle, append: Append) -> String {
    match handle.commit_blocking(Commit::Append(append)) {
        Err(CommitError::Rejected { reason }) => reason,
        other => panic!("not rejected: {other:?}"),
    }
}

#[test]
fn numbers_follow_the_order_of_the_commits() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    let head = handle.subscribe();
    let futures: Vec<_> = (0..500)
        .map(|n| {
            let event = SystemEvent::Started {
                version: n.to_string(),
            };
            let commit = Commit::system(vec![event.clone(), event], fixture.now());
            handle.try_commit(commit).unwrap()
        })
        .collect();
    for (n, future) in (0..).zip(futures) {
        let committed = futures::executor::block_on(future).unwrap();
        assert_eq!(committed.first_seq, Seq(2 * n + 1));
        assert_eq!(committed.last_seq, Seq(2 * n + 2));
    }
    assert_eq!(*head.borrow(), Seq(1000));
    let counters = handle.counters();
    assert_eq!((counters.commits, counters.events), (500, 1000));
    assert!(counters.batches < 500, "{counters:?}");
    assert_eq!(counters.queue_len, 0);
}

#[test]
fn a_rejected_append_leaves_nothing() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    let mut first = Actor::new(handle.next_workflow_id(), "one");
    let seq = handle.next_execution_seq();
    append(&handle, first.begin(seq, &key("a"), fixture.now()));
    let head = handle.head();

    // The same run through another workflow.
    let mut second = Actor::new(handle.next_workflow_id(), "two");
    let twin = handle.next_execution_seq();
    let reason = rejected(&handle, second.begin(twin, &key("a"), fixture.now()));
    assert!(reason.contains("is there already"), "{reason}");
    // The same workflow made twice.
    let mut again = Actor::new(WorkflowId(77), "one");
    let reason = rejected(&handle, again.begin(twin, &key("b"), fixture.now()));
    assert!(reason.contains("\"one\" is there already"), "{reason}");
    // A run that belongs to somebody else.
    let mut third = Actor::new(handle.next_workflow_id(), "three");
    let stolen = third.append(vec![(seq, finished(Status::Failed))], fixture.now());
    let reason = rejected(&handle, stolen);
    assert!(reason.contains("has no execution"), "{reason}");

    assert_eq!(handle.head(), head);
    assert_eq!(handle.counters().rejected, 3);
    drop(journal);
    assert_eq!(count(&fixture.file(), "workflows"), 1);
    assert_eq!(count(&fixture.file(), "executions"), 1);
    assert_eq!(count(&fixture.file(), "steps"), 2);
    assert_eq!(count(&fixture.file(), "events"), head.0);
}

#[test]
fn appends_that_follow_a_rejected_one_are_rejected_too() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    let mut other = Actor::new(handle.next_workflow_id(), "other");
    let taken = handle.next_execution_seq();
    append(&handle, other.begin(taken, &key("taken"), fixture.now()));

    let mut actor = Actor::new(handle.next_workflow_id(), "one");
    let mut chain = Vec::new();
    for id in ["a", "taken", "b", "c"] {
        let seq = handle.next_execution_seq();
        let append = actor.begin(seq, &key(id), fixture.now());
        chain.push(handle.try_commit(Commit::Append(append)).unwrap());
    }
    let answers: Vec<_> = chain
        .into_iter()
        .map(futures::executor::block_on)
        .map(|answer| answer.is_ok())
        .collect();
    assert_eq!(answers, [true, false, false, false]);
    let version = handle
        .reader()
        .unwrap()
        .workflow(actor.workflow.id)
        .unwrap();
    assert_eq!(version.unwrap().version, 1);
}

#[test]
fn an_append_that_declares_steps_says_where_they_begin() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    let mut actor = Actor::new(handle.next_workflow_id(), "one");
    let seq = handle.next_execution_seq();
    let events = vec![(seq, created(&key("a"), 1)), (seq, declared())];
    let mut append = actor.append(events, fixture.now());
    append.declared.pop();
    let reason = rejected(&handle, append);
    assert!(reason.contains("without their place"), "{reason}");
}

#[test]
fn a_full_queue_is_told_at_once() {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.queue_len = 4;
    let journal = weir_core::journal::Journal::open(options).unwrap();
    let handle = journal.handle();
    let mut busy = 0;
    let mut taken = Vec::new();
    for _ in 0..10_000 {
        match handle.try_commit(Commit::system(vec![SystemEvent::Reloaded], fixture.now())) {
            Ok(future) => taken.push(future),
            Err(JournalError::Busy) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(busy > 0);
    assert_eq!(handle.counters().busy, busy);
    let count = taken.len();
    for future in taken {
        futures::executor::block_on(future).unwrap();
    }
    assert_eq!(handle.head(), Seq(i64::try_from(count).unwrap()));
}

#[test]
fn a_failed_commit_closes_the_journal_until_it_is_read_back() {
    for fault in [Fault::Fail, Fault::Panic] {
        let fixture = Fixture::new();
        let journal = fixture.open();
        let handle = journal.handle();
        handle.commit_blocking(source(fixture.now())).unwrap();
        let mut actor = Actor::new(handle.next_workflow_id(), "one");
        finished_runs(&handle, &mut actor, 3, fixture.now());
        let head = handle.head();

        handle.inject(fault);
        // The order is followed between batches.
        futures::executor::block_on(handle.retain_now());
        let seq = handle.next_execution_seq();
        let lost = actor.begin(seq, &key("lost"), fixture.now());
        let answer = handle.commit_blocking(Commit::Append(lost.clone()));
        assert!(
            matches!(answer, Err(CommitError::Closed { .. })),
            "{answer:?}"
        );
        assert!(matches!(handle.state(), JournalState::Closed { .. }));
        let refused = handle.try_commit(Commit::Append(lost.clone()));
        assert!(matches!(refused, Err(JournalError::Closed { .. })));
        assert_eq!(handle.head(), head);

        futures::executor::block_on(handle.reopen()).unwrap();
        assert_eq!(handle.state(), JournalState::Open);
        assert_eq!(append(&handle, lost).first_seq, Seq(head.0 + 1));
    }
}

#[test]
fn what_was_queued_before_the_stop_is_durable() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    let futures: Vec<_> = (0..100)
        .map(|_| Commit::system(vec![SystemEvent::Reloaded], fixture.now()))
        .map(|commit| handle.try_commit(commit).unwrap())
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let stopped = async { tokio::time::timeout(Duration::from_secs(10), journal.shutdown()).await };
    runtime.unwrap().block_on(stopped).unwrap();
    for future in futures {
        futures::executor::block_on(future).unwrap();
    }
    let refused = handle.try_commit(Commit::system(vec![SystemEvent::Reloaded], fixture.now()));
    assert!(matches!(refused, Err(JournalError::Closed { .. })));
    assert_eq!(count(&fixture.file(), "events"), 100);
}

#[test]
fn a_new_attempt_is_stored_over_the_old_one() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    let mut actor = Actor::new(handle.next_workflow_id(), "one");
    let seq = handle.next_execution_seq();
    append(&handle, actor.begin(seq, &key("a"), fixture.now()));
    let again = vec![
        (seq, ExecutionEvent::Queued),
        (
            seq,
            ExecutionEvent::Started {
                started_at: None,
                attempt: 2,
            },
        ),
    ];
    append(&handle, actor.append(again, fixture.now()));
    let stored = handle.reader().unwrap().execution(seq).unwrap().unwrap();
    let expected = actor.workflow.execution(seq).unwrap();
    assert_eq!(stored.record, expected.record);
    assert_eq!(stored.steps, expected.steps);
}
