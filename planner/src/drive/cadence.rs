//! How often each node is asked to report: more often where its pools are near their limit, less often where they are
//! idle. Pure.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_common::{ids::NodeName, units::Micros, wire::Request};
use plimsoll_core::fleet::{Counter, EngineView, Fleet, Freshness, PoolKey};

/// Asked of nodes whose pools are near their limit, milliseconds.
const FAST_MS: u64 = 500;
/// Asked of nodes whose pools are idle, milliseconds.
const SLOW_MS: u64 = 5_000;
/// From this KV-cache utilization on, a pool's busiest engine is near its limit...
const KV_NEAR: f64 = 0.85;
/// ... and below this one it no longer is.
const KV_RELAXED: f64 = 0.70;
/// A queue of one request to so many running ones means that a pool is near its limit.
const RUNNING_PER_WAITING: u64 = 10;
/// How long a pool has to be relaxed before its nodes are asked for less.
const RELAX_AFTER: Micros = Micros(30_000_000);
/// How long a pool has to have had no request before its nodes are asked for less still.
const IDLE_AFTER: Micros = Micros(60_000_000);
/// At most so many nodes are asked for more: what the planner's one thread takes is bounded.
const MAX_FAST_NODES: usize = 2_000;

/// How often somebody is asked to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Less often than its agent would.
    Slow,
    /// As often as its agent does by itself.
    Own,
    /// More often.
    Fast,
}

impl Pace {
    /// What is asked of the agent.
    #[must_use]
    pub const fn request(self) -> Request {
        Request {
            report_interval_ms: match self {
                Self::Slow => Some(SLOW_MS),
                Self::Own => None,
                Self::Fast => Some(FAST_MS),
            },
        }
    }
}

/// What is remembered of each pool, so that paces do not flap.
#[derive(Debug, Default)]
pub struct Cadence {
    pools: BTreeMap<PoolKey, Pool>,
}

#[derive(Debug, Clone, Copy)]
struct Pool {
    pace: Pace,
    arrived: u64,
    /// When something was last near its limit.
    near: Option<Micros>,
    /// When there was last a request.
    active: Micros,
}

/// One pool as it is in a snapshot.
#[derive(Debug, Default, Clone, Copy)]
struct Load {
    kv: f64,
    running: u64,
    waiting: u64,
    arrived: u64,
}

impl Load {
    fn add(&mut self, engine: EngineView<'_>) {
        let gauges = engine.gauges;
        self.kv = self.kv.max(gauges.kv_cache_utilization_ratio.unwrap_or(0.0));
        self.running += gauges.running_requests.unwrap_or(0);
        self.waiting += gauges.waiting_requests.unwrap_or(0);
        self.arrived += engine.totals.get(Counter::Arrived).unwrap_or(0);
    }

    fn is_near_its_limit(&self) -> bool {
        self.kv >= KV_NEAR || self.waiting > 0 && self.waiting * RUNNING_PER_WAITING >= self.running
    }

    fn is_relaxed(&self) -> bool {
        self.kv < KV_RELAXED && self.waiting == 0
    }
}

impl Cadence {
    /// The pace of every node with engines that is not asked for its agent's own. Nodes without engines keep theirs.
    pub fn decide(&mut self, fleet: &Fleet, now: Micros) -> BTreeMap<NodeName, Pace> {
        let mut loads: BTreeMap<&PoolKey, Load> = BTreeMap::new();
        for engine in fleet.engines(now).filter(|engine| engine.status == Freshness::Live) {
            loads.entry(engine.pool).or_default().add(engine);
        }
        for (key, load) in &loads {
            let pool = self.pools.entry((*key).clone()).or_insert(Pool {
                pace: Pace::Own,
                arrived: load.arrived,
                near: None,
                active: now,
            });
            pool.step(now, load);
        }
        // A pool without a live engine is forgotten; it begins anew, at its agents' own pace.
        self.pools.retain(|key, _| loads.contains_key(key));
        self.nodes(fleet, now)
    }

    fn nodes(&self, fleet: &Fleet, now: Micros) -> BTreeMap<NodeName, Pace> {
        let mut paces: BTreeMap<NodeName, Pace> = BTreeMap::new();
        for engine in fleet.engines(now) {
            let pace = self.pools.get(engine.pool).map_or(Pace::Own, |pool| pool.pace);
            let node = paces.entry(engine.node.clone()).or_insert(pace);
            *node = (*node).max(pace);
        }
        let fast = paces.iter().filter(|(_, pace)| **pace == Pace::Fast).map(|(node, _)| node.clone());
        let too_many: BTreeSet<NodeName> = fast.skip(MAX_FAST_NODES).collect();
        paces.retain(|node, pace| *pace != Pace::Own && !too_many.contains(node));
        paces
    }
}

impl Pool {
    fn step(&mut self, now: Micros, load: &Load) {
        // A pool whose engines were forgotten counts less than before: that is no arrival, but no idleness either.
        if load.running + load.waiting > 0 || load.arrived != self.arrived {
            self.active = now;
        }
        self.arrived = load.arrived;
        let was_fast = self.pace == Pace::Fast;
        if load.is_near_its_limit() || was_fast && !load.is_relaxed() {
            self.near = Some(now);
        }
        let near = self.near.is_some_and(|at| now.saturating_sub(at) < RELAX_AFTER);
        self.pace = if near {
            Pace::Fast
        } else if now.saturating_sub(self.active) >= IDLE_AFTER {
            Pace::Slow
        } else {
            Pace::Own
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn pool() -> Pool {
        Pool { pace: Pace::Own, arrived: 0, near: None, active: Micros(0) }
    }

    fn load(kv: f64, running: u64, waiting: u64) -> Load {
        Load { kv, running, waiting, arrived: 0 }
    }

    fn step(pool: &mut Pool, second: u64, load: Load) -> Pace {
        pool.step(Micros(second * SECOND), &load);
        pool.pace
    }

    #[test]
    fn a_pool_near_its_limit_is_fast_until_it_was_relaxed_for_a_while() {
        let mut pool = pool();
        assert_eq!(step(&mut pool, 1, load(0.5, 100, 9)), Pace::Own);
        assert_eq!(step(&mut pool, 2, load(0.5, 100, 10)), Pace::Fast);
        assert_eq!(step(&mut pool, 3, load(0.8, 100, 0)), Pace::Fast);
        // Between the two bounds it stays what it is, for however long.
        assert_eq!(step(&mut pool, 300, load(0.75, 100, 0)), Pace::Fast);
        assert_eq!(step(&mut pool, 301, load(0.6, 100, 0)), Pace::Fast);
        assert_eq!(step(&mut pool, 329, load(0.6, 100, 0)), Pace::Fast);
        assert_eq!(step(&mut pool, 330, load(0.6, 100, 0)), Pace::Own);
        assert_eq!(step(&mut pool, 331, load(0.75, 100, 0)), Pace::Own);
        assert_eq!(step(&mut pool, 332, load(0.85, 1, 0)), Pace::Fast);
    }

    #[test]
    fn an_idle_pool_is_slow_until_the_first_request() {
        let mut pool = pool();
        assert_eq!(step(&mut pool, 59, load(0.0, 0, 0)), Pace::Own);
        assert_eq!(step(&mut pool, 60, load(0.0, 0, 0)), Pace::Slow);
        assert_eq!(step(&mut pool, 61, load(0.0, 1, 0)), Pace::Own);
        assert_eq!(step(&mut pool, 200, load(0.0, 0, 0)), Pace::Slow);
        // One that came and went between two looks is seen by its count.
        assert_eq!(step(&mut pool, 201, Load { arrived: 1, ..load(0.0, 0, 0) }), Pace::Own);
    }
}
