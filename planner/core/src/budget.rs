//! The error budget: how much of what may miss was used up of late, and so how closely a pool may be sized.
//!
//! A promise is about all requests of a time, while a size is chosen for the tightest moment: sized so that this moment
//! just keeps the goal, a pool keeps far more than its promise, since most moments are not that tight. So what is left of
//! the allowed misses is spent on sizing closer, and what was spent too much is saved again, minute by minute. What is
//! used now is compared with what may be used now, which is less the more was used before: an hour that begins badly is
//! not followed by one of needless care.

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

use crate::perf::SPENDS;

/// Time in which what was used or allowed counts half, s.
const HALF_LIFE_S: f64 = 1_200.0;

/// Allowed misses that a pool starts with having used, in requests: nothing is spent on credit.
const START: f64 = 20.0;

/// The most that is spent in the tightest moment, in times the allowed misses: what is believed of misses is no
/// measurement, so credit is bounded.
const MOST: f64 = 2.5;

/// The share of the allowed misses that is aimed at: what is left is for what the model does not see.
const AIM: f64 = 0.5;

/// The most that may be owed, in times what was allowed of late.
const DEBT: f64 = 1.5;

/// Time in which what is used now counts half, s.
const FLOW_S: f64 = 200.0;

/// How much of a difference between what was used and the aim is made good by what may be used now.
const GAIN: f64 = 0.5;

/// The least share of the allowed misses that is told from none.
const LEAST: f64 = 0.05;

/// Time in which a budget overspent e-fold makes sizing e times as careful, s.
const SAVE_S: f64 = 240.0;

/// Time in which a budget left to e-fold makes sizing e times as generous, s.
const SPEND_S: f64 = 600.0;

/// What was allowed and used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ErrorBudget {
    allowed: f64,
    used: f64,
    /// The same of the last minutes.
    allowed_now: f64,
    used_now: f64,
    spend: f64,
}

impl Default for ErrorBudget {
    fn default() -> Self {
        Self { allowed: START, used: START * AIM, allowed_now: START, used_now: START * AIM, spend: 1.0 }
    }
}

impl ErrorBudget {
    /// Takes a window: requests that came, the share of them that may miss, and those that did or are believed to have.
    pub(crate) fn observe(&mut self, window: Micros, requests: f64, share: f64, missed: f64) {
        let seconds = window.as_secs_f64();
        if !(requests > 0.0 && requests.is_finite() && missed >= 0.0 && seconds > 0.0) {
            return;
        }
        let kept = 0.5_f64.powf(seconds.min(3_600.0) / HALF_LIFE_S);
        self.allowed = self.allowed * kept + requests * share;
        // What an outage or a burst that nobody foresaw has cost is not saved again by sizing: only so much is owed.
        let debt = DEBT * self.allowed;
        self.used = (self.used * kept + missed.min(requests)).min(debt.max(self.used * kept));
        let kept = 0.5_f64.powf(seconds.min(3_600.0) / FLOW_S);
        self.allowed_now = self.allowed_now * kept + requests * share;
        self.used_now = self.used_now * kept + missed.min(requests);
        // What was used long ago is no reason to save any more where little is used now: it fades by itself.
        let may_now = (AIM + GAIN * (AIM - self.used_share())).clamp(LEAST, 1.0);
        let now = self.used_now / self.allowed_now.max(1e-9);
        // Saving is quick and spending slow: what a decision costs is seen only after it was carried out.
        let error = (may_now / now.max(LEAST)).ln().clamp(-1.5, 1.0);
        let time = if error < 0.0 { SAVE_S } else { SPEND_S };
        self.spend = (self.spend * (error * seconds.min(time) / time).exp()).clamp(SPENDS[0], MOST);
    }

    /// Used over allowed: above 1 the promise was not kept of late.
    #[must_use]
    pub(crate) fn used_share(&self) -> f64 {
        self.used / self.allowed.max(1e-9)
    }

    /// How many times the allowed misses the tightest moment may cost, from 0.4 to 2.5.
    #[must_use]
    pub(crate) const fn spend(&self) -> f64 {
        self.spend
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Micros = Micros(10_000_000);

    #[test]
    fn what_is_not_used_is_spent_and_what_is_overspent_is_saved() {
        let mut budget = ErrorBudget::default();
        for _ in 0..360 {
            budget.observe(WINDOW, 100.0, 0.01, 0.1);
        }
        assert!(budget.spend() > 1.9 && budget.used_share() < 0.2, "{budget:?}");
        for _ in 0..30 {
            budget.observe(WINDOW, 100.0, 0.01, 20.0);
        }
        assert!(budget.spend() < 0.8 && budget.used_share() > 1.0, "{budget:?}");
    }

    #[test]
    fn saving_ends_when_little_is_used_though_much_was() {
        let mut budget = ErrorBudget::default();
        for _ in 0..12 {
            budget.observe(WINDOW, 100.0, 0.01, 2.0);
        }
        let saved = budget.spend();
        assert!(saved < 0.8, "{budget:?}");
        for _ in 0..90 {
            budget.observe(WINDOW, 100.0, 0.01, 0.05);
        }
        assert!(budget.spend() > saved, "{budget:?}");
    }

    #[test]
    fn nonsense_changes_nothing() {
        let mut budget = ErrorBudget::default();
        for (requests, missed) in [(f64::NAN, 0.0), (-1.0, 0.0), (10.0, f64::NAN), (10.0, -1.0), (0.0, 0.0)] {
            budget.observe(WINDOW, requests, 0.01, missed);
        }
        assert_eq!(budget, ErrorBudget::default());
    }
}
