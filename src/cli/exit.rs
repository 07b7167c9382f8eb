//! Exit codes, and how an error of a command becomes one.

use crate::client::ClientError;
use std::io;
use std::process::ExitCode;

/// What the shell is told. The numbers are a promise: scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Ok = 0,
    /// The command could not do what it was asked for, or found what it looks for to be wrong.
    Failed = 1,
    /// The command line or the configuration is wrong, or a file cannot be read.
    Usage = 2,
    /// No daemon answers at the URL.
    NoDaemon = 3,
    /// The daemon answers, but does not know that execution, alert, mute or receiver.
    NotFound = 4,
    /// The daemon does not let us act: no token, a wrong one, or control is off for that source.
    NotAllowed = 5,
}

/// Shown at the end of `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed, or something is wrong (check: errors; demo: not everything happened;
     cancel, retry, submit: refused, failed or unverifiable; --wait: it did not end as was asked)
  2  wrong usage or configuration, unreadable file
  3  no daemon answers
  4  the daemon knows no such execution, alert, mute, source or receiver
  5  not allowed: the token is missing or wrong, or control is off for that source

Data goes to stdout, messages to stderr. NO_COLOR is respected.";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The reader of our output has gone, which is its right.
    #[error("the reader closed the pipe")]
    Pipe,
    /// To be shown to the user as it is.
    #[error("{message}")]
    Said { exit: Exit, message: String },
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl CliError {
    pub fn new(exit: Exit, message: impl Into<String>) -> CliError {
        CliError::Said {
            exit,
            message: message.into(),
        }
    }

    pub fn failed(message: impl Into<String>) -> CliError {
        CliError::new(Exit::Failed, message)
    }

    pub fn usage(message: impl Into<String>) -> CliError {
        CliError::new(Exit::Usage, message)
    }

    pub fn exit(&self) -> Exit {
        match self {
            CliError::Pipe => Exit::Ok,
            CliError::Said { exit, .. } => *exit,
            CliError::Client(ClientError::NoDaemon { .. }) => Exit::NoDaemon,
            CliError::Client(error) if error.is_not_found() => Exit::NotFound,
            CliError::Client(error) if error.is_not_allowed() => Exit::NotAllowed,
            CliError::Client(_) => Exit::Failed,
        }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> CliError {
        if error.kind() == io::ErrorKind::BrokenPipe {
            CliError::Pipe
        } else {
            CliError::failed(error.to_string())
        }
    }
}
