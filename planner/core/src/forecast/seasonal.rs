//! A profile of the day or of the week.

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

use super::Forecaster;

/// Newest visit's least share in a cell: the last three visits make two thirds of it.
const VISIT_SHARE: f32 = 0.3;

/// Bins after which half of a deviation from the profile is believed: two minutes of 10 s.
const DEVIATION_BINS: f64 = 12.0;

/// Time after which half of today's deviation from the profile is expected to be gone, seconds.
const RETURN_SECS: f64 = 3_600.0;

/// A profile of the rate over a fixed period (a day, a week), as means of equal cells that favour the last few periods,
/// and how far the rate deviates from it now: an additive season with a decaying level. It speaks where the profile has
/// been seen on all of the way ahead, so not before one whole period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seasonal {
    period_micros: u64,
    bin_micros: u64,
    cells: Vec<Cell>,
    open: Open,
    deviation: f64,
    last: Micros,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Cell {
    mean: f32,
    /// Up to 255, more than the newest visit's share tells apart.
    visits: u8,
}

/// The cell that time is in: its mean joins the profile when time leaves it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Open {
    cell: usize,
    sum: f64,
    bins: f64,
}

impl Seasonal {
    /// A day in cells of two minutes.
    #[must_use]
    pub fn daily(bin: Micros) -> Self {
        Self::new(Micros(86_400_000_000), 720, bin)
    }

    /// A week in cells of ten minutes.
    #[must_use]
    pub fn weekly(bin: Micros) -> Self {
        Self::new(Micros(7 * 86_400_000_000), 1_008, bin)
    }

    fn new(period: Micros, cells: usize, bin: Micros) -> Self {
        Self {
            period_micros: period.0,
            bin_micros: bin.0.max(1),
            cells: vec![Cell::default(); cells],
            open: Open::default(),
            deviation: 0.0,
            last: Micros::ZERO,
        }
    }

    /// Adds a coarse value of the past to the profile: the mean rate over `span` up to `end`.
    pub(super) fn seed(&mut self, end: Micros, span: Micros, value: f64) {
        let width = self.cell_micros();
        // Each cell that the span touches once; a span longer than the period says the same of every cell.
        let touched = (span.0 / width + 1).min(self.cells.len() as u64);
        for step in 0..touched {
            let Some(at) = end.0.checked_sub(step * width + 1) else { break };
            self.add(self.cell_of(at), value, 1.0);
        }
    }

    /// Whether its profile has the shape that this build gives it, and values that can be.
    pub(super) fn fits(&self, like: &Self) -> bool {
        let sound = |cell: &Cell| cell.mean.is_finite() && cell.mean >= 0.0;
        self.cells.len() == like.cells.len()
            && (self.period_micros, self.bin_micros) == (like.period_micros, like.bin_micros)
            && self.open.cell < self.cells.len()
            && self.cells.iter().all(sound)
    }

    fn cell_micros(&self) -> u64 {
        self.period_micros / self.cells.len() as u64
    }

    fn cell_of(&self, at_micros: u64) -> usize {
        ((at_micros % self.period_micros) / self.cell_micros()) as usize % self.cells.len()
    }

    /// Moves on to `cell`, and joins the one that is left to the profile.
    fn add(&mut self, cell: usize, sum: f64, bins: f64) {
        if cell != self.open.cell && self.open.bins > 0.0 {
            let mean = (self.open.sum / self.open.bins) as f32;
            if let Some(left) = self.cells.get_mut(self.open.cell) {
                left.visits = left.visits.saturating_add(1);
                left.mean += (mean - left.mean) * VISIT_SHARE.max(1.0 / f32::from(left.visits));
            }
            self.open = Open { cell, sum: 0.0, bins: 0.0 };
        }
        self.open.cell = cell;
        self.open.sum += sum;
        self.open.bins += bins;
    }

    /// The profile at a moment, linear between the middles of cells; `None` where one of the two was never visited.
    fn profile(&self, at_micros: u64) -> Option<f64> {
        let width = self.cell_micros();
        let count = self.cells.len();
        let within = at_micros % self.period_micros + self.period_micros - width / 2;
        let first = (within / width) as usize % count;
        let share = (within % width) as f64 / width as f64;
        let (left, right) = (self.cells.get(first)?, self.cells.get((first + 1) % count)?);
        if left.visits == 0 || right.visits == 0 {
            return None;
        }
        Some(f64::from(left.mean) * (1.0 - share) + f64::from(right.mean) * share)
    }
}

impl Forecaster for Seasonal {
    fn learn(&mut self, at: Micros, value: f64) {
        let middle = at.0.saturating_sub(self.bin_micros / 2);
        if let Some(expected) = self.profile(middle) {
            let share = 1.0 - 0.5_f64.powf(1.0 / DEVIATION_BINS);
            self.deviation += share * (value - expected - self.deviation);
        }
        self.add(self.cell_of(middle), value, 1.0);
        self.last = at;
    }

    fn skip(&mut self, bins: u64) {
        let secs = bins as f64 * self.bin_micros as f64 / 1e6;
        self.deviation *= 0.5_f64.powf(secs / RETURN_SECS);
    }

    fn path(&self, path: &mut [f64]) -> bool {
        let fade = 0.5_f64.powf(self.bin_micros as f64 / 1e6 / RETURN_SECS);
        let mut deviation = self.deviation;
        let mut middle = self.last.0.saturating_sub(self.bin_micros / 2);
        for value in path {
            deviation *= fade;
            middle = middle.saturating_add(self.bin_micros);
            let Some(profile) = self.profile(middle) else { return false };
            *value = (profile + deviation).max(0.0);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIN: u64 = 10_000_000;

    fn rate(bin: u64) -> f64 {
        20.0 + 15.0 * (bin as f64 / 8_640.0 * std::f64::consts::TAU).sin()
    }

    #[test]
    fn the_second_day_is_known_from_the_first() {
        let mut day = Seasonal::daily(Micros(BIN));
        let mut path = [0.0; 64];
        for bin in 1..=8_640 {
            day.learn(Micros(bin * BIN), rate(bin));
        }
        assert!(!day.path(&mut path), "the last cell of the day is not whole yet");
        for bin in 8_641..=9_000 {
            day.learn(Micros(bin * BIN), rate(bin) + 2.0);
        }
        assert!(day.path(&mut path));
        // Today is higher by 2, which fades with a half-life of an hour.
        let expected = rate(9_064) + 2.0;
        assert!((path[63] - expected).abs() < 0.5, "{} of {expected}", path[63]);
    }

    #[test]
    fn seeds_fill_the_profile() {
        let mut week = Seasonal::weekly(Micros(BIN));
        for hour in 1..=7 * 24 + 1 {
            week.seed(Micros(hour * 3_600_000_000), Micros(3_600_000_000), hour as f64);
        }
        week.learn(Micros((7 * 24 + 2) * 3_600_000_000), 2.0);
        let mut path = [0.0; 36];
        assert!(week.path(&mut path));
        assert!((1.0..4.0).contains(&path[20]), "{}", path[20]);
        assert!(week.fits(&Seasonal::weekly(Micros(BIN))) && !week.fits(&Seasonal::daily(Micros(BIN))));
    }

    #[test]
    fn time_at_its_end_does_not_overflow() {
        let mut day = Seasonal::daily(Micros(BIN));
        day.seed(Micros(5), Micros::MAX, 1.0);
        day.learn(Micros::MAX, 3.0);
        day.skip(u64::MAX);
        assert!(!day.path(&mut [0.0; 8]));
    }
}
