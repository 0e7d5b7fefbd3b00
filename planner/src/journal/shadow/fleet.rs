//! The fleet that would have been, had the advice been taken.

use plimsoll_common::units::Micros;

/// Replicas of one pool that follow the advice.
#[derive(Clone, Debug, Default)]
pub(super) struct ShadowFleet {
    ready: u32,
    /// When those that start will be ready, rising.
    starting: Vec<Micros>,
    target: Option<u32>,
    pub(super) moves: u64,
}

impl ShadowFleet {
    /// Begins as the real one was.
    pub(super) fn begin(now: Micros, ready: u32, starting: u32, start_up: Micros) -> Self {
        let starting = vec![now.saturating_add(start_up); starting as usize];
        Self { ready, starting, target: None, moves: 0 }
    }

    /// Takes an advice. What is taken away starts last, or else is ready.
    pub(super) fn follow(&mut self, now: Micros, target: u32, start_up: Micros) {
        self.pass(now);
        if self.target.replace(target).is_some_and(|before| before != target) {
            self.moves += 1;
        }
        let coming = self.all();
        if target > coming {
            let ready_at = now.saturating_add(start_up);
            self.starting.extend(std::iter::repeat_n(ready_at, (target - coming) as usize));
            self.starting.sort_unstable();
        } else {
            let less = coming - target;
            let cancelled = less.min(self.starting.len() as u32);
            self.starting.truncate(self.starting.len() - cancelled as usize);
            self.ready -= less - cancelled;
        }
    }

    fn pass(&mut self, now: Micros) {
        let done = self.starting.partition_point(|ready_at| *ready_at <= now);
        self.starting.drain(..done);
        self.ready += done as u32;
    }

    pub(super) const fn ready(&self) -> u32 {
        self.ready
    }

    /// Ready and starting ones.
    pub(super) const fn all(&self) -> u32 {
        self.ready + self.starting.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_ready_after_its_start_up_and_what_is_taken_away_starts_last() {
        let s = |s: u64| Micros(s * 1_000_000);
        let mut fleet = ShadowFleet::begin(s(0), 2, 1, s(60));
        fleet.follow(s(0), 5, s(100));
        assert_eq!((fleet.ready(), fleet.all()), (2, 5));
        fleet.follow(s(60), 5, s(100));
        assert_eq!((fleet.ready(), fleet.all()), (3, 5));
        fleet.follow(s(70), 4, s(100));
        assert_eq!((fleet.ready(), fleet.all()), (3, 4));
        fleet.follow(s(80), 1, s(100));
        assert_eq!((fleet.ready(), fleet.all()), (1, 1));
        assert_eq!(fleet.moves, 2);
    }
}
