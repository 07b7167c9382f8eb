//! The one printer: data to stdout, messages to stderr, colour only where it is wanted.

use anstyle::{AnsiColor, Style};
use serde_json::Value;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set or TERM is `dumb`.
    #[default]
    Auto,
    Always,
    Never,
}

impl ColorChoice {
    /// Whether to colour an output that is a terminal or not.
    pub fn wanted(self, terminal: bool) -> bool {
        match self {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
                terminal && !no_color && !dumb
            }
        }
    }
}

/// What a word means, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Title,
    Good,
    Busy,
    Warn,
    Bad,
    Dim,
}

impl Tone {
    /// The tone of a status, of an execution as of a source, alert or delivery.
    pub fn of_status(status: &str) -> Tone {
        match status {
            "completed" | "ok" | "sent" | "open" | "ready" | "running_ok" => Tone::Good,
            "running" | "completing" | "initializing" | "cancelling" => Tone::Busy,
            "failed" | "timeout" | "dead" | "critical" | "error" | "firing" | "failing"
            | "parked" | "quarantined" | "incompatible" | "closed" => Tone::Bad,
            "lost" | "partial" | "stale" | "suspect" | "warning" | "paused" | "backoff" => {
                Tone::Warn
            }
            "pending" | "queued" | "cancelled" | "skipped" | "resolved" | "starting" => Tone::Dim,
            _ => Tone::Plain,
        }
    }

    fn style(self) -> Style {
        match self {
            Tone::Plain => Style::new(),
            Tone::Title => Style::new().bold(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Busy => AnsiColor::Cyan.on_default(),
            Tone::Warn => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().bold(),
            Tone::Dim => Style::new().dimmed(),
        }
    }
}

pub struct Printer {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    color: bool,
    color_err: bool,
    quiet: bool,
    /// Columns of the terminal; none = not a terminal, nothing is cut.
    width: Option<usize>,
}

impl std::fmt::Debug for Printer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Printer").finish_non_exhaustive()
    }
}

impl Printer {
    pub fn new(color: ColorChoice, quiet: bool) -> Printer {
        let terminal = io::stdout().is_terminal();
        let size = crossterm::terminal::size().ok().filter(|_| terminal);
        Printer {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            color: color.wanted(terminal),
            color_err: color.wanted(io::stderr().is_terminal()),
            quiet,
            width: size.map(|(columns, _)| usize::from(columns)),
        }
    }

    /// Prints into buffers, as to a pipe.
    pub fn to(out: Box<dyn Write>, err: Box<dyn Write>) -> Printer {
        Printer {
            out,
            err,
            color: false,
            color_err: false,
            quiet: false,
            width: None,
        }
    }

    /// A line of data.
    pub fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// A document for programs, indented.
    pub fn json(&mut self, value: &Value) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        self.line(escape_c1(&text))
    }

    /// A document for programs, one line.
    pub fn ndjson(&mut self, value: &Value) -> io::Result<()> {
        let text = serde_json::to_string(value).map_err(io::Error::other)?;
        self.line(escape_c1(&text))
    }

    /// A message for people; silent with `-q`. Nobody misses one when stderr is gone.
    pub fn note(&mut self, text: impl Display) {
        if !self.quiet {
            let _ = writeln!(self.err, "{text}");
        }
    }

    pub fn warning(&mut self, text: impl Display) {
        let word = tinted(self.color_err, "warning:", Tone::Warn);
        let _ = writeln!(self.err, "{word} {text}");
    }

    pub fn error(&mut self, text: impl Display) {
        let word = tinted(self.color_err, "error:", Tone::Bad);
        let _ = writeln!(self.err, "{word} {text}");
    }

    /// The text in the colour of its meaning, where stdout is coloured.
    pub fn paint(&self, text: &str, tone: Tone) -> String {
        tinted(self.color, text, tone)
    }

    pub fn width(&self) -> Option<usize> {
        self.width
    }

    pub fn color(&self) -> bool {
        self.color
    }
}

fn tinted(color: bool, text: &str, tone: Tone) -> String {
    if color && tone != Tone::Plain {
        let style = tone.style();
        format!("{style}{text}{style:#}")
    } else {
        text.to_owned()
    }
}

/// JSON leaves DEL and the C1 controls as they are, which some terminals obey. They only occur within strings.
fn escape_c1(text: &str) -> String {
    if !text.chars().any(|c| matches!(c, '\x7f'..='\u{9f}')) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| match c {
            '\x7f'..='\u{9f}' => format!("\\u{:04x}", u32::from(c)),
            _ => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_for_programs_carries_no_byte_that_a_terminal_obeys() {
        let value = serde_json::json!({ "name": "a\u{1b}[2Jb\u{9b}31mc\u{7f}" });
        let text = escape_c1(&value.to_string());
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn colour_follows_the_choice_before_the_terminal() {
        assert!(ColorChoice::Always.wanted(false));
        assert!(!ColorChoice::Never.wanted(true));
        assert!(!ColorChoice::Auto.wanted(false));
    }
}
