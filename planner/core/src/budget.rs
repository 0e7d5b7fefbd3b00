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
    /// In the long run.
    all: Account,
    /// In the last minutes.
    now: Account,
    spend: f64,
}

/// Misses of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Missed {
    /// As told for certain, or believed where nothing is told.
    pub(crate) told: f64,
    /// As believed, where what is told does not tell all; else as told.
    pub(crate) believed: f64,
}

/// Misses allowed, told and believed, fading.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Account {
    allowed: f64,
    told: f64,
    believed: f64,
}

impl Account {
    const fn start() -> Self {
        Self { allowed: START, told: START * AIM, believed: START * AIM }
    }

    fn fade(&mut self, kept: f64) {
        for sum in [&mut self.allowed, &mut self.told, &mut self.believed] {
            *sum *= kept;
        }
    }

    fn add(&mut self, allowed: f64, missed: Missed) {
        self.allowed += allowed;
        self.told += missed.told;
        self.believed += missed.believed;
    }

    /// Used over allowed. Where more is believed than told, the truth lies between them: of all together, since what is told
    /// comes in few windows and what is believed in each.
    fn used_share(&self) -> f64 {
        f64::midpoint(self.told, self.believed.max(self.told)) / self.allowed.max(1e-9)
    }
}

impl Default for ErrorBudget {
    fn default() -> Self {
        Self { all: Account::start(), now: Account::start(), spend: 1.0 }
    }
}

impl ErrorBudget {
    /// Takes a window: requests that came, the share of them that may miss, and those that did or are believed to have.
    pub(crate) fn observe(&mut self, window: Micros, requests: f64, share: f64, missed: Missed) {
        let seconds = window.as_secs_f64();
        let Missed { told, believed } = missed;
        let is_sane = requests > 0.0 && requests.is_finite() && told >= 0.0 && believed >= 0.0;
        if !(is_sane && seconds > 0.0) {
            return;
        }
        let missed = Missed { told: told.min(requests), believed: believed.min(requests) };
        let allowed = requests * share;
        self.all.fade(0.5_f64.powf(seconds.min(3_600.0) / HALF_LIFE_S));
        let before = self.all;
        self.all.add(allowed, missed);
        // What an outage or a burst that nobody foresaw has cost is not saved again by sizing: only so much is owed.
        let debt = DEBT * self.all.allowed;
        self.all.told = self.all.told.min(debt.max(before.told));
        self.all.believed = self.all.believed.min(debt.max(before.believed));
        self.now.fade(0.5_f64.powf(seconds.min(3_600.0) / FLOW_S));
        self.now.add(allowed, missed);
        // What was used long ago is no reason to save any more where little is used now: it fades by itself.
        let may_now = (AIM + GAIN * (AIM - self.used_share())).clamp(LEAST, 1.0);
        let now = self.now.used_share();
        // Saving is quick and spending slow: what a decision costs is seen only after it was carried out.
        let error = (may_now / now.max(LEAST)).ln().clamp(-1.5, 1.0);
        let time = if error < 0.0 { SAVE_S } else { SPEND_S };
        self.spend = (self.spend * (error * seconds.min(time) / time).exp()).clamp(SPENDS[0], MOST);
    }

    /// Used over allowed: above 1 the promise was not kept of late.
    #[must_use]
    pub(crate) fn used_share(&self) -> f64 {
        self.all.used_share()
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

    const fn exactly(missed: f64) -> Missed {
        Missed { told: missed, believed: missed }
    }

    #[test]
    fn what_is_not_used_is_spent_and_what_is_overspent_is_saved() {
        let mut budget = ErrorBudget::default();
        for _ in 0..360 {
            budget.observe(WINDOW, 100.0, 0.01, exactly(0.1));
        }
        assert!(budget.spend() > 1.9 && budget.used_share() < 0.2, "{budget:?}");
        for _ in 0..30 {
            budget.observe(WINDOW, 100.0, 0.01, exactly(20.0));
        }
        assert!(budget.spend() < 0.8 && budget.used_share() > 1.0, "{budget:?}");
    }

    #[test]
    fn saving_ends_when_little_is_used_though_much_was() {
        let mut budget = ErrorBudget::default();
        for _ in 0..12 {
            budget.observe(WINDOW, 100.0, 0.01, exactly(2.0));
        }
        let saved = budget.spend();
        assert!(saved < 0.8, "{budget:?}");
        for _ in 0..90 {
            budget.observe(WINDOW, 100.0, 0.01, exactly(0.05));
        }
        assert!(budget.spend() > saved, "{budget:?}");
    }

    #[test]
    fn a_miss_now_and_then_is_not_added_to_those_believed_always() {
        let mut budget = ErrorBudget::default();
        // One of a thousand is told to have missed, all in one window of ten; three are believed.
        for window in 0..2_000 {
            let told = if window % 10 == 0 { 1.0 } else { 0.0 };
            budget.observe(WINDOW, 100.0, 0.01, Missed { told, believed: 0.3 });
        }
        assert!((budget.used_share() - 0.2).abs() < 0.02, "{budget:?}");
    }

    #[test]
    fn nonsense_changes_nothing() {
        let mut budget = ErrorBudget::default();
        for (requests, missed) in [(f64::NAN, 0.0), (-1.0, 0.0), (10.0, f64::NAN), (10.0, -1.0), (0.0, 0.0)] {
            budget.observe(WINDOW, requests, 0.01, exactly(missed));
        }
        assert_eq!(budget, ErrorBudget::default());
    }
}
