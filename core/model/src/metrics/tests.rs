//! Metrics against their definitions.

use proptest::prelude::*;

use super::histogram::EXPOSED_BOUNDS;
use super::*;

fn fact(from: Option<Status>, to: Status) -> MetricFact {
    MetricFact {
        workflow: WorkflowId(1),
        source: SourceId(1),
        imported: false,
        from,
        to,
        duration: None,
        queue_wait: None,
    }
}

fn histogram(ms: &[u64]) -> Histogram {
    let mut histogram = Histogram::default();
    ms.iter()
        .for_each(|ms| histogram.record(Duration::from_millis(*ms)));
    histogram
}

#[test]
fn a_rate_is_completed_over_finished() {
    let mut aggregate = Aggregate::default();
    assert_eq!(aggregate.success_rate(), None);
    for n in 0..12 {
        aggregate.observe(&fact(None, Status::Queued));
        if n < 11 {
            aggregate.observe(&fact(Some(Status::Queued), Status::Running));
        }
        let end = if n < 8 {
            Status::Completed
        } else {
            Status::Failed
        };
        if n < 10 {
            aggregate.observe(&fact(Some(Status::Running), end));
        }
    }
    assert_eq!(aggregate.success_rate(), Some(0.8));
    assert_eq!(
        (
            aggregate.finished(),
            aggregate.running(),
            aggregate.queued()
        ),
        (10, 1, 1)
    );
    assert_eq!(aggregate.executions(), 12);
    assert_eq!(
        aggregate.counts().collect::<Vec<_>>(),
        [
            (Status::Queued, 1),
            (Status::Running, 1),
            (Status::Completed, 8),
            (Status::Failed, 2)
        ]
    );
}

#[test]
fn imported_executions_are_in_no_count() {
    let mut metrics = Metrics::default();
    metrics.observe(&MetricFact {
        imported: true,
        ..fact(None, Status::Queued)
    });
    metrics.observe(&MetricFact {
        imported: true,
        duration: Some(Duration::from_secs(9)),
        ..fact(Some(Status::Queued), Status::Completed)
    });
    assert_eq!(
        metrics.overall,
        Aggregate {
            imported: 1,
            ..Aggregate::default()
        }
    );
    assert!(metrics.reached.is_empty() && metrics.sources.is_empty());
}

#[test]
fn a_correction_moves_a_count_and_no_counter_falls() {
    let mut metrics = Metrics::default();
    let minute = Some(Duration::from_secs(60));
    metrics.observe(&fact(None, Status::Running));
    metrics.observe(&MetricFact {
        duration: minute,
        ..fact(Some(Status::Running), Status::Failed)
    });
    metrics.observe(&MetricFact {
        duration: minute,
        ..fact(Some(Status::Failed), Status::Completed)
    });
    assert_eq!(metrics.overall.success_rate(), Some(1.0));
    assert_eq!(
        (metrics.overall.corrected, metrics.overall.duration.count()),
        (1, 1)
    );
    let reached = |status| metrics.reached[&(WorkflowId(1), SourceId(1), status)];
    assert_eq!(
        (reached(Status::Failed), reached(Status::Completed)),
        (1, 1)
    );
    assert_eq!(metrics.sources[&SourceId(1)], SourceCounts::default());
}

#[test]
fn quantiles_are_nearest_rank() {
    let seconds: Vec<u64> = (1..=100).map(|n| n * 1000).collect();
    let histogram = histogram(&seconds);
    for (q, expected) in [
        (0.0, 1.0),
        (0.5, 50.0),
        (0.95, 95.0),
        (0.99, 99.0),
        (1.0, 100.0),
    ] {
        let found = histogram.quantile(q).unwrap().as_secs_f64();
        assert!(
            (found - expected).abs() <= expected * 0.0443,
            "p{q}: {found}"
        );
    }
    assert_eq!(histogram.mean(), Some(Duration::from_millis(50_500)));
    assert_eq!(
        (histogram.min(), histogram.max()),
        (Some(Duration::from_secs(1)), Some(Duration::from_secs(100)))
    );
    assert_eq!(Histogram::default().quantile(0.5), None);
}

#[test]
fn one_value_is_every_quantile() {
    for ms in [0, 1, 7, 1234, 5_000_000_000, u64::MAX] {
        let histogram = histogram(&[ms]);
        for q in [0.0, 0.5, 0.99, 1.0, f64::NAN] {
            let found = histogram.quantile(q).unwrap().as_secs_f64();
            let expected = Duration::from_millis(ms).as_secs_f64().min(1e15);
            assert!(
                (found - expected).abs() <= expected * 1e-9,
                "{ms} ms, p{q}: {found}"
            );
        }
    }
}

#[test]
fn exposed_buckets_are_exact() {
    let histogram = histogram(&[1000, 1001, 86_400_000, 86_400_001]);
    let cumulative = histogram.cumulative();
    assert_eq!(
        (
            cumulative[0],
            cumulative[1],
            cumulative[EXPOSED_BOUNDS.len() - 1]
        ),
        (1, 2, 3)
    );
    assert_eq!(histogram.count(), 4);
}

fn durations() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec(
        prop_oneof![0u64..2000, 0u64..10_000_000, 0u64..4_000_000_000],
        1..200,
    )
}

fn any_fact() -> impl Strategy<Value = MetricFact> {
    let status = || prop::sample::select(Status::ALL.to_vec());
    (
        1i64..4,
        1i64..3,
        any::<bool>(),
        prop::option::of(status()),
        status(),
        0u64..9_000_000,
    )
        .prop_map(|(workflow, source, imported, from, to, ms)| MetricFact {
            workflow: WorkflowId(workflow),
            source: SourceId(source),
            imported,
            duration: Some(Duration::from_millis(ms)),
            queue_wait: from.is_none().then(|| Duration::from_millis(ms / 7)),
            ..fact(from, to)
        })
}

proptest! {
    #[test]
    fn a_quantile_is_within_its_bound(mut ms in durations(), q in 0.0f64..=1.0) {
        let found = histogram(&ms).quantile(q).unwrap().as_secs_f64() * 1000.0;
        ms.sort_unstable();
        let rank = ((q * ms.len() as f64).ceil() as usize).clamp(1, ms.len());
        // At an exact multiple the rank may be either neighbour's, by a rounding error in q·n.
        let near = [rank.saturating_sub(1).max(1), rank].map(|rank| ms[rank - 1] as f64);
        let is_near = |expected: f64| (found - expected).abs() <= (expected * 0.0443).max(1.0) + 1e-3;
        prop_assert!(near.into_iter().any(is_near), "{found} is not {near:?}");
    }

    #[test]
    fn quantiles_do_not_fall_and_stay_between_the_extremes(ms in durations()) {
        let histogram = histogram(&ms);
        let quantiles: Vec<Duration> = (0..=20).map(|n| histogram.quantile(f64::from(n) / 20.0).unwrap()).collect();
        prop_assert!(quantiles.is_sorted());
        prop_assert!(quantiles[0] >= histogram.min().unwrap());
        prop_assert!(quantiles[20] <= histogram.max().unwrap() + Duration::from_nanos(1));
    }

    #[test]
    fn merging_is_the_same_as_recording_all(a in durations(), b in durations()) {
        let mut merged = histogram(&a);
        merged.merge(&histogram(&b));
        merged.merge(&Histogram::default());
        prop_assert_eq!(merged, histogram(&[a, b].concat()));
    }

    #[test]
    fn a_restored_aggregate_goes_on_as_it_was(facts in prop::collection::vec(any_fact(), 0..60), cut in 0usize..60) {
        let (mut steady, mut restored) = (Metrics::default(), Metrics::default());
        for (n, fact) in facts.iter().enumerate() {
            steady.observe(fact);
            restored.observe(fact);
            if n == cut {
                restored = serde_json::from_str(&serde_json::to_string(&restored).unwrap()).unwrap();
            }
        }
        prop_assert_eq!(&steady, &restored);
        let mut sum = Aggregate::default();
        steady.workflows.values().for_each(|workflow| sum.merge(workflow));
        prop_assert_eq!(sum.duration, steady.overall.duration);
    }

    #[test]
    fn counters_never_fall(facts in prop::collection::vec(any_fact(), 0..60)) {
        let mut metrics = Metrics::default();
        for fact in facts {
            let before = metrics.clone();
            metrics.observe(&fact);
            for (key, count) in &before.reached {
                prop_assert!(metrics.reached[key] >= *count);
            }
            prop_assert!(metrics.overall.duration.count() >= before.overall.duration.count());
        }
    }
}
