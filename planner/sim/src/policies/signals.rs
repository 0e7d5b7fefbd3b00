//! Fewer signals than an engine's page has: what a host that knows little of its engines would tell the core.

use std::collections::BTreeMap;

use plimsoll_common::{ids::PoolName, units::Micros};
use plimsoll_core::{
    infer::Starts,
    observe::{Engine, Gained, Observation, Replicas},
};

/// How much the core is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signals {
    /// All that a page has.
    #[default]
    All,
    /// Of engines: running, waiting, KV cache, requests finished, tokens, mean latencies. Of replicas: their numbers.
    Few,
    /// The same without requests finished.
    Least,
}

/// Leaves out what is not told, and remembers what a host would have to.
#[derive(Debug, Default)]
pub(super) struct Dimmed {
    signals: Signals,
    starts: BTreeMap<PoolName, Starts>,
}

impl Dimmed {
    pub(super) fn new(signals: Signals) -> Self {
        Self { signals, starts: BTreeMap::new() }
    }

    pub(super) fn observation(&mut self, now: Micros, seen: Observation) -> Observation {
        if self.signals == Signals::All {
            return seen;
        }
        let Observation { pool, window, replicas, engines, .. } = seen;
        let started = self.starts.entry(pool.clone()).or_default().observe(
            now,
            replicas.starting.len() as u32,
            replicas.ready,
        );
        let replicas = Replicas {
            ready: replicas.ready,
            starting: started.starting,
            started_in: started.started_in,
            draining: replicas.draining,
            silent: replicas.silent,
            ..Replicas::default()
        };
        let engines = engines.into_iter().map(|(id, engine)| (id, self.engine(window, &engine))).collect();
        Observation { replicas, engines, ..Observation::new(pool, window) }
    }

    fn engine(&self, window: Micros, told: &Engine) -> Engine {
        let mut engine = Engine {
            draining: told.draining,
            running: told.running,
            waiting: told.waiting,
            kv_utilization: told.kv_utilization,
            gained: Gained {
                finished: told.gained.finished.filter(|_| self.signals == Signals::Few),
                prefilled_tokens: told.gained.prefilled_tokens,
                generated_tokens: told.gained.generated_tokens,
                ..Gained::default()
            },
            ..Engine::default()
        };
        engine.take_means(window, told.ttft.mean_s(), told.itl.mean_s());
        engine
    }
}
