//! How long a replica is kept that is not wanted any more: longer where giving one back proved hasty.
//!
//! Keeping a replica costs its time, and giving it back costs a start if it is wanted again soon. Which of the two is
//! dearer differs from replica to replica of one pool: where a load moves up and down around the edge between six and
//! seven, the seventh is wanted again every few minutes while the fifth is not for hours. So each has a patience of its
//! own, learned from how soon it was wanted again. And right after a pool grew, few are not given back at all: what was
//! asked for a moment ago and is not wanted now may well be in a moment.

use std::collections::BTreeMap;

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

/// A replica that is wanted again within this time was given back in haste. The same time as in the count of reversals.
const HASTE: Micros = Micros(600_000_000);

/// How much longer it is kept after that, and how much shorter once it was not missed.
const STEP: u32 = 3;

/// The most times as long as usual that one is kept.
const MOST: u32 = 9;

/// The longest that one is kept for its own sake, s.
const LONGEST_S: u32 = 900;

/// One replica, or one of so many that a pool has, is little.
const LITTLE: u32 = 8;

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Patience {
    /// By place: the first replica, the second, … Only those that were ever given back.
    places: BTreeMap<u32, Place>,
    /// When the pool last grew.
    grew: Option<Micros>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// When it was given back; none once it is there again.
    given_back: Option<Micros>,
    times: u32,
}

impl Patience {
    /// Takes note of a move from one number of replicas to another.
    pub(crate) fn moved(&mut self, now: Micros, from: u32, to: u32) {
        for place in to.saturating_add(1)..=from {
            self.places.entry(place).or_insert(Place { given_back: None, times: 1 }).given_back = Some(now);
        }
        if to <= from {
            return;
        }
        self.grew = Some(now);
        for place in self.places.range_mut(from + 1..=to).map(|(_, place)| place) {
            let Some(at) = place.given_back.take() else { continue };
            let hasty = now.saturating_sub(at) < HASTE;
            place.times = if hasty { (place.times * STEP).min(MOST) } else { (place.times / STEP).max(1) };
        }
    }

    /// What was given back later than `now` counts as given back now: the clock was set back.
    pub(crate) fn turn_back(&mut self, now: Micros) {
        for place in self.places.values_mut() {
            place.given_back = place.given_back.map(|at| at.min(now));
        }
        self.grew = self.grew.map(|at| at.min(now));
    }

    /// Whether so few replicas of `current` are not worth the reversal that it is to give them back so soon after the pool
    /// grew.
    pub(crate) fn is_wary(&self, now: Micros, current: u32, to: u32) -> bool {
        let grew = self.grew.is_some_and(|at| now.saturating_sub(at) <= HASTE);
        grew && current.saturating_sub(to) <= (current / LITTLE).max(1)
    }

    /// How long the replica in this place is kept that is not wanted any more, s, where `usual` is what is usual.
    pub(crate) fn keeps_s(&self, place: u32, usual: u32) -> u32 {
        let times = self.places.get(&place).map_or(1, |place| place.times);
        usual.saturating_mul(times).min(LONGEST_S.max(usual))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000;

    #[test]
    fn only_the_replica_that_comes_and_goes_is_kept_longer() {
        let mut patience = Patience::default();
        for turn in 0..3 {
            patience.moved(Micros(turn * 10 * MINUTE), 7, 6);
            patience.moved(Micros((turn * 10 + 4) * MINUTE), 6, 7);
        }
        assert_eq!(
            (patience.keeps_s(7, 60), patience.keeps_s(6, 60), patience.keeps_s(8, 60)),
            (540, 60, 60)
        );
        assert_eq!(patience.keeps_s(7, 1_800), 1_800);
    }

    #[test]
    fn what_was_not_missed_for_long_is_given_back_as_soon_as_before() {
        let mut patience = Patience::default();
        patience.moved(Micros(0), 8, 2);
        patience.moved(Micros(5 * MINUTE), 2, 4);
        patience.moved(Micros(15 * MINUTE), 4, 8);
        assert_eq!((patience.keeps_s(3, 60), patience.keeps_s(5, 60)), (180, 60));
        patience.moved(Micros(20 * MINUTE), 8, 2);
        patience.moved(Micros(50 * MINUTE), 2, 8);
        assert_eq!(patience.keeps_s(3, 60), 60);
        // A move to where it is already changes nothing.
        let before = patience.clone();
        patience.moved(Micros(51 * MINUTE), 8, 8);
        assert_eq!(patience, before);
    }

    #[test]
    fn a_little_is_not_given_back_right_after_the_pool_grew() {
        let mut patience = Patience::default();
        assert!(!patience.is_wary(Micros(0), 7, 6));
        patience.moved(Micros(MINUTE), 6, 7);
        let wary =
            |patience: &Patience, minute, current, to| patience.is_wary(Micros(minute * MINUTE), current, to);
        assert!(wary(&patience, 2, 7, 6) && wary(&patience, 11, 7, 6));
        assert!(!wary(&patience, 12, 7, 6), "ten minutes are enough");
        assert!(!wary(&patience, 2, 7, 5), "two of seven are not little");
        assert!(wary(&patience, 2, 32, 28) && !wary(&patience, 2, 32, 27));
        // To give back does not make wary.
        patience.moved(Micros(20 * MINUTE), 7, 6);
        assert!(!wary(&patience, 21, 6, 5));
        // Nor does a clock that was set back make it so for longer.
        patience.moved(Micros(100 * MINUTE), 6, 7);
        patience.turn_back(Micros(30 * MINUTE));
        assert!(!wary(&patience, 41, 7, 6));
    }
}
