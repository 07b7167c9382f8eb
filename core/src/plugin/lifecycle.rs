//! The life of one plugin entry as a pure state machine: what comes after a failure, and when.
//!
//! ```text
//! Loading → Linked → Opening → Ready → (Draining) → Stopped
//!    │ file or contract   │ misconfigured → Parked ── 1 h ──────────────┐
//!    └→ Incompatible      │ open failed → Backoff (no strike) ──────────┤
//!                         └ trap or limit, here or when Ready: a strike │
//!                            → Backoff (1 s·2ⁿ ≤ 5 min, full jitter) ───┤→ Opening
//!                            → the 5th in 10 min: Quarantined ── probe ─┘
//! the operator's resume, or a changed file, leads from every waiting state to Loading
//! a file that changes while its plugin is ready: the new one gets ready beside it, then takes over; else the old one stays
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Role;
use super::status::PluginState;

/// Strikes within `STRIKE_WINDOW` that send an entry into quarantine.
const STRIKES_MAX: usize = 5;
const STRIKE_WINDOW: Duration = Duration::from_secs(10 * 60);
/// So long without a crash, and everything before is forgiven.
const HEALTHY_AFTER: Duration = Duration::from_secs(10 * 60);
const BACKOFF_MAX: Duration = Duration::from_secs(5 * 60);
const PROBE_SOURCE: Duration = Duration::from_secs(5 * 60);
const PROBE_HANDLER: Duration = Duration::from_secs(60 * 60);
/// A parked entry waits for its operator; the rare look is for a far side that was only briefly wrong about us.
const PROBE_PARKED: Duration = Duration::from_secs(60 * 60);

/// Transitions take `now` and, where a delay is drawn, a `jitter` in `0.0..1.0`: no clock, no chance in here.
#[derive(Debug)]
pub(super) struct Lifecycle {
    role: Role,
    backoff_base: Duration,
    state: PluginState,
    retry_at: Option<Instant>,
    strikes: VecDeque<Instant>,
    /// Openings in a row that the guest refused without a crash.
    refusals: u32,
    healthy_since: Option<Instant>,
    /// Reopened out of quarantine: the next crash leads straight back.
    probation: bool,
}

impl Lifecycle {
    pub(super) fn new(role: Role, backoff_base: Duration) -> Lifecycle {
        Lifecycle {
            role,
            backoff_base,
            state: PluginState::Loading,
            retry_at: None,
            strikes: VecDeque::new(),
            refusals: 0,
            healthy_since: None,
            probation: false,
        }
    }

    pub(super) fn state(&self) -> &PluginState {
        &self.state
    }

    /// When the entry is looked at again by itself.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(super) fn strikes(&self) -> u32 {
        u32::try_from(self.strikes.len()).unwrap_or(u32::MAX)
    }

    /// The file was read, compiled and found to fit.
    pub(super) fn linked(&mut self) {
        self.enter(PluginState::Linked, None);
    }

    pub(super) fn opening(&mut self) {
        self.enter(PluginState::Opening, None);
    }

    /// Open and checked (a far side out of reach is the source's matter, not the plugin's).
    pub(super) fn opened(&mut self, now: Instant) {
        self.refusals = 0;
        self.healthy_since.get_or_insert(now);
        self.enter(PluginState::Ready, None);
    }

    /// The guest's own `open` failed: no strike, but later and later.
    pub(super) fn refused(&mut self, now: Instant, jitter: f64, reason: String) {
        let exponent = self.refusals;
        self.refusals = self.refusals.saturating_add(1);
        self.healthy_since = None;
        let retry_at = now + self.backoff(exponent, jitter);
        self.enter(PluginState::Backoff { reason }, Some(retry_at));
    }

    /// Nothing helps but a change of configuration.
    pub(super) fn parked(&mut self, now: Instant, reason: String) {
        self.healthy_since = None;
        self.enter(PluginState::Parked { reason }, Some(now + PROBE_PARKED));
    }

    /// The file is not a plugin of this contract.
    pub(super) fn incompatible(&mut self, reason: String) {
        self.healthy_since = None;
        self.enter(PluginState::Incompatible { reason }, None);
    }

    /// A trap or a limit: one strike. The fifth within ten minutes is quarantine.
    pub(super) fn crashed(&mut self, now: Instant, jitter: f64, reason: String) {
        if self.struck_out(now) {
            self.quarantined(now, reason);
        } else {
            let exponent = self.strikes().saturating_sub(1);
            let retry_at = now + self.backoff(exponent, jitter);
            self.enter(PluginState::Backoff { reason }, Some(retry_at));
        }
    }

    /// A crash on an instance beside the entry's own, which goes on unless this was one strike too many.
    pub(super) fn crashed_aside(&mut self, now: Instant, reason: String) {
        let struck_out = self.struck_out(now);
        match self.state {
            PluginState::Draining | PluginState::Stopped | PluginState::Incompatible { .. } => {}
            _ if struck_out => self.quarantined(now, reason),
            PluginState::Ready => self.healthy_since = Some(now),
            _ => {}
        }
    }

    /// Counts one strike. True: it was one too many.
    fn struck_out(&mut self, now: Instant) -> bool {
        self.settle(now);
        self.healthy_since = None;
        self.strikes.push_back(now);
        self.forget_old(now);
        self.probation || self.strikes.len() >= STRIKES_MAX
    }

    fn quarantined(&mut self, now: Instant, reason: String) {
        self.probation = true;
        let probe = match self.role {
            Role::Source => PROBE_SOURCE,
            Role::Handler => PROBE_HANDLER,
        };
        self.enter(PluginState::Quarantined { reason }, Some(now + probe));
    }

    /// Ten healthy minutes forgive every strike. Called wherever time may have passed.
    pub(super) fn settle(&mut self, now: Instant) {
        let healthy = self
            .healthy_since
            .is_some_and(|since| now.saturating_duration_since(since) >= HEALTHY_AFTER);
        if healthy {
            self.strikes.clear();
            self.probation = false;
        }
    }

    /// The waiting is over by itself.
    pub(super) fn retry_due(&mut self) {
        self.opening();
    }

    /// The operator said `weir plugin resume`: everything is forgiven.
    pub(super) fn resumed(&mut self) {
        self.strikes.clear();
        self.refusals = 0;
        self.probation = false;
        match self.state {
            // The file is looked at again, whatever it was: to replace it is the usual cure.
            PluginState::Backoff { .. }
            | PluginState::Parked { .. }
            | PluginState::Quarantined { .. }
            | PluginState::Incompatible { .. } => self.enter(PluginState::Loading, None),
            _ => {}
        }
    }

    /// Another file took over, and it is ready: what the old one did is forgiven.
    pub(super) fn renewed(&mut self, now: Instant) {
        self.strikes.clear();
        self.probation = false;
        self.healthy_since = None;
        self.opened(now);
    }

    pub(super) fn stopped(&mut self) {
        self.enter(PluginState::Stopped, None);
    }

    fn enter(&mut self, state: PluginState, retry_at: Option<Instant>) {
        self.state = state;
        self.retry_at = retry_at;
    }

    fn forget_old(&mut self, now: Instant) {
        while self
            .strikes
            .front()
            .is_some_and(|strike| now.saturating_duration_since(*strike) >= STRIKE_WINDOW)
        {
            self.strikes.pop_front();
        }
    }

    fn backoff(&self, exponent: u32, jitter: f64) -> Duration {
        let ceiling = self
            .backoff_base
            .saturating_mul(1_u32.checked_shl(exponent).unwrap_or(u32::MAX))
            .min(BACKOFF_MAX);
        ceiling.mul_f64(jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn ready(role: Role, now: Instant) -> Lifecycle {
        let mut lifecycle = Lifecycle::new(role, seconds(1));
        lifecycle.linked();
        lifecycle.opening();
        lifecycle.opened(now);
        lifecycle
    }

    #[test]
    fn each_strike_doubles_the_wait_up_to_five_minutes() {
        let now = Instant::now();
        let lifecycle = Lifecycle::new(Role::Source, seconds(1));
        let waits: Vec<u64> = (0..12)
            .map(|n| lifecycle.backoff(n, 1.0).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(lifecycle.backoff(200, 1.0), BACKOFF_MAX);
        let mut lifecycle = ready(Role::Source, now);
        lifecycle.crashed(now, 0.5, "trap".into());
        assert_eq!(lifecycle.retry_at(), Some(now + Duration::from_millis(500)));
    }

    #[test]
    fn five_strikes_in_ten_minutes_are_quarantine_and_a_probe_that_crashes_leads_back() {
        for (role, probe) in [(Role::Source, 300), (Role::Handler, 3600)] {
            let start = Instant::now();
            let mut lifecycle = ready(role, start);
            for n in 0..5 {
                assert!(!matches!(
                    lifecycle.state(),
                    PluginState::Quarantined { .. }
                ));
                lifecycle.crashed(start + seconds(n), 0.0, "trap".into());
                if n < 4 {
                    lifecycle.retry_due();
                    lifecycle.opened(start + seconds(n));
                }
            }
            assert!(matches!(lifecycle.state(), PluginState::Quarantined { .. }));
            let probe_at = start + seconds(4 + probe);
            assert_eq!(lifecycle.retry_at(), Some(probe_at));
            lifecycle.retry_due();
            lifecycle.opened(probe_at);
            assert_eq!(*lifecycle.state(), PluginState::Ready);
            lifecycle.crashed(probe_at + seconds(1), 0.0, "trap".into());
            assert!(matches!(lifecycle.state(), PluginState::Quarantined { .. }));
        }
    }

    #[test]
    fn ten_healthy_minutes_forgive_every_strike() {
        let start = Instant::now();
        let mut lifecycle = ready(Role::Source, start);
        for n in 0..4 {
            lifecycle.crashed(start + seconds(n), 0.0, "trap".into());
            lifecycle.retry_due();
            lifecycle.opened(start + seconds(n));
        }
        lifecycle.crashed(start + seconds(700), 1.0, "trap".into());
        assert_eq!(lifecycle.strikes(), 1);
        assert_eq!(lifecycle.retry_at(), Some(start + seconds(701)));
    }

    #[test]
    fn slow_strikes_never_add_up() {
        let start = Instant::now();
        let mut lifecycle = ready(Role::Source, start);
        for n in 0..20 {
            let now = start + seconds(n * 240);
            lifecycle.crashed(now, 0.0, "trap".into());
            assert!(matches!(lifecycle.state(), PluginState::Backoff { .. }));
            lifecycle.retry_due();
            lifecycle.opened(now);
        }
    }

    #[test]
    fn a_refused_opening_is_no_strike_and_waits_longer_each_time() {
        let now = Instant::now();
        let mut lifecycle = Lifecycle::new(Role::Handler, seconds(1));
        for wait in [1, 2, 4] {
            lifecycle.opening();
            lifecycle.refused(now, 1.0, "not yet".into());
            assert_eq!(lifecycle.retry_at(), Some(now + seconds(wait)));
        }
        assert_eq!(lifecycle.strikes(), 0);
    }

    #[test]
    fn resuming_forgives_everything_and_reads_the_file_again() {
        let now = Instant::now();
        let mut lifecycle = ready(Role::Source, now);
        for _ in 0..5 {
            lifecycle.crashed(now, 0.0, "trap".into());
        }
        lifecycle.resumed();
        assert_eq!(*lifecycle.state(), PluginState::Loading);
        assert_eq!(lifecycle.strikes(), 0);
        lifecycle.parked(now, "no key".into());
        lifecycle.resumed();
        assert_eq!(*lifecycle.state(), PluginState::Loading);
        lifecycle.incompatible("old".into());
        assert_eq!(lifecycle.retry_at(), None);
        lifecycle.resumed();
        assert_eq!(*lifecycle.state(), PluginState::Loading);
    }
}
