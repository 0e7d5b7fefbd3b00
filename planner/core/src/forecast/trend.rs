//! A slower trend over minutes: exponential smoothing with a damped slope.

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

use super::{
    Forecaster,
    running::{Running, keep},
};

/// Bins that are taken together: a minute of 10 s, so that the slope is one of minutes.
const TOGETHER: u32 = 6;

/// Gains of level and slope, one smoother each, from quick to slow.
const GAINS: [(f64, f64); 3] = [(0.6, 0.25), (0.35, 0.1), (0.15, 0.03)];

/// What is left of the slope after a minute: half is gone after 13 minutes, the scale of the longest start-ups.
const DAMPING: f64 = 0.95;

/// Minutes after which half of an error's weight in the choice between smoothers is gone.
const CHOICE_STEPS: f64 = 15.0;

/// How many steps ahead the smoothers are judged: their slopes matter only further out than the next step.
const JUDGED_STEPS: usize = 3;

/// Holt's linear method with a damped trend (ETS(A,Ad,N)) over means of six bins: three smoothers, of which recent
/// errors three steps ahead choose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    smoothers: [Smoother; GAINS.len()],
    sum: f64,
    bins: u32,
    /// Bins since the last step's end, those missed included.
    age: u32,
    seen: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Smoother {
    level: f64,
    slope: f64,
    /// What it said for the coming steps, the nearest first.
    said: [f64; JUDGED_STEPS],
    error: Running,
}

impl Trend {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let smoother =
            Smoother { level: 0.0, slope: 0.0, said: [0.0; JUDGED_STEPS], error: Running::default() };
        Self { smoothers: [smoother; GAINS.len()], sum: 0.0, bins: 0, age: 0, seen: 0 }
    }

    fn close(&mut self) {
        if self.bins == 0 {
            return;
        }
        let mean = self.sum / f64::from(self.bins);
        for (smoother, gains) in self.smoothers.iter_mut().zip(GAINS) {
            smoother.learn(mean, gains, self.seen);
        }
        self.seen = self.seen.saturating_add(1);
        (self.sum, self.bins, self.age) = (0.0, 0, 0);
    }

    fn weights(&self) -> [f64; GAINS.len()] {
        let errors = self.smoothers.map(|smoother| smoother.error.mean().unwrap_or_default());
        let least = errors.iter().copied().fold(f64::INFINITY, f64::min);
        // Errors three steps ahead overlap: the weight of a third of them, and half of that as they are squares.
        let power = self.smoothers[0].error.weight() / 6.0;
        let weights = errors.map(|error| if error > 0.0 { (least / error).powf(power) } else { 1.0 });
        let total: f64 = weights.iter().sum();
        weights.map(|weight| if total > 0.0 { weight / total } else { 1.0 / GAINS.len() as f64 })
    }
}

impl Default for Trend {
    fn default() -> Self {
        Self::new()
    }
}

impl Forecaster for Trend {
    fn learn(&mut self, _: Micros, value: f64) {
        self.sum += value;
        self.bins += 1;
        self.age = self.age.saturating_add(1);
        if self.age >= TOGETHER {
            self.close();
        }
    }

    fn skip(&mut self, bins: u64) {
        if bins + u64::from(self.age) < u64::from(TOGETHER) {
            self.age += bins as u32;
            return;
        }
        // What came before the gap is the last that is known. It is held: no slope is carried across the unknown.
        self.close();
        for smoother in &mut self.smoothers {
            smoother.slope = 0.0;
            smoother.said = [smoother.level; JUDGED_STEPS];
        }
    }

    fn step_to(&mut self, level: f64) {
        for smoother in &mut self.smoothers {
            (smoother.level, smoother.slope, smoother.said) = (level, 0.0, [level; JUDGED_STEPS]);
        }
        (self.sum, self.bins, self.age) = (0.0, 0, 0);
        self.seen = self.seen.max(1);
    }

    fn path(&self, path: &mut [f64]) -> bool {
        let a_bin = DAMPING.powf(1.0 / f64::from(TOGETHER));
        // The level is that of the middle of the last step.
        let since = f64::from(self.age) + f64::from(TOGETHER) / 2.0 + 0.5;
        let mut left = DAMPING.powf(since / f64::from(TOGETHER));
        let (mut level, mut slope) = (0.0, 0.0);
        for (smoother, weight) in self.smoothers.iter().zip(self.weights()) {
            level += weight * smoother.level;
            slope += weight * smoother.slope;
        }
        for value in path {
            *value = (level + slope * DAMPING * (1.0 - left) / (1.0 - DAMPING)).max(0.0);
            left *= a_bin;
        }
        self.seen > 0
    }
}

impl Smoother {
    fn learn(&mut self, value: f64, (of_level, of_slope): (f64, f64), seen: u32) {
        if seen == 0 {
            self.level = value;
        } else {
            if seen as usize > JUDGED_STEPS {
                let missed = value - self.said[0];
                self.error.add(missed * missed, keep(CHOICE_STEPS));
            }
            let before = self.level;
            let expected = before + DAMPING * self.slope;
            // A young smoother has no past to weigh against: its gains begin at those of a plain mean.
            let of_level = of_level.max(1.0 / f64::from(seen + 1));
            self.level = expected + of_level * (value - expected);
            self.slope = DAMPING * self.slope + of_slope * (self.level - before - DAMPING * self.slope);
        }
        self.said.rotate_left(1);
        let reach: f64 = (1..=JUDGED_STEPS as i32).map(|step| DAMPING.powi(step)).sum();
        self.said[JUDGED_STEPS - 1] = self.level + self.slope * reach;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_ramp_is_followed_and_a_gap_ends_it() {
        let mut trend = Trend::new();
        for bin in 0..360 {
            trend.learn(Micros::ZERO, 5.0 + 0.05 * f64::from(bin));
        }
        let mut path = [0.0; 36];
        assert!(trend.path(&mut path));
        let expected = 5.0 + 0.05 * f64::from(359 + 36);
        assert!((path[35] / expected - 1.0).abs() < 0.05, "{} of {expected}", path[35]);
        trend.skip(u64::MAX / 2);
        trend.path(&mut path);
        assert!((path[35] - path[0]).abs() < 1e-9, "a gap holds the level");
    }

    #[test]
    fn it_is_silent_until_a_step_is_whole() {
        let mut trend = Trend::new();
        for _ in 0..5 {
            trend.learn(Micros::ZERO, 1.0);
        }
        assert!(!trend.path(&mut [0.0; 3]));
        trend.learn(Micros::ZERO, 1.0);
        assert!(trend.path(&mut [0.0; 3]));
    }
}
