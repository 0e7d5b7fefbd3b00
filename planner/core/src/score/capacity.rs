//! GPU-hours, and what of them was too much or missing.

use std::collections::BTreeMap;

use plimsoll_common::units::Micros;
use serde::Serialize;

/// One replica's life, as far as it is billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaTimes {
    /// Its pool's number.
    pub pool: u32,
    /// GPUs that it holds.
    pub gpus: u32,
    /// When it was asked for and got its GPUs: billing starts.
    pub requested: Micros,
    /// When it took requests; none if it never did.
    pub ready: Option<Micros>,
    /// When it was told to take no more.
    pub draining: Option<Micros>,
    /// When its GPUs were free; none for "still there".
    pub gone: Option<Micros>,
}

/// GPU time, in hours of one GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct GpuHours {
    /// All that was held: start-up and drain are billed like work.
    pub total: f64,
    /// Of it, before replicas were ready; starts that failed or were given up included.
    pub starting: f64,
    /// Of it, after they were told to take no more.
    pub draining: f64,
}

/// How far ready capacity was from what was needed, in hours of one GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Provision {
    /// Ready and not needed.
    pub over: f64,
    /// Needed and not ready.
    pub under: f64,
}

const HOUR: f64 = 3_600e6;

impl GpuHours {
    pub(super) fn add(&mut self, replica: &ReplicaTimes, end: Micros) {
        let gone = replica.gone.unwrap_or(end).min(end);
        let hours =
            |from: Micros, to: Micros| to.saturating_sub(from).0 as f64 / HOUR * f64::from(replica.gpus);
        self.total += hours(replica.requested, gone);
        self.starting += hours(replica.requested, replica.ready.unwrap_or(gone).min(gone));
        if let Some(draining) = replica.draining {
            self.draining += hours(draining, gone);
        }
    }
}

/// Compares ready replicas with what was needed: `need` holds from when on how many were, in the order of time.
pub(super) fn provision(
    replicas: &[ReplicaTimes],
    needs: &BTreeMap<u32, Vec<(Micros, u32)>>,
    end: Micros,
) -> Provision {
    let mut provision = Provision::default();
    for (pool, need) in needs {
        // Changes of ready and of needed replicas on one time line; what is needed is set, not added.
        let mut changes: Vec<(Micros, i64, Option<u32>)> =
            need.iter().map(|(at, replicas)| (*at, 0, Some(*replicas))).collect();
        let mut gpus = 1;
        for replica in replicas.iter().filter(|replica| replica.pool == *pool) {
            gpus = replica.gpus;
            let Some(ready) = replica.ready else { continue };
            changes.push((ready, 1, None));
            if let Some(over) = replica.draining.or(replica.gone) {
                changes.push((over, -1, None));
            }
        }
        changes.push((end, 0, None));
        changes.sort_by_key(|(at, _, _)| *at);
        let (mut ready, mut needed, mut then) = (0_i64, 0_i64, Micros::ZERO);
        for (at, change, set) in changes {
            let hours = at.min(end).saturating_sub(then).0 as f64 / HOUR * f64::from(gpus);
            provision.over += (ready - needed).max(0) as f64 * hours;
            provision.under += (needed - ready).max(0) as f64 * hours;
            then = then.max(at.min(end));
            ready += change;
            needed = set.map_or(needed, i64::from);
        }
    }
    provision
}
