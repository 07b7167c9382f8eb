//! A limit that is crossed once and cleared with hysteresis.

use serde::{Deserialize, Serialize};

/// What a value meant to a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crossed {
    Over,
    Recovered,
}

/// Over as soon as one value reaches the limit; recovered only after several values in a row well below it.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    limit: f64,
    /// A value is good at or below this.
    clear_at: f64,
    good_needed: u32,
    good_seen: u32,
    over: bool,
}

impl Threshold {
    pub const GOOD_NEEDED: u32 = 3;

    /// A negative margin counts as none and no good value needed as one: recovery always takes evidence.
    pub fn new(limit: f64, clear_margin: f64, good_needed: u32) -> Threshold {
        Threshold {
            limit,
            clear_at: limit - clear_margin.max(0.0),
            good_needed: good_needed.max(1),
            good_seen: 0,
            over: false,
        }
    }

    /// Takes up where an earlier run stopped, so that a restart neither repeats nor forgets a crossing.
    pub fn resumed(self, over: bool) -> Threshold {
        Threshold {
            over,
            good_seen: 0,
            ..self
        }
    }

    pub fn limit(&self) -> f64 {
        self.limit
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    /// A value that is no number is no evidence for either side.
    pub fn observe(&mut self, value: f64) -> Option<Crossed> {
        if value.is_nan() {
            return None;
        }
        if !self.over {
            self.over = value >= self.limit;
            self.good_seen = 0;
            return self.over.then_some(Crossed::Over);
        }
        // With a margin of zero a value at the limit is bad, not good.
        if value > self.clear_at || value >= self.limit {
            self.good_seen = 0;
            return None;
        }
        self.good_seen += 1;
        if self.good_seen < self.good_needed {
            return None;
        }
        self.over = false;
        self.good_seen = 0;
        Some(Crossed::Recovered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f64], expected: &[Option<Crossed>]) {
        let mut threshold = Threshold::new(85.0, 5.0, Threshold::GOOD_NEEDED);
        let crossed: Vec<_> = values
            .iter()
            .map(|value| threshold.observe(*value))
            .collect();
        assert_eq!(crossed, expected);
    }

    #[test]
    fn one_value_at_the_limit_is_over_and_only_once() {
        check(
            &[84.9, 85.0, 99.0, 86.0],
            &[None, Some(Crossed::Over), None, None],
        );
    }

    #[test]
    fn recovery_needs_three_good_values_in_a_row() {
        check(
            &[90.0, 80.0, 79.0, 50.0, 50.0],
            &[
                Some(Crossed::Over),
                None,
                None,
                Some(Crossed::Recovered),
                None,
            ],
        );
        check(
            &[90.0, 80.0, 80.0, 80.1, 80.0, 80.0, 80.0],
            &[
                Some(Crossed::Over),
                None,
                None,
                None,
                None,
                None,
                Some(Crossed::Recovered),
            ],
        );
    }

    #[test]
    fn flapping_between_margin_and_limit_says_nothing() {
        let mut threshold = Threshold::new(85.0, 5.0, 3);
        assert_eq!(threshold.observe(86.0), Some(Crossed::Over));
        for value in [84.0, 86.0, 81.0, 85.0].repeat(10) {
            assert_eq!(threshold.observe(value), None);
        }
        assert!(threshold.is_over());
    }

    #[test]
    fn no_number_is_no_evidence() {
        check(
            &[f64::NAN, 90.0, 10.0, f64::NAN, 10.0, 10.0],
            &[
                None,
                Some(Crossed::Over),
                None,
                None,
                None,
                Some(Crossed::Recovered),
            ],
        );
    }

    #[test]
    fn odd_settings_still_need_evidence() {
        let mut threshold = Threshold::new(50.0, -1.0, 0);
        assert_eq!(threshold.observe(50.0), Some(Crossed::Over));
        assert_eq!(threshold.observe(50.0), None);
        assert_eq!(threshold.observe(49.9), Some(Crossed::Recovered));
    }

    #[test]
    fn a_resumed_threshold_does_not_fire_again() {
        let mut threshold = Threshold::new(85.0, 5.0, 1).resumed(true);
        assert_eq!(threshold.observe(90.0), None);
        assert_eq!(threshold.observe(10.0), Some(Crossed::Recovered));
    }
}
