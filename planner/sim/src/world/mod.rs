//! The world: arrivals, replicas and mishaps on one time line.
//!
//! Only what concerns more than one replica is an event. A replica that decodes is left alone until somebody wants to
//! know about it (a router that looks, a tick, a request for it) and then runs ahead to that time in one call. A
//! replica that only prefills has an event an iteration, since what it finishes goes on to another.

mod config;
mod fault_text;
mod faults;
mod observe;
mod pool;
mod prefix;
mod queue;
mod replica;
mod router;
mod scaling;
mod strike;

use plimsoll_common::{engine::Role, units::Micros};
use plimsoll_engine::{Request, RequestId};

pub use config::{ConfigError, KvTransfer, Lost, PoolConfig, Serving, StartUp, WorldConfig};
pub use fault_text::{FAULTS, FaultError};
pub use faults::{Fault, Who};
pub use router::Router;

use crate::{
    outcome::{Action, Ending, Outcome, PoolSample, RequestRecord},
    policy::{PoolId, ReplicaId, ScalingPolicy},
    workload::{Arrival, Workload},
};
use pool::Pool;
use queue::{Event, Queue};
use replica::{Feed, Replica, Stage};
use router::Candidate;

/// How often a request is begun again, with [`Lost::Retry`].
const MAX_RETRIES: u8 = 3;

/// The shortest time between two ticks.
const SHORTEST_INTERVAL: Micros = Micros(1_000);

/// A simulated world, ready to run once.
#[derive(Debug)]
pub struct World<'a> {
    config: &'a WorldConfig,
    workload: &'a Workload,
    queue: Queue,
    pools: Vec<Pool>,
    replicas: Vec<Replica>,
    requests: Vec<RequestRecord>,
    /// Requests that have not ended.
    outstanding: u64,
    next_arrival: usize,
    now: Micros,
    last_tick: Micros,
    actions: Vec<Action>,
    samples: Vec<PoolSample>,
    /// Whom each fault struck, to undo it.
    struck: Vec<Vec<ReplicaId>>,
    /// Reused between calls.
    handoffs: Vec<u32>,
    candidates: Vec<Candidate>,
}

impl<'a> World<'a> {
    /// A world at its start: the initial replicas are ready, nothing has arrived.
    ///
    /// # Errors
    /// What [`WorldConfig::validate`] finds, and requests for a model that nobody serves.
    pub fn new(config: &'a WorldConfig, workload: &'a Workload) -> Result<Self, ConfigError> {
        config.validate()?;
        let models = config.models.len();
        let stranger = |arrival: &Arrival| usize::from(arrival.model) >= models;
        if let Some(request) = workload.arrivals().iter().position(stranger) {
            let model = workload.arrivals()[request].model;
            return Err(ConfigError::NoSuchModel { request, model, models });
        }
        let mut world = Self {
            config,
            workload,
            queue: Queue::default(),
            pools: config.pools.iter().map(|pool| Pool::new(pool.initial)).collect(),
            replicas: Vec::new(),
            requests: workload.arrivals().iter().map(record_of).collect(),
            outstanding: workload.len() as u64,
            next_arrival: 0,
            now: Micros::ZERO,
            last_tick: Micros::ZERO,
            actions: Vec::new(),
            samples: Vec::new(),
            struck: vec![Vec::new(); config.faults.len()],
            handoffs: Vec::new(),
            candidates: Vec::new(),
        };
        for (index, fault) in config.faults.iter().enumerate() {
            for (step, at) in fault.steps().into_iter().enumerate() {
                world.queue.plan(at, Event::Fault { index: index as u32, step: step as u32 });
            }
        }
        for (index, pool) in config.pools.iter().enumerate() {
            for _ in 0..pool.initial {
                world.add_ready(PoolId(index as u32))?;
            }
        }
        Ok(world)
    }

    /// Runs to the end under a policy.
    #[must_use]
    pub fn run(self, policy: &mut dyn ScalingPolicy) -> Outcome {
        self.run_watched(policy, &mut |_, _| ())
    }

    /// Runs to the end under a policy and tells a watcher at every tick how much of the workload has arrived, in
    /// requests, and what time it is.
    #[must_use]
    pub fn run_watched(
        mut self,
        policy: &mut dyn ScalingPolicy,
        watcher: &mut dyn FnMut(usize, Micros),
    ) -> Outcome {
        let interval = policy.interval().max(SHORTEST_INTERVAL);
        let over = self.workload.span().saturating_add(self.config.patience);
        self.queue.plan(interval, Event::Tick);
        self.remember();
        while self.now <= over && self.outstanding > 0 {
            let arrival = self.workload.arrivals().get(self.next_arrival);
            let event_at = self.queue.next_at().unwrap_or(Micros::MAX);
            if let Some(arrival) = arrival.filter(|arrival| arrival.at <= event_at) {
                self.now = arrival.at;
                let request = self.next_arrival as u32;
                self.next_arrival += 1;
                self.arrive(request);
                continue;
            }
            let Some((at, event)) = self.queue.pop() else { break };
            self.now = at;
            if event == Event::Tick {
                watcher(self.next_arrival, at);
                self.tick(policy);
                self.queue.plan(at.saturating_add(interval), Event::Tick);
            } else {
                self.happen(event);
            }
        }
        self.conclude(policy.name())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::PrefillStep(replica) => self.prefill_step(replica),
            Event::Delivered { request, replica } => self.deliver(request, replica),
            Event::Started { replica, fails } => self.started(replica, fails),
            Event::Stop(replica) => self.stop(replica),
            Event::Fault { index, step } => self.strike(index as usize, step),
            Event::Tick => {} // The loop sees to it, since the policy is there.
        }
    }

    fn conclude(mut self, policy: String) -> Outcome {
        let over = self.workload.span().saturating_add(self.config.patience);
        let last = self.requests.iter().filter_map(|request| request.last_token).max();
        let end =
            if self.outstanding > 0 { over } else { last.unwrap_or_default().max(self.workload.span()) };
        for replica in &mut self.replicas {
            // Nothing after the end counts: it is a planner's interval that the loop ran on.
            replica.span.gone = replica.span.gone.filter(|gone| *gone <= end);
        }
        Outcome {
            policy,
            end,
            requests: self.requests,
            replicas: self.replicas.into_iter().map(|replica| replica.span).collect(),
            actions: self.actions,
            samples: self.samples,
            gpus_per_replica: self.config.pools.iter().map(|pool| pool.gpus_per_replica).collect(),
            pools: self.config.pools.iter().map(|pool| pool.name.clone()).collect(),
        }
    }

    fn pool_config(&self, pool: PoolId) -> &'a PoolConfig {
        &self.config.pools[pool.0 as usize]
    }

    fn replica(&mut self, id: ReplicaId) -> &mut Replica {
        &mut self.replicas[id.0 as usize]
    }

    fn role_of(&self, id: ReplicaId) -> Role {
        self.pool_config(self.replicas[id.0 as usize].span.pool).role
    }

    fn serving(&self, request: u32) -> Serving {
        self.config.models[usize::from(self.requests[request as usize].model)]
    }

    fn arrive(&mut self, request: u32) {
        let pool = match self.serving(request) {
            Serving::Aggregated(pool) => pool,
            Serving::Disaggregated { prefill, .. } => prefill,
        };
        self.send(pool, request);
    }

    /// Sends a request to a replica of the pool, or lets it wait at the door.
    fn send(&mut self, pool: PoolId, request: u32) {
        let meter = &mut self.pools[pool.0 as usize];
        meter.door.arrived += 1;
        meter.door.arrived_prompt_tokens += u64::from(self.requests[request as usize].prompt_tokens);
        match self.choose(pool, request) {
            Some(replica) => self.assign(replica, request),
            None => self.pools[pool.0 as usize].waiting.push_back(request),
        }
    }

    /// The door opens: a replica has become ready.
    fn open_door(&mut self, pool: PoolId) {
        while let Some(request) = self.pools[pool.0 as usize].waiting.pop_front() {
            match self.choose(pool, request) {
                Some(replica) => self.assign(replica, request),
                None => return self.pools[pool.0 as usize].waiting.push_front(request),
            }
        }
    }

    /// Gives a request to a replica: at once, or as soon as its keys and values have got there.
    fn assign(&mut self, replica: ReplicaId, request: u32) {
        if self.role_of(replica) != Role::Decode {
            return self.submit(replica, request);
        }
        self.replica(replica).inbound += 1;
        let under_way = self.config.transfer.duration(self.requests[request as usize].prompt_tokens);
        self.queue.plan(self.now.saturating_add(under_way), Event::Delivered { request, replica });
    }

    fn deliver(&mut self, request: u32, replica: ReplicaId) {
        let there = self.replica(replica);
        there.inbound -= 1;
        if there.stage == Stage::Gone {
            self.lose(request);
        } else {
            self.submit(replica, request);
        }
    }

    fn submit(&mut self, id: ReplicaId, request: u32) {
        self.advance(id);
        let role = self.role_of(id);
        let arrival = &self.workload.arrivals()[request as usize];
        let cached_tokens = self.cached_tokens(id, arrival);
        let now = self.now;
        let replica = self.replica(id);
        let submitted = Request {
            id: RequestId(u64::from(request)),
            prompt_tokens: arrival.prompt_tokens,
            output_tokens: if role == Role::Prefill { 1 } else { arrival.output_tokens },
            cached_tokens,
            prefilled: role == Role::Decode,
        };
        replica.meter.arrived += 1;
        replica.meter.arrived_prompt_tokens += u64::from(arrival.prompt_tokens);
        if replica.engine.submit(now, submitted).is_err() {
            self.end(request, Ending::Rejected);
        }
        self.kick(id);
    }

    fn cached_tokens(&self, id: ReplicaId, arrival: &Arrival) -> u32 {
        let blocks = self.replicas[id.0 as usize].cache.as_ref();
        let leading = blocks.map_or(0, |cache| cache.leading(self.workload.prefix(arrival)));
        leading.saturating_mul(self.workload.prefix_block_tokens())
    }

    fn end(&mut self, request: u32, ending: Ending) {
        self.requests[request as usize].ending = ending;
        self.outstanding -= 1;
    }

    /// What becomes of a request whose replica is no more.
    fn lose(&mut self, request: u32) {
        let record = &mut self.requests[request as usize];
        if self.config.lost == Lost::Retry && record.retries < MAX_RETRIES {
            record.retries += 1;
            self.arrive(request);
        } else {
            self.end(request, Ending::Aborted);
        }
    }

    /// Runs a replica up to now.
    fn advance(&mut self, id: ReplicaId) {
        let role = self.role_of(id);
        let replica = &mut self.replicas[id.0 as usize];
        let mut prefixes = Vec::new();
        let mut feed = Feed {
            role,
            meter: &mut replica.meter,
            requests: &mut self.requests,
            outstanding: &mut self.outstanding,
            handoffs: &mut self.handoffs,
            prefixes: replica.cache.is_some().then_some(&mut prefixes),
        };
        replica.engine.advance(self.now, &mut feed);
        if !prefixes.is_empty() {
            let capacity = replica.cache_capacity(self.workload.prefix_block_tokens());
            for request in prefixes {
                let hashes = self.workload.prefix(&self.workload.arrivals()[request as usize]);
                if let Some(cache) = &mut replica.cache {
                    cache.insert(hashes, capacity);
                }
            }
        }
    }

    /// Keeps a prefill replica's iterations coming, and hands over what it has finished.
    fn kick(&mut self, id: ReplicaId) {
        if self.role_of(id) != Role::Prefill {
            return;
        }
        let now = self.now;
        let replica = self.replica(id);
        let ends_at = replica.engine.start_iteration(now).map(|iteration| iteration.ends_at);
        if let Some(ends_at) = ends_at.filter(|at| replica.wake != Some(*at)) {
            replica.wake = Some(ends_at);
            self.queue.plan(ends_at, Event::PrefillStep(id));
        }
        for request in std::mem::take(&mut self.handoffs) {
            if let Serving::Disaggregated { decode, .. } = self.serving(request) {
                self.send(decode, request);
            }
        }
    }

    fn prefill_step(&mut self, id: ReplicaId) {
        let now = self.now;
        let replica = self.replica(id);
        if replica.wake != Some(now) || replica.stage == Stage::Gone {
            return;
        }
        replica.wake = None;
        self.advance(id);
        self.kick(id);
        self.retire_if_idle(id);
    }
}

const fn record_of(arrival: &Arrival) -> RequestRecord {
    RequestRecord {
        arrival: arrival.at,
        prompt_tokens: arrival.prompt_tokens,
        output_tokens: arrival.output_tokens,
        cached_tokens: 0,
        model: arrival.model,
        first_token: None,
        last_token: None,
        ending: Ending::Unfinished,
        retries: 0,
    }
}
