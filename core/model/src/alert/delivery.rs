//! Delivery: what becomes of one notification in the outbox after each attempt.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The first wait; it doubles with each attempt.
pub const RETRY_DELAY_MIN: Duration = Duration::from_secs(5);
/// The longest wait, and the longest `Retry-After` that is believed.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(3600);
/// After this long an entry is dead.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Where an entry of the outbox stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Not tried yet.
    Queued,
    /// The receiver said so.
    Sent,
    /// Tried in vain; there is a next attempt.
    Failed,
    /// Given up.
    Dead,
    /// Muted: recorded, never sent.
    Suppressed,
}

impl DeliveryState {
    pub const ALL: [DeliveryState; 5] = [
        Self::Queued,
        Self::Sent,
        Self::Failed,
        Self::Dead,
        Self::Suppressed,
    ];

    /// Nothing more will be done.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Sent | Self::Dead | Self::Suppressed)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Dead => "dead",
            Self::Suppressed => "suppressed",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// Why an attempt failed: what the handler said of its failure, or that it broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Also a failure of no kind, and an unsupported or unknown target that may come back.
    Transient,
    /// This notification can never be delivered.
    Permanent,
    /// Nothing can be delivered until the configuration changes.
    Misconfigured,
    /// The handler trapped or hit a limit: never the end of a notification by itself.
    Crashed,
}

/// How one attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    Delivered,
    Failed {
        kind: FailureKind,
        retry_after: Option<Duration>,
    },
}

/// What to do with the entry, and with its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Sent,
    Retry {
        at: Timestamp,
    },
    /// To the fallback and the log, in one digest.
    Dead,
    /// The entry waits; the receiver is parked until its configuration changes, and weir is in trouble.
    Park,
}

/// The state of one entry, as the ledger keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub state: DeliveryState,
    pub attempts: u32,
    pub queued_at: Timestamp,
    /// None = settled, or waiting for its receiver.
    pub next_attempt_at: Option<Timestamp>,
}

impl Delivery {
    pub fn queued(now: Timestamp) -> Self {
        Self {
            state: DeliveryState::Queued,
            attempts: 0,
            queued_at: now,
            next_attempt_at: Some(now),
        }
    }

    pub fn suppressed(now: Timestamp) -> Self {
        Self {
            state: DeliveryState::Suppressed,
            attempts: 0,
            queued_at: now,
            next_attempt_at: None,
        }
    }

    /// Takes the end of one attempt. `random` is from 0 to 1: the jitter.
    pub fn attempted(&mut self, now: Timestamp, attempt: Attempt, random: f64) -> Verdict {
        if self.state.is_settled() {
            return if self.state == DeliveryState::Sent {
                Verdict::Sent
            } else {
                Verdict::Dead
            };
        }
        self.attempts = self.attempts.saturating_add(1);
        let (kind, retry_after) = match attempt {
            Attempt::Delivered => {
                (self.state, self.next_attempt_at) = (DeliveryState::Sent, None);
                return Verdict::Sent;
            }
            Attempt::Failed { kind, retry_after } => (kind, retry_after),
        };
        if kind == FailureKind::Permanent || self.is_overdue(now) {
            (self.state, self.next_attempt_at) = (DeliveryState::Dead, None);
            return Verdict::Dead;
        }
        self.state = DeliveryState::Failed;
        if kind == FailureKind::Misconfigured {
            self.next_attempt_at = None;
            return Verdict::Park;
        }
        let at = now + next_attempt(self.attempts, retry_after, random);
        self.next_attempt_at = Some(at);
        Verdict::Retry { at }
    }

    /// Its receiver works again.
    pub fn unparked(&mut self, now: Timestamp) {
        if !self.state.is_settled() {
            self.next_attempt_at = Some(now);
        }
    }

    /// Waited too long, be it for its receiver. The caller buries it with [`Delivery::bury`].
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        !self.state.is_settled() && now.duration_since(self.queued_at) >= signed(GIVE_UP_AFTER)
    }

    pub fn bury(&mut self) {
        if !self.state.is_settled() {
            (self.state, self.next_attempt_at) = (DeliveryState::Dead, None);
        }
    }
}

/// How long to wait after `attempts` failed ones: full jitter over min(cap, 5 s · 2ⁿ), but never before `retry_after`.
pub fn next_attempt(attempts: u32, retry_after: Option<Duration>, random: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let ceiling = RETRY_DELAY_MIN
        .saturating_mul(1 << doublings)
        .min(RETRY_DELAY_MAX);
    let random = if random.is_finite() {
        random.clamp(0.0, 1.0)
    } else {
        1.0
    };
    // At least a second: full jitter may say zero, and a far side in trouble needs none of that.
    let wait = ceiling.mul_f64(random).max(Duration::from_secs(1));
    wait.max(retry_after.unwrap_or_default().min(RETRY_DELAY_MAX))
}

fn signed(duration: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn failed(kind: FailureKind) -> Attempt {
        Attempt::Failed {
            kind,
            retry_after: None,
        }
    }

    #[test]
    fn the_wait_doubles_up_to_an_hour() {
        let waits: Vec<u64> = (1..=12)
            .map(|n| next_attempt(n, None, 1.0).as_secs())
            .collect();
        assert_eq!(
            waits,
            [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]
        );
        assert_eq!(next_attempt(u32::MAX, None, 1.0), RETRY_DELAY_MAX);
        assert_eq!(next_attempt(3, None, 0.5).as_secs(), 10);
        assert_eq!(next_attempt(3, None, f64::NAN).as_secs(), 20);
    }

    #[test]
    fn retry_after_is_honoured_within_reason() {
        assert_eq!(
            next_attempt(1, Some(Duration::from_secs(90)), 0.0).as_secs(),
            90
        );
        assert_eq!(
            next_attempt(1, Some(Duration::from_secs(90_000)), 0.0),
            RETRY_DELAY_MAX
        );
    }

    #[test]
    fn each_kind_of_failure_has_its_end() {
        let run = |kind| {
            let mut delivery = Delivery::queued(at(0));
            let verdict = delivery.attempted(at(1), failed(kind), 1.0);
            (verdict, delivery.state, delivery.next_attempt_at)
        };
        let retry = (
            Verdict::Retry { at: at(6) },
            DeliveryState::Failed,
            Some(at(6)),
        );
        assert_eq!(run(FailureKind::Transient), retry);
        assert_eq!(run(FailureKind::Crashed), retry);
        assert_eq!(
            run(FailureKind::Permanent),
            (Verdict::Dead, DeliveryState::Dead, None)
        );
        assert_eq!(
            run(FailureKind::Misconfigured),
            (Verdict::Park, DeliveryState::Failed, None)
        );
    }

    #[test]
    fn a_parked_entry_goes_on_when_its_receiver_does() {
        let mut delivery = Delivery::queued(at(0));
        delivery.attempted(at(1), failed(FailureKind::Misconfigured), 1.0);
        delivery.unparked(at(100));
        assert_eq!(delivery.next_attempt_at, Some(at(100)));
        assert_eq!(
            delivery.attempted(at(101), Attempt::Delivered, 0.0),
            Verdict::Sent
        );
        assert_eq!(delivery.state, DeliveryState::Sent);
    }

    #[test]
    fn it_gives_up_after_a_day() {
        let mut delivery = Delivery::queued(at(0));
        let (mut now, mut attempts) = (at(0), 0);
        while let Verdict::Retry { at } =
            delivery.attempted(now, failed(FailureKind::Transient), 1.0)
        {
            (now, attempts) = (at, attempts + 1);
        }
        assert_eq!(delivery.state, DeliveryState::Dead);
        assert!((24 * 3600..26 * 3600).contains(&now.as_second()), "{now}");
        assert!(attempts < 50, "{attempts}");
    }

    proptest! {
        #[test]
        fn a_settled_entry_stays_settled(ends in proptest::collection::vec((0u8..5, 0i64..100_000), 0..30)) {
            let mut delivery = Delivery::queued(at(0));
            let mut settled = None;
            for (end, now) in ends {
                let attempt = match end {
                    0 => Attempt::Delivered,
                    1 => failed(FailureKind::Permanent),
                    2 => failed(FailureKind::Misconfigured),
                    3 => failed(FailureKind::Crashed),
                    _ => failed(FailureKind::Transient),
                };
                delivery.attempted(at(now), attempt, 0.3);
                if let Some(before) = settled {
                    prop_assert_eq!(before, delivery);
                }
                settled = delivery.state.is_settled().then_some(delivery);
                prop_assert_eq!(delivery.state.is_settled() && delivery.next_attempt_at.is_some(), false);
            }
        }
    }
}
