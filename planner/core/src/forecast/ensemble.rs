//! The forecaster that decisions ask: all members, weighted by how good they were.

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

use super::{
    LEVELS, MemberName, MemberView, Observed, Quantiles, Settings,
    horizon::{Asked, HORIZONS, Horizon, Kind, Said},
    residuals::UPPER,
    state::{Counts, MOST_STEPS, State, Unfit},
};

/// The forecaster of one rate; see [the module](super).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "State")]
pub struct Ensemble(State);

impl Ensemble {
    /// The most state that one holds, bytes of memory, whatever was observed.
    pub const MOST_BYTES: usize = 64 * 1024;

    /// Knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(State::new(settings))
    }

    /// What it was told about its series.
    #[must_use]
    pub const fn settings(&self) -> Settings {
        self.0.settings
    }

    /// Learns the mean rate of the bin that ended at `at`. Bins that don't come are unknown, not zero: the level is held
    /// over them. Whatever comes, and at whatever time, is dropped and counted or learned.
    pub fn observe(&mut self, at: Micros, value: f64) -> Observed {
        self.0.observe(at, value)
    }

    /// Learns from a history in order of time, each value the mean since the time of the one before. Values a bin apart
    /// are observed; coarser ones (up to six hours) tell the profiles of day and week, since they hide the noise and the
    /// trends that the other members live on.
    pub fn warm(&mut self, history: impl IntoIterator<Item = (Micros, f64)>) {
        const COARSEST: u64 = 6 * 3_600_000_000;
        let bin = self.0.settings.bin_micros();
        let mut before: Option<Micros> = None;
        for (at, value) in history {
            let span = before.map_or(bin, |before| at.0.saturating_sub(before.0));
            if span <= bin.saturating_add(bin / 2) {
                self.observe(at, value);
            } else if span <= COARSEST && value.is_finite() && (0.0..=1e15).contains(&value) {
                self.0.members.seed(at, Micros(span), value);
            }
            before = Some(at);
        }
    }

    /// When the newest bin that was learned ended.
    #[must_use]
    pub const fn last(&self) -> Option<Micros> {
        self.0.last()
    }

    /// What was learned and what was dropped.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.0.counts
    }

    /// The rate as it is now, noise taken out; `None` before the first value.
    #[must_use]
    pub fn level(&self) -> Option<f64> {
        self.0.last().map(|_| self.0.members.level())
    }

    /// What is said at one horizon, for who asks several things about it. Horizons are rounded up to bins, and those over 360
    /// bins are taken as 360.
    #[must_use]
    pub fn ahead(&self, horizon: Micros) -> Ahead<'_> {
        Ahead::new(&self.0, horizon)
    }

    /// How the sustained rate at the newest bin's end + `horizon` is distributed; `None` before the first value.
    /// Horizons are as for [`Self::ahead`].
    #[must_use]
    pub fn predict(&self, horizon: Micros) -> Option<Quantiles> {
        let ahead = self.ahead(horizon);
        let mut values = [0.0; LEVELS.len()];
        for (value, level) in values.iter_mut().zip(LEVELS) {
            *value = ahead.answer(Kind::At, level)?;
        }
        Some(Quantiles::new(values))
    }

    /// The same as [`Ahead::upper`] for who asks but once.
    #[must_use]
    pub fn upper_over(&self, horizon: Micros, level: f64) -> Option<f64> {
        self.ahead(horizon).upper(level)
    }

    /// Where a rate of the coming bin lies in the band that was forecast for it, noise of arrivals included: 0 is the
    /// median, 1 the quantile at 0.99, -1 that at 0.01; so beyond ±1 the series left its band. `None` while there is no
    /// band, or a rate is none.
    #[must_use]
    pub fn surprise(&self, rate: f64) -> Option<f64> {
        if !rate.is_finite() {
            return None;
        }
        let horizon = self.0.horizons.first()?;
        let said = horizon.said(self.0.centers(1));
        let edge = |level| horizon.quantile(&said, Kind::At, level, self.0.raw());
        let median = edge(0.5)?;
        let width = if rate >= median { edge(0.99)? - median } else { median - edge(0.01)? };
        // In a band without width everything else is outside, and the median itself is not.
        let beyond = (rate - median).abs() / width.max(f64::MIN_POSITIVE);
        Some(beyond.min(1e6).copysign(rate - median))
    }

    /// Where the sustained rate that came last lies in the band that was forecast for it about one `horizon` ago: 0 is
    /// the median, 1 the quantile at 0.9. `None` while no such forecast is old enough.
    #[must_use]
    pub fn missed(&self, horizon: Micros) -> Option<f64> {
        let steps = self.0.settings.steps(horizon, MOST_STEPS);
        // The nearest of the horizons that are scored, on their own scale of doublings.
        let nearest = self.0.horizons.iter().min_by_key(|scored| {
            let (low, high) = (steps.min(scored.steps()), steps.max(scored.steps()));
            high * 1_000 / low.max(1)
        })?;
        nearest.missed()
    }

    /// Who makes the forecast at a horizon, and how much of it.
    #[must_use]
    pub fn members(&self, horizon: Micros) -> Vec<MemberView> {
        let ahead = self.ahead(horizon);
        let (scored, said, _) = &ahead.between[0];
        let own = |index, level| scored.member_quantile(&said.centers, index, level, self.0.raw());
        let view = |(index, name): (usize, MemberName)| MemberView {
            name,
            weight: said.weights[index],
            median: own(index, 0.5),
            upper: own(index, UPPER),
            loss: scored.loss_of(index),
        };
        MemberName::ALL.into_iter().enumerate().map(view).collect()
    }

    /// The period that was found in the last hours, if one is strong.
    #[must_use]
    pub fn period(&self) -> Option<Micros> {
        let bins = self.0.members.period_bins()?;
        Micros::from_secs_f64(bins * self.0.settings.bin_secs())
    }
}

impl TryFrom<State> for Ensemble {
    type Error = Unfit;

    fn try_from(state: State) -> Result<Self, Unfit> {
        if state.fits() { Ok(Self(state)) } else { Err(Unfit) }
    }
}

/// A horizon that somebody asks for, between two that are scored.
#[derive(Debug)]
pub struct Ahead<'a> {
    state: &'a State,
    steps: usize,
    /// See [`Settings::quantum`].
    quantum: f64,
    /// The scored horizons around it with their shares.
    between: [(&'a Horizon, Said, f64); 2],
}

impl<'a> Ahead<'a> {
    fn new(state: &'a State, horizon: Micros) -> Self {
        let steps = state.settings.steps(horizon, MOST_STEPS);
        let above = HORIZONS.partition_point(|&scored| scored < steps).min(HORIZONS.len() - 1);
        let below = if HORIZONS[above] <= steps { above } else { above.saturating_sub(1) };
        let share = if below == above {
            0.0
        } else {
            (steps as f64 / HORIZONS[below] as f64).ln()
                / (HORIZONS[above] as f64 / HORIZONS[below] as f64).ln()
        };
        let centers = state.centers(steps);
        let scored = |place: usize, share| {
            let horizon = &state.horizons[place];
            (horizon, horizon.said(centers), share)
        };
        let quantum = state.settings.quantum;
        Self { state, steps, quantum, between: [scored(below, 1.0 - share), scored(above, share)] }
    }

    /// The same where one event adds something else to the series than [`Settings::quantum`] says.
    #[must_use]
    pub const fn with_quantum(self, quantum: f64) -> Self {
        Self { quantum, ..self }
    }

    /// The quantile at `level` (0..1) of the greatest sustained rate from now to the newest bin's end + horizon: what a
    /// decision has to hold whose replicas serve only then. `None` before the first value.
    #[must_use]
    pub fn upper(&self, level: f64) -> Option<f64> {
        let level = if level.is_nan() { 0.5 } else { level.clamp(0.001, 0.999) };
        self.answer(Kind::Max, level)
    }

    /// Who makes the forecast, and how much of it: shares that sum to 1, in the members' fixed order.
    #[must_use]
    pub fn shares(&self) -> [(MemberName, f64); MemberName::ALL.len()] {
        let weights = self.between[0].1.weights;
        std::array::from_fn(|index| (MemberName::ALL[index], weights[index]))
    }

    fn answer(&self, kind: Kind, level: f64) -> Option<f64> {
        let width = self.steps.min(self.state.settings.sustained_bins());
        let settings = Settings { quantum: self.quantum, ..self.state.settings };
        let asked = Asked { poisson: settings.poisson(width), ..self.state.raw() };
        let mut sum = 0.0;
        for (horizon, said, share) in &self.between {
            if *share > 0.0 {
                let value = horizon.quantile(said, kind, level, asked)?;
                sum += share * self.grown((horizon, said), kind, level, value, asked);
            }
        }
        Some(sum)
    }

    /// Beyond the furthest scored horizon the band grows as a random walk's does.
    fn grown(
        &self,
        (horizon, said): (&Horizon, &Said),
        kind: Kind,
        level: f64,
        value: f64,
        asked: Asked<'_>,
    ) -> f64 {
        let furthest = HORIZONS[HORIZONS.len() - 1];
        if self.steps <= furthest {
            return value;
        }
        let growth = (self.steps as f64 / furthest as f64).sqrt();
        let median = horizon.quantile(said, kind, 0.5, asked).unwrap_or(value);
        if level <= 0.5 { value } else { median + growth * (value - median) }
    }
}
