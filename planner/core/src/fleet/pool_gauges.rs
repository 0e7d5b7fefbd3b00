//! Engines of a pool or model, summed up.

use std::collections::BTreeSet;

use plimsoll_common::{
    ids::{GpuUuid, NodeName},
    units::Micros,
};
use serde::Serialize;

use super::{
    limits::Freshness,
    node::Engine,
    observation::{EngineGauges, EngineState},
    snapshot::{EngineStates, Tally},
};

/// Engines of a pool or model together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PoolGauges {
    /// Engines by freshness.
    pub engines: Tally,
    /// Live engines that serve.
    pub engines_ready: u64,
    /// Engines by the state in which their agents see them; those of nodes that are not live are in none.
    pub engine_states: EngineStates,
    /// Different replicas; an engine without one counts as one.
    pub replicas: u64,
    /// Different GPUs; absent where no engine's GPUs are declared.
    pub gpus: Option<u64>,
    /// Requests in the running batches of live engines; absent where none tells.
    pub running_requests: Option<u64>,
    /// Requests waiting in live engines; absent where none tells.
    pub waiting_requests: Option<u64>,
    /// Of these, those that wait for room in the batch or in the KV cache; absent where no engine tells.
    pub waiting_for_capacity_requests: Option<u64>,
    /// Of these, those that wait for something else than room; absent where no engine tells.
    pub waiting_deferred_requests: Option<u64>,
    /// Requests that keep their place while their engine is paused; absent where no engine tells.
    pub paused_requests: Option<u64>,
    /// Requests within live front-ends; they are the engines' requests, seen once more.
    pub frontend_inflight_requests: Option<u64>,
    /// Requests within live front-ends that have no first token yet.
    pub frontend_queued_requests: Option<u64>,
    /// Mean KV-cache utilization of live engines, 0 to 1.
    pub kv_cache_utilization_ratio_mean: Option<f64>,
    /// Highest KV-cache utilization of a live engine, 0 to 1.
    pub kv_cache_utilization_ratio_max: Option<f64>,
    /// Highest utilization of the tier below the KV cache, 0 to 1.
    pub kv_offload_utilization_ratio_max: Option<f64>,
    /// Requests queued for prefill, by the schedulers' own count; absent where no engine's forward passes are heard.
    pub queued_prefill_requests: Option<u64>,
    /// Prompt tokens of those.
    pub queued_prefill_tokens: Option<u64>,
    /// Requests queued for decode, by the schedulers' own count.
    pub queued_decode_requests: Option<u64>,
    /// Highest share of its last window that a live engine spent in forward passes, 0 to 1.
    pub forward_pass_busy_ratio_max: Option<f64>,
    /// The oldest signal of a live engine whose gauges only move when a request ends.
    pub signal_age_seconds_max: Option<f64>,
}

/// How an engine is seen at an instant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// How fresh its gauges are.
    pub(super) status: Freshness,
    /// Its state, where its node is live. An engine's page may be long gone while its agent is there and says so.
    pub(super) state: Option<EngineState>,
    /// For how long its values stay live.
    pub(super) fresh: Micros,
}

/// Sums engines of a pool or model, one after the other.
#[derive(Debug, Default)]
pub(super) struct PoolSums<'a> {
    gauges: PoolGauges,
    replicas: BTreeSet<(Option<&'a str>, &'a str)>,
    gpus: BTreeSet<&'a GpuUuid>,
    kv: (f64, u64),
    /// The longest time for which an engine's values stay live.
    fresh: Micros,
}

impl<'a> PoolSums<'a> {
    pub(super) fn add(&mut self, node: &'a NodeName, engine: &'a Engine, seen: Seen) {
        let (identity, Seen { status, state, fresh }) = (&engine.identity, seen);
        self.fresh = self.fresh.max(fresh);
        if identity.front_end {
            // It serves no tokens: it is no engine of the pool, and no replica.
            if status == Freshness::Live {
                self.add_front_end(&engine.gauges);
            }
            return;
        }
        self.gauges.engines.count(status);
        if let Some(state) = state {
            self.gauges.engine_states.count(state);
        }
        // A replica may span nodes, an engine without one is its own.
        self.replicas.insert(
            identity
                .replica
                .as_ref()
                .map_or((Some(node.as_str()), identity.id.as_str()), |id| (None, id.as_str())),
        );
        self.gpus.extend(&identity.gpus);
        if status != Freshness::Live {
            return;
        }
        let gauges = &engine.gauges;
        self.gauges.engines_ready += u64::from(gauges.state == Some(EngineState::Ready));
        add(&mut self.gauges.running_requests, gauges.running_requests);
        add(&mut self.gauges.waiting_requests, gauges.waiting_requests);
        add(&mut self.gauges.waiting_for_capacity_requests, gauges.waiting_for_capacity_requests);
        add(&mut self.gauges.waiting_deferred_requests, gauges.waiting_deferred_requests);
        add(&mut self.gauges.paused_requests, gauges.paused_requests);
        if let Some(kv) = gauges.kv_cache_utilization_ratio {
            self.kv = (self.kv.0 + kv, self.kv.1 + 1);
        }
        let fullest = gauges.kv_cache_utilization_ratio_max.or(gauges.kv_cache_utilization_ratio);
        raise(&mut self.gauges.kv_cache_utilization_ratio_max, fullest);
        raise(&mut self.gauges.kv_offload_utilization_ratio_max, gauges.kv_offload_utilization_ratio);
        raise(&mut self.gauges.signal_age_seconds_max, gauges.signal_age_seconds);
        add(&mut self.gauges.queued_prefill_requests, gauges.queued_prefill_requests);
        add(&mut self.gauges.queued_prefill_tokens, gauges.queued_prefill_tokens);
        add(&mut self.gauges.queued_decode_requests, gauges.queued_decode_requests);
        raise(&mut self.gauges.forward_pass_busy_ratio_max, gauges.forward_pass_busy_ratio);
    }

    fn add_front_end(&mut self, gauges: &EngineGauges) {
        add(&mut self.gauges.frontend_inflight_requests, gauges.frontend_inflight_requests);
        add(&mut self.gauges.frontend_queued_requests, gauges.frontend_queued_requests);
    }

    pub(super) fn finish(mut self) -> (PoolGauges, Micros) {
        self.gauges.replicas = self.replicas.len() as u64;
        self.gauges.gpus = (!self.gpus.is_empty()).then_some(self.gpus.len() as u64);
        let (sum, n) = self.kv;
        self.gauges.kv_cache_utilization_ratio_mean = (n > 0).then(|| sum / n as f64);
        (self.gauges, self.fresh)
    }
}

/// Adds what may be absent: a sum is absent where every term is.
pub(super) fn add(sum: &mut Option<u64>, value: Option<u64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0).saturating_add(value));
    }
}

/// Raises what may be absent to a value that may be absent.
fn raise(max: &mut Option<f64>, value: Option<f64>) {
    if let Some(value) = value {
        *max = Some(max.map_or(value, |max| max.max(value)));
    }
}
