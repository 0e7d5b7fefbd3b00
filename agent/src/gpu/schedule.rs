//! When ticks are due: a fixed grid whose phase differs from node to node.

use std::time::Duration;

use tokio::time::Instant;

/// A grid of ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    origin: Instant,
    interval: Duration,
}

impl Schedule {
    /// Ticks at `start + phase + k × interval` for every whole k; the phase in `0..interval` comes from the seed.
    pub(super) fn new(start: Instant, interval: Duration, seed: u64) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        Self { origin: start + share(interval, seed), interval }
    }

    /// The first tick after `now`.
    pub(super) fn after(&self, now: Instant) -> Instant {
        match now.checked_duration_since(self.origin) {
            None => self.origin,
            Some(past) => {
                let within = past.as_nanos() % self.interval.as_nanos();
                now + self.interval - Duration::from_nanos_u128(within)
            }
        }
    }

    /// How many ticks lie after `planned` and at or before `now`: those that were missed because the one planned for
    /// `planned` took until `now`.
    pub(super) fn missed(&self, planned: Instant, now: Instant) -> u64 {
        let late = now.saturating_duration_since(planned).as_nanos();
        u64::try_from(late / self.interval.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A share of a duration in `0..whole`, the same for the same seed.
pub(super) fn share(whole: Duration, seed: u64) -> Duration {
    // 32 random bits are finer than a nanosecond of a second; more would overflow in the product.
    let bits = u128::from(mix(seed) >> 32);
    Duration::from_nanos_u128((whole.as_nanos() * bits) >> 32)
}

/// SplitMix64's output function: neighbouring seeds give unrelated numbers (Steele, Lea, Flood 2014).
const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nodes_that_start_together_tick_apart() {
        let start = Instant::now();
        let mut phases: Vec<Duration> =
            (0..1000).map(|seed| Schedule::new(start, SECOND, seed).after(start) - start).collect();
        phases.sort_unstable();
        let tenth = phases.partition_point(|phase| *phase < SECOND / 10);
        assert!((60..140).contains(&tenth), "{tenth} of 1000 nodes tick in the first tenth of a second");
    }

    #[test]
    fn a_long_tick_skips_what_it_missed() {
        let start = Instant::now();
        let schedule = Schedule::new(start, SECOND, 3);
        let first = schedule.after(start);
        assert_eq!(schedule.missed(first, first + SECOND / 2), 0);
        assert_eq!(schedule.missed(first, first + SECOND * 7 / 2), 3);
        assert_eq!(schedule.after(first + SECOND * 7 / 2), first + 4 * SECOND);
    }

    proptest! {
        /// Invariant: the next tick lies after now, at most an interval away, and on the grid, for every seed and interval.
        #[test]
        fn the_next_tick_is_on_the_grid(seed: u64, interval_ms in 1u64..100_000, past_us in 0u64..10_000_000_000) {
            let start = Instant::now();
            let interval = Duration::from_millis(interval_ms);
            let schedule = Schedule::new(start, interval, seed);
            let origin = schedule.after(start);
            prop_assert!(origin - start <= interval);
            let now = start + Duration::from_micros(past_us);
            let next = schedule.after(now);
            prop_assert!(next > now);
            prop_assert!(next - now <= interval);
            prop_assert_eq!((next - origin).as_nanos() % interval.as_nanos(), 0);
        }

        /// Invariant: a share is smaller than its whole.
        #[test]
        fn a_share_is_a_part(seed: u64, millis in 1u64..10_000_000) {
            let whole = Duration::from_millis(millis);
            prop_assert!(share(whole, seed) < whole);
        }
    }
}
