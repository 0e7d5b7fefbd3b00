//! How the budget is kept, as the pages show it.

use std::time::Duration;

use tokio::time::Instant;

use super::{AVERAGE, Ask, Governor, PEAK, SECOND, WINDOW, cadence::Price};
use crate::gpu::plan::{Metric, Tier};

/// How the budget of driver calls is kept, at one tick.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GovernorState {
    /// The most time in driver calls a second, averaged over ten.
    pub budget_average: Duration,
    /// The most time in driver calls in any one second.
    pub budget_peak: Duration,
    /// Time in driver calls in the last second.
    pub busy_last_second: Duration,
    /// Time in driver calls in the last ten seconds.
    pub busy_last_ten_seconds: Duration,
    /// The tiers, the most frequent first.
    pub tiers: Vec<TierState>,
    /// How often something that was due had to wait for a later tick, since the agent started.
    pub deferred: u64,
    /// How often a question was asked beyond the budget because it had waited too long, since the agent started.
    pub forced: u64,
    /// Groups of values that are asked less often because of their own cost, in the order in which they are asked.
    pub dear: Vec<DearQuestion>,
    /// Why cadences are stretched; absent while none is.
    pub reason: Option<String>,
}

/// How often one tier is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TierState {
    /// Which one.
    pub tier: Tier,
    /// As configured.
    pub nominal: Duration,
    /// As it is: the nominal cadence times the stretch, ten minutes at most.
    pub effective: Duration,
    /// 1 while nothing is stretched.
    pub stretch: f64,
}

/// A group of values that is asked less often than its tier because of its own cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DearQuestion {
    /// The group, by [`Metric::as_str`](crate::gpu::Metric::as_str).
    pub group: &'static str,
    /// What asking one GPU takes: the median of the last times.
    pub typical: Duration,
    /// How often each GPU is asked.
    pub interval: Duration,
    /// Whether asking once takes more than the budget of a whole second, so that each time breaks it.
    pub over_budget: bool,
}

impl Governor {
    /// What the pages show.
    pub(in crate::gpu) fn state(&self, now: Instant) -> GovernorState {
        let tiers: Vec<TierState> = Tier::ALL
            .into_iter()
            .map(|tier| {
                let (nominal, stretch) = (self.nominal(tier), self.stretch.of(tier));
                let effective = self.stretched(tier);
                TierState { tier, nominal, effective, stretch }
            })
            .collect();
        let dear = self.dear();
        let stretched = tiers.iter().any(|tier| tier.stretch > 1.0);
        let reason = stretched.then(|| {
            let without = if dear.is_empty() { "" } else { " without those that are too dear" };
            format!(
                "the driver is slow: at their cadences the calls would take {:.1} ms a second{without}, and {:.1} are planned",
                self.demand().iter().sum::<f64>() * 1e3,
                Self::planned() * 1e3
            )
        });
        GovernorState {
            budget_average: AVERAGE,
            budget_peak: PEAK,
            busy_last_second: self.spent_since(now, SECOND),
            busy_last_ten_seconds: self.spent_since(now, WINDOW),
            tiers,
            deferred: self.deferred,
            forced: self.forced.1,
            dear,
            reason,
        }
    }

    fn dear(&self) -> Vec<DearQuestion> {
        let found = Metric::ALL.iter().filter_map(|metric| {
            let ask = Ask::Metric(*metric);
            let price = self.price(ask);
            let is_dearer = price >= Price::Dear || (price == Price::Heavy && metric.tier() != Tier::Fast);
            is_dearer.then(|| DearQuestion {
                group: metric.as_str(),
                typical: self.costs[ask.place()].typical(),
                interval: self.cadence(ask),
                over_budget: price == Price::OverBudget,
            })
        });
        found.collect()
    }
}
