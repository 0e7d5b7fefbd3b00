//! All that a forecaster has learned, and how it learns one bin more.

use std::collections::VecDeque;

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

use super::{
    Settings,
    horizon::{Asked, Both, Came, Centers, HORIZONS, Horizon},
    members::{MEMBERS, Members},
    noise::Noise,
    sustained::{Path, sustained},
};

/// The furthest horizon, bins: an hour of 10 s.
pub(super) const MOST_STEPS: usize = 360;

/// Values above are refused: no rate of anything, and far from where a square is infinite.
const MOST_VALUE: f64 = 1e15;

/// The furthest horizon that is scored, bins.
const FURTHEST: usize = HORIZONS[HORIZONS.len() - 1];

/// Bins after which forecasts are scored: those before tell how a series began, not how good its forecasts are.
const SEASONED: u64 = 12;

/// Late values in a row, each later than the one before, after which it was the clock that had run ahead.
const LATE_RUN: u32 = 8;

/// What became of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// It was learned.
    Learned,
    /// Its bin was known already, or lies before the newest: it is dropped.
    Late,
    /// It is negative, not finite or absurdly large: it is dropped, and its bin is one of which nothing is known.
    Refused,
}

/// What a forecaster took and what it dropped, since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Bins learned.
    pub learned: u64,
    /// Bins of which nothing came, between two that came.
    pub missing: u64,
    /// Observations dropped since their bin was known or past.
    pub late: u64,
    /// Observations dropped since no rate can be so.
    pub refused: u64,
    /// Times that the series was taken up at an earlier time, since the clock had run ahead.
    pub set_back: u64,
}

/// A saved forecaster is not one of this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the saved forecaster has another shape than this build's: start afresh and warm it from history")]
pub struct Unfit;

/// All that is learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) members: Members,
    pub(super) noise: Noise,
    pub(super) horizons: [Horizon; HORIZONS.len()],
    pub(super) counts: Counts,
    /// The newest bins, newest last.
    recent: VecDeque<Option<f32>>,
    last: Option<Micros>,
    /// Bins since the level was last seen to step.
    since_step: Option<u64>,
    late: Option<Micros>,
    late_run: u32,
}

impl State {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            members: Members::new(settings),
            noise: Noise::expecting(settings.poisson(1)),
            horizons: HORIZONS.map(Horizon::new),
            counts: Counts::default(),
            recent: VecDeque::with_capacity(FURTHEST + 1),
            last: None,
            since_step: None,
            late: None,
            late_run: 0,
        }
    }

    pub(super) const fn last(&self) -> Option<Micros> {
        self.last
    }

    pub(super) fn observe(&mut self, at: Micros, value: f64) -> Observed {
        if !value.is_finite() || !(0.0..=MOST_VALUE).contains(&value) {
            self.counts.refused += 1;
            return Observed::Refused;
        }
        let missing = match self.last {
            None => 0,
            Some(last) => {
                let bin = self.settings.bin_micros();
                let steps = at.0.saturating_sub(last.0).saturating_add(bin / 2) / bin;
                if steps > 0 {
                    steps - 1
                } else if self.clock_had_run_ahead(at, last) {
                    self.counts.set_back += 1;
                    0
                } else {
                    self.counts.late += 1;
                    return Observed::Late;
                }
            }
        };
        (self.late, self.late_run) = (None, 0);
        self.skip(missing);
        self.learn(at, value);
        self.last = Some(at);
        Observed::Learned
    }

    /// What all horizons have in common when they are asked for the bands of errors as they were.
    pub(super) fn raw(&self) -> Asked<'_> {
        Asked { noise: &self.noise, bin_secs: self.settings.bin_secs(), poisson: 0.0 }
    }

    /// Medians of all members `steps` bins ahead.
    pub(super) fn centers(&self, steps: usize) -> Centers {
        let mut path = [0.0; MOST_STEPS];
        let path = &mut path[..steps.min(MOST_STEPS)];
        let width = self.settings.sustained_bins();
        self.members.each().map(|member| {
            if !member.path(path) {
                return None;
            }
            sustained(path, width).map(Both::new)
        })
    }

    /// Whether a restored state has the shape that a new one has.
    pub(super) fn fits(&self) -> bool {
        self.members.fits(self.settings)
            && self.horizons.iter().zip(HORIZONS).all(|(horizon, steps)| horizon.fits(steps))
            && self.recent.len() <= FURTHEST
    }

    /// Whether values keep coming at times that are past: then the newest time was wrong, not they.
    fn clock_had_run_ahead(&mut self, at: Micros, last: Micros) -> bool {
        if at >= last {
            return false;
        }
        self.late_run = if self.late.is_some_and(|late| at > late) { self.late_run + 1 } else { 1 };
        self.late = Some(at);
        self.late_run >= LATE_RUN
    }

    fn skip(&mut self, missing: u64) {
        if missing == 0 {
            return;
        }
        self.counts.missing = self.counts.missing.saturating_add(missing);
        let raw = Asked { noise: &self.noise, bin_secs: self.settings.bin_secs(), poisson: 0.0 };
        // After the furthest horizon nothing is pending any more.
        for _ in 0..missing.min(FURTHEST as u64 + 1) {
            push(&mut self.recent, None);
            for horizon in &mut self.horizons {
                horizon.score(None, raw);
                horizon.issue(None, raw);
            }
        }
        for member in self.members.each_mut() {
            member.skip(missing);
        }
        self.since_step = self.since_step.map(|since| since.saturating_add(missing));
    }

    /// What the members say of all bins up to the furthest horizon.
    fn paths(&self, width: usize) -> [Option<Path<FURTHEST>>; MEMBERS] {
        self.members.each().map(|member| {
            let mut path = [0.0; FURTHEST];
            member.path(&mut path).then(|| Path::new(&path, width))
        })
    }

    fn learn(&mut self, at: Micros, value: f64) {
        self.counts.learned += 1;
        let said = self.horizons[0].due();
        self.noise.add(value, said);
        push(&mut self.recent, Some(value as f32));
        let width = self.settings.sustained_bins();
        let recent: [f64; FURTHEST] = std::array::from_fn(|index| {
            self.recent.get(index).copied().flatten().map_or(f64::NAN, f64::from)
        });
        let recent = &recent[..self.recent.len()];
        self.since_step = match self.since_step {
            _ if self.members.learn(at, value) => Some(0),
            since => since.map(|since| since.saturating_add(1)),
        };
        let since_step = self.since_step;
        let seasoned = self.counts.learned >= SEASONED;
        let paths = self.paths(width);
        let raw = Asked { noise: &self.noise, bin_secs: self.settings.bin_secs(), poisson: 0.0 };
        for horizon in &mut self.horizons {
            let steps = horizon.steps();
            let came = recent.len().checked_sub(steps).and_then(|from| sustained(&recent[from..], width));
            horizon.score(came.map(|sustained| Came { sustained, since_step }), raw);
            let centers: Centers =
                std::array::from_fn(|index| paths[index].as_ref()?.first(steps).map(Both::new));
            horizon.issue(seasoned.then_some(&centers), raw);
        }
    }
}

fn push(recent: &mut VecDeque<Option<f32>>, value: Option<f32>) {
    while recent.len() >= FURTHEST {
        recent.pop_front();
    }
    recent.push_back(value);
}
