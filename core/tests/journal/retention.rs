//! Retention: whole final executions, below every cursor, never a number twice.

use crate::support::{Actor, Fixture, SOURCE, append, count, finished_runs, key, source};
use std::time::Duration;
use weir_core::journal::{Checkpoint, Commit, Retention};
use weir_model::event::SystemEvent;
use weir_model::id::Seq;

fn thirty_days() -> Retention {
    Retention {
        age: Some(Duration::from_secs(30 * 86_400)),
        size: None,
    }
}

fn checkpoint(cursor: Seq) -> Commit {
    Commit::Checkpoint(Checkpoint {
        name: "metrics".to_owned(),
        cursor,
        blob: None,
    })
}

fn retain(handle: &weir_core::journal::JournalHandle) -> u64 {
    futures::executor::block_on(handle.retain_now())
}

#[test]
fn only_old_final_executions_that_everybody_has_read_are_deleted() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    handle.commit_blocking(source(fixture.now())).unwrap();
    let mut actor = Actor::new(handle.next_workflow_id(), "one");
    let running = handle.next_execution_seq();
    append(
        &handle,
        actor.begin(running, &key("running"), fixture.now()),
    );
    let old = finished_runs(&handle, &mut actor, 10, fixture.now());
    let half = handle.head();
    handle.commit_blocking(checkpoint(half)).unwrap();
    let unread = finished_runs(&handle, &mut actor, 10, fixture.now());
    fixture.advance_days(31);
    let young = finished_runs(&handle, &mut actor, 10, fixture.now());

    assert_eq!(retain(&handle), 0, "no retention is set");
    handle.set_retention(thirty_days());
    assert_eq!(retain(&handle), 10);
    assert_eq!(handle.retained_from(), Seq(half.0 + 1));
    let reader = handle.reader().unwrap();
    for seq in &old {
        assert_eq!(reader.execution(*seq).unwrap(), None);
    }
    for seq in unread.iter().chain(&young).chain([&running]) {
        let execution = reader.execution(*seq).unwrap().unwrap();
        assert_eq!(execution.steps.len(), 2);
        assert!(
            !reader
                .execution_events_after(*seq, Seq(0), 10)
                .unwrap()
                .is_empty()
        );
    }
    // The running one was recorded before them and is whole.
    assert_eq!(reader.events_after(Seq(0), 1).unwrap()[0].row.seq, Seq(1));
    let watermark = reader.source(SOURCE).unwrap().unwrap().forgotten_before;
    assert!(watermark.is_some_and(|at| at < fixture.now()));

    handle.commit_blocking(checkpoint(handle.head())).unwrap();
    assert_eq!(retain(&handle), 10);
    assert_eq!(handle.counters().deleted, 20);
    drop((reader, handle, journal));
    assert_eq!(count(&fixture.file(), "executions"), 11);
    assert_eq!(count(&fixture.file(), "steps"), 22);
}

#[test]
fn numbers_of_deleted_rows_are_not_given_again() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    handle.set_retention(thirty_days());
    let mut actor = Actor::new(handle.next_workflow_id(), "one");
    let last = *finished_runs(&handle, &mut actor, 5, fixture.now())
        .last()
        .unwrap();
    let started = SystemEvent::Reloaded;
    handle
        .commit_blocking(Commit::system(vec![started], fixture.now()))
        .unwrap();
    let head = handle.head();
    fixture.advance_days(40);
    assert_eq!(retain(&handle), 5);
    drop((handle, journal));
    assert_eq!(count(&fixture.file(), "events"), 0);

    let journal = fixture.open();
    let handle = journal.handle();
    assert_eq!(handle.head(), head);
    assert_eq!(handle.retained_from(), Seq(head.0 + 1));
    assert!(handle.next_execution_seq() > last);
}

#[test]
fn a_store_that_is_too_large_loses_its_oldest_and_shrinks() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    let mut actor = Actor::new(handle.next_workflow_id(), "one");
    let runs = finished_runs(&handle, &mut actor, 3000, fixture.now());
    let before = handle.bytes();
    handle.set_retention(Retention {
        age: None,
        size: Some(1 << 20),
    });
    let deleted = retain(&handle);
    assert!((500..3000).contains(&deleted), "{deleted}");
    let reader = handle.reader().unwrap();
    assert!(reader.execution(runs[0]).unwrap().is_none());
    assert!(reader.execution(runs[2999]).unwrap().is_some());
    drop((reader, handle, journal));
    let after = std::fs::metadata(fixture.file()).unwrap().len();
    assert!(after < before && after < 3 << 20, "{before} {after}");
}
