//! How long replicas of a pool take to start, learned from those that did.

use std::collections::VecDeque;

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

/// Starts that are remembered.
const REMEMBERED: usize = 32;

/// Start-up times seen, and what the policy says until there are any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartUp {
    prior: Micros,
    seen: VecDeque<Micros>,
    failed: u64,
}

impl StartUp {
    /// Nothing was seen yet.
    #[must_use]
    pub const fn new(prior: Micros) -> Self {
        Self { prior, seen: VecDeque::new(), failed: 0 }
    }

    /// Another word of the policy; what was seen stays.
    pub const fn set_prior(&mut self, prior: Micros) {
        self.prior = prior;
    }

    /// Takes note of starts that ended.
    pub fn observe(&mut self, started_in: &[Micros], failed: u32) {
        self.failed += u64::from(failed);
        for time in started_in {
            if self.seen.len() == REMEMBERED {
                self.seen.pop_front();
            }
            self.seen.push_back(*time);
        }
    }

    /// The `level` quantile, 0 to 1; the policy's word counts as one start.
    #[must_use]
    pub fn quantile(&self, level: f64) -> Micros {
        let mut times: Vec<Micros> = self.seen.iter().copied().chain([self.prior]).collect();
        times.sort_unstable();
        let place = (level.clamp(0.0, 1.0) * (times.len() - 1) as f64).ceil() as usize;
        times.get(place).copied().unwrap_or(self.prior)
    }

    /// Starts seen, and starts that failed.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        (self.seen.len(), self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_outweighs_the_policys_word() {
        let s = |s: u64| Micros(s * 1_000_000);
        let mut start_up = StartUp::new(s(60));
        assert_eq!(start_up.quantile(0.9), s(60));
        start_up.observe(&(1..=40).map(|n| s(100 + n)).collect::<Vec<_>>(), 1);
        assert_eq!(start_up.quantile(0.0), s(60));
        assert_eq!(start_up.quantile(1.0), s(140));
        assert!(start_up.quantile(0.9) >= s(135) && start_up.quantile(0.9) <= s(138));
        assert_eq!(start_up.counts(), (32, 1));
    }
}
