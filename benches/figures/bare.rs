//! What the pipeline is compared with: rusqlite inserting the same rows under the same indexes, and nothing else.

use crate::pipeline::Run;
use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, TransactionBehavior, params_from_iter};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_core::journal::{Durability, Journal, JournalOptions};

/// Events in a transaction.
const BATCH: i64 = 1000;

/// A table's part of each transaction: what the events of a range created.
struct Table {
    select: &'static str,
    insert: String,
}

const EXECUTIONS: &str = "SELECT * FROM executions WHERE seq IN \
    (SELECT execution FROM events WHERE seq >= ?1 AND seq < ?2 AND kind = 1)";
const STEPS: &str = "SELECT * FROM steps WHERE execution IN \
    (SELECT execution FROM events WHERE seq >= ?1 AND seq < ?2 AND kind = 1)";
const EVENTS: &str = "SELECT * FROM events WHERE seq >= ?1 AND seq < ?2";

/// Inserts the rows that `of` left behind into an empty store in `dir`. Reading them is not measured.
pub(crate) fn run(of: &Run, dir: &Path, durability: Durability) -> Run {
    let options = JournalOptions::new(dir.to_owned(), Arc::new(Timestamp::now));
    let path = {
        let journal = Journal::open(options).unwrap();
        journal.handle().path().to_owned()
    };
    let from = Connection::open(&of.path).unwrap();
    let mut to = Connection::open(&path).unwrap();
    let synchronous = match durability {
        Durability::Power => "FULL",
        Durability::Process => "NORMAL",
    };
    to.pragma_update(None, "synchronous", synchronous).unwrap();
    let tables = [
        ("executions", EXECUTIONS),
        ("steps", STEPS),
        ("events", EVENTS),
    ];
    let tables = tables.map(|(name, select)| table(&from, name, select));
    let last: i64 = from
        .query_row("SELECT max(seq) FROM events", [], |row| row.get(0))
        .unwrap();
    let (mut took, mut cpu) = (Duration::ZERO, Duration::ZERO);
    let (mut batches, mut first) = (0, 1);

    while first <= last {
        let rows = tables
            .each_ref()
            .map(|table| read(&from, table, first, first + BATCH));
        let (begun, used) = (Instant::now(), processor());
        let transaction = to
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        for (table, rows) in tables.iter().zip(&rows) {
            let mut insert = transaction.prepare_cached(&table.insert).unwrap();
            for row in rows {
                insert.execute(params_from_iter(row)).unwrap();
            }
        }
        transaction.commit().unwrap();
        took += begun.elapsed();
        cpu += processor() - used;
        batches += 1;
        first += BATCH;
    }
    let commit = (Duration::ZERO, Duration::ZERO);
    Run {
        path,
        executions: of.executions,
        events: last.unsigned_abs(),
        batches,
        took,
        cpu,
        commit,
    }
}

/// Time of this thread on a processor: a batch is too short for what the kernel counts in ticks.
fn processor() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap()
}

fn table(from: &Connection, name: &str, select: &'static str) -> Table {
    let columns = from.prepare(select).unwrap().column_count();
    let marks = vec!["?"; columns].join(", ");
    Table {
        select,
        insert: format!("INSERT INTO {name} VALUES ({marks})"),
    }
}

fn read(from: &Connection, table: &Table, first: i64, end: i64) -> Vec<Vec<Value>> {
    let mut statement = from.prepare_cached(table.select).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([first, end], |row| {
        (0..columns).map(|column| row.get(column)).collect()
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}
