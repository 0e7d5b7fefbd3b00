//! Other workloads out of given ones.

use plimsoll_common::units::Micros;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Arrival, PrefixRef, Workload};

impl Workload {
    /// Several workloads at once. Prompts of different workloads share no prefix.
    #[must_use]
    pub fn superpose(parts: Vec<Self>) -> Self {
        let mut parts = parts.into_iter();
        let Some(mut all) = parts.next() else { return Self::default() };
        for (index, part) in parts.enumerate() {
            let shift = all.hashes.len() as u32;
            all.hashes.extend(part.hashes.iter().map(|hash| of_copy(*hash, index as u64 + 1)));
            all.prefix_block_tokens = all.prefix_block_tokens.max(part.prefix_block_tokens);
            all.arrivals.extend(part.arrivals.iter().map(|arrival| {
                let prefix = PrefixRef { start: arrival.prefix.start + shift, ..arrival.prefix };
                Arrival { prefix, ..*arrival }
            }));
        }
        all.arrivals.sort_by_key(|arrival| arrival.at);
        all
    }

    /// The same requests, faster: `by` 2 sends them in half the time. What is not positive changes nothing.
    #[must_use]
    pub fn sped_up(mut self, by: f64) -> Self {
        if by.is_finite() && by > 0.0 {
            for arrival in &mut self.arrivals {
                arrival.at = Micros((arrival.at.0 as f64 / by).round() as u64);
            }
        }
        self
    }

    /// `by` times as many requests in the same time: copies of each, moved by up to `jitter` to either side, and of the
    /// last copy a random share. `by` below 1 leaves requests out; what is not positive leaves none.
    #[must_use]
    pub fn scaled(&self, by: f64, jitter: Micros, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let span = self.span();
        let copies = if by.is_finite() { by.clamp(0.0, 10_000.0) } else { 0.0 };
        let mut parts = Vec::new();
        for copy in 0..copies.ceil() as u64 {
            let share = (copies - copy as f64).min(1.0);
            let mut part = Self { arrivals: Vec::new(), ..self.clone() };
            for arrival in &self.arrivals {
                let kept = share >= 1.0 || rng.random::<f64>() < share;
                let offset = (rng.random::<f64>() * 2.0 - 1.0) * jitter.0 as f64;
                if !kept {
                    continue;
                }
                // The first copy is the workload itself.
                let at = if copy == 0 { arrival.at.0 as f64 } else { arrival.at.0 as f64 + offset };
                let at = Micros((at.max(0.0).round() as u64).min(span.0));
                part.arrivals.push(Arrival { at, ..*arrival });
            }
            parts.push(part);
        }
        Self::superpose(parts)
    }

    /// The requests from one time to another, the second excluded; the first becomes time zero.
    #[must_use]
    pub fn window(mut self, from: Micros, to: Micros) -> Self {
        self.arrivals.retain(|arrival| (from..to).contains(&arrival.at));
        for arrival in &mut self.arrivals {
            arrival.at = arrival.at.saturating_sub(from);
        }
        self
    }
}

/// Another hash for the same block of another copy: other users' prompts are not the same.
const fn of_copy(hash: u64, copy: u64) -> u64 {
    hash ^ copy.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::generate::Generator;

    #[test]
    fn copies_are_counted_and_moved() {
        let one = Generator::poisson(5.0, 600.0, 100.0, 10.0).generate(1).unwrap();
        let n = one.len();
        assert_eq!(one.scaled(1.0, Micros(2_000_000), 1), one);
        assert_eq!(one.scaled(4.0, Micros(2_000_000), 1).len(), 4 * n);
        let part = one.scaled(0.25, Micros(2_000_000), 1).len();
        assert!(part.abs_diff(n / 4) < n / 10, "{part} of {n}");
        assert!(
            one.scaled(0.0, Micros::ZERO, 1).is_empty() && one.scaled(f64::NAN, Micros::ZERO, 1).is_empty()
        );
        let four = one.scaled(4.0, Micros(2_000_000), 1);
        assert!(four.arrivals().is_sorted_by_key(|arrival| arrival.at) && four.span() == one.span());
    }

    #[test]
    fn speeding_up_and_cutting_keep_the_requests() {
        let one = Generator::poisson(5.0, 600.0, 100.0, 10.0).generate(1).unwrap();
        let fast = one.clone().sped_up(2.0);
        assert_eq!((fast.len(), fast.span().0), (one.len(), one.span().0.div_ceil(2)));
        assert_eq!(one.clone().sped_up(0.0), one);
        let middle = one.clone().window(Micros(100_000_000), Micros(200_000_000));
        assert!(middle.len() > 300 && middle.span() < Micros(100_000_000));
    }
}
