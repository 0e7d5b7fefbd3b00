//! Ticks: what a policy gets to see, and what reports remember.

use super::{World, replica::Stage};
use crate::{
    outcome::PoolSample,
    policy::{
        DoorObservation, Observation, PoolId, PoolObservation, ReplicaId, ReplicaObservation, ScalingPolicy,
    },
};

impl World<'_> {
    pub(super) fn tick(&mut self, policy: &mut dyn ScalingPolicy) {
        for pool in 0..self.pools.len() {
            self.look(PoolId(pool as u32));
        }
        if self.outstanding == 0 {
            return;
        }
        let window = self.now.saturating_sub(self.last_tick);
        let pools = (0..self.pools.len()).map(|pool| self.observe(PoolId(pool as u32))).collect();
        self.last_tick = self.now;
        let decision = policy.decide(self.now, &Observation { window, pools });
        self.apply(decision);
        for pool in 0..self.pools.len() {
            if self.pools[pool].unschedulable > 0 {
                self.reconcile(PoolId(pool as u32), &[]);
            }
        }
        self.remember();
    }

    /// Notes what every pool looks like, for reports.
    pub(super) fn remember(&mut self) {
        for pool in 0..self.pools.len() {
            let sample = self.sample(PoolId(pool as u32));
            self.samples.push(sample);
        }
    }

    /// Brings every replica of a pool up to now.
    fn look(&mut self, pool: PoolId) {
        for id in self.living(pool) {
            self.advance(id);
            self.kick(id);
            self.retire_if_idle(id);
        }
    }

    /// Ready and draining replicas, by id.
    fn living(&self, pool: PoolId) -> Vec<ReplicaId> {
        let pool = &self.pools[pool.0 as usize];
        let mut ids: Vec<ReplicaId> = pool.ready.iter().chain(&pool.draining).copied().collect();
        ids.sort_unstable();
        ids
    }

    fn observe(&mut self, id: PoolId) -> PoolObservation {
        let living = self.living(id);
        let telling = |world: &Self, id: &ReplicaId| !world.replicas[id.0 as usize].silent;
        let replicas = if self.pools[id.0 as usize].silent {
            Vec::new()
        } else {
            living.iter().filter(|id| telling(self, id)).map(|id| self.observe_replica(*id)).collect()
        };
        let role = self.pool_config(id).role;
        let requested = |id: &ReplicaId| self.replicas[id.0 as usize].span.requested;
        let starting = self.pools[id.0 as usize].starting.iter().map(requested).collect();
        let pool = &mut self.pools[id.0 as usize];
        let waiting = pool.waiting.len() as u32;
        let door = std::mem::take(&mut pool.door);
        let observation = PoolObservation {
            id,
            role,
            target: pool.target,
            ready: pool.ready.len() as u32,
            starting,
            unschedulable: pool.unschedulable,
            draining: pool.draining.len() as u32,
            failed_starts: std::mem::take(&mut pool.failed_starts),
            started_in: std::mem::take(&mut pool.started_in),
            replicas,
            door: self.config.door_observed.then_some(DoorObservation { waiting, ..door }),
        };
        // Counters are cumulative in life: what a silent replica gained is seen when it speaks again. So its window
        // stays open.
        if !self.pools[id.0 as usize].silent {
            for replica in living {
                let replica = self.replica(replica);
                if !replica.silent {
                    let totals = *replica.engine.totals();
                    replica.meter.begin(&totals);
                }
            }
        }
        observation
    }

    fn observe_replica(&self, id: ReplicaId) -> ReplicaObservation {
        let replica = &self.replicas[id.0 as usize];
        let (load, backlog) = (replica.engine.load(), replica.engine.backlog());
        let last = replica.engine.last_iteration().filter(|iteration| iteration.ends_at > self.last_tick);
        ReplicaObservation {
            id,
            draining: replica.stage == Stage::Draining,
            ready_since: replica.span.ready.unwrap_or_default(),
            running: load.running,
            waiting: load.waiting,
            kv_usage: load.kv_usage(),
            queued_prefill_tokens: backlog.prefill_tokens,
            decode_sequences: backlog.decode_sequences,
            decode_context: backlog.decode_context,
            queued_context: backlog.queued_context,
            last_iteration: last.map(|i| (i.stats, i.ends_at.saturating_sub(i.started_at))),
            gained: replica.meter.gained(replica.engine.totals()),
            ttft: replica.meter.ttft.clone(),
            itl: replica.meter.itl.clone(),
            queue_time: replica.meter.queue_time.clone(),
            prompt_lengths: replica.meter.prompt_lengths.clone(),
            output_lengths: replica.meter.output_lengths.clone(),
        }
    }

    fn sample(&self, id: PoolId) -> PoolSample {
        let pool = &self.pools[id.0 as usize];
        let (mut running, mut waiting, mut usage) = (0, pool.waiting.len() as u32, 0.0);
        let living = self.living(id);
        for id in &living {
            let load = self.replicas[id.0 as usize].engine.load();
            running += load.running;
            waiting += load.waiting;
            usage += load.kv_usage();
        }
        PoolSample {
            at: self.now,
            pool: id,
            wanted: pool.target,
            ready: pool.ready.len() as u32,
            starting: pool.starting.len() as u32,
            draining: pool.draining.len() as u32,
            running,
            waiting,
            kv_usage: if living.is_empty() { 0.0 } else { usage / living.len() as f64 },
        }
    }
}
