//! The live view on a terminal: one loop that draws what the feed brings and obeys the keys.

pub mod app;
pub mod feed;
pub mod log;
pub mod view;

use self::app::{App, Step};
use self::feed::Feed;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures::{FutureExt as _, StreamExt as _};
use jiff::tz::TimeZone;
use ratatui::DefaultTerminal;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The screen is drawn at least this often, so that running durations count on.
const TICK: Duration = Duration::from_millis(250);

/// An alert that arrived at the demo's own receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrived {
    pub at: jiff::Timestamp,
    pub status: String,
    pub severity: String,
    pub rule: String,
    pub title: String,
    pub body: String,
}

/// The alerts that arrived so far; shared with whoever receives them.
pub type ArrivedList = Arc<Mutex<Vec<Arrived>>>;

#[derive(Debug)]
pub struct Options {
    pub color: bool,
    /// Shows a pane with what arrived.
    pub arrived: Option<ArrivedList>,
    pub zone: TimeZone,
    /// A line to show at the bottom as soon as there is one.
    pub until: Option<watch::Receiver<Option<String>>>,
}

/// Shows the feed until the user leaves. The terminal is restored on every way out, a panic included.
pub async fn run(feed: Feed, options: Options) -> io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let result = show(&mut terminal, feed, options).await;
    ratatui::restore();
    result
}

async fn show(terminal: &mut DefaultTerminal, feed: Feed, options: Options) -> io::Result<()> {
    let mut app = App::new(feed.url(), &options);
    let (tx, mut looks) = mpsc::channel(1);
    let fetching = tokio::spawn(feed.pump(tx));
    let mut keys = EventStream::new();
    let mut tick = tokio::time::interval(TICK);
    let result = loop {
        app.now(jiff::Timestamp::now());
        if let Some(until) = &options.until {
            app.footer.clone_from(&until.borrow());
        }
        if let Err(error) = terminal.draw(|frame| view::draw(frame, &mut app)) {
            break Err(error);
        }
        tokio::select! {
            _ = tick.tick() => {}
            Some(look) = looks.recv() => app.look(look),
            key = keys.next().fuse() => match key {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if app.key(key) == Step::Leave {
                        break Ok(());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => break Err(error),
                None => break Ok(()),
            },
        }
    };
    fetching.abort();
    result
}
