//! Engines' states become replicas that are ready, start, drain or are silent.

use std::collections::BTreeMap;

use plimsoll_common::{
    ids::{EngineId, NodeName, PoolName, ReplicaId},
    units::Micros,
};
use plimsoll_core::{
    fleet::{EngineState, Freshness},
    observe::Replicas,
};

use super::gather::EngineSeen;

/// The replicas that were starting at the step before, with the time since when: what a start took is known only at its
/// end. Bounded by the engines that are seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Starts(BTreeMap<(PoolName, Unit), Micros>);

/// A replica: told by its engines, or an engine that tells none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Told(ReplicaId),
    Engine(NodeName, EngineId),
}

/// What an engine, or a replica of several, is for the planner. Of several the last counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// It serves, for so long.
    Ready(Micros),
    /// It should serve, and tells nothing.
    Silent,
    /// It finishes what it has.
    Draining,
    /// It starts, for so long.
    Starting(Micros),
}

/// What one engine is; `None` for one that is known not to serve and not to be about to.
///
/// Whatever leaves open whether an engine serves counts as ready and silent, so that nothing is given back for want of
/// news: an agent that is not heard, a page that does not answer, an engine in which nothing moves.
pub(super) fn phase(engine: &EngineSeen) -> Option<Phase> {
    if !engine.is_listed || engine.identity.follower {
        return None;
    }
    if engine.told != Freshness::Live {
        return Some(Phase::Silent);
    }
    let held = engine.gauges.state_held.unwrap_or_default().saturating_add(engine.age);
    match engine.gauges.state {
        Some(EngineState::Starting) => Some(Phase::Starting(held)),
        Some(EngineState::Draining) => Some(Phase::Draining),
        Some(EngineState::Gone | EngineState::Sleeping | EngineState::Follower) => None,
        Some(EngineState::Ready) if engine.status == Freshness::Live => Some(Phase::Ready(held)),
        // An agent of a newer build has another word for it, and reads its page.
        None if engine.status == Freshness::Live => Some(Phase::Ready(held)),
        _ => Some(Phase::Silent),
    }
}

impl Starts {
    /// The replicas of a pool; what started or failed to since the step before is told once.
    pub(super) fn replicas<'a>(
        &mut self,
        now: Micros,
        pool: &PoolName,
        engines_per_replica: u32,
        engines: impl Iterator<Item = &'a EngineSeen>,
    ) -> Replicas {
        let mut units: BTreeMap<Unit, Phase> = BTreeMap::new();
        for engine in engines {
            let Some(phase) = phase(engine) else { continue };
            let identity = &engine.identity;
            let unit = identity.replica.as_ref().map_or_else(
                || Unit::Engine(engine.node.clone(), identity.id.clone()),
                |replica| Unit::Told(replica.clone()),
            );
            // A replica is ready when its last engine is, and since then.
            units.entry(unit).and_modify(|held| *held = together(*held, phase)).or_insert(phase);
        }
        let mut replicas = self.ended(now, pool, &units);
        let (told, single): (Vec<_>, Vec<_>) =
            units.into_iter().partition(|(unit, _)| matches!(unit, Unit::Told(_)));
        count(&mut replicas, told.into_iter().map(|(_, phase)| phase), 1);
        count(&mut replicas, single.into_iter().map(|(_, phase)| phase), engines_per_replica);
        replicas.starting.sort_unstable();
        replicas.started_in.sort_unstable();
        // Nobody tells what was asked for: what is there, or on its way, is what is in force.
        replicas.target = Some(replicas.coming());
        replicas
    }

    /// Starts that ended since the step before, and those that go on remembered.
    fn ended(&mut self, now: Micros, pool: &PoolName, units: &BTreeMap<Unit, Phase>) -> Replicas {
        let mut replicas = Replicas::default();
        self.0.retain(|(of, unit), since| {
            if of != pool {
                return true;
            }
            match units.get(unit) {
                Some(Phase::Ready(held)) => {
                    replicas.started_in.push(now.saturating_sub(*held).saturating_sub(*since));
                    false
                }
                Some(Phase::Starting(_) | Phase::Silent) => true,
                Some(Phase::Draining) => false,
                None => {
                    replicas.failed_starts = replicas.failed_starts.saturating_add(1);
                    false
                }
            }
        });
        for (unit, phase) in units {
            if let Phase::Starting(held) = phase {
                self.0.entry((pool.clone(), unit.clone())).or_insert_with(|| now.saturating_sub(*held));
            }
        }
        replicas
    }

    /// Forgets the pools that are no longer in the policy.
    pub(super) fn keep(&mut self, is_known: impl Fn(&PoolName) -> bool) {
        self.0.retain(|(pool, _), _| is_known(pool));
    }
}

/// Two engines of one replica: the one that is further from serving decides; of two that serve, the one that does for
/// the shorter time, of two that start, the one that does for the longer.
fn together(a: Phase, b: Phase) -> Phase {
    match (a, b) {
        (Phase::Ready(a), Phase::Ready(b)) => Phase::Ready(a.min(b)),
        (a, b) => a.max(b),
    }
}

fn count(replicas: &mut Replicas, phases: impl Iterator<Item = Phase>, each: u32) {
    let (mut ready, mut silent, mut draining, mut starting) = (0u32, 0u32, 0u32, Vec::new());
    for phase in phases {
        match phase {
            Phase::Ready(_) => ready += 1,
            Phase::Silent => silent += 1,
            Phase::Draining => draining += 1,
            Phase::Starting(age) => starting.push(age),
        }
    }
    let each = each.max(1);
    // Silent ones count as ready; what is left over of the ready ones is no whole replica.
    replicas.ready += (ready + silent) / each;
    replicas.silent += silent.div_ceil(each).min((ready + silent) / each);
    replicas.draining += draining.div_ceil(each);
    starting.sort_unstable();
    // A replica waits for the last of its engines: the one that began last.
    replicas.starting.extend(starting.chunks(each as usize).filter_map(|engines| engines.first()).copied());
}
