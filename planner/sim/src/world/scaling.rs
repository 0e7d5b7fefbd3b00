//! Replicas come and go.

use plimsoll_common::units::Micros;
use plimsoll_engine::Engine;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    ConfigError, World,
    pool::Pool,
    prefix::PrefixCache,
    queue::Event,
    replica::{Meter, Replica, Stage},
};
use crate::{
    outcome::{Action, Ending, ReplicaSpan},
    policy::{Decision, Drain, PoolId, ReplicaId},
};

impl World<'_> {
    pub(super) fn apply(&mut self, decision: Decision) {
        for target in decision.targets {
            let Some(config) = self.config.pools.get(target.pool.0 as usize) else { continue };
            let replicas = target.replicas.clamp(config.min, config.max);
            let pool = &mut self.pools[target.pool.0 as usize];
            if replicas != pool.target {
                let (from, to) = (pool.target, replicas);
                self.actions.push(Action {
                    at: self.now,
                    pool: target.pool,
                    from,
                    to,
                    reason: target.reason,
                });
            }
            pool.target = replicas;
            pool.drain = target.drain;
            self.reconcile(target.pool, &target.remove_first);
        }
    }

    /// Starts or removes replicas until the target is met, as far as there are GPUs.
    pub(super) fn reconcile(&mut self, pool_id: PoolId, remove_first: &[ReplicaId]) {
        let pool = &mut self.pools[pool_id.0 as usize];
        let coming = (pool.ready.len() + pool.starting.len()) as u32;
        let target = pool.target;
        pool.unschedulable = 0;
        for missing in (coming..target).rev() {
            if !self.has_room_for(pool_id) {
                self.pools[pool_id.0 as usize].unschedulable = missing + 1 - coming;
                break;
            }
            if self.start(pool_id).is_err() {
                break;
            }
        }
        for _ in target..coming {
            let Some(victim) = self.victim(pool_id, remove_first) else { break };
            self.remove(victim);
        }
    }

    fn has_room_for(&self, pool: PoolId) -> bool {
        let Some(gpus) = self.config.gpus else { return true };
        let used = |(config, pool): (&super::PoolConfig, &Pool)| {
            (pool.ready.len() + pool.starting.len() + pool.draining.len()) as u32 * config.gpus_per_replica
        };
        let used: u32 = self.config.pools.iter().zip(&self.pools).map(used).sum();
        used + self.pool_config(pool).gpus_per_replica <= gpus
    }

    fn start(&mut self, pool: PoolId) -> Result<(), ConfigError> {
        let id = self.add(pool)?;
        let start_up = self.pool_config(pool).start_up;
        // A stream for each replica: the nth start takes equally long under every policy.
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed);
        rng.set_stream(1 + u64::from(id.0));
        let takes = start_up.mean.0 as f64 * (1.0 + start_up.spread * (2.0 * rng.random::<f64>() - 1.0));
        let fails = rng.random::<f64>() < start_up.failures;
        let at = self.now.saturating_add(Micros(takes.round() as u64));
        self.queue.plan(at, Event::Started { replica: id, fails });
        Ok(())
    }

    /// A replica that is there from the start.
    pub(super) fn add_ready(&mut self, pool: PoolId) -> Result<(), ConfigError> {
        let id = self.add(pool)?;
        self.make_ready(id);
        Ok(())
    }

    fn add(&mut self, pool_id: PoolId) -> Result<ReplicaId, ConfigError> {
        let config = self.pool_config(pool_id);
        let id = ReplicaId(self.replicas.len() as u32);
        let engine = Engine::new(config.engine.clone())
            .map_err(|source| ConfigError::Engine { pool: config.name.clone(), source })?;
        let span = ReplicaSpan {
            id,
            pool: pool_id,
            requested: self.now,
            ready: None,
            draining: None,
            gone: None,
            failed: false,
            died: false,
        };
        self.replicas.push(Replica {
            span,
            stage: Stage::Starting,
            engine,
            meter: Meter::default(),
            cache: config.prefix_cache.then(PrefixCache::default),
            inbound: 0,
            wake: None,
            slow: 1.0,
            silent: false,
        });
        self.pools[pool_id.0 as usize].starting.push(id);
        Ok(id)
    }

    pub(super) fn started(&mut self, id: ReplicaId, fails: bool) {
        if self.replica(id).stage != Stage::Starting {
            return; // It was given up before it was there.
        }
        let pool_id = self.replica(id).span.pool;
        if fails {
            self.replica(id).span.failed = true;
            self.pools[pool_id.0 as usize].failed_starts += 1;
            self.go(id, self.now);
            self.reconcile(pool_id, &[]);
            return;
        }
        let took = self.now.saturating_sub(self.replica(id).span.requested);
        self.pools[pool_id.0 as usize].started_in.push(took);
        self.make_ready(id);
        self.open_door(pool_id);
    }

    fn make_ready(&mut self, id: ReplicaId) {
        let now = self.now;
        self.replica(id).span.ready = Some(now);
        self.move_to(id, Stage::Ready);
        self.set_pace(id);
    }

    /// Tells the engine how fast it is, by all faults that concern it.
    pub(super) fn set_pace(&mut self, id: ReplicaId) {
        let seed = self.config.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(id.0);
        let pool_id = self.replica(id).span.pool;
        let pool = &self.pools[pool_id.0 as usize];
        let of_pool = pool.slow * pool.drift;
        let config = self.pool_config(pool_id);
        let replica = self.replica(id);
        replica.engine.set_pace(config.pace(seed, replica.slow * of_pool));
    }

    fn move_to(&mut self, id: ReplicaId, stage: Stage) {
        let replica = &mut self.replicas[id.0 as usize];
        let pool = &mut self.pools[replica.span.pool.0 as usize];
        if let Some(list) = pool.list(replica.stage) {
            list.retain(|other| *other != id);
        }
        replica.stage = stage;
        if let Some(list) = pool.list(stage) {
            list.insert(list.partition_point(|other| *other < id), id);
        }
    }

    /// The next one to be removed: those named first, then starting ones, the youngest first, then the ready one with
    /// the fewest requests, the youngest among equals.
    fn victim(&self, pool_id: PoolId, remove_first: &[ReplicaId]) -> Option<ReplicaId> {
        let pool = &self.pools[pool_id.0 as usize];
        let there = |id: &&ReplicaId| pool.ready.contains(id) || pool.starting.contains(id);
        if let Some(named) = remove_first.iter().find(there).or_else(|| pool.starting.last()) {
            return Some(*named);
        }
        let held = |id: &ReplicaId| self.replicas[id.0 as usize].held();
        pool.ready.iter().min_by_key(|id| (held(id), std::cmp::Reverse(**id))).copied()
    }

    fn remove(&mut self, id: ReplicaId) {
        let now = self.now;
        let replica = self.replica(id);
        if replica.stage == Stage::Starting || replica.is_idle() {
            return self.go(id, now);
        }
        replica.span.draining = Some(now);
        let drain = self.pools[self.replicas[id.0 as usize].span.pool.0 as usize].drain;
        if let Drain::AbortAfter(time) = drain {
            self.queue.plan(now.saturating_add(time), Event::Stop(id));
        }
        self.move_to(id, Stage::Draining);
    }

    pub(super) fn retire_if_idle(&mut self, id: ReplicaId) {
        let now = self.now;
        let replica = self.replica(id);
        if replica.stage == Stage::Draining && replica.is_idle() {
            let last = replica.engine.last_iteration().map_or(now, |iteration| iteration.ends_at);
            let at = last.max(replica.span.draining.unwrap_or(now));
            self.go(id, at);
        }
    }

    /// A draining replica's time is up.
    pub(super) fn stop(&mut self, id: ReplicaId) {
        if self.replica(id).stage != Stage::Draining {
            return;
        }
        self.advance(id);
        let now = self.now;
        let facts = self.replica(id).engine.abort_all(now);
        for aborted in facts {
            self.end(aborted.id.0 as u32, Ending::Aborted);
        }
        self.kick(id);
        self.go(id, now);
    }

    /// A replica dies with all that it holds; the pool asks for another.
    pub(super) fn die(&mut self, id: ReplicaId) {
        self.advance(id);
        let now = self.now;
        let replica = self.replica(id);
        let pool = replica.span.pool;
        replica.span.died = true;
        let facts = replica.engine.abort_all(now);
        self.go(id, now);
        for lost in facts {
            self.lose(lost.id.0 as u32);
        }
        self.kick(id);
        self.reconcile(pool, &[]);
    }

    fn go(&mut self, id: ReplicaId, at: Micros) {
        self.replica(id).span.gone = Some(at);
        self.move_to(id, Stage::Gone);
    }
}
