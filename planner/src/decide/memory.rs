//! What must be remembered of a pool from line to line.

use std::collections::BTreeMap;

use plimsoll_common::{
    ids::{EngineId, PoolName},
    units::Micros,
};
use plimsoll_core::{
    infer::Starts,
    observe::{Door, Gained, Observation, Replicas},
    score::Slo,
    spec::PoolSpec,
};

use super::{
    engine::{COUNTERS, Told as Engine},
    pool::{Starting, Told},
};

/// The most engines that a pool told as a whole is taken apart into: beyond that they are all alike.
const MOST_APART: u32 = 10_000;

/// One pool.
#[derive(Debug)]
pub(super) struct Pool {
    name: PoolName,
    slo: Option<Slo>,
    engines_per_replica: u32,
    kv_tokens: Option<u64>,
    /// When it was told of last.
    at: Option<Micros>,
    ready: Option<u32>,
    starts: Starts,
    /// Totals of the engines and of the pool as a whole, as last told.
    totals: BTreeMap<EngineId, Gained>,
    whole: Option<Gained>,
}

impl Pool {
    pub(super) fn new(spec: &PoolSpec) -> Self {
        Self {
            name: spec.name.clone(),
            slo: spec.slo,
            engines_per_replica: spec.engines_per_replica.max(1),
            kv_tokens: spec.engine.as_ref().map(plimsoll_engine::EngineConfig::kv_tokens),
            at: None,
            ready: None,
            starts: Starts::default(),
            totals: BTreeMap::new(),
            whole: None,
        }
    }

    /// The window that a line at `now` tells of: as it says, or since this pool was told of last.
    pub(super) fn window(&self, now: Micros, told: Option<Micros>, usual: Micros) -> Micros {
        told.unwrap_or_else(|| self.at.map_or(usual, |at| now.saturating_sub(at)))
    }

    /// What was told as the core takes it; none where nothing was told that it could stand on. Without `counts`, what was
    /// gained is left out: nobody knows over which time.
    pub(super) fn observation(
        &mut self,
        now: Micros,
        window: Micros,
        mut told: Told,
        counts: bool,
    ) -> Option<Observation> {
        self.gain(&mut told);
        let ready = told.ready.or_else(|| self.telling(&told)).or(self.ready)?;
        self.ready = Some(ready);
        self.at = Some(now);
        if !counts {
            forget_gains(&mut told);
        }
        let silent = told.silent.unwrap_or_else(|| {
            // Who tells pools as a whole tells nothing of single engines' silence.
            self.telling(&told).map_or(0, |telling| ready.saturating_sub(telling))
        });
        let replicas = self.replicas(now, &told, ready, silent.min(ready));
        let door = door(&told, ready);
        let mut seen = Observation::new(self.name.clone(), window);
        seen.replicas = replicas;
        seen.door = door;
        seen.lengths = told.lengths;
        self.spread(&mut told, ready);
        let (slo, kv_tokens) = (self.slo, self.kv_tokens);
        let engines = told.engines.into_iter().flatten();
        seen.engines = engines
            .filter(|(_, engine)| !engine.is_empty())
            .map(|(id, engine)| (id, engine.engine(window, slo, kv_tokens)))
            .collect();
        Some(seen)
    }

    fn replicas(&mut self, now: Micros, told: &Told, ready: u32, silent: u32) -> Replicas {
        let starting = match &told.starting {
            Some(Starting::Count(count)) => *count,
            Some(Starting::Ages(ages)) => ages.len() as u32,
            None => 0,
        };
        let started = self.starts.observe(now, starting, ready);
        let ages = match &told.starting {
            Some(Starting::Ages(ages)) => ages.clone(),
            _ => started.starting,
        };
        Replicas {
            target: told.target,
            ready,
            starting: ages,
            unschedulable: told.unschedulable.unwrap_or(0),
            draining: told.draining.unwrap_or(0),
            silent,
            failed_starts: told.failed_starts.unwrap_or(0),
            started_in: told.started_in.clone().unwrap_or(started.started_in),
        }
    }

    /// Replicas whose engines tell anything, where engines are told of one by one.
    fn telling(&self, told: &Told) -> Option<u32> {
        let engines = told.engines.as_ref()?;
        let telling = engines.values().filter(|engine| !engine.draining && engine.tells).count();
        Some((telling as u32).div_ceil(self.engines_per_replica))
    }

    /// Turns totals into what was gained, and remembers them. One that is less than before began anew.
    fn gain(&mut self, told: &mut Told) {
        let mut engines = BTreeMap::new();
        for (id, engine) in told.engines.iter_mut().flatten() {
            let totals = engine.totals;
            gain(&mut engine.gained, totals, self.totals.get(id).copied());
            engine.totals = Gained::default();
            // An engine that tells nothing else tells that it is there.
            engines.insert(id.clone(), totals);
        }
        let totals = told.whole.totals;
        gain(&mut told.whole.gained, totals, self.whole);
        told.whole.totals = Gained::default();
        if told.engines.is_some() {
            self.totals = engines;
        }
        self.whole = Some(totals);
    }

    fn spread(&self, told: &mut Told, ready: u32) {
        if told.whole.is_empty() {
            return;
        }
        let engines = told.engines.get_or_insert_with(|| {
            let apart = ready.saturating_mul(self.engines_per_replica).min(MOST_APART);
            let id = |place: u32| EngineId::parse(&place.to_string()).ok();
            (0..apart).filter_map(id).map(|id| (id, Engine::default())).collect()
        });
        let mut serving: Vec<&mut Engine> = engines.values_mut().filter(|engine| !engine.draining).collect();
        if !serving.is_empty() {
            Engine::spread(&told.whole, &mut serving);
        }
    }
}

/// What the door tells. Arrivals that are told of a pool as a whole are all there are, whoever is silent; and what waits
/// for a pool without replicas waits in front of it.
fn door(told: &Told, ready: u32) -> Option<Door> {
    let mut door = told.door.unwrap_or_default();
    let (gained, whole) = (&told.whole.gained, &told.whole);
    if door.arrived.is_none() && gained.arrived.is_some() {
        door.arrived = gained.arrived;
        door.arrived_prompt_tokens = door.arrived_prompt_tokens.or(gained.arrived_prompt_tokens);
    }
    if ready == 0 && told.engines.is_none() {
        door.waiting = door.waiting.or(whole.waiting);
    }
    (door != Door::default()).then_some(door)
}

fn gain(gained: &mut Gained, mut totals: Gained, before: Option<Gained>) {
    let Some(mut before) = before else { return };
    for (_, counter) in &COUNTERS {
        let (now, before) = (*counter(&mut totals), *counter(&mut before));
        let more = now.zip(before).map(|(now, before)| now.checked_sub(before).unwrap_or(now));
        let told = counter(gained);
        *told = told.or(more);
    }
}

fn forget_gains(told: &mut Told) {
    told.whole.gained = Gained::default();
    for engine in told.engines.iter_mut().flat_map(BTreeMap::values_mut) {
        engine.gained = Gained::default();
    }
    if let Some(door) = &mut told.door {
        (door.arrived, door.arrived_prompt_tokens) = (None, None);
    }
}
