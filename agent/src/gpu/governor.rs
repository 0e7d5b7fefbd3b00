//! The budget of driver calls, and how it is kept.

use std::time::Duration;

use super::plan::Tier;

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
    /// Groups of values whose calls alone would break the budget: they are asked every ten minutes at most.
    pub too_dear: Vec<&'static str>,
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
    /// As it is: the nominal cadence times the stretch.
    pub effective: Duration,
    /// 1 while nothing is stretched.
    pub stretch: f64,
}
