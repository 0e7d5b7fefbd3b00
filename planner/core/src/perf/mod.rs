//! How much a replica takes: the engine's profile, what observation makes of it, and the capacity under the SLO.

mod analytic;
mod calibrate;
mod capacity;
mod draw;
mod foresee;
mod mix;
mod posed;
mod trial;

pub use calibrate::{Calibration, Decoding, Prefilling};
pub use capacity::{Capacity, CapacityMap, Question, SIZES, SPENDS};
pub use foresee::Foreseen;
pub use mix::{Lengths, Mix};
pub use posed::Posed;

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

/// Until a search was run, this share of the capacity on the mean is taken.
const UNSEARCHED: f64 = 0.6;

/// So many searches for about the same question are averaged: each draws other requests.
const SEARCHES: u32 = 8;

/// Of what was searched for a question further away than this, as a logarithm, nothing is kept.
const FAR: f64 = 0.5;

/// A search is run anew when something it depended on has changed by this much, as a logarithm.
const STALE: f64 = 0.08;

/// The least share of the rate within the allowed misses that is sized for to spare more of them. What misses at any rate is
/// spared by no number of replicas, and in a few hundred requests it is luck how many do: to do better than what is promised is
/// worth a quarter more replicas and no more.
const WORTH: f64 = 0.8;

/// A pool's capacity, size by size, and what it was searched for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CapacityTable {
    searched: [Option<Searched>; 4],
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Searched {
    at: Micros,
    question: Question,
    /// What the formula says for that question.
    on_the_mean: f64,
    rates: [f64; 3],
    /// Searches that the rates are the mean of.
    searches: u32,
    /// Which requests the last of them drew.
    draw: u64,
}

impl Searched {
    /// Its rates, carried over to another question by how much the formula says that they changed.
    fn carried(&self, on_the_mean: f64) -> [f64; 3] {
        let ratio = on_the_mean / self.on_the_mean.max(1e-12);
        self.rates.map(|rate| rate * ratio.clamp(0.25, 4.0))
    }
}

/// A capacity as it is used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Requests a second.
    pub capacity: CapacityMap,
    /// For how many of the sizes engines were run ahead; for the others their neighbours or a formula stand in.
    pub searched: u32,
    /// How long ago the oldest of these was.
    pub age: Micros,
}

impl CapacityTable {
    /// The capacity for this question: the last ones searched, carried over by how much the formula says that it
    /// changed.
    #[must_use]
    pub fn known(&self, now: Micros, posed: &Posed) -> Known {
        let on_the_mean = posed.on_the_mean();
        let mut known = Known { capacity: CapacityMap::default(), searched: 0, age: Micros::ZERO };
        for (place, searched) in self.searched.iter().enumerate() {
            let below = self.searched[..place].iter().flatten().next_back();
            let nearest = searched.as_ref().or(below).or_else(|| self.searched.iter().flatten().next());
            let rates = nearest.map_or([on_the_mean * UNSEARCHED; 3], |nearest| nearest.carried(on_the_mean));
            known.capacity.set(place, rates);
            if let Some(searched) = searched {
                known.searched += 1;
                known.age = known.age.max(now.saturating_sub(searched.at));
            }
        }
        known
    }

    /// Whether something was not searched yet.
    #[must_use]
    pub fn is_unsearched(&self) -> bool {
        self.searched.iter().any(Option::is_none)
    }

    /// Which size a search is needed for, and how much: above 0, and most where there was none.
    #[must_use]
    pub fn stalest(&self, question: &Question, replicas: u32) -> Option<(usize, f64)> {
        // The sizes next to the pool's own count most; the others are needed when it moves.
        let own = f64::from(replicas.max(1)).log2().min(3.0);
        let staleness = |(place, searched): (usize, &Option<Searched>)| {
            let near = 1.0 / (1.0 + (place as f64 - own).abs());
            let Some(searched) = searched else { return Some((place, 100.0 * near)) };
            let drift = distance(&searched.question, question);
            // What was searched a few times only is searched again when there is nothing better to do.
            let few = STALE * (1.0 - f64::from(searched.searches) / f64::from(SEARCHES));
            (drift > STALE || searched.searches < SEARCHES).then_some((place, drift.max(few) * near))
        };
        self.searched.iter().enumerate().filter_map(staleness).max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Searches one of [`SIZES`], which takes milliseconds to tens of them.
    pub fn search(&mut self, now: Micros, place: usize, posed: &Posed) {
        let question = posed.question();
        let (Some(slot), Some(size)) = (self.searched.get_mut(place), SIZES.get(place)) else { return };
        let before = slot.as_ref().map(|searched| (searched, distance(&searched.question, question)));
        let before = before.filter(|(_, distance)| *distance <= FAR);
        // What was searched for something else counts for less.
        let known = before.map_or(0, |(searched, distance)| {
            if distance <= STALE { searched.searches } else { searched.searches.min(SEARCHES / 4) }
        });
        let draw = slot.as_ref().map_or(0, |searched| searched.draw + 1);
        let mut rates = worth_it(question.search(*size, draw));
        let on_the_mean = posed.on_the_mean();
        if let Some((searched, _)) = before {
            let share = 1.0 / f64::from(known.min(SEARCHES - 1) + 1);
            for (rate, carried) in rates.iter_mut().zip(searched.carried(on_the_mean)) {
                *rate = carried + share * (*rate - carried);
            }
        }
        *slot = Some(Searched {
            at: now,
            question: question.clone(),
            on_the_mean,
            rates,
            searches: (known + 1).min(SEARCHES),
            draw,
        });
    }
}

/// Rates at each of [`SPENDS`] as they are sized for.
fn worth_it([careful, fair, generous]: [f64; 3]) -> [f64; 3] {
    [careful.max(WORTH * fair), fair, generous]
}

/// How far two questions are from each other, as a logarithm.
fn distance(one: &Question, other: &Question) -> f64 {
    if one.slo != other.slo || one.role != other.role || one.routing != other.routing {
        return f64::INFINITY;
    }
    let speed = (one.engine.timing.factor / other.engine.timing.factor).ln().abs();
    let burstiness = (one.burstiness / other.burstiness).ln().abs() / 4.0;
    speed.max(burstiness).max(one.mix.distance(&other.mix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn care_is_worth_a_quarter_more_replicas_and_no_more() {
        let close = |found: [f64; 3], wanted: [f64; 3]| {
            found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() < 1e-9)
        };
        assert!(close(worth_it([1.8, 2.0, 2.4]), [1.8, 2.0, 2.4]));
        assert!(close(worth_it([0.0, 2.0, 2.4]), [1.6, 2.0, 2.4]));
        // What is promised is not made less.
        assert!(close(worth_it([0.0, 0.1, 2.5]), [0.08, 0.1, 2.5]));
        assert!(close(worth_it([0.0, 0.0, 2.5]), [0.0, 0.0, 2.5]));
    }
}
