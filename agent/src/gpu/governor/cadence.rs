//! How often each question is asked: by its tier, by its own cost, and by what all of them cost together.

use std::time::Duration;

use super::{AVERAGE, Ask, ESSENTIAL, Governor, PEAK};
use crate::gpu::plan::{Metric, Tier};

/// The part of the average that cadences are planned to use; the rest is for enumerations and surprises.
const PLANNED: f64 = 0.8;
/// A question of the slow and rare tiers that takes longer than this is asked [`HEAVY_STRETCH`] times as seldom.
const HEAVY: Duration = Duration::from_millis(1);
const HEAVY_STRETCH: u32 = 6;
/// How often a question is asked whose calls take over half of [`PEAK`], and no cadence is stretched further.
const SELDOM: Duration = Duration::from_mins(10);
/// How often a question is asked whose calls take more than [`PEAK`], which breaks the budget each time.
const HOURLY: Duration = Duration::from_hours(1);
/// How far slow and rare cadences are stretched before the fast one is.
const FIRST_STRETCH: f64 = 6.0;
/// No cadence is stretched further.
const LONGEST_STRETCH: f64 = 60.0;

/// How far the cadences of the tiers are stretched, in the order of [`Tier::ALL`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch([f64; Tier::ALL.len()]);

impl Default for Stretch {
    fn default() -> Self {
        Self([1.0; Tier::ALL.len()])
    }
}

impl Stretch {
    /// By how much this tier's cadence is stretched; 1 is not at all.
    pub(super) const fn of(self, tier: Tier) -> f64 {
        self.0[tier as usize]
    }
}

/// What a question costs, in classes that decide how often it is asked; the order of the variants is that of cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Price {
    /// It is asked at its tier's cadence.
    Fair,
    /// Over [`HEAVY`].
    Heavy,
    /// Over half of what any second may take.
    Dear,
    /// More than any second may take.
    OverBudget,
}

impl Governor {
    /// The class of a question's cost. It takes three times to tell: one slow call may be the machine's. Essential values
    /// have no price.
    pub(super) fn price(&self, ask: Ask) -> Price {
        let essential = matches!(ask, Ask::Metric(metric) if metric.is_essential());
        let cost = &self.costs[ask.place()];
        if essential || cost.samples() < 3 {
            return Price::Fair;
        }
        match cost.typical() {
            typical if typical > PEAK => Price::OverBudget,
            typical if typical > PEAK / 2 => Price::Dear,
            typical if typical > HEAVY => Price::Heavy,
            _ => Price::Fair,
        }
    }

    /// How often a tier is asked as configured.
    pub(super) fn nominal(&self, tier: Tier) -> Duration {
        match tier {
            Tier::Fast => self.interval,
            Tier::Slow => Duration::from_secs(10).max(self.interval),
            Tier::Rare => Duration::from_mins(1).max(self.interval),
        }
    }

    /// How often a tier is asked as it is.
    pub(super) fn stretched(&self, tier: Tier) -> Duration {
        self.nominal(tier).mul_f64(self.stretch.of(tier)).min(SELDOM.max(self.interval))
    }

    /// How often a question is asked.
    pub(super) fn cadence(&self, ask: Ask) -> Duration {
        let seldom = SELDOM.max(self.interval);
        match (ask, self.price(ask)) {
            (Ask::Metric(_), Price::OverBudget) => HOURLY.max(self.interval),
            (Ask::Metric(_), Price::Dear) => seldom,
            (Ask::Metric(metric), _) => (self.stretched(metric.tier()) * self.heaviness(metric)).min(seldom),
            // A fact is asked once; where it was refused, it is asked again after a while.
            (Ask::Fact(_), _) => seldom,
        }
    }

    /// How many times as seldom as its tier a metric is asked because of its own cost.
    fn heaviness(&self, metric: Metric) -> u32 {
        let heavy = metric.tier() != Tier::Fast && self.price(Ask::Metric(metric)) >= Price::Heavy;
        if heavy { HEAVY_STRETCH } else { 1 }
    }

    /// What the questions of each tier would cost at their nominal cadence, seconds a second; without dear ones, which are
    /// asked too seldom to count.
    pub(super) fn demand(&self) -> [f64; Tier::ALL.len()] {
        let mut demand = [0.0; Tier::ALL.len()];
        for (job, task) in &self.tasks {
            let Ask::Metric(metric) = job.ask else { continue };
            let cost = &self.costs[job.ask.place()];
            if !task.never && self.price(job.ask) < Price::Dear {
                let tier = metric.tier();
                let cost = if metric.is_essential() { cost.mean() } else { cost.mean().min(PEAK / 2) };
                let cadence = self.nominal(tier) * self.heaviness(metric);
                demand[tier as usize] += cost.as_secs_f64() / cadence.as_secs_f64();
            }
        }
        demand
    }

    /// What all cadences together may take, seconds a second.
    pub(super) fn planned() -> f64 {
        AVERAGE.as_secs_f64() * PLANNED
    }

    /// Stretches cadences so that what they cost fits: slow and rare ones up to [`FIRST_STRETCH`], then the fast one, then
    /// slow and rare ones further.
    pub(super) fn plan_stretch(&mut self) {
        let budget = Self::planned();
        let [fast, slow, rare] = self.demand();
        let others = slow + rare;
        // They are due before they are overdue, so that they still go by the budget.
        let longest_fast = (ESSENTIAL.as_secs_f64() * 0.8 / self.interval.as_secs_f64()).max(1.0);
        let (fast_stretch, other_stretch) = if fast + others <= budget {
            (1.0, 1.0)
        } else if fast + others / FIRST_STRETCH <= budget {
            (1.0, others / (budget - fast))
        } else {
            let left = (budget - others / FIRST_STRETCH).max(budget / 2.0);
            let fast_stretch = (fast / left).clamp(1.0, longest_fast);
            let left = budget - fast / fast_stretch;
            let other_stretch = if left > 0.0 { others / left } else { LONGEST_STRETCH };
            (fast_stretch, other_stretch.clamp(FIRST_STRETCH, LONGEST_STRETCH))
        };
        self.stretch = Stretch([fast_stretch, other_stretch, other_stretch]);
    }
}
