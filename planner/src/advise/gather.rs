//! What reports brought since the step before: added up as they come, taken when a step is due.

use std::{collections::BTreeMap, sync::Arc};

use plimsoll_common::{
    engine::DistributionKind,
    histogram::layout::{highest_in, lowest_in},
    ids::{EngineId, NodeName, PoolName},
    units::Micros,
};
use plimsoll_core::{
    fleet::{
        Counts, EngineGauges, EngineIdentity, Fleet, Freshness, NodeInventory, Observation, Part, PoolKey,
        Samples,
    },
    observe::Latency,
};

use super::matching::{Matching, Wanted};

/// The edge of the last bucket of lengths, which has none: longer than any context.
const LONGEST: u64 = u32::MAX as u64;

/// A window that ended so long before the last step is no part of the next one: it tells of another time's demand.
const LATE: Micros = Micros(5_000_000);

/// Adds reports up, for the engines that belong to a pool of the policy. Bounded by the engines that the fleet takes.
#[derive(Debug)]
pub struct Gather {
    matching: Arc<Matching>,
    began: Micros,
    since: Micros,
    engines: BTreeMap<NodeName, BTreeMap<EngineId, Gains>>,
}

/// What one engine gained.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gains {
    /// What its counters gained.
    pub counts: Counts,
    /// Time to first token.
    pub ttft: Told,
    /// Time between tokens, a sample a step.
    pub itl_step: Told,
    /// Time between tokens, a sample a token.
    pub itl_token: Told,
    /// Time per output token, a sample a request.
    pub tpot: Told,
    /// Arrival to first scheduling.
    pub queue: Told,
    /// Prompt lengths of finished requests.
    pub prompts: Lengths,
    /// Output lengths of finished requests.
    pub outputs: Lengths,
}

/// A latency from buckets, and from single samples where an engine also has an exact source: both are of the same
/// requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    bucketed: Latency,
    exact: Latency,
}

impl Told {
    /// The latency; what the page tells where it tells any.
    #[must_use]
    pub const fn get(&self) -> Latency {
        if self.bucketed.count > 0 { self.bucketed } else { self.exact }
    }
}

/// Lengths of requests: so many with at most so many tokens, and all tokens together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lengths {
    /// By upper edge.
    pub buckets: BTreeMap<u64, u64>,
    /// Requests.
    pub count: u64,
    /// Tokens.
    pub sum: u64,
}

/// What the planner knows when a step is due.
#[derive(Debug)]
pub struct Seen {
    /// When that is.
    pub now: Micros,
    /// Since the step before.
    pub window: Micros,
    /// The engines that belong to a pool of the policy, by node and id.
    pub engines: Vec<EngineSeen>,
    /// How many engines belong to none, by the fleet's pools.
    pub strangers: BTreeMap<PoolKey, u64>,
}

/// One engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSeen {
    /// Where it is.
    pub node: NodeName,
    /// What does not change.
    pub identity: Arc<EngineIdentity>,
    /// The policy's pool.
    pub pool: PoolName,
    /// How fresh its gauges are.
    pub status: Freshness,
    /// How fresh what its agent tells of it is.
    pub told: Freshness,
    /// Whether its node's newest report still names it.
    pub is_listed: bool,
    /// How old its newest report is.
    pub age: Micros,
    /// The newest gauges.
    pub gauges: EngineGauges,
    /// What it gained since the step before.
    pub gains: Gains,
}

impl Gather {
    /// Begins to add up for the pools of a policy.
    #[must_use]
    pub const fn new(matching: Arc<Matching>, now: Micros) -> Self {
        Self { matching, began: now, since: now, engines: BTreeMap::new() }
    }

    /// Whether a window that ended then belongs to the step under way. After an outage, or to a planner that starts, agents
    /// send minutes of windows at once: taken for one interval's, they would look like a burst.
    #[must_use]
    pub fn covers(&self, end: Micros) -> bool {
        end >= self.began && end.saturating_add(LATE) >= self.since
    }

    /// Whether it adds up for these pools.
    #[must_use]
    pub fn is_for(&self, matching: &Arc<Matching>) -> bool {
        Arc::ptr_eq(&self.matching, matching)
    }

    /// Adds one report, applied once like everything in the fleet.
    pub fn add(&mut self, observation: &Observation) {
        let rows = observation.inventory.engines.iter().zip(&observation.engines).enumerate();
        for (row, (identity, reading)) in rows {
            let Ok((_, wanted)) = self.matching.pool_of(&identity.pool) else { continue };
            if identity.front_end {
                continue;
            }
            let of_node = match self.engines.get_mut(&observation.node) {
                Some(of_node) => of_node,
                None => self.engines.entry(observation.node.clone()).or_default(),
            };
            let gains = match of_node.get_mut(&identity.id) {
                Some(gains) => gains,
                None => of_node.entry(identity.id.clone()).or_default(),
            };
            gains.counts.add(&reading.gained);
            for part in observation.parts.iter().filter(|part| part.engine == row) {
                gains.add(part, &observation.inventory, wanted);
            }
        }
    }

    /// Takes what was gained since the last time, with the engines as they are now.
    pub fn take(&mut self, now: Micros, fleet: &Fleet) -> Seen {
        let mut gained = std::mem::take(&mut self.engines);
        let window = now.saturating_sub(self.since);
        self.since = now;
        let (mut engines, mut strangers) = (Vec::new(), BTreeMap::new());
        for view in fleet.engines(now) {
            if view.identity.front_end {
                continue;
            }
            let Ok((pool, _)) = self.matching.pool_of(view.pool) else {
                if view.is_listed {
                    *strangers.entry(view.pool.clone()).or_default() += 1;
                }
                continue;
            };
            let gains = gained.get_mut(view.node).and_then(|of_node| of_node.remove(&view.identity.id));
            let mut gains = gains.unwrap_or_default();
            if view.told == Freshness::Live {
                // Its agent reports more seldom than steps are taken: nothing came, and that is a zero.
                gains.counts.presence_of(view.totals);
            }
            engines.push(EngineSeen {
                node: view.node.clone(),
                identity: Arc::clone(view.identity),
                pool: pool.clone(),
                status: view.status,
                told: view.told,
                is_listed: view.is_listed,
                age: view.age,
                gauges: *view.gauges,
                gains,
            });
        }
        Seen { now, window, engines, strangers }
    }
}

impl Gains {
    fn add(&mut self, part: &Part, inventory: &NodeInventory, wanted: &Wanted) {
        let (told, limit) = match part.kind {
            DistributionKind::Ttft => (&mut self.ttft, wanted.ttft),
            DistributionKind::ItlStep => (&mut self.itl_step, wanted.itl),
            DistributionKind::ItlToken => (&mut self.itl_token, wanted.itl),
            DistributionKind::Tpot => (&mut self.tpot, wanted.itl),
            DistributionKind::Queue => (&mut self.queue, None),
            DistributionKind::Isl => return self.prompts.add(part, inventory),
            DistributionKind::Osl => return self.outputs.add(part, inventory),
            _ => return,
        };
        let mut latency = Latency { count: 0, sum: Micros(part.sum), within: limit.map(|_| (0, 0)) };
        for (low, high, n) in ranges(part, inventory) {
            latency.count = latency.count.saturating_add(n);
            if let (Some(limit), Some((certain, possible))) = (limit, &mut latency.within) {
                if high.is_some_and(|high| high <= limit.0) {
                    *certain = certain.saturating_add(n);
                }
                if low < limit.0 {
                    *possible = possible.saturating_add(n);
                }
            }
        }
        match part.samples {
            Samples::Buckets { .. } => told.bucketed.add(&latency),
            Samples::Cells(_) => told.exact.add(&latency),
        }
    }
}

impl Lengths {
    fn add(&mut self, part: &Part, inventory: &NodeInventory) {
        // An exact source tells the same requests once more.
        if matches!(part.samples, Samples::Cells(_)) {
            return;
        }
        self.sum = self.sum.saturating_add(part.sum);
        for (_, high, n) in ranges(part, inventory) {
            self.count = self.count.saturating_add(n);
            let held = self.buckets.entry(high.unwrap_or(LONGEST)).or_default();
            *held = held.saturating_add(n);
        }
    }
}

/// Samples by what they lie between: above the first number (0 for the first range), at or below the second.
fn ranges<'a>(
    part: &'a Part,
    inventory: &'a NodeInventory,
) -> impl Iterator<Item = (u64, Option<u64>, u64)> + 'a {
    let layout = match &part.samples {
        Samples::Buckets { layout, .. } => inventory.layouts.get(*layout),
        Samples::Cells(_) => None,
    };
    part.samples.counts().iter().map(move |(place, n)| match layout {
        Some(layout) => {
            let (low, high) = layout.bounds(*place);
            (low, high, *n)
        }
        None => {
            let cell = u16::try_from(*place).unwrap_or(u16::MAX);
            (lowest_in(cell).saturating_sub(1), Some(highest_in(cell)), *n)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_another_time_are_no_part_of_a_step() {
        let s = |s: u64| Micros(s * 1_000_000);
        let policy = "models: [{name: a, slo: {ttft: {limit: 1s}}, pools: [{name: p, max: 2, profile: llama-3.1-8b-h100-tp1}]}]";
        let checked = crate::policy::parse(policy, &mut |name| {
            plimsoll_engine::Profile::built_in(name).map_err(|error| error.to_string())
        });
        let matching = Arc::new(Matching::new(&checked.unwrap().policy));
        let mut gather = Gather::new(matching, s(100));
        // What an agent kept for a planner that starts.
        assert!(!gather.covers(s(99)) && gather.covers(s(101)));
        let fleet = Fleet::new(plimsoll_core::fleet::Limits::default());
        let _ = gather.take(s(130), &fleet);
        // A report on its way while the step was taken, and what an outage kept back.
        assert!(gather.covers(s(129)) && gather.covers(s(126)) && !gather.covers(s(120)));
    }
}
