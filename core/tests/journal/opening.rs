//! Opening: what is there again, and what is refused with words that help.

use crate::support::{Actor, Fixture, append, finished_runs, key, source};
use rusqlite::Connection;
use std::os::unix::fs::PermissionsExt;
use weir_core::journal::OpenError;

#[test]
fn a_journal_opened_again_knows_everything() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    handle.commit_blocking(source(fixture.now())).unwrap();
    let mut actor = Actor::new(handle.next_workflow_id(), "one");
    let done = finished_runs(&handle, &mut actor, 3, fixture.now());
    let open = handle.next_execution_seq();
    append(&handle, actor.begin(open, &key("open"), fixture.now()));
    let (head, origin) = (handle.head(), handle.origin());
    drop(handle);
    drop(journal);

    let journal = fixture.open();
    let handle = journal.handle();
    assert_eq!((handle.head(), handle.origin()), (head, origin));
    assert!(handle.next_execution_seq() > open);
    assert!(handle.next_workflow_id() > actor.workflow.id);
    let reader = handle.reader().unwrap();
    let row = reader.workflow_by_key("one").unwrap().unwrap();
    assert_eq!((row.version, row.last_number), (actor.version, 4));
    let still_open = reader
        .open_of_workflow(row.id, weir_model::id::ExecutionSeq(0))
        .unwrap();
    assert_eq!(still_open.len(), 1);
    let expected = actor.workflow.execution(open).unwrap();
    assert_eq!(still_open[0].record, expected.record);
    assert_eq!(still_open[0].steps, expected.steps);
    for seq in done {
        let stored = reader.execution(seq).unwrap().unwrap();
        assert_eq!(stored.record, actor.workflow.execution(seq).unwrap().record);
    }
}

#[test]
fn one_daemon_for_each_data_directory() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let error = fixture.try_open().unwrap_err();
    let text = error.to_string();
    let pid = format!("in use by weir process {}", std::process::id());
    assert!(text.contains(&pid), "{text}");
    drop(journal);
    fixture.open();
}

#[test]
fn a_damaged_file_is_named_and_left_alone() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let mut actor = Actor::new(journal.handle().next_workflow_id(), "one");
    finished_runs(&journal.handle(), &mut actor, 50, fixture.now());
    drop(journal);
    let mut bytes = std::fs::read(fixture.file()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xa5);
    std::fs::write(fixture.file(), &bytes).unwrap();

    let error = fixture.try_open().unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("weir.db") && text.contains("restore a backup"),
        "{text}"
    );
    assert_eq!(std::fs::read(fixture.file()).unwrap(), bytes);

    std::fs::write(
        fixture.file(),
        "not a database at all, but long enough to be read",
    )
    .unwrap();
    let error = fixture.try_open().unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[test]
fn a_store_of_a_newer_weir_is_refused() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let connection = Connection::open(fixture.file()).unwrap();
    connection.pragma_update(None, "user_version", 7).unwrap();
    connection
        .execute(
            "UPDATE meta SET value = '0.4.0' WHERE key = 'written_by'",
            [],
        )
        .unwrap();
    drop(connection);
    let text = fixture.try_open().unwrap_err().to_string();
    let expected = "was written by weir 0.4.0 (schema 7), this is weir 0.1.0 (schema 3)";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_directory_that_cannot_be_written_is_told_apart() {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.dir = fixture.dir.path().join("missing");
    let error = weir_core::journal::Journal::open(options).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn the_files_belong_to_their_owner_alone() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    journal
        .handle()
        .commit_blocking(source(fixture.now()))
        .unwrap();
    for entry in std::fs::read_dir(fixture.dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
}

#[test]
fn the_file_says_whose_it_is() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let connection = Connection::open(fixture.file()).unwrap();
    let pragma = |name: &str| -> i64 {
        connection
            .pragma_query_value(None, name, |row| row.get(0))
            .unwrap()
    };
    assert_eq!(pragma("application_id"), 0x7765_6972);
    assert_eq!(pragma("user_version"), 3);
    assert_eq!(pragma("auto_vacuum"), 2);
    drop(journal);
}

#[test]
fn a_backup_is_a_whole_store() {
    let fixture = Fixture::new();
    let journal = fixture.open();
    let handle = journal.handle();
    let mut actor = Actor::new(handle.next_workflow_id(), "one");
    finished_runs(&handle, &mut actor, 5, fixture.now());
    let copy = Fixture::new();
    handle.backup_blocking(&copy.file()).unwrap();
    let journal = copy.open();
    assert_eq!(journal.handle().head(), handle.head());
}
