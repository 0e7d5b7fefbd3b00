//! A period that nobody told: found by autocorrelation, continued from the cycles before.

use std::collections::VecDeque;

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

use super::Forecaster;

/// Bins that are taken together: half a minute of 10 s.
const TOGETHER: u32 = 3;

/// How much past is kept: 480 means of half a minute, four hours.
const KEPT: usize = 480;

/// The shortest period, in means: two minutes.
const SHORTEST: usize = 4;

/// Lags looked at with each new mean: the whole range in ten minutes.
const LAGS_A_STEP: usize = 12;

/// Autocorrelation from which a period is worth continuing. Its errors then decide what it weighs.
const STRONG: f64 = 0.4;

/// How far autocorrelation falls between 0 and the period, as a share of the peak: a slow drift has no such valley.
const VALLEY: f64 = 0.6;

/// Cycles that are averaged.
const CYCLES: usize = 4;

/// A period between two minutes and two hours that repeats strongly, found in the last four hours. The forecast is the
/// mean of up to four cycles before, moved by how far the rate deviates from them now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cycle {
    means: VecDeque<f32>,
    sum: f64,
    bins: u32,
    age: u32,
    correlation: Vec<f32>,
    next_lag: usize,
    /// In means of three bins.
    period: Option<f64>,
    deviation: f64,
}

impl Cycle {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            means: VecDeque::with_capacity(KEPT),
            sum: 0.0,
            bins: 0,
            age: 0,
            correlation: vec![0.0; KEPT / 2 + 1],
            next_lag: SHORTEST - 1,
            period: None,
            deviation: 0.0,
        }
    }

    /// The period that was found, in bins.
    #[must_use]
    pub fn period_bins(&self) -> Option<f64> {
        self.period.map(|period| period * f64::from(TOGETHER))
    }

    /// Whether it has the shape that this build gives it.
    pub(super) fn fits(&self) -> bool {
        self.correlation.len() == KEPT / 2 + 1
            && self.means.len() <= KEPT
            && self.period.is_none_or(|period| (1.0..=KEPT as f64).contains(&period))
    }

    fn close(&mut self) {
        if self.bins > 0 {
            self.push((self.sum / f64::from(self.bins)) as f32);
            (self.sum, self.bins) = (0.0, 0);
        }
        self.age = 0;
    }

    fn push(&mut self, mean: f32) {
        if self.means.len() == KEPT {
            self.means.pop_front();
        }
        self.means.push_back(mean);
        self.look();
        self.deviation = 0.0;
        let newest = self.means.len() as f64 - 1.0;
        // The last minute against the same minute of the cycles before.
        let (Some(now), Some(before)) = (self.near(newest - 0.5), self.before(newest - 0.5)) else { return };
        self.deviation = now - before;
    }

    /// Computes the autocorrelation of the next lags, and after the last of all chooses the period.
    fn look(&mut self) {
        let most = self.means.len() / 2;
        if most < 2 * SHORTEST {
            return;
        }
        let centered = Centered::new(&self.means);
        for _ in 0..LAGS_A_STEP {
            if self.next_lag > most {
                self.period = self.choose(most);
                self.next_lag = SHORTEST - 1;
                return;
            }
            if let Some(slot) = self.correlation.get_mut(self.next_lag) {
                *slot = centered.correlation(self.next_lag);
            }
            self.next_lag += 1;
        }
    }

    /// The shortest lag whose peak comes near the highest: multiples of a period are periods too.
    fn choose(&self, most: usize) -> Option<f64> {
        let peaks = || {
            (SHORTEST..most).filter_map(|lag| {
                let [left, peak, right] = [lag - 1, lag, lag + 1].map(|at| f64::from(self.correlation[at]));
                (peak >= left && peak > right && peak > STRONG).then_some((lag, left, peak, right))
            })
        };
        let highest = peaks().map(|(_, _, peak, _)| peak).fold(0.0, f64::max);
        let (lag, left, peak, right) = peaks().find(|(lag, _, peak, _)| {
            let valley = self.correlation[SHORTEST - 1..*lag].iter().copied().fold(1.0, f32::min);
            *peak >= 0.85 * highest && f64::from(valley) < VALLEY * peak
        })?;
        // The top of the parabola through three points.
        let bend = left - 2.0 * peak + right;
        let shift = if bend < 0.0 { 0.5 * (left - right) / bend } else { 0.0 };
        Some(lag as f64 + shift.clamp(-0.5, 0.5))
    }

    /// The rate at a place in the past, between two means.
    fn near(&self, place: f64) -> Option<f64> {
        if place < 0.0 {
            return None;
        }
        let left = place as usize;
        let share = place - left as f64;
        let first = f64::from(*self.means.get(left)?);
        let second = f64::from(*self.means.get(left + 1).unwrap_or(self.means.get(left)?));
        Some(first + share * (second - first))
    }

    /// The mean of up to four cycles before a place, which may lie ahead.
    fn before(&self, place: f64) -> Option<f64> {
        let period = self.period?;
        let newest = self.means.len() as f64 - 1.0;
        let ahead = ((place - newest) / period).ceil().max(1.0);
        let (mut sum, mut found) = (0.0, 0_usize);
        for cycle in 0..CYCLES {
            let Some(value) = self.near(place - (ahead + cycle as f64) * period) else { break };
            sum += value;
            found += 1;
        }
        (found > 0).then(|| sum / found as f64)
    }
}

impl Default for Cycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Forecaster for Cycle {
    fn learn(&mut self, _: Micros, value: f64) {
        self.sum += value;
        self.bins += 1;
        self.age += 1;
        if self.age >= TOGETHER {
            self.close();
        }
    }

    fn skip(&mut self, bins: u64) {
        // A short gap keeps the phase: what is missing is held at the last mean. A long one ends all that was known.
        let steps = (bins + u64::from(self.age)) / u64::from(TOGETHER);
        let held = self.means.back().copied();
        if let (Some(held), true) = (held, steps < KEPT as u64 / 8) {
            for _ in 0..steps {
                if self.bins > 0 { self.close() } else { self.push(held) }
            }
            self.age = ((bins + u64::from(self.age)) % u64::from(TOGETHER)) as u32;
        } else if steps > 0 {
            *self = Self::new();
        }
    }

    fn path(&self, path: &mut [f64]) -> bool {
        let Some(period) = self.period else { return false };
        let newest = self.means.len() as f64 - 1.0;
        let a_bin = 1.0 / f64::from(TOGETHER);
        let fade = 0.5_f64.powf(2.0 * a_bin / period);
        let mut deviation = self.deviation;
        // A mean stands for the middle of its bins.
        let mut place = newest + (f64::from(self.age) + f64::from(TOGETHER - 1) / 2.0) * a_bin;
        for value in path {
            place += a_bin;
            deviation *= fade;
            let Some(before) = self.before(place) else { return false };
            *value = (before + deviation).max(0.0);
        }
        true
    }
}

/// A series less its mean, with the sums of its squares up to each place.
struct Centered {
    values: [f32; KEPT],
    squares: [f32; KEPT + 1],
    count: usize,
    /// What squares sum to that are rounding or nearly nothing: a thousandth of the mean.
    still: f32,
}

impl Centered {
    fn new(means: &VecDeque<f32>) -> Self {
        let count = means.len().min(KEPT);
        let mean = means.iter().sum::<f32>() / count.max(1) as f32;
        let (mut values, mut squares) = ([0.0; KEPT], [0.0; KEPT + 1]);
        let mut sum = 0.0;
        for (index, value) in means.iter().take(count).enumerate() {
            values[index] = value - mean;
            sum += values[index] * values[index];
            squares[index + 1] = sum;
        }
        Self { values, squares, count, still: (mean * 1e-3) * (mean * 1e-3) }
    }

    /// Correlation of the series with itself `lag` later, over the part where both are; 0 where it stands still.
    fn correlation(&self, lag: usize) -> f32 {
        let both = self.count.saturating_sub(lag);
        let (early, late) =
            (self.squares[both], self.squares[self.count] - self.squares[lag.min(self.count)]);
        let still = self.still * both as f32;
        if early <= still || late <= still {
            return 0.0;
        }
        // Eight sums beside each other, so that the compiler may use wide registers; their order is fixed.
        let mut sums = [0.0_f32; 8];
        let (first, second) = (&self.values[..both], &self.values[lag..lag + both]);
        for (first, second) in first.chunks(8).zip(second.chunks(8)) {
            for ((sum, first), second) in sums.iter_mut().zip(first).zip(second) {
                *sum += first * second;
            }
        }
        sums.iter().sum::<f32>() / early.sqrt() / late.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(bins: u32, rate: impl Fn(f64) -> f64) -> Cycle {
        let mut cycle = Cycle::new();
        for bin in 0..bins {
            cycle.learn(Micros::ZERO, rate(f64::from(bin)));
        }
        cycle
    }

    #[test]
    fn a_sine_is_found_after_two_cycles_and_continued() {
        // Twenty minutes, seen for an hour.
        let rate = |bin: f64| 10.0 + 6.0 * (bin / 120.0 * std::f64::consts::TAU).sin();
        let cycle = after(360, rate);
        assert!((cycle.period_bins().unwrap() - 120.0).abs() < 2.0, "{:?}", cycle.period_bins());
        let mut path = [0.0; 36];
        assert!(cycle.path(&mut path));
        for (ahead, value) in path.iter().enumerate() {
            assert!((value - rate(360.0 + ahead as f64)).abs() < 0.6, "{ahead}: {value}");
        }
    }

    #[test]
    fn a_square_is_continued_over_its_edge() {
        let rate = |bin: f64| if (bin / 90.0).fract() < 0.5 { 4.0 } else { 20.0 };
        let cycle = after(90 * 8 + 30, rate);
        let mut path = [0.0; 36];
        assert!(cycle.path(&mut path));
        assert!(path[5] < 5.0 && path[25] > 19.0, "{path:?}");
    }

    #[test]
    fn no_period_is_found_in_ramps_and_in_what_stands_still() {
        assert!(after(1_440, |bin| 5.0 + 0.01 * bin).period_bins().is_none());
        assert!(after(1_440, |_| 5.0).period_bins().is_none());
        assert!(after(1_440, |_| 0.0).period_bins().is_none());
    }

    #[test]
    fn a_short_gap_keeps_the_phase_and_a_long_one_ends_it() {
        let rate = |bin: f64| 10.0 + 6.0 * (bin / 120.0 * std::f64::consts::TAU).sin();
        let mut cycle = after(480, rate);
        cycle.skip(12);
        for bin in 492..600 {
            cycle.learn(Micros::ZERO, rate(f64::from(bin)));
        }
        let mut path = [0.0; 36];
        assert!(cycle.path(&mut path));
        assert!((path[30] - rate(630.0)).abs() < 1.5, "{} of {}", path[30], rate(630.0));
        cycle.skip(u64::MAX / 2);
        assert!(!cycle.path(&mut path));
    }
}
