//! One pool's replicas and its door, and the choice among them.

use std::collections::VecDeque;

use plimsoll_common::units::Micros;

use super::{World, replica::Stage, router::Candidate};
use crate::policy::{DoorObservation, Drain, PoolId, ReplicaId};

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) target: u32,
    pub(super) drain: Drain,
    /// By id, each list.
    pub(super) ready: Vec<ReplicaId>,
    pub(super) starting: Vec<ReplicaId>,
    pub(super) draining: Vec<ReplicaId>,
    pub(super) unschedulable: u32,
    /// Requests at the door, since no replica is ready.
    pub(super) waiting: VecDeque<u32>,
    pub(super) door: DoorObservation,
    pub(super) failed_starts: u32,
    pub(super) started_in: Vec<Micros>,
    /// Requests routed so far.
    turn: u64,
    /// The replica that the router favours by fault, and with which share of the requests.
    pub(super) hot: Option<(u32, f64)>,
    /// Faults of the whole pool, multiplied.
    pub(super) slow: f64,
    pub(super) drift: f64,
    pub(super) silent: bool,
}

impl Pool {
    pub(super) const fn new(target: u32) -> Self {
        Self {
            target,
            drain: Drain::Wait,
            ready: Vec::new(),
            starting: Vec::new(),
            draining: Vec::new(),
            unschedulable: 0,
            waiting: VecDeque::new(),
            door: DoorObservation { arrived: 0, arrived_prompt_tokens: 0, waiting: 0 },
            failed_starts: 0,
            started_in: Vec::new(),
            turn: 0,
            hot: None,
            slow: 1.0,
            drift: 1.0,
            silent: false,
        }
    }

    pub(super) fn list(&mut self, stage: Stage) -> Option<&mut Vec<ReplicaId>> {
        match stage {
            Stage::Starting => Some(&mut self.starting),
            Stage::Ready => Some(&mut self.ready),
            Stage::Draining => Some(&mut self.draining),
            Stage::Gone => None,
        }
    }

    /// Whether this turn is the hot replica's, so that its share of all turns comes out.
    fn is_hot_turn(&self, share: f64) -> bool {
        let so_far = |turn: u64| (turn as f64 * share).floor();
        so_far(self.turn + 1) > so_far(self.turn)
    }
}

impl World<'_> {
    /// The replica that gets a request; none if none is ready.
    pub(super) fn choose(&mut self, pool_id: PoolId, request: u32) -> Option<ReplicaId> {
        let router = self.pool_config(pool_id).router;
        if self.pools[pool_id.0 as usize].ready.is_empty() {
            return None;
        }
        if router.looks() {
            for index in 0..self.pools[pool_id.0 as usize].ready.len() {
                let id = self.pools[pool_id.0 as usize].ready[index];
                self.advance(id);
            }
        }
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        let pool = &self.pools[pool_id.0 as usize];
        candidates.extend(pool.ready.iter().map(|id| self.candidate(*id, request, router.looks())));
        let hot = pool.hot.filter(|(_, share)| pool.is_hot_turn(*share)).map(|(nth, _)| nth as usize);
        let chosen = match hot.and_then(|nth| pool.ready.get(nth)) {
            Some(id) => Some(*id),
            None => router.choose(&candidates, pool.turn),
        };
        self.pools[pool_id.0 as usize].turn += 1;
        self.candidates = candidates;
        chosen
    }

    fn candidate(&self, id: ReplicaId, request: u32, look: bool) -> Candidate {
        if !look {
            return Candidate { id, held: 0, to_compute: 0, load_tokens: 0 };
        }
        let replica = &self.replicas[id.0 as usize];
        let arrival = &self.workload.arrivals()[request as usize];
        let mut candidate = Candidate { id, held: replica.held(), to_compute: 0, load_tokens: 0 };
        if replica.cache.is_some() {
            let engine = &replica.engine;
            let held_blocks = u64::from(engine.load().kv_blocks_used);
            candidate.to_compute = arrival.prompt_tokens.saturating_sub(self.cached_tokens(id, arrival));
            candidate.load_tokens =
                held_blocks * u64::from(engine.config().block_size) + engine.backlog().prefill_tokens;
        }
        candidate
    }
}
