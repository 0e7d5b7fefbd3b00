//! Why a plan is as it is: what was seen, believed, decided, and what held it back; also when nothing moved.

use std::{collections::BTreeMap, fmt};

use plimsoll_common::{ids::PoolName, units::Micros};
use serde::{Deserialize, Serialize};

use crate::{
    forecast::MemberName,
    perf::{Known, Mix},
    plan::{Load, Needs, Refused, RoleSwitch},
    policy::HeldBack,
};

/// The explanation of one step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Explanation {
    /// Every pool, also those that did not move.
    pub pools: BTreeMap<PoolName, PoolExplanation>,
    /// Why a plan was refused; empty if it was not.
    pub refused: Vec<Refused>,
}

/// The explanation of one pool's target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoolExplanation {
    /// What was seen of it.
    pub seen: Seen,
    /// What is believed of it.
    pub believed: Believed,
    /// What was sized.
    pub load: Load,
    /// What came of it.
    pub needs: Needs,
    /// The target before.
    pub from: u32,
    /// The target now.
    pub to: u32,
    /// What made it so, the weightiest first.
    pub reasons: Vec<Reason>,
    /// The rule of the policy's `behavior` that held it back, if one did.
    pub held_back: Option<HeldBack>,
    /// The replicas that hold what is in flight.
    pub in_flight: u32,
    /// Role switches that could spare it starts, or give its replicas another use: proposed, never counted as done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub switches: Vec<RoleSwitch>,
}

/// What was seen of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Replicas that take requests.
    pub ready: u32,
    /// Replicas that start.
    pub starting: u32,
    /// Replicas that were to start and are not expected any more.
    pub overdue: u32,
    /// Replicas that cannot be placed.
    pub unschedulable: u32,
    /// Replicas that drain.
    pub draining: u32,
    /// Replicas that tell nothing.
    pub silent: u32,
    /// Requests that wait; none if nobody tells.
    pub waiting: Option<u64>,
    /// Requests in batches; none if nobody tells.
    pub running: Option<u64>,
    /// How old all this is.
    pub age: Micros,
}

/// What is believed of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Believed {
    /// What requests are like.
    pub mix: Option<Mix>,
    /// The index of dispersion of arrivals: 1 for Poisson.
    pub dispersion: f64,
    /// How much slower than its profile an engine is.
    pub factor: f64,
    /// How many times the allowed misses the tightest moment may cost.
    pub spend: f64,
    /// The share of the allowed misses that was used of late.
    pub budget_used: f64,
    /// What replicas take, and how old that is.
    pub capacity: Option<Known>,
    /// How long a replica takes to start: the 90th percentile.
    pub start_up: Micros,
    /// The forecast's members with weight, the heaviest first.
    pub forecast: Vec<(MemberName, f64)>,
}

/// Why a target is as it is. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// Sized for the forecast at the time when a replica asked for now would be ready.
    Forecast,
    /// More comes now than any forecast had: sized for what comes.
    Panic,
    /// Sized to work off what waits.
    Backlog,
    /// Sized so that the KV caches do not fill up.
    KvCache,
    /// By the policy's thresholds.
    Thresholds,
    /// Fewer would do, and more replicas are kept as the forecast may still need them.
    Keep,
    /// The policy's `behavior` held a move back.
    Behavior,
    /// Not seen for as long as a replica is kept: nothing is given back yet.
    Learning,
    /// Some replicas tell nothing: nothing is given back.
    Silence,
    /// What is in flight needs the replicas.
    InFlight,
    /// The policy's lower bound.
    Minimum,
    /// The policy's upper bound: more was needed.
    Maximum,
    /// The budget does not do for what was needed.
    Budget,
    /// There is no place for more replicas in any NVLink domain.
    NoPlace,
    /// Replicas of the model's other role could change theirs instead of being stopped while others are started.
    RoleSwitch,
    /// Replicas that were to start are not expected any more; others are asked for in their place.
    Overdue,
    /// Some engines are slower than their pool: they are counted for less, and others stand in.
    SlowEngines,
    /// A few replicas have all the load while others have room: more replicas would not help.
    HotSpot,
    /// No rate keeps the SLO on this engine with these requests.
    ImpossibleSlo,
    /// Nothing is known of demand yet.
    NoDemand,
    /// There is no profile of the engine: thresholds stand in.
    NoProfile,
    /// Nothing was told since the step before.
    NoNews,
    /// Time ran backwards: what was told is not taken, and the targets stay for one step.
    ClockSetBack,
    /// The plan was refused by its check; the targets stay.
    Refused,
    /// As it should be.
    Steady,
}

impl Reason {
    /// Every reason, for documentation and metrics.
    pub const ALL: [Self; 25] = [
        Self::Forecast,
        Self::Panic,
        Self::Backlog,
        Self::KvCache,
        Self::Thresholds,
        Self::Keep,
        Self::Behavior,
        Self::Learning,
        Self::Silence,
        Self::InFlight,
        Self::Minimum,
        Self::Maximum,
        Self::Budget,
        Self::NoPlace,
        Self::RoleSwitch,
        Self::Overdue,
        Self::SlowEngines,
        Self::HotSpot,
        Self::ImpossibleSlo,
        Self::NoDemand,
        Self::NoProfile,
        Self::NoNews,
        Self::ClockSetBack,
        Self::Refused,
        Self::Steady,
    ];

    /// The name in JSON, labels and texts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forecast => "forecast",
            Self::Panic => "panic",
            Self::Backlog => "backlog",
            Self::KvCache => "kv-cache",
            Self::Thresholds => "thresholds",
            Self::Keep => "keep",
            Self::Behavior => "behavior",
            Self::Learning => "learning",
            Self::Silence => "silence",
            Self::InFlight => "in-flight",
            Self::Minimum => "minimum",
            Self::Maximum => "maximum",
            Self::Budget => "budget",
            Self::NoPlace => "no-place",
            Self::RoleSwitch => "role-switch",
            Self::Overdue => "overdue",
            Self::SlowEngines => "slow-engines",
            Self::HotSpot => "hot-spot",
            Self::ImpossibleSlo => "impossible-slo",
            Self::NoDemand => "no-demand",
            Self::NoProfile => "no-profile",
            Self::NoNews => "no-news",
            Self::ClockSetBack => "clock-set-back",
            Self::Refused => "refused",
            Self::Steady => "steady",
        }
    }

    /// What it means, in a sentence for operators, without a full stop.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Forecast => {
                "sized for the forecast at the time when a replica asked for now would be ready"
            }
            Self::Panic => "more comes now than any forecast had: sized for what comes",
            Self::Backlog => "sized to work off what waits",
            Self::KvCache => "sized so that the KV caches do not fill up",
            Self::Thresholds => "sized by the policy's thresholds",
            Self::Keep => "fewer would do, and more are kept as the forecast may still need them",
            Self::Behavior => "the policy's behavior held the move back",
            Self::Learning => "demand is not known for long enough: nothing is given back yet",
            Self::Silence => "some replicas tell nothing: nothing is given back",
            Self::InFlight => "what is in flight needs the replicas",
            Self::Minimum => "the policy's lower bound",
            Self::Maximum => "the policy's upper bound: more was needed",
            Self::Budget => "the budget does not do for what was needed",
            Self::NoPlace => "there is no place for more replicas in any NVLink domain",
            Self::RoleSwitch => {
                "replicas of the model's other role could change theirs instead of being stopped while others start"
            }
            Self::Overdue => "replicas that were to start are not expected any more: others are asked for",
            Self::SlowEngines => {
                "some engines are slower than their pool: they are counted for less, and others stand in"
            }
            Self::HotSpot => "a few replicas have all the load: more replicas would not help",
            Self::ImpossibleSlo => "no rate keeps the SLO on this engine with these requests",
            Self::NoDemand => "nothing is known of demand yet",
            Self::NoProfile => "there is no profile of the engine: thresholds stand in",
            Self::NoNews => "nothing was told since the step before",
            Self::ClockSetBack => "time ran backwards: what was told is not taken, the targets stay",
            Self::Refused => "the plan was refused by its check: the targets stay",
            Self::Steady => "as it should be",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One line: `forecast: 3 → 5; 14.2 requests a second now, 21.0 ahead, 5.1 a replica`.
impl fmt::Display for PoolExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<&str> = self.reasons.iter().map(|reason| reason.as_str()).collect();
        let each = self.load.capacity.of(f64::from(self.to.max(1))) / f64::from(self.to.max(1));
        write!(
            f,
            "{}: {} → {}; {:.1} requests a second now, {:.1} ahead, {each:.1} a replica",
            reasons.join(", "),
            self.from,
            self.to,
            self.load.now_rps,
            self.load.ahead_rps,
        )?;
        if self.load.waiting >= 1.0 {
            write!(f, ", {:.0} wait", self.load.waiting)?;
        }
        for RoleSwitch { from, to, replicas } in &self.switches {
            write!(f, ", {replicas} of {from} could become {to}")?;
        }
        match &self.held_back {
            Some(rule) => write!(f, " ({rule})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own_that_json_uses_too() {
        let names: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
