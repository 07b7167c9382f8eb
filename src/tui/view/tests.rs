//! The live view as text, at the size of an old terminal and of a wide one.

use super::draw;
use crate::client::view::{Alert, Execution, Source, Status, Step};
use crate::tui::app::App;
use crate::tui::feed::{Look, Snapshot};
use crate::tui::{Arrived, ArrivedList, Options};
use crossterm::event::{KeyCode, KeyEvent};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn execution(number: u64, status: &str, progress: Option<f64>) -> Execution {
    Execution {
        id: format!("{number}"),
        execution_seq: number,
        workflow_name: Some("portrait".into()),
        execution_number: Some(number),
        source: Some("studio".into()),
        status: status.into(),
        progress,
        started_at: (status != "queued").then(|| at("2026-11-22T10:00:00Z")),
        duration: Some(12.0),
        ..Execution::default()
    }
}

fn snapshot() -> Snapshot {
    let failed = Execution {
        error_message: Some("KSampler: CUDA out of memory".into()),
        workflow_name: Some("日本語のワークフロー".into()),
        ..execution(3, "failed", Some(40.0))
    };
    let queued = Execution {
        position: Some(2),
        ..execution(5, "queued", None)
    };
    let estimated = Execution {
        estimated: true,
        steps_done: Some(3),
        steps_total: Some(7),
        ..execution(6, "running", Some(71.9))
    };
    let source = |name: &str, status: &str| Source {
        name: name.into(),
        status: status.into(),
        open_jobs: Some(3),
        ..Source::default()
    };
    let stale = Source {
        stale_since: Some(at("2026-11-22T09:59:00Z")),
        last_error: Some("connection refused".into()),
        ..source("farm", "stale")
    };
    Snapshot {
        at: at("2026-11-22T10:00:30Z"),
        status: Status {
            executions: crate::client::view::Counts {
                running: 2,
                queued: 1,
                ..Default::default()
            },
            ..Status::default()
        },
        executions: vec![
            execution(7, "running", None),
            estimated,
            queued,
            execution(4, "completed", Some(100.0)),
            failed,
            execution(2, "lost", None),
        ],
        sources: vec![source("studio", "ok"), stale],
        alerts: vec![Alert {
            severity: "error".into(),
            title: Some("portrait failed".into()),
            count: Some(2),
            ..Alert::default()
        }],
    }
}

fn app(arrived: Option<ArrivedList>) -> App {
    let options = Options {
        color: false,
        arrived,
        zone: TimeZone::UTC,
        until: None,
    };
    let mut app = App::new("http://127.0.0.1:8000".into(), &options);
    app.unicode = true;
    app.now(at("2026-11-22T10:00:31Z"));
    app
}

fn screen(app: &mut App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app)).unwrap();
    terminal.backend().to_string()
}

fn press(app: &mut App, key: char) {
    app.key(KeyEvent::from(KeyCode::Char(key)));
}

#[test]
fn an_old_terminal_shows_everything_that_matters() {
    let mut app = app(None);
    app.look(Look::Seen(Box::new(snapshot())));
    press(&mut app, 'G');
    press(&mut app, 'k');
    insta::assert_snapshot!(screen(&mut app, 80, 24));
}

#[test]
fn a_wide_terminal_has_room_for_remarks_and_the_log() {
    let mut app = app(None);
    app.look(Look::Seen(Box::new(snapshot())));
    press(&mut app, 'l');
    insta::assert_snapshot!(screen(&mut app, 120, 30));
}

#[test]
fn the_demo_shows_the_alerts_that_arrived() {
    let list = ArrivedList::default();
    list.lock().unwrap().push(Arrived {
        at: at("2026-11-22T10:00:20Z"),
        status: "firing".into(),
        severity: "error".into(),
        rule: "failed".into(),
        title: "portrait failed on studio".into(),
        body: String::new(),
    });
    let mut app = app(Some(list));
    app.look(Look::Seen(Box::new(snapshot())));
    app.footer = Some("Everything happened.".into());
    insta::assert_snapshot!(screen(&mut app, 80, 24));
}

#[test]
fn one_execution_is_shown_with_its_steps() {
    let step = |name: &str, status: &str, progress: Option<f64>| Step {
        name: Some(name.into()),
        status: status.into(),
        progress,
        started_at: Some(at("2026-11-22T10:00:05Z")),
        duration: Some(3.2),
        ..Step::default()
    };
    let execution = Execution {
        step_executions: vec![
            step("CheckpointLoader", "completed", None),
            step("KSampler", "running", Some(50.0)),
            step("SaveImage", "pending", None),
        ],
        ..execution(7, "running", Some(60.0))
    };
    let mut app = app(None);
    app.look(Look::Seen(Box::new(Snapshot {
        at: at("2026-11-22T10:00:30Z"),
        executions: vec![execution],
        ..Snapshot::default()
    })));
    insta::assert_snapshot!(screen(&mut app, 80, 12));
}

#[test]
fn lost_contact_is_said_and_the_old_picture_is_called_old() {
    let mut app = app(None);
    app.look(Look::Seen(Box::new(snapshot())));
    app.look(Look::Blind("connection refused".into()));
    app.now(at("2026-11-22T10:01:00Z"));
    let text = screen(&mut app, 80, 24);
    assert!(text.contains("no contact for 30 s"), "{text}");
    assert!(text.contains("connection refused"), "{text}");
}

#[test]
fn the_selection_stays_on_its_execution_while_the_list_moves() {
    let mut app = app(None);
    app.look(Look::Seen(Box::new(snapshot())));
    press(&mut app, 'j');
    press(&mut app, 'j');
    let mut next = snapshot();
    next.executions.insert(0, execution(8, "running", None));
    app.look(Look::Seen(Box::new(next)));
    assert_eq!(app.rows().nth(app.selected).unwrap().id, "5");
}

#[test]
fn a_tiny_terminal_does_not_panic() {
    let mut app = app(None);
    app.look(Look::Seen(Box::new(snapshot())));
    press(&mut app, '?');
    press(&mut app, 'l');
    for (width, height) in [(1, 1), (5, 3), (20, 5), (300, 2)] {
        screen(&mut app, width, height);
    }
}
