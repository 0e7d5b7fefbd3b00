//! How long replicas have been starting, where only their number is told.

use std::collections::VecDeque;

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

/// The replicas of one pool that start, by when they were first counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starts {
    since: VecDeque<Micros>,
    ready: u32,
}

/// What is known of replicas that start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// For how long each has been starting.
    pub starting: Vec<Micros>,
    /// How long those took that became ready.
    pub started_in: Vec<Micros>,
}

impl Starts {
    /// Takes the numbers of replicas that start and are ready. Those counted first became ready first; one that is gone
    /// without a new one ready was given up, the youngest first.
    pub fn observe(&mut self, now: Micros, starting: u32, ready: u32) -> Started {
        let arrived = (ready.saturating_sub(self.ready) as usize).min(self.since.len());
        let started_in = self.since.drain(..arrived).map(|since| now.saturating_sub(since)).collect();
        self.since.truncate(starting as usize);
        while self.since.len() < starting as usize {
            self.since.push_back(now);
        }
        self.ready = ready;
        let starting = self.since.iter().map(|since| now.saturating_sub(*since)).collect();
        Started { starting, started_in }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Micros {
        Micros(seconds * 1_000_000)
    }

    #[test]
    fn counts_tell_ages_and_start_up_times() {
        let mut starts = Starts::default();
        assert_eq!(starts.observe(s(0), 0, 2), Started::default());
        starts.observe(s(10), 2, 2);
        let seen = starts.observe(s(20), 3, 2);
        assert_eq!(seen.starting, [s(10), s(10), s(0)]);
        let seen = starts.observe(s(70), 1, 4);
        assert_eq!((seen.starting, seen.started_in), (vec![s(50)], vec![s(60), s(60)]));
        // One is given up, which is no start.
        let seen = starts.observe(s(80), 0, 4);
        assert_eq!((seen.starting, seen.started_in), (vec![], vec![]));
    }
}
