//! The fleet's reports become one observation a pool. Pure.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_common::{
    ids::{EngineId, ModelName, PoolName},
    units::Micros,
};
use plimsoll_core::{
    fleet::{Counter, Counts, Freshness},
    observe::{Door, Engine, Gained, Latency, Observation, Replicas},
};
use serde::Serialize;

use super::{
    gather::{EngineSeen, Gains, Lengths, Seen},
    matching::Matching,
    replicas::{Phase, Starts, phase},
};

/// What folding remembers from one step to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    starts: Starts,
    /// Pools of which an engine was seen.
    known: BTreeSet<PoolName>,
}

/// What an operator should know of how policy and fleet fit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "finding", rename_all = "kebab-case")]
pub enum Finding {
    /// No engine reports for a pool of the policy.
    PoolWithoutEngines {
        /// The policy's pool.
        pool: PoolName,
    },
    /// Engines belong to no pool of the policy.
    EnginesWithoutPool {
        /// The fleet's pool.
        pool: String,
        /// How many there are.
        engines: u64,
        /// Why.
        why: String,
    },
    /// The front-end of a model does not tell its demand: the engines' own arrivals count.
    DemandUnknown {
        /// The model.
        model: ModelName,
        /// Why.
        why: String,
    },
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PoolWithoutEngines { pool } => {
                write!(f, "no engine reports for the policy's pool {pool}")
            }
            Self::EnginesWithoutPool { pool, engines, why } => {
                write!(f, "{engines} engines of the pool {pool} belong to no pool of the policy: {why}")
            }
            Self::DemandUnknown { model, why } => {
                write!(f, "the front-end of {model} does not tell its demand: {why}")
            }
        }
    }
}

/// One observation a pool of which an engine was ever seen, by name, and what does not fit.
///
/// A pool that was never seen is not told of, so that a planner that has just started does not take an empty fleet for a
/// small one; a front door may change that.
#[must_use]
pub fn fold(seen: &Seen, matching: &Matching, memory: &mut Memory) -> (Vec<Observation>, Vec<Finding>) {
    let mut by_pool: BTreeMap<&PoolName, Vec<&EngineSeen>> = BTreeMap::new();
    for engine in &seen.engines {
        by_pool.entry(&engine.pool).or_default().push(engine);
    }
    let (mut observations, mut findings) = (Vec::new(), Vec::new());
    for (pool, wanted) in matching.pools() {
        let engines = by_pool.get(pool).map(Vec::as_slice).unwrap_or_default();
        if engines.iter().any(|engine| engine.is_listed) {
            memory.known.insert(pool.clone());
        } else {
            findings.push(Finding::PoolWithoutEngines { pool: pool.clone() });
        }
        if !memory.known.contains(pool) {
            continue;
        }
        let replicas =
            memory.starts.replicas(seen.now, pool, wanted.engines_per_replica, engines.iter().copied());
        let told = engines.iter().filter_map(|engine| Some((id(engine), told(engine)?)));
        observations.push(Observation {
            replicas,
            engines: told.collect(),
            ..Observation::new(pool.clone(), seen.window)
        });
    }
    let is_known = |pool: &PoolName| matching.pools().any(|(known, _)| known == pool);
    memory.starts.keep(is_known);
    memory.known.retain(is_known);
    for (key, engines) in &seen.strangers {
        if let Err(why) = matching.pool_of(key) {
            let (pool, why) = (key.to_string(), why.to_string());
            findings.push(Finding::EnginesWithoutPool { pool, engines: *engines, why });
        }
    }
    (observations, findings)
}

/// Adds what front-ends told. A pool without engines has its demand all the same: it is what brings the first.
pub(super) fn at_doors(observations: &mut Vec<Observation>, doors: BTreeMap<PoolName, Door>, window: Micros) {
    for (pool, door) in doors {
        match observations.binary_search_by(|seen| seen.pool.cmp(&pool)) {
            Ok(at) => observations[at].door = Some(door),
            Err(at) => {
                let none = Replicas { target: Some(0), ..Replicas::default() };
                let seen = Observation { door: Some(door), replicas: none, ..Observation::new(pool, window) };
                observations.insert(at, seen);
            }
        }
    }
}

/// A name that is unique over the nodes.
fn id(engine: &EngineSeen) -> EngineId {
    let own = &engine.identity.id;
    EngineId::parse(&format!("{}/{own}", engine.node)).unwrap_or_else(|_| own.clone())
}

/// What an engine told; `None` for one that told nothing.
fn told(engine: &EngineSeen) -> Option<Engine> {
    let (gains, gauges) = (&engine.gains, &engine.gauges);
    let phase = phase(engine);
    let shown = matches!(phase, Some(Phase::Ready(_) | Phase::Draining)) && engine.status == Freshness::Live;
    if !shown && gains == &Gains::default() {
        return None;
    }
    Some(Engine {
        draining: phase == Some(Phase::Draining),
        running: gauges.running_requests.filter(|_| shown),
        waiting: gauges.waiting_requests.filter(|_| shown),
        kv_utilization: gauges.kv_cache_utilization_ratio.filter(|_| shown),
        queued_prefill_tokens: gauges.queued_prefill_tokens.filter(|_| shown),
        gained: gained(gains),
        ttft: gains.ttft.get(),
        itl: itl(gains),
        queue_time: gains.queue.get(),
        prompt_lengths: gains.prompts.buckets.iter().map(|(edge, n)| (*edge, *n)).collect(),
        output_lengths: gains.outputs.buckets.iter().map(|(edge, n)| (*edge, *n)).collect(),
    })
}

/// Between tokens: by step, by token, or from the means of requests, whatever the engine publishes.
fn itl(gains: &Gains) -> Latency {
    let samples = [gains.itl_step.get(), gains.itl_token.get()].into_iter().find(|itl| itl.count > 0);
    samples.unwrap_or_else(|| {
        // A mean a request counts for all its tokens but the first; what of them was in time is not told.
        let tpot = gains.tpot.get();
        let gaps = gains.outputs.sum.saturating_sub(gains.outputs.count);
        match tpot.mean_s() {
            Some(mean) if gaps > 0 => Latency {
                count: gaps,
                sum: Micros::from_secs_f64(mean * gaps as f64).unwrap_or_default(),
                within: None,
            },
            _ => Latency::default(),
        }
    })
}

fn gained(gains: &Gains) -> Gained {
    let get = |counter| gains.counts.get(counter);
    let prompts = get(Counter::PromptTokens);
    let hits = get(Counter::PrefixHits);
    let lengths = |of: &Lengths| (of.count > 0).then_some(of.sum);
    let told = gains.prompts.count.max(gains.outputs.count);
    let by_lengths = told > 0;
    Gained {
        arrived: get(Counter::Arrived),
        arrived_prompt_tokens: None,
        // Means are of the requests whose lengths are told; without lengths the counters' totals stand in.
        finished: if by_lengths { Some(told) } else { finished(&gains.counts) },
        finished_prompt_tokens: if by_lengths { lengths(&gains.prompts) } else { prompts },
        finished_output_tokens: if by_lengths {
            lengths(&gains.outputs)
        } else {
            get(Counter::GenerationTokens)
        },
        prefix_query_tokens: get(Counter::PrefixQueries),
        prefix_hit_tokens: hits,
        prefilled_tokens: prompts.map(|prompts| prompts.saturating_sub(hits.unwrap_or(0))),
        generated_tokens: get(Counter::GenerationTokens),
        accepted_draft_tokens: get(Counter::AcceptedTokens),
        iterations: None,
        preemptions: get(Counter::Preemptions),
    }
}

/// Requests that finished with an answer.
fn finished(counts: &Counts) -> Option<u64> {
    let of = [Counter::FinishedStop, Counter::FinishedLength, Counter::Ended];
    let mut told = of.iter().filter_map(|counter| counts.get(*counter)).peekable();
    told.peek()?;
    Some(told.fold(0, u64::saturating_add))
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
