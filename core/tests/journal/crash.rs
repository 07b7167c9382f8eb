//! Crashes: kill -9 at any moment, and a disk that is slow, failing or full (by strace).
//!
//! The writer is this test binary again, in a process of its own; it tells each acknowledgement on stdout.

#![expect(
    clippy::unwrap_used,
    reason = "a crash test that fails shall say where"
)]

use crate::support::{Actor, Fixture, finished, key, source, step_finished};
use futures::executor::block_on;
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use weir_core::journal::{
    Commit, CommitError, CommitFuture, Committed, Durability, Journal, JournalError, JournalHandle,
};
use weir_model::event::{Event, SystemEvent};
use weir_model::id::{ExecutionSeq, Seq, WorkflowId};
use weir_model::status::Status;
use weir_model::workflow::{Execution, Workflow};

const DIR: &str = "WEIR_CRASH_DIR";
const MODE: &str = "WEIR_CRASH_MODE";
const WORKFLOWS: usize = 16;
/// Appends each workflow has on their way.
const IN_FLIGHT: usize = 4;
/// What strace adds to a sync.
const DELAY: Duration = Duration::from_millis(60);

/// Acknowledged: these numbers were given to an append of this workflow, which made it this version.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    first: Seq,
    last: Seq,
    workflow: WorkflowId,
    version: i64,
}

// ---- the child

#[test]
fn writer_of_the_crash_tests() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let mut options = Fixture::new().options();
    options.dir = dir.into();
    options.durability = Durability::Power;
    let journal = Journal::open(options).unwrap();
    let handle = journal.handle();
    if std::env::var(MODE).as_deref() == Ok("slow") {
        tell_latencies(&handle);
        return;
    }
    let reason = write_until_closed(&handle);
    tell(&format!("closed {reason}"));
    let again = block_on(handle.reopen());
    tell(&format!("reopened {}", again.is_ok()));
    // Whatever the disk does now is not what is tested.
    std::process::exit(0);
}

fn tell(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes()).unwrap();
    stdout.flush().unwrap();
}

fn tell_latencies(handle: &JournalHandle) {
    for _ in 0..5 {
        let at = Fixture::new().now();
        let started = Instant::now();
        let commit = Commit::system(vec![SystemEvent::Reloaded], at);
        handle.commit_blocking(commit).unwrap();
        tell(&format!("took {}", started.elapsed().as_millis()));
    }
}

/// Actors as the registry makes them: from what the store holds, never from what was in memory.
fn rebuild(handle: &JournalHandle) -> Vec<Actor> {
    let reader = handle.reader().unwrap();
    (0..WORKFLOWS)
        .map(|n| {
            let name = format!("workflow {n}");
            let Some(row) = reader.workflow_by_key(&name).unwrap() else {
                return Actor::new(handle.next_workflow_id(), &name);
            };
            let mut actor = Actor::new(row.id, &name);
            actor.version = row.version;
            actor.workflow.last_number = row.last_number;
            for stored in reader.open_of_workflow(row.id, ExecutionSeq(0)).unwrap() {
                actor.workflow.adopt(Execution {
                    record: stored.record,
                    steps: stored.steps,
                    live: weir_model::workflow::Live::default(),
                });
            }
            actor
        })
        .collect()
}

/// Keeps appends on their way for every workflow. Returns why it ended.
fn write_until_closed(handle: &JournalHandle) -> String {
    let now = Fixture::new().now();
    let _ = handle.commit_blocking(source(now));
    let mut actors = rebuild(handle);
    let mut waiting: VecDeque<(WorkflowId, i64, CommitFuture)> = VecDeque::new();
    loop {
        for actor in &mut actors {
            let append = next_append(handle, actor);
            match handle.try_commit(Commit::Append(append)) {
                Ok(future) => waiting.push_back((actor.workflow.id, actor.version, future)),
                Err(JournalError::Closed { reason }) => return reason,
                Err(error) => panic!("{error}"),
            }
        }
        while waiting.len() > WORKFLOWS * IN_FLIGHT {
            let (workflow, version, future) = waiting.pop_front().unwrap();
            match block_on(future) {
                Ok(Committed {
                    first_seq,
                    last_seq,
                }) => tell(&format!("ack {first_seq} {last_seq} {workflow} {version}")),
                Err(CommitError::Closed { reason }) => return reason,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Each run: begun, its second step, its end.
fn next_append(handle: &JournalHandle, actor: &mut Actor) -> weir_core::journal::Append {
    let now = Fixture::new().now();
    let open: Option<(ExecutionSeq, bool)> = actor.workflow.executions().next().map(|e| {
        let second = e.steps.last().is_some_and(|s| s.status.is_final());
        (e.record.seq, second)
    });
    let append = match open {
        None => {
            let seq = handle.next_execution_seq();
            actor.begin(seq, &key(&format!("p{seq}")), now)
        }
        Some((seq, false)) => actor.append(vec![(seq, step_finished(1))], now),
        Some((seq, true)) => actor.append(vec![(seq, finished(Status::Completed))], now),
    };
    actor.workflow.forget_closed();
    append
}

// ---- the parent

fn child(dir: &Path, mode: &str, strace: &[&str]) -> Child {
    let exe = std::env::current_exe().unwrap();
    let mut command = if strace.is_empty() {
        Command::new(&exe)
    } else {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null"]).args(strace);
        command.arg(&exe);
        command
    };
    command
        .args(["--exact", "crash::writer_of_the_crash_tests", "--nocapture"])
        .env(DIR, dir)
        .env(MODE, mode)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn acknowledged(line: &str) -> Option<Acknowledged> {
    let numbers: Vec<i64> = line
        .strip_prefix("ack ")?
        .split(' ')
        .map(|number| number.parse().unwrap())
        .collect();
    let [first, last, workflow, version] = numbers[..] else {
        // Cut off by the kill: it was not told.
        return None;
    };
    Some(Acknowledged {
        first: Seq(first),
        last: Seq(last),
        workflow: WorkflowId(workflow),
        version,
    })
}

/// The store holds everything that was acknowledged, once, and its rows are what its events say.
fn verify(fixture: &Fixture, acknowledged: &[Acknowledged]) {
    let journal = fixture.open();
    let handle = journal.handle();
    let reader = handle.reader().unwrap();
    let mut owners: Vec<Option<WorkflowId>> = vec![None];
    let mut machines: HashMap<WorkflowId, Workflow> = HashMap::new();
    let mut seen: HashMap<ExecutionSeq, Vec<&'static str>> = HashMap::new();
    let mut cursor = Seq(0);
    loop {
        let events = reader.events_after(cursor, 1000).unwrap();
        let Some(last) = events.last() else { break };
        cursor = last.row.seq;
        for event in events {
            assert_eq!(event.row.seq.0, owners.len() as i64, "a hole or a double");
            owners.push(event.row.workflow);
            let (Event::Execution(seq, fact), Some(id)) = (&event.row.event, event.row.workflow)
            else {
                continue;
            };
            seen.entry(*seq).or_default().push(fact.kind());
            let machine = machines
                .entry(id)
                .or_insert_with(|| Workflow::new(id, String::new()));
            machine.apply(*seq, fact, event.row.at);
        }
    }
    assert_eq!(cursor, handle.head());
    for ack in acknowledged {
        assert!(ack.last <= cursor, "{ack:?} is lost, the head is {cursor}");
        for seq in ack.first.0..=ack.last.0 {
            let owner = owners[usize::try_from(seq).unwrap()];
            assert_eq!(owner, Some(ack.workflow), "{ack:?}");
        }
        let row = reader.workflow(ack.workflow).unwrap().unwrap();
        assert!(row.version >= ack.version, "{ack:?} {row:?}");
    }
    let whole = [
        "execution.created",
        "execution.declared",
        "execution.started",
        "step.started",
        "step.completed",
        "step.completed",
        "execution.completed",
    ];
    for kinds in seen.values() {
        assert!(whole.starts_with(kinds), "{kinds:?}");
    }
    for machine in machines.values() {
        for execution in machine.executions() {
            let stored = reader.execution(execution.record.seq).unwrap().unwrap();
            assert_eq!(stored.record, execution.record);
            assert_eq!(stored.steps, execution.steps);
        }
    }
}

/// Runs a child until it has acknowledged `count` appends, then kills it. Returns all it acknowledged.
fn kill_after(dir: &Path, count: usize) -> Vec<Acknowledged> {
    let mut child = child(dir, "load", &[]);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut found = Vec::new();
    for line in lines {
        found.extend(acknowledged(&line.unwrap()));
        if found.len() == count {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(found.len() >= count, "the writer ended by itself");
    found
}

#[test]
fn kill_9_loses_and_doubles_nothing_that_was_acknowledged() {
    let rounds: usize = std::env::var("WEIR_CRASH_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(5);
    let fixture = Fixture::new();
    let mut acknowledged = Vec::new();
    for round in 0..rounds {
        // Anything from the first acknowledgement to the middle of heavy work.
        let random = uuid::Uuid::new_v4().as_u128() % 400;
        let count = if round == 0 {
            1
        } else {
            1 + usize::try_from(random).unwrap()
        };
        acknowledged.extend(kill_after(fixture.dir.path(), count));
        verify(&fixture, &acknowledged);
    }
}

/// strace can be missing, or forbidden in a container.
fn can_trace() -> bool {
    let probe = Command::new("strace")
        .args([
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "inject=fsync:error=EIO",
            "true",
        ])
        .stderr(Stdio::null())
        .status();
    let able = probe.is_ok_and(|status| status.success());
    if !able {
        eprintln!("strace is missing or may not trace: nothing tested");
    }
    able
}

#[test]
fn no_acknowledgement_comes_before_its_sync() {
    if !can_trace() {
        return;
    }
    let fixture = Fixture::new();
    drop(fixture.open());
    let delay = format!("inject=fdatasync,fsync:delay_exit={}", DELAY.as_micros());
    let child = child(fixture.dir.path(), "slow", &["-e", &delay]);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let took: Vec<u128> = text
        .lines()
        .filter_map(|line| line.strip_prefix("took ")?.parse().ok())
        .collect();
    assert_eq!(took.len(), 5, "{text}");
    assert!(took.iter().all(|ms| *ms >= DELAY.as_millis()), "{took:?}");
}

/// Lets a disk fail, and returns what the writer said at the end.
fn fail(inject: &str) -> Vec<String> {
    let fixture = Fixture::new();
    drop(fixture.open());
    let child = child(fixture.dir.path(), "load", &["-e", inject]);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let acknowledged: Vec<Acknowledged> = text.lines().filter_map(acknowledged).collect();
    assert!(!acknowledged.is_empty(), "{text}");
    verify(&fixture, &acknowledged);
    text.lines()
        .filter(|line| line.starts_with("closed ") || line.starts_with("reopened "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_failed_sync_closes_the_journal_for_as_long_as_the_disk_fails() {
    if !can_trace() {
        return;
    }
    let said = fail("inject=fdatasync,fsync:error=EIO:when=100+");
    assert!(
        said[0].starts_with("closed a commit failed: disk I/O error"),
        "{said:?}"
    );
    assert_eq!(said[1], "reopened false");
}

#[test]
fn a_full_disk_closes_the_journal_and_loses_nothing() {
    if !can_trace() {
        return;
    }
    let said = fail("inject=pwrite64:error=ENOSPC:when=4000+");
    assert!(said[0].contains("full"), "{said:?}");
}

#[test]
fn a_sync_that_failed_once_is_not_taken_for_done() {
    if !can_trace() {
        return;
    }
    let said = fail("inject=fdatasync,fsync:error=EIO:when=100");
    assert!(
        said[0].starts_with("closed a commit failed: disk I/O error"),
        "{said:?}"
    );
    assert_eq!(said[1], "reopened true");
}

/// A wall for the parent above: an acknowledgement that was made up is noticed.
#[test]
fn a_lost_acknowledgement_would_be_noticed() {
    let fixture = Fixture::new();
    let mut acknowledged = kill_after(fixture.dir.path(), 3);
    let invented = Acknowledged {
        first: Seq(1_000_000),
        last: Seq(1_000_001),
        ..acknowledged[0]
    };
    acknowledged.push(invented);
    let noticed = std::panic::catch_unwind(|| verify(&fixture, &acknowledged));
    assert!(noticed.is_err());
}
