//! The last values that a source told of its provider beside jobs, as the memory of a GPU: in memory only, never an event.

use super::SourceActor;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use weir_model::observation::{Gauge, Observation};

/// Series of one source; more are refused and counted.
const SERIES_MAX: usize = 64;
/// A value that was not told again for so long, or for so many polls where they are seldom, is not known any more.
const AGE_MAX: Duration = Duration::from_secs(5 * 60);
const POLLS_MAX: u32 = 5;

/// One series and when it was last told.
#[derive(Clone, Debug, PartialEq)]
pub struct ToldGauge {
    pub gauge: Gauge,
    pub at: Timestamp,
}

/// The series of one source, sorted by name and labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gauges {
    series: Vec<ToldGauge>,
    /// Values that were refused since the start, since there were series enough.
    pub refused: u64,
}

impl Gauges {
    pub fn series(&self) -> &[ToldGauge] {
        &self.series
    }

    /// The last value of a series takes the place of the one before. False: there is no room for another series.
    fn keep(&mut self, gauge: &Gauge, at: Timestamp) -> bool {
        let key = |gauge: &Gauge| (gauge.name().to_owned(), gauge.labels().to_vec());
        let place = self
            .series
            .binary_search_by(|told| key(&told.gauge).cmp(&key(gauge)));
        let told = ToldGauge {
            gauge: gauge.clone(),
            at,
        };
        match place {
            Ok(place) => self.series[place] = told,
            Err(_) if self.series.len() >= SERIES_MAX => {
                self.refused += 1;
                return false;
            }
            Err(place) => self.series.insert(place, told),
        }
        true
    }

    fn forget_before(&mut self, at: Timestamp) {
        self.series.retain(|told| told.at >= at);
    }

    /// Contact is lost: nobody knows how it is now.
    pub(super) fn forget(&mut self) {
        self.series.clear();
    }
}

impl SourceActor {
    /// Keeps what is told of the provider, and forgets what is not told any more.
    pub(super) fn keep_gauges(&self, observations: &[Observation]) {
        let now = self.clock.now();
        let age = AGE_MAX.max(self.options.poll_interval.saturating_mul(POLLS_MAX));
        let oldest = SignedDuration::try_from(age)
            .ok()
            .and_then(|age| now.checked_sub(age).ok());
        let mut is_first_refusal = false;
        self.health(|health| {
            let gauges = &mut health.gauges;
            if let Some(oldest) = oldest {
                gauges.forget_before(oldest);
            }
            for observation in observations {
                if let Observation::Gauge(gauge) = observation
                    && !gauges.keep(gauge, now)
                {
                    is_first_refusal |= gauges.refused == 1;
                }
            }
        });
        if is_first_refusal {
            tracing::warn!(source = %self.options.name, "more than {SERIES_MAX} gauges with different names and labels; the others are not kept, and only counted from now on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(name: &str, value: f64) -> Gauge {
        Gauge::new(name.to_owned(), vec![], value).expect("a name")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn the_last_value_of_each_series_is_kept_and_there_is_room_for_64() {
        let mut gauges = Gauges::default();
        for number in 0..70 {
            let kept = gauges.keep(&gauge(&format!("x{number}_bytes"), 1.0), at(1));
            assert_eq!(kept, number < 64);
        }
        assert_eq!((gauges.series().len(), gauges.refused), (64, 6));
        assert!(gauges.keep(&gauge("x7_bytes", 2.0), at(9)));
        assert_eq!(gauges.series().len(), 64);
        gauges.forget_before(at(9));
        let left: Vec<f64> = gauges
            .series()
            .iter()
            .map(|told| told.gauge.value())
            .collect();
        assert_eq!(left, [2.0], "what was told again is younger");
        gauges.forget();
        assert!(gauges.series().is_empty());
    }
}
