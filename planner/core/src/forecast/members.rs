//! The members of the ensemble, in their fixed order.

use std::fmt;

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

use super::{Constant, Cycle, Forecaster, Kalman, Seasonal, Settings, Trend};

/// How many members there are.
pub(super) const MEMBERS: usize = MemberName::ALL.len();

/// Which member of the ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberName {
    /// [`Constant`].
    Constant,
    /// [`Kalman`].
    Kalman,
    /// [`Trend`].
    Trend,
    /// [`Seasonal::daily`].
    Daily,
    /// [`Seasonal::weekly`].
    Weekly,
    /// [`Cycle`].
    Cycle,
}

impl MemberName {
    /// All members in their fixed order.
    pub const ALL: [Self; 6] =
        [Self::Constant, Self::Kalman, Self::Trend, Self::Daily, Self::Weekly, Self::Cycle];

    /// The name as it is written: lower-case, one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Kalman => "kalman",
            Self::Trend => "trend",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Cycle => "cycle",
        }
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a member adds to the forecast at a horizon, for explanations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MemberView {
    /// Who.
    pub name: MemberName,
    /// Its share of the forecast; the shares of all members sum to 1. 0 while it has nothing to say.
    pub weight: f64,
    /// Its median of the sustained rate at the horizon; `None` while it has nothing to say.
    pub median: Option<f64>,
    /// Its quantile of that at 0.9, with all noise; `None` while it has nothing to say.
    pub upper: Option<f64>,
    /// Its mean recent quantile loss at the horizon, in the unit of the series; `None` before the first score.
    pub loss: Option<f64>,
}

/// All members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Members {
    constant: Constant,
    kalman: Kalman,
    trend: Trend,
    daily: Seasonal,
    weekly: Seasonal,
    cycle: Cycle,
}

impl Members {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            constant: Constant::new(),
            kalman: Kalman::new(),
            trend: Trend::new(),
            daily: Seasonal::daily(settings.bin),
            weekly: Seasonal::weekly(settings.bin),
            cycle: Cycle::new(),
        }
    }

    /// In the order of [`MemberName::ALL`].
    pub(super) fn each(&self) -> [&dyn Forecaster; MEMBERS] {
        [&self.constant, &self.kalman, &self.trend, &self.daily, &self.weekly, &self.cycle]
    }

    /// Shows a bin to all, and tells whether it was a step: the Kalman filters tell steps from bursts, on behalf of all.
    pub(super) fn learn(&mut self, at: Micros, value: f64) -> bool {
        for member in self.each_mut() {
            member.learn(at, value);
        }
        let stepped = self.kalman.stepped();
        if stepped {
            let level = self.kalman.level();
            for member in self.each_mut() {
                member.step_to(level);
            }
        }
        stepped
    }

    /// In the order of [`MemberName::ALL`].
    pub(super) fn each_mut(&mut self) -> [&mut dyn Forecaster; MEMBERS] {
        [
            &mut self.constant,
            &mut self.kalman,
            &mut self.trend,
            &mut self.daily,
            &mut self.weekly,
            &mut self.cycle,
        ]
    }

    /// Tells the profiles of a coarse past.
    pub(super) fn seed(&mut self, end: Micros, span: Micros, value: f64) {
        self.daily.seed(end, span, value);
        self.weekly.seed(end, span, value);
    }

    pub(super) fn period_bins(&self) -> Option<f64> {
        self.cycle.period_bins()
    }

    /// The rate as it is now, noise taken out.
    pub(super) fn level(&self) -> f64 {
        self.kalman.level()
    }

    pub(super) fn fits(&self, settings: Settings) -> bool {
        self.daily.fits(&Seasonal::daily(settings.bin))
            && self.weekly.fits(&Seasonal::weekly(settings.bin))
            && self.cycle.fits()
    }
}
