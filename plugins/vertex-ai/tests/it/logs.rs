//! Logs: order, pages, late entries, multi-line messages, and where a line came from.

use serde_json::{Value, json};
use vertex_ai::bindings::exports::weir::plugin::logs::{Direction, LogPage};
use vertex_ai::logs;
use weir_sdk::bindings::weir::plugin::types::JobRef;
use weir_sdk::{Failure, FailureKind};

use crate::fake::{Fault, NUMBER, stamp};
use crate::far::{NOW, Way, config, kind};

fn entry(job: &str, number: u64, at: u64) -> Value {
    json!({
        "insertId": format!("i{number}"), "timestamp": stamp(at), "severity": "INFO",
        "jsonPayload": {"levelname": "INFO", "message": format!("line {number}")},
        "resource": {"type": "ml_job", "labels": {"job_id": job, "task_name": "workerpool0-0"}},
    })
}

fn read(way: &Way, direction: Direction, cursor: Option<&str>) -> Result<LogPage, Failure> {
    let job = JobRef {
        id: format!("projects/{NUMBER}/locations/us-central1/customJobs/1"),
        run: None,
    };
    way.requests.set(0);
    logs::read(way, &config(""), &job, direction, cursor)
}

fn texts(page: &LogPage) -> Vec<&str> {
    page.lines.iter().map(|line| line.text.as_str()).collect()
}

/// Every page from the first on.
fn all(way: &Way, direction: Direction) -> (Vec<String>, Option<String>) {
    let (mut lines, mut cursor) = (Vec::new(), None);
    loop {
        let page = read(way, direction, cursor.as_deref()).unwrap();
        let new = texts(&page).into_iter().map(str::to_owned);
        if direction == Direction::Forward {
            lines.extend(new);
        } else {
            lines.splice(0..0, new);
        }
        assert!(
            page.cursor
                .as_ref()
                // It becomes part of a URL.
                .is_none_or(|cursor| cursor.len() < 6 * 1024)
        );
        cursor = page.cursor;
        if !page.more {
            return (lines, cursor);
        }
    }
}

#[test]
fn all_lines_come_once_and_in_order_from_either_end() {
    let way = Way::new();
    way.fake.borrow_mut().entries = (0..1000).map(|n| entry("1", n, NOW + n * 10)).collect();
    way.fake.borrow_mut().entries.push(entry("2", 5000, NOW));
    let expected: Vec<String> = (0..1000).map(|n| format!("line {n}")).collect();
    way.later(60_000);
    let (lines, cursor) = all(&way, Direction::Forward);
    assert_eq!(lines, expected);
    // More than can be remembered was told within the time that an entry may be late.
    let again = read(&way, Direction::Forward, cursor.as_deref()).unwrap();
    assert_eq!(texts(&again), Vec::<&str>::new());
    way.fake
        .borrow_mut()
        .entries
        .push(entry("1", 1000, NOW + 9_995));
    let late = read(&way, Direction::Forward, again.cursor.as_deref()).unwrap();
    assert_eq!(texts(&late), ["line 1000"]);
    way.fake.borrow_mut().entries.pop();
    let (lines, cursor) = all(&way, Direction::Backward);
    assert_eq!(lines, expected);
    assert_eq!(cursor, None, "nothing is older");
    let last = read(&way, Direction::Backward, None).unwrap();
    assert_eq!(last.lines.last().unwrap().text, "line 999");
    assert!(last.more);
    way.assert_nothing_wrong();
}

#[test]
fn a_tail_finds_late_entries_and_repeats_none() {
    let way = Way::new();
    way.fake.borrow_mut().entries = (0..10).map(|n| entry("1", n, NOW + n * 1000)).collect();
    let (lines, mut cursor) = all(&way, Direction::Forward);
    assert_eq!(lines.len(), 10);
    let mut tail = || {
        let page = read(&way, Direction::Forward, cursor.as_deref()).unwrap();
        assert!(!page.more);
        cursor.clone_from(&page.cursor);
        texts(&page).join(",")
    };
    assert_eq!(tail(), "");
    // One arrives 20 s late, beside a new one; two share a time.
    {
        let entries = &mut way.fake.borrow_mut().entries;
        entries.push(entry("1", 100, NOW + 500));
        entries.push(entry("1", 101, NOW + 11_000));
        entries.push(entry("1", 102, NOW + 11_000));
    }
    assert_eq!(tail(), "line 100,line 101,line 102");
    assert_eq!(tail(), "");
}

#[test]
fn a_line_says_who_wrote_it_and_long_ones_are_bounded() {
    let way = Way::new();
    let resource = json!({"type": "ml_job", "labels": {"job_id": "1"}});
    way.fake.borrow_mut().entries = vec![
        json!({"insertId": "a", "timestamp": stamp(NOW), "textPayload": "one\ntwo\r\nthree", "resource": resource,
               "labels": {"ml.googleapis.com/task_name": "service"}}),
        json!({"insertId": "b", "timestamp": stamp(NOW + 1), "jsonPayload": {"levelname": "INFO", "step": 7}, "resource": resource}),
        json!({"insertId": "c", "timestamp": stamp(NOW + 2), "textPayload": "x".repeat(100_000), "resource": resource}),
        json!({"insertId": "d", "timestamp": stamp(NOW + 3), "textPayload": "y\n".repeat(1000), "resource": resource}),
        json!({"timestamp": stamp(NOW + 4), "resource": resource}),
    ];
    let page = read(&way, Direction::Forward, None).unwrap();
    let shown: Vec<(&str, &str)> = page.lines[..4]
        .iter()
        .map(|line| (line.origin.as_str(), line.text.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("service", "one"),
            ("service", "two"),
            ("service", "three"),
            ("job", r#"{"step":7}"#)
        ]
    );
    assert!(page.lines.iter().all(|line| line.text.len() <= 16 * 1024));
    assert_eq!(
        page.lines.last().unwrap().text,
        "… 800 more lines of this entry"
    );
    assert_eq!(page.lines[0].at, Some(NOW));
}

#[test]
fn a_refusal_names_the_permission_and_a_rate_its_wait() {
    let way = Way::new();
    way.fake
        .borrow_mut()
        .fault("entries:list", Fault::Html(403), 1);
    let failure = read(&way, Direction::Forward, None).unwrap_err();
    assert_eq!(kind(&failure), FailureKind::Misconfigured);
    assert!(
        failure.message.contains("logging.logEntries.list"),
        "{}",
        failure.message
    );
    way.fake
        .borrow_mut()
        .fault("entries:list", Fault::Rate(Some(9)), 1);
    let failure = read(&way, Direction::Forward, None).unwrap_err();
    assert_eq!(
        (kind(&failure), failure.retry_after_ms),
        (FailureKind::Transient, Some(9_000))
    );
    for cursor in ["", "{}", "null", "\u{0}"] {
        assert_eq!(
            kind(&read(&way, Direction::Forward, Some(cursor)).unwrap_err()),
            FailureKind::Permanent
        );
    }
}
