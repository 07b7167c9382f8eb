//! Control requests: what weir is asked to do at a provider, and when that counts as done.
//!
//! An answer of the provider never settles a request: what is observed does. Pure, like everything here.

use crate::status::Status;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A cancel is asked at most so often while the job goes on as if nothing had been said.
pub const CANCELS_MAX: u32 = 3;
/// Calls that may fail in a row before a cancel is given up.
pub const ATTEMPTS_MAX: u32 = 8;
/// How long the job may go on after the first and the second time before it is asked again.
const ASK_AGAIN: [SignedDuration; 2] =
    [SignedDuration::from_secs(20), SignedDuration::from_secs(40)];
/// How long after the last time before nobody knows what became of it.
const CANCEL_PATIENCE: SignedDuration = SignedDuration::from_mins(4);
/// The provider says that it cancels: a node or task that runs may take its time.
const CANCELLING_PATIENCE: SignedDuration = SignedDuration::from_mins(30);
/// A look at the provider that began this long after a lost answer would show the job.
const LOOK_AFTER: SignedDuration = SignedDuration::from_secs(3);
/// How long a look is waited for while there is no contact.
const LOOK_PATIENCE: SignedDuration = SignedDuration::from_mins(2);
/// How long an accepted job may be on its way into the journal.
const RECORD_PATIENCE: SignedDuration = SignedDuration::from_mins(10);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Cancel,
    /// The same job once more, with a new id.
    Retry,
    Submit,
}

impl Action {
    pub const ALL: [Action; 3] = [Action::Cancel, Action::Retry, Action::Submit];

    pub fn as_str(self) -> &'static str {
        match self {
            Action::Cancel => "cancel",
            Action::Retry => "retry",
            Action::Submit => "submit",
        }
    }

    /// The integer in the store; the list only grows at its end.
    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<Action> {
        Action::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a request stands. Only the first two are left again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    /// On disk; whether the provider was reached is not known yet.
    Requested,
    /// The provider took it, or may have; what becomes of it is watched.
    Asked,
    /// Observed.
    Done,
    /// The plugin or the provider said no.
    Refused,
    /// It did not come to it; nothing is changed at the provider.
    Failed,
    /// Nobody can tell what became of it.
    Unverifiable,
}

impl RequestState {
    pub const ALL: [RequestState; 6] = [
        RequestState::Requested,
        RequestState::Asked,
        RequestState::Done,
        RequestState::Refused,
        RequestState::Failed,
        RequestState::Unverifiable,
    ];

    pub fn is_settled(self) -> bool {
        !matches!(self, RequestState::Requested | RequestState::Asked)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            RequestState::Requested => "requested",
            RequestState::Asked => "asked",
            RequestState::Done => "done",
            RequestState::Refused => "refused",
            RequestState::Failed => "failed",
            RequestState::Unverifiable => "unverifiable",
        }
    }

    /// The integer in the store; the list only grows at its end. What is settled is 2 or more.
    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u8) -> Option<RequestState> {
        RequestState::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for RequestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What follows for a request now.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Ask the provider (again).
    Ask,
    /// Nothing before this, unless something is observed.
    Wait(Timestamp),
    Settle(RequestState, String),
}

/// A cancel as far as its verdict depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Cancelling {
    /// Calls, those that failed too.
    pub attempts: u32,
    /// Calls that the provider took.
    pub asked: u32,
    pub asked_at: Option<Timestamp>,
    /// Not before this, after a call that failed.
    pub not_before: Option<Timestamp>,
}

/// What follows for a cancel. `status`: the execution's, as observed; none when weir no longer has it.
pub fn judge_cancel(request: Cancelling, status: Option<Status>, now: Timestamp) -> Next {
    let settle = |state, reason: String| Next::Settle(state, reason);
    let Some(status) = status else {
        let reason = "weir no longer has the execution".to_owned();
        return settle(RequestState::Unverifiable, reason);
    };
    match status {
        Status::Cancelled => {
            return settle(
                RequestState::Done,
                "the provider shows it as cancelled".into(),
            );
        }
        Status::Lost => {
            let reason = "the provider no longer knows the job, and did not say how it ended";
            return settle(RequestState::Unverifiable, reason.into());
        }
        status if status.is_closed() => {
            let reason = format!("it ended as {status} before it was cancelled");
            return settle(RequestState::Failed, reason);
        }
        _ => {}
    }
    let Some(asked_at) = request.asked_at else {
        return match request.not_before {
            Some(at) if at > now => Next::Wait(at),
            _ => Next::Ask,
        };
    };
    let patience = match (status, usize::try_from(request.asked.saturating_sub(1))) {
        (Status::Cancelling, _) => CANCELLING_PATIENCE,
        (_, Ok(turn)) if request.asked < CANCELS_MAX => {
            *ASK_AGAIN.get(turn).unwrap_or(&CANCEL_PATIENCE)
        }
        _ => CANCEL_PATIENCE,
    };
    let due = later(asked_at, patience).max(request.not_before.unwrap_or(asked_at));
    if now < due {
        return Next::Wait(due);
    }
    if status != Status::Cancelling
        && request.asked < CANCELS_MAX
        && request.attempts < ATTEMPTS_MAX
    {
        return Next::Ask;
    }
    let times = if request.asked == 1 {
        "once"
    } else {
        "repeatedly"
    };
    let reason = format!("the provider was asked {times}, and the job is still shown as {status}");
    settle(RequestState::Unverifiable, reason)
}

/// A submission or retry whose call is over, or was cut off by the end of a process.
#[derive(Clone, Copy, Debug)]
pub struct Creating {
    /// The provider named the new job.
    pub accepted: bool,
    /// When the answer came, or was lost.
    pub since: Timestamp,
    /// The new job is in the journal.
    pub found: bool,
    /// When the last good look at the provider began.
    pub looked_at: Option<Timestamp>,
}

/// What follows for a submission or retry. It is never asked again: a second job could not be taken back.
pub fn judge_creation(request: Creating, now: Timestamp) -> Next {
    if request.found {
        return Next::Settle(RequestState::Done, "the new job was observed".into());
    }
    let unverifiable = |reason: &str| Next::Settle(RequestState::Unverifiable, reason.into());
    if request.accepted {
        let until = later(request.since, RECORD_PATIENCE);
        return if now < until {
            Next::Wait(until)
        } else {
            unverifiable("the provider took the job, and it could not be recorded")
        };
    }
    let looked = request
        .looked_at
        .is_some_and(|at| at >= later(request.since, LOOK_AFTER));
    if looked {
        return unverifiable(
            "the provider's answer was lost, and a look there did not show the job",
        );
    }
    let until = later(request.since, LOOK_PATIENCE);
    if now < until {
        return Next::Wait(until);
    }
    unverifiable("the provider's answer was lost, and there was no contact to look for the job")
}

/// How long to wait after so many failed calls: 1, 2, 4 … 60 seconds, and never before the far side allows.
pub fn pause(failures: u32, retry_after: Option<std::time::Duration>) -> SignedDuration {
    let doubled = SignedDuration::from_secs(1 << failures.saturating_sub(1).min(6));
    let asked = retry_after.and_then(|after| SignedDuration::try_from(after).ok());
    let asked = asked.unwrap_or_default().min(SignedDuration::from_hours(1));
    doubled.min(SignedDuration::from_mins(1)).max(asked)
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).expect("in range")
    }

    fn asked(asked: u32, second: i64) -> Cancelling {
        Cancelling {
            attempts: asked,
            asked,
            asked_at: (asked > 0).then(|| at(second)),
            not_before: None,
        }
    }

    fn state(next: &Next) -> Option<RequestState> {
        match next {
            Next::Settle(state, _) => Some(*state),
            _ => None,
        }
    }

    #[test]
    fn what_is_observed_settles_a_cancel_and_nothing_else_does() {
        for status in Status::ALL {
            let expected = match status {
                Status::Cancelled => Some(RequestState::Done),
                Status::Lost => Some(RequestState::Unverifiable),
                status if status.is_final() => Some(RequestState::Failed),
                _ => None,
            };
            for request in [asked(0, 0), asked(1, 0), asked(3, 0)] {
                let next = judge_cancel(request, Some(status), at(1));
                assert_eq!(state(&next), expected, "{status}");
            }
        }
        let gone = judge_cancel(asked(1, 0), None, at(1));
        assert_eq!(state(&gone), Some(RequestState::Unverifiable));
    }

    #[test]
    fn a_cancel_is_asked_again_a_bounded_number_of_times_and_then_given_up() {
        let running = Some(Status::Running);
        assert_eq!(judge_cancel(asked(0, 0), running, at(0)), Next::Ask);
        assert_eq!(
            judge_cancel(asked(1, 0), running, at(19)),
            Next::Wait(at(20))
        );
        assert_eq!(judge_cancel(asked(1, 0), running, at(20)), Next::Ask);
        assert_eq!(
            judge_cancel(asked(2, 20), running, at(59)),
            Next::Wait(at(60))
        );
        assert_eq!(judge_cancel(asked(2, 20), running, at(60)), Next::Ask);
        assert_eq!(
            judge_cancel(asked(3, 60), running, at(299)),
            Next::Wait(at(300))
        );
        let end = judge_cancel(asked(3, 60), running, at(300));
        assert_eq!(state(&end), Some(RequestState::Unverifiable));
    }

    #[test]
    fn who_says_that_it_is_cancelling_is_left_alone() {
        let next = judge_cancel(asked(1, 0), Some(Status::Cancelling), at(600));
        assert_eq!(next, Next::Wait(at(1800)));
        let end = judge_cancel(asked(1, 0), Some(Status::Cancelling), at(1800));
        assert_eq!(state(&end), Some(RequestState::Unverifiable));
    }

    #[test]
    fn a_call_that_failed_waits_for_its_turn() {
        let request = Cancelling {
            attempts: 1,
            asked: 0,
            asked_at: None,
            not_before: Some(at(5)),
        };
        let running = Some(Status::Running);
        assert_eq!(judge_cancel(request, running, at(4)), Next::Wait(at(5)));
        assert_eq!(judge_cancel(request, running, at(5)), Next::Ask);
    }

    #[test]
    fn a_creation_is_never_asked_again() {
        for accepted in [false, true] {
            for found in [false, true] {
                for looked_at in [None, Some(at(1)), Some(at(100))] {
                    for second in [0, 10, 1000, 100_000] {
                        let request = Creating {
                            accepted,
                            since: at(0),
                            found,
                            looked_at,
                        };
                        assert_ne!(judge_creation(request, at(second)), Next::Ask);
                    }
                }
            }
        }
    }

    #[test]
    fn a_lost_answer_is_looked_for_before_it_is_called_unverifiable() {
        let lost = |looked_at| Creating {
            accepted: false,
            since: at(0),
            found: false,
            looked_at,
        };
        assert!(matches!(judge_creation(lost(None), at(60)), Next::Wait(_)));
        assert!(matches!(
            judge_creation(lost(Some(at(2))), at(60)),
            Next::Wait(_)
        ));
        let looked = judge_creation(lost(Some(at(3))), at(4));
        assert_eq!(state(&looked), Some(RequestState::Unverifiable));
        let blind = judge_creation(lost(None), at(120));
        assert_eq!(state(&blind), Some(RequestState::Unverifiable));
        let seen = Creating {
            found: true,
            ..lost(None)
        };
        assert_eq!(
            state(&judge_creation(seen, at(1))),
            Some(RequestState::Done)
        );
    }

    #[test]
    fn pauses_double_and_honour_the_far_side() {
        use std::time::Duration;
        assert_eq!(pause(1, None), SignedDuration::from_secs(1));
        assert_eq!(pause(3, None), SignedDuration::from_secs(4));
        assert_eq!(pause(40, None), SignedDuration::from_secs(60));
        assert_eq!(
            pause(1, Some(Duration::from_secs(90))),
            SignedDuration::from_secs(90)
        );
    }
}
