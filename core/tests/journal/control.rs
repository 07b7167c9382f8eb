//! Control requests in the store: one per key, one open cancel per execution, kept as long as what they are about.

use crate::support::{Actor, Fixture, SOURCE, append, count, finished_runs, key, source};
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use std::time::Duration;
use uuid::Uuid;
use weir_core::journal::{
    Commit, CommitError, ControlCommit, JournalHandle, RequestAnswer, RequestRow, Retention,
};
use weir_model::event::{ControlEvent, Event};
use weir_model::id::{ExecutionSeq, Seq};
use weir_model::observation::JobRef;
use weir_model::request::{Action, RequestState};

fn request(handle: &JournalHandle, action: Action, now: Timestamp) -> RequestRow {
    RequestRow {
        id: handle.next_request_id(),
        uuid: Uuid::now_v7(),
        action,
        state: RequestState::Requested,
        source: SOURCE,
        workflow: None,
        execution: None,
        execution_uuid: None,
        job: None,
        key: None,
        digest: None,
        after_execution: handle.last_execution_seq(),
        created_at: now,
        updated_at: now,
        attempts: 0,
        asked: 0,
        asked_at: None,
        not_before: None,
        reason: None,
        new_job: None,
        new_execution: None,
        new_uuid: None,
        answer: None,
    }
}

fn commit(handle: &JournalHandle, row: &RequestRow, is_new: bool) -> Result<(), CommitError> {
    let requested = ControlEvent::Requested {
        request: row.uuid,
        source: row.source,
        action: row.action,
    };
    let commit = ControlCommit {
        row: row.clone(),
        is_new,
        events: vec![requested],
        recorded_at: row.updated_at,
    };
    let committed = handle.commit_blocking(Commit::Control(Box::new(commit)));
    committed.map(drop)
}

#[test]
fn a_request_is_read_as_it_was_written_and_its_event_names_the_execution() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    handle.commit_blocking(source(fixture.now())).unwrap();
    let mut actor = Actor::new(handle.next_workflow_id(), "one");
    let runs = finished_runs(&handle, &mut actor, 2, fixture.now());
    let reader = handle.reader().unwrap();
    let old = reader.execution(runs[0]).unwrap().unwrap().record;
    let new = reader.execution(runs[1]).unwrap().unwrap().record;
    let row = RequestRow {
        state: RequestState::Done,
        workflow: Some(actor.workflow.id),
        execution: Some(old.seq),
        execution_uuid: Some(old.uuid),
        job: Some(JobRef {
            id: "a".into(),
            run: Some("7".into()),
        }),
        key: Some("k".into()),
        digest: Some(vec![1, 2, 3]),
        attempts: 2,
        asked: 1,
        asked_at: Some(fixture.now()),
        not_before: Some(fixture.now()),
        reason: Some("seen".into()),
        new_job: Some(JobRef {
            id: "b".into(),
            run: None,
        }),
        new_execution: Some(new.seq),
        new_uuid: Some(new.uuid),
        answer: Some(RequestAnswer {
            status: 200,
            content_type: "application/json".into(),
            body: Some(b"{}".to_vec()),
        }),
        ..request(&handle, Action::Retry, fixture.now())
    };
    commit(&handle, &row, true).unwrap();
    assert_eq!(reader.request(row.uuid).unwrap().as_ref(), Some(&row));
    let lineage = reader.lineage(new.seq).unwrap();
    assert_eq!(
        (lineage.retried_from, lineage.retried_as),
        (Some(old.uuid), None)
    );
    let lineage = reader.lineage(old.seq).unwrap();
    assert_eq!(
        (lineage.retried_from, lineage.retried_as),
        (None, Some(new.uuid))
    );
    for execution in [old.seq, new.seq] {
        assert_eq!(reader.requests_of(execution).unwrap().len(), 1);
    }
    let event = reader
        .events_after(Seq(handle.head().0 - 1), 1)
        .unwrap()
        .remove(0);
    assert_eq!(event.row.kind, "control.requested");
    assert!(matches!(event.row.event, Event::Control(Some(seq), _) if seq == new.seq));
    assert_eq!(event.source_name.as_deref(), Some("studio"));
    assert_eq!(event.workflow_key.as_deref(), Some("one"));
}

#[test]
fn a_key_stands_for_one_request_a_day_and_an_execution_has_one_open_cancel() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    handle.commit_blocking(source(fixture.now())).unwrap();
    let keyed = || RequestRow {
        key: Some("k".into()),
        ..request(&handle, Action::Submit, fixture.now())
    };
    let mut first = keyed();
    commit(&handle, &first, true).unwrap();
    assert!(matches!(
        commit(&handle, &keyed(), true),
        Err(CommitError::Rejected { .. })
    ));
    // What never got to the provider leaves the key free.
    first.state = RequestState::Failed;
    commit(&handle, &first, false).unwrap();
    let mut second = keyed();
    commit(&handle, &second, true).unwrap();
    second.state = RequestState::Unverifiable;
    commit(&handle, &second, false).unwrap();
    assert!(commit(&handle, &keyed(), true).is_err());
    let reader = handle.reader().unwrap();
    let found = reader
        .request_by_key(SOURCE, "k", fixture.now())
        .unwrap()
        .unwrap();
    assert_eq!(found.uuid, second.uuid);
    fixture.advance_days(1);
    let later = fixture
        .now()
        .checked_add(SignedDuration::from_secs(1))
        .unwrap();
    assert_eq!(reader.request_by_key(SOURCE, "k", later).unwrap(), None);
    let tomorrow = RequestRow {
        created_at: later,
        ..keyed()
    };
    commit(&handle, &tomorrow, true).unwrap();

    let cancel = || RequestRow {
        execution: Some(ExecutionSeq(5)),
        ..request(&handle, Action::Cancel, fixture.now())
    };
    let mut open = cancel();
    commit(&handle, &open, true).unwrap();
    assert!(commit(&handle, &cancel(), true).is_err());
    open.state = RequestState::Refused;
    commit(&handle, &open, false).unwrap();
    commit(&handle, &cancel(), true).unwrap();
    assert_eq!(reader.open_request_count().unwrap(), 2);
}

#[test]
fn a_store_of_the_first_release_is_brought_up_to_date_and_a_copy_is_kept() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    let mut actor = Actor::new(handle.next_workflow_id(), "one");
    finished_runs(&handle, &mut actor, 3, fixture.now());
    let head = handle.head();
    drop((handle, journal));
    let connection = Connection::open(fixture.file()).unwrap();
    connection
        .execute_batch(
            "DROP TABLE control_requests;
             ALTER TABLE sources DROP COLUMN complete_generation;
             ALTER TABLE sources DROP COLUMN complete_at;",
        )
        .unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    drop(connection);
    let journal = fixture.open();
    let handle = journal.handle();
    assert_eq!(handle.head(), head);
    commit(
        &handle,
        &request(&handle, Action::Submit, fixture.now()),
        true,
    )
    .unwrap();
    assert!(fixture.dir.path().join("weir.v1.backup.db").exists());
}

#[test]
fn a_request_is_forgotten_with_the_execution_it_is_about_and_not_before() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    handle.commit_blocking(source(fixture.now())).unwrap();
    let mut actor = Actor::new(handle.next_workflow_id(), "one");
    let run = finished_runs(&handle, &mut actor, 1, fixture.now())[0];
    let done = |row: RequestRow| RequestRow {
        state: RequestState::Done,
        ..row
    };
    let of_run = RequestRow {
        execution: Some(run),
        ..done(request(&handle, Action::Cancel, fixture.now()))
    };
    let running = handle.next_execution_seq();
    append(
        &handle,
        actor.begin(running, &key("running"), fixture.now()),
    );
    let of_running = RequestRow {
        execution: Some(running),
        ..done(request(&handle, Action::Cancel, fixture.now()))
    };
    let of_nothing = done(request(&handle, Action::Submit, fixture.now()));
    let open = request(&handle, Action::Submit, fixture.now());
    for row in [&of_run, &of_running, &of_nothing, &open] {
        commit(&handle, row, true).unwrap();
    }
    fixture.advance_days(31);
    handle.set_retention(Retention {
        age: Some(Duration::from_secs(30 * 86_400)),
        size: None,
    });
    futures::executor::block_on(handle.retain_now());
    let reader = handle.reader().unwrap();
    let kept = |row: &RequestRow| reader.request(row.uuid).unwrap().is_some();
    assert_eq!(reader.execution(run).unwrap(), None);
    futures::executor::block_on(handle.retain_now());
    assert!(!kept(&of_nothing) && !kept(&of_run));
    assert!(kept(&of_running) && kept(&open));
    drop((reader, handle, journal));
    assert_eq!(count(&fixture.file(), "control_requests"), 2);
}
