//! A histogram that nobody waits for: one atomic addition for the bucket, one for the sum.
//!
//! The library's own is behind a mutex, which every request and the thread that commits would share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// What is measured: the sum is kept in whole units, and shown divided.
#[derive(Clone, Copy, Debug)]
enum Unit {
    Nanoseconds,
    Ones,
}

/// Clones count into the same buckets.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    unit: Unit,
    /// Upper ends of the buckets but the last, which has none.
    bounds: &'static [f64],
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Of durations; the bounds are seconds.
    pub(super) fn of_durations(bounds: &'static [f64]) -> Histogram {
        Histogram::new(Unit::Nanoseconds, bounds)
    }

    /// Of numbers of things.
    pub(super) fn of_numbers(bounds: &'static [f64]) -> Histogram {
        Histogram::new(Unit::Ones, bounds)
    }

    fn new(unit: Unit, bounds: &'static [f64]) -> Histogram {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { unit, bounds, shared: Arc::new(Shared { buckets, sum: AtomicU64::new(0) }) }
    }

    pub(super) fn observe(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.add(duration.as_secs_f64(), ns);
    }

    pub(super) fn observe_number(&self, number: usize) {
        self.add(number as f64, number as u64);
    }

    fn add(&self, value: f64, units: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.shared.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.shared.sum.fetch_add(units, Ordering::Relaxed);
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let counts = self.shared.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        // From the buckets, so that count and last bucket agree although others go on counting.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.shared.sum.load(Ordering::Relaxed) as f64;
        let sum = match self.unit {
            Unit::Nanoseconds => sum / 1e9,
            Unit::Ones => sum,
        };
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
