//! What happened over time, in as many points as a screen can show.

use plimsoll_common::units::Micros;
use serde::Serialize;

use super::Percentiles;
use crate::{
    outcome::{Outcome, PoolSample, RequestRecord},
    policy::PoolId,
};

/// Points of a series.
const POINTS: u64 = 300;

/// One run over time. Everything has a value a slot; `t_s` says when slots begin.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// The length of a slot, s.
    pub slot_s: f64,
    /// When each slot begins, s.
    pub t_s: Vec<f64>,
    /// Requests that arrived, a second.
    pub rate: Vec<f64>,
    /// Median TTFT of the requests that arrived in the slot, ms.
    pub ttft_p50_ms: Vec<Option<f64>>,
    /// Their 99th percentile.
    pub ttft_p99_ms: Vec<Option<f64>>,
    /// Median of their mean times between tokens, ms.
    pub itl_p50_ms: Vec<Option<f64>>,
    /// Their 99th percentile.
    pub itl_p99_ms: Vec<Option<f64>>,
    /// GPUs held at the end of the slot, those of starting and draining replicas included.
    pub gpus: Vec<u32>,
    /// GPU-hours from the start to the end of the slot.
    pub gpu_hours: Vec<f64>,
    /// Each pool.
    pub pools: Vec<PoolSeries>,
}

/// One pool over time, as its last tick in each slot found it.
#[derive(Clone, Debug, Serialize)]
pub struct PoolSeries {
    /// Its name.
    pub name: String,
    /// The target.
    pub wanted: Vec<Option<u32>>,
    /// Replicas that take requests.
    pub ready: Vec<Option<u32>>,
    /// Replicas that start.
    pub starting: Vec<Option<u32>>,
    /// Requests that wait.
    pub waiting: Vec<Option<u32>>,
}

impl Series {
    pub(super) fn of(outcome: &Outcome, span: Micros) -> Self {
        let end = outcome.end.max(span).max(Micros(1));
        let slot = Micros(end.0.div_ceil(POINTS).max(1_000_000));
        let slots = end.0.div_ceil(slot.0) as usize;
        let begins: Vec<Micros> = (0..slots as u64).map(|index| Micros(index * slot.0)).collect();
        let place = |at: Micros| ((at.0 / slot.0) as usize).min(slots - 1);
        let mut arrived: Vec<Vec<&RequestRecord>> = vec![Vec::new(); slots];
        for request in &outcome.requests {
            arrived[place(request.arrival)].push(request);
        }
        let ttft: Vec<Percentiles> =
            arrived.iter().map(|slot| Percentiles::of(slot.iter().filter_map(|r| r.ttft()))).collect();
        let itl: Vec<Percentiles> =
            arrived.iter().map(|slot| Percentiles::of(slot.iter().filter_map(|r| r.mean_itl()))).collect();
        // The last slot is shorter than the others.
        let rate = |n: usize, begin: Micros| n as f64 / end.saturating_sub(begin).min(slot).as_secs_f64();
        let ends = begins.iter().map(|begin| begin.saturating_add(slot).min(end));
        let (gpus, gpu_hours) = ends.map(|at| held(outcome, at)).unzip();
        Self {
            slot_s: slot.as_secs_f64(),
            t_s: begins.iter().map(|begin| begin.as_secs_f64()).collect(),
            rate: arrived.iter().zip(&begins).map(|(requests, begin)| rate(requests.len(), *begin)).collect(),
            ttft_p50_ms: ttft.iter().map(|p| p.p50).collect(),
            ttft_p99_ms: ttft.iter().map(|p| p.p99).collect(),
            itl_p50_ms: itl.iter().map(|p| p.p50).collect(),
            itl_p99_ms: itl.iter().map(|p| p.p99).collect(),
            gpus,
            gpu_hours,
            pools: (0..outcome.pools.len()).map(|pool| PoolSeries::of(outcome, pool, slots, place)).collect(),
        }
    }
}

impl PoolSeries {
    fn of(outcome: &Outcome, pool: usize, slots: usize, place: impl Fn(Micros) -> usize) -> Self {
        let mut last: Vec<Option<&PoolSample>> = vec![None; slots];
        for sample in outcome.samples.iter().filter(|sample| sample.pool == PoolId(pool as u32)) {
            last[place(sample.at)] = Some(sample);
        }
        // A slot without a tick shows what the one before it did.
        for slot in 1..slots {
            last[slot] = last[slot].or(last[slot - 1]);
        }
        let each = |of: fn(&PoolSample) -> u32| last.iter().map(|sample| sample.map(of)).collect();
        Self {
            name: outcome.pools[pool].clone(),
            wanted: each(|sample| sample.wanted),
            ready: each(|sample| sample.ready),
            starting: each(|sample| sample.starting),
            waiting: each(|sample| sample.waiting),
        }
    }
}

/// GPUs held at a moment, and GPU-hours until then.
fn held(outcome: &Outcome, at: Micros) -> (u32, f64) {
    let (mut gpus, mut micros) = (0, 0_u64);
    for span in &outcome.replicas {
        let each = outcome.gpus_per_replica.get(span.pool.0 as usize).copied().unwrap_or_default();
        let gone = span.gone.unwrap_or(outcome.end);
        if span.requested < at {
            gpus += if span.gone.is_none_or(|gone| gone >= at) { each } else { 0 };
            micros += gone.min(at).saturating_sub(span.requested).0 * u64::from(each);
        }
    }
    (gpus, micros as f64 / 3_600e6)
}
