//! Cumulative histograms as engines publish them, exact inside.

/// A histogram whose samples are integers: nanoseconds, or tokens. The sum is exact, so it does not depend on the order
/// in which samples came, and a reader of the request log arrives at the very same one.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    bounds: Vec<f64>,
    /// One more than there are bounds.
    counts: Vec<u64>,
    count: u64,
    sum: u64,
    per_unit: f64,
}

/// Nanoseconds as the seconds that are published and logged: the one conversion that both use.
pub(crate) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

impl Histogram {
    /// Of durations: samples in nanoseconds, bounds in seconds.
    pub(crate) fn of_seconds(bounds: &[f64]) -> Self {
        Self::new(bounds.to_vec(), 1e9)
    }

    /// Of counts: samples and bounds in the same unit.
    pub(crate) fn of_counts(bounds: Vec<f64>) -> Self {
        Self::new(bounds, 1.0)
    }

    fn new(bounds: Vec<f64>, per_unit: f64) -> Self {
        Self { counts: vec![0; bounds.len() + 1], bounds, count: 0, sum: 0, per_unit }
    }

    pub(crate) fn observe(&mut self, sample: u64) {
        let value = sample as f64 / self.per_unit;
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(sample);
    }

    /// `count` samples of which only the sum is known: all of them go where their mean belongs.
    pub(crate) fn observe_spread(&mut self, sum: u64, count: u64) {
        let Some(mean) = sum.checked_div(count) else { return };
        let value = mean as f64 / self.per_unit;
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += count;
        self.count += count;
        self.sum = self.sum.saturating_add(sum);
    }

    /// Both together; of the same bounds.
    pub(crate) fn merged(&self, other: &Self) -> Self {
        let counts = self.counts.iter().zip(&other.counts).map(|(one, two)| one + two).collect();
        let sum = self.sum.saturating_add(other.sum);
        Self {
            bounds: self.bounds.clone(),
            counts,
            count: self.count + other.count,
            sum,
            per_unit: self.per_unit,
        }
    }

    /// Upper bounds with the number of samples at or below each, then infinity with all of them.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().scan(0, |below, count| {
            *below += count;
            Some(*below)
        }))
    }

    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// In seconds, or counts.
    pub(crate) fn sum(&self) -> f64 {
        self.sum as f64 / self.per_unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_on_a_bound_belongs_below_it() {
        let mut histogram = Histogram::of_seconds(&[0.01, 0.1]);
        for nanos in [10_000_000, 10_000_001, 100_000_000, 200_000_000] {
            histogram.observe(nanos);
        }
        let buckets: Vec<(f64, u64)> = histogram.cumulative().collect();
        assert_eq!(buckets.iter().map(|(_, count)| *count).collect::<Vec<_>>(), vec![1, 3, 4]);
        assert_eq!(histogram.count(), 4);
        assert!((histogram.sum() - 0.320_000_001).abs() < 1e-15);
    }
}
