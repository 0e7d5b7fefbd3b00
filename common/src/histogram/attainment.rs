//! What share of requests met a limit: an interval, since buckets and marginals leave it open.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    buckets::BucketCounts,
    latency::LatencyHistogram,
    layout::{CELLS, highest_in, lowest_in},
};
use crate::units::{Micros, Ratio};

/// Between what the share of samples (or of requests) that met something lies, both ends included.
///
/// The two ends are facts about what was counted, not a confidence interval: nothing outside is possible, and nothing
/// within is preferred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttainmentInterval {
    low: Ratio,
    high: Ratio,
}

impl AttainmentInterval {
    /// Nothing is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self { low: ratio(0.0), high: ratio(1.0) }
    }

    /// A share that is known.
    #[must_use]
    pub const fn exactly(share: Ratio) -> Self {
        Self { low: share, high: share }
    }

    /// From the lowest that one share can be to the highest that the other can: where sums of low and of high ends were
    /// kept apart.
    #[must_use]
    pub fn spanning(low: &Self, high: &Self) -> Self {
        Self { low: low.low, high: ratio(high.high.get().max(low.low.get())) }
    }

    /// Of `total` samples `certain` met the limit for sure and `possible` may have; `None` where there are no samples.
    /// What contradicts itself (more certain than possible, more possible than samples) is cut to what can be.
    #[must_use]
    pub fn of_counts(certain: u64, possible: u64, total: u64) -> Option<Self> {
        let possible = possible.min(total);
        let share = |n: u64| ratio(n as f64 / total as f64);
        (total > 0).then(|| Self { low: share(certain.min(possible)), high: share(possible) })
    }

    /// At least this share.
    #[must_use]
    pub const fn low(&self) -> Ratio {
        self.low
    }

    /// At most this share.
    #[must_use]
    pub const fn high(&self) -> Ratio {
        self.high
    }

    /// How much is left open: 0 where the share is known, 1 where nothing is.
    #[must_use]
    pub fn width(&self) -> f64 {
        (self.high.get() - self.low.get()).max(0.0)
    }

    /// The share of requests that met both of two limits, where only the share that met each is known:
    /// `max(0, a + b − 1) ..= min(a, b)` (Fréchet's bounds), with the low ends of both intervals on the left and the high
    /// ends on the right. No narrower interval holds for every way in which the two may depend on each other.
    ///
    /// Both must be shares of the same requests: TTFT with TPOT, which have a sample a request each. A share of ITL
    /// samples is a share of tokens, which says nothing about how many requests they belong to.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let low = (self.low.get() + other.low.get() - 1.0).max(0.0);
        let high = self.high.get().min(other.high.get());
        // Sums of shares round in the last digit: what was equal must not come out crossed.
        Self { low: ratio(low.min(high)), high: ratio(high) }
    }

    /// The share of the requests of several groups, from the share of each and how many requests it has; `None` where no
    /// group has any.
    #[must_use]
    pub fn weighted<'a>(groups: impl IntoIterator<Item = (&'a Self, u64)>) -> Option<Self> {
        let (mut low, mut high, mut total) = (0.0, 0.0, 0.0);
        for (interval, n) in groups {
            low += interval.low.get() * n as f64;
            high += interval.high.get() * n as f64;
            total += n as f64;
        }
        (total > 0.0).then(|| Self { low: ratio(low / total), high: ratio((high / total).max(low / total)) })
    }
}

/// A number that rounding may have moved out of 0..=1 by a hair.
fn ratio(share: f64) -> Ratio {
    Ratio::new(share.clamp(0.0, 1.0)).unwrap_or_default()
}

impl fmt::Display for AttainmentInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4}..={:.4}", self.low.get(), self.high.get())
    }
}

/// As `{"low": …, "high": …}`.
impl Serialize for AttainmentInterval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("low", &self.low)?;
        map.serialize_entry("high", &self.high)?;
        map.end()
    }
}

/// The share of bucketed samples at or below `limit`, over one or more layouts; `None` when there are no samples.
///
/// Where the limit is an edge of every layout the share is known; otherwise it is open by the count of the buckets that
/// the limit splits. A sample above the last edge never certainly meets a limit.
#[must_use]
pub fn attainment<'a>(
    parts: impl IntoIterator<Item = &'a BucketCounts>,
    limit: Micros,
) -> Option<AttainmentInterval> {
    let (mut certain, mut possible, mut total) = (0u64, 0u64, 0u64);
    for part in parts {
        for (bucket, n) in part.nonzero() {
            let (low, high) = part.layout().bounds(bucket);
            total = total.saturating_add(n);
            if high.is_some_and(|high| high <= limit.0) {
                certain = certain.saturating_add(n);
            }
            // The first bucket holds its lower bound, the others begin above theirs.
            if bucket == 0 || low < limit.0 {
                possible = possible.saturating_add(n);
            }
        }
    }
    AttainmentInterval::of_counts(certain, possible, total)
}

impl LatencyHistogram {
    /// The share of samples at or below `limit`, open by the count of the one cell that the limit may split; `None` when
    /// there are no samples.
    #[must_use]
    pub fn attainment(&self, limit: Micros) -> Option<AttainmentInterval> {
        let (mut certain, mut possible) = (0u64, 0u64);
        for (cell, n) in self.nonzero() {
            // The last cell also holds what lies beyond the layout.
            if highest_in(cell) <= limit.0 && usize::from(cell) < CELLS - 1 {
                certain = certain.saturating_add(n);
            }
            if lowest_in(cell) <= limit.0 {
                possible = possible.saturating_add(n);
            }
        }
        AttainmentInterval::of_counts(certain, possible, self.count())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{engine::Unit, histogram::BucketLayout};

    const EDGES: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5];

    fn counts(samples: &[u64]) -> BucketCounts {
        let mut counts = BucketCounts::new(BucketLayout::new(EDGES, Unit::Seconds).unwrap());
        for sample in samples {
            counts.add(EDGES.partition_point(|edge| *edge < *sample as f64 / 1e6), 1);
        }
        counts
    }

    fn share(samples: &[u64], limit: u64) -> f64 {
        samples.iter().filter(|sample| **sample <= limit).count() as f64 / samples.len() as f64
    }

    fn holds(interval: AttainmentInterval, truth: f64) -> bool {
        interval.low().get() <= truth + 1e-12 && truth <= interval.high().get() + 1e-12
    }

    #[test]
    fn an_edge_is_known_and_a_split_bucket_is_open() {
        let counts = counts(&[50_000, 300_000, 400_000, 3_000_000]);
        let of = |limit| attainment([&counts], Micros(limit)).unwrap();
        assert_eq!((of(500_000).low().get(), of(500_000).width()), (0.75, 0.0));
        assert_eq!((of(300_000).low().get(), of(300_000).high().get()), (0.25, 0.75));
        // Above the last edge nothing is ever certain.
        assert_eq!((of(60_000_000).low().get(), of(60_000_000).high().get()), (0.75, 1.0));
        assert_eq!(attainment(std::iter::empty(), Micros(1)), None);
    }

    #[test]
    fn two_marginals_leave_the_joint_share_open() {
        let share =
            |low, high| AttainmentInterval { low: Ratio::new(low).unwrap(), high: Ratio::new(high).unwrap() };
        let both = share(0.9, 0.95).and(&share(0.8, 0.8));
        assert!((both.low().get() - 0.7).abs() < 1e-12 && (both.high().get() - 0.8).abs() < 1e-12);
        assert_eq!(share(0.3, 0.4).and(&share(0.5, 0.6)).low(), Ratio::default());
        let all = AttainmentInterval::exactly(Ratio::new(1.0).unwrap());
        assert_eq!(share(0.5, 0.75).and(&all), share(0.5, 0.75));
        assert_eq!(AttainmentInterval::unknown().and(&share(0.2, 0.3)), share(0.0, 0.3));
        assert_eq!(both.to_string(), "0.7000..=0.8000");
        assert_eq!(
            serde_json::to_value(share(0.25, 0.5)).unwrap(),
            serde_json::json!({"low": 0.25, "high": 0.5})
        );
    }

    proptest! {
        /// Invariant: the true share lies within the interval, of buckets (in one layout or two) and of cells alike.
        #[test]
        fn the_truth_lies_within(
            samples in prop::collection::vec(0u64..4_000_000, 1..80),
            limit in prop_oneof![0u64..4_000_000, prop::sample::select(vec![100_000u64, 250_000, 500_000, 1_000_000])],
            split in any::<prop::sample::Index>(),
        ) {
            let at = split.index(samples.len());
            let (a, b) = (counts(&samples[..at]), counts(&samples[at..]));
            let interval = attainment([&a, &b], Micros(limit)).unwrap();
            prop_assert!(holds(interval, share(&samples, limit)), "{interval}");
            let mut cells = LatencyHistogram::new();
            samples.iter().for_each(|sample| cells.record(Micros(*sample)));
            let narrow = cells.attainment(Micros(limit)).unwrap();
            prop_assert!(holds(narrow, share(&samples, limit)), "{narrow}");
        }

        /// Invariant: whatever the dependence between TTFT and TPOT, the share of requests that met both lies within
        /// what the two marginals give; and a limit that is an edge of both leaves only Fréchet's bounds.
        #[test]
        fn the_joint_truth_lies_within(
            requests in prop::collection::vec((0u64..4_000_000, 0u64..4_000_000), 1..80),
            dependent: bool,
            limits in (0u64..4_000_000, 0u64..4_000_000),
        ) {
            let (mut ttft, mut tpot): (Vec<u64>, Vec<u64>) = requests.into_iter().unzip();
            if dependent {
                ttft.sort_unstable();
                tpot.sort_unstable();
            }
            let of = |samples: &[u64], limit| attainment([&counts(samples)], Micros(limit)).unwrap();
            let joint = of(&ttft, limits.0).and(&of(&tpot, limits.1));
            let met = ttft.iter().zip(&tpot).filter(|(a, b)| **a <= limits.0 && **b <= limits.1).count();
            prop_assert!(holds(joint, met as f64 / ttft.len() as f64), "{joint}");
            prop_assert!(joint.low() <= joint.high());
        }

        /// Invariant: Fréchet's bounds are reached, so that no narrower interval would hold.
        #[test]
        fn the_joint_interval_can_not_be_narrower(n in 1usize..60, a in 0usize..60, b in 0usize..60) {
            let (a, b) = (a.min(n), b.min(n));
            let share = |of: usize| AttainmentInterval::exactly(Ratio::new(of as f64 / n as f64).unwrap());
            let joint = share(a).and(&share(b));
            // The first `a` met one limit; the first `b`, or the last `b`, met the other.
            let (most, least) = (a.min(b), (a + b).saturating_sub(n));
            prop_assert!((joint.high().get() - most as f64 / n as f64).abs() < 1e-12);
            prop_assert!((joint.low().get() - least as f64 / n as f64).abs() < 1e-12);
        }

        /// Invariant: groups weighted by their requests give what their requests together give.
        #[test]
        fn groups_add_up(groups in prop::collection::vec(prop::collection::vec(0u64..4_000_000, 1..20), 1..6), limit in 0u64..4_000_000) {
            let parts: Vec<_> = groups.iter().map(|samples| counts(samples)).collect();
            let together = attainment(&parts, Micros(limit)).unwrap();
            let single: Vec<_> = parts.iter().map(|part| attainment([part], Micros(limit)).unwrap()).collect();
            let sizes = groups.iter().map(|samples| samples.len() as u64);
            let weighted = AttainmentInterval::weighted(single.iter().zip(sizes)).unwrap();
            prop_assert!((weighted.low().get() - together.low().get()).abs() < 1e-9);
            prop_assert!((weighted.high().get() - together.high().get()).abs() < 1e-9);
        }
    }
}
