//! What is shown of a fleet: owned rows, ready for JSON.

use std::{collections::BTreeMap, sync::Arc};

use plimsoll_common::{
    ids::{EngineId, GpuUuid, ModelName, NodeName},
    units::Micros,
};
use serde::Serialize;

use super::{
    Fleet,
    counters::Counts,
    gather::Gathered,
    limits::{Freshness, Ledger},
    node::{Engine, Node},
    observation::{
        EngineGauges, EngineIdentity, EngineState, GpuIdentity, GpuReading, GpuState, HostReading, Machine,
        PoolKey,
    },
    pool_gauges::{PoolGauges, PoolSums, Seen, add},
    series::Accumulator,
    summary::{Totals, WindowSummary},
    window::Window,
};

/// The windows of something, by name.
pub type WindowSummaries = BTreeMap<Window, WindowSummary>;

/// Everything that is known at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FleetSnapshot {
    /// The instant, Unix seconds on the planner's clock.
    #[serde(serialize_with = "seconds", rename = "at_unix_seconds")]
    pub at: Micros,
    /// Sums over the fleet.
    pub fleet: FleetRow,
    /// By name.
    pub nodes: Vec<NodeRow>,
    /// By node, then UUID.
    pub gpus: Vec<GpuRow>,
    /// By node, then id.
    pub engines: Vec<EngineRow>,
    /// By model, name and role.
    pub pools: Vec<PoolRow>,
    /// By name.
    pub models: Vec<ModelRow>,
}

/// How many engines are in which state; states in which none is are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct EngineStates(BTreeMap<EngineState, u64>);

impl EngineStates {
    pub(super) fn count(&mut self, state: EngineState) {
        *self.0.entry(state).or_default() += 1;
    }

    /// The states in which engines are, and how many.
    pub fn iter(&self) -> impl Iterator<Item = (EngineState, u64)> + '_ {
        self.0.iter().map(|(state, n)| (*state, *n))
    }

    /// How many engines are in this state.
    #[must_use]
    pub fn get(&self, state: EngineState) -> u64 {
        self.0.get(&state).copied().unwrap_or_default()
    }
}

/// How many of something are how fresh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Values from the last few reports.
    pub live: u64,
    /// Late.
    pub stale: u64,
    /// Not heard of for long.
    pub silent: u64,
}

impl Tally {
    /// Counts one.
    pub const fn count(&mut self, freshness: Freshness) {
        match freshness {
            Freshness::Live => self.live += 1,
            Freshness::Stale => self.stale += 1,
            Freshness::Silent => self.silent += 1,
        }
    }

    /// How many are this fresh.
    #[must_use]
    pub const fn get(&self, freshness: Freshness) -> u64 {
        match freshness {
            Freshness::Live => self.live,
            Freshness::Stale => self.stale,
            Freshness::Silent => self.silent,
        }
    }
}

/// Sums over the fleet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FleetRow {
    /// Nodes.
    pub nodes: Tally,
    /// GPUs.
    pub gpus: Tally,
    /// Live GPUs that their agents see as lost.
    pub gpus_lost: u64,
    /// Engines.
    pub engines: Tally,
    /// Engines by the state in which their agents see them; those of nodes that are not live are in none.
    pub engine_states: EngineStates,
    /// Pools.
    pub pools: u64,
    /// Models.
    pub models: u64,
    /// Requests in the running batches of live engines; absent where none tells.
    pub running_requests: Option<u64>,
    /// Requests waiting in live engines; absent where none tells.
    pub waiting_requests: Option<u64>,
    /// Frame buffer in use on live GPUs; absent where none tells.
    pub gpu_memory_used_bytes: Option<u64>,
    /// Power draw of live GPUs; absent where none tells.
    pub gpu_power_watts: Option<f64>,
    /// What the counters of all pools gained since first seen.
    pub totals: Counts,
    /// What was taken and refused.
    pub ledger: Ledger,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeRow {
    /// Its name.
    pub node: NodeName,
    /// How fresh its values are.
    pub status: Freshness,
    /// Whether its agent left on purpose.
    pub left: bool,
    /// Since the end of its newest window.
    pub age_seconds: f64,
    /// Since anything came from it.
    pub received_age_seconds: f64,
    /// Between two windows of its agent.
    pub report_interval_seconds: f64,
    /// The machine.
    pub machine: Machine,
    /// The machine's load and what the agent costs it.
    pub host: HostReading,
    /// How many GPUs.
    pub gpus: u64,
    /// How many engines.
    pub engines: u64,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GpuRow {
    /// Where it is.
    pub node: NodeName,
    /// What does not change.
    #[serde(flatten)]
    pub identity: Arc<GpuIdentity>,
    /// How fresh the values are.
    pub status: Freshness,
    /// Since the end of the window that they are from.
    pub age_seconds: f64,
    /// The newest values.
    #[serde(flatten)]
    pub reading: GpuReading,
    /// The engines of its node that run on it.
    pub engines: Vec<EngineId>,
}

/// An engine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EngineRow {
    /// Where it is.
    pub node: NodeName,
    /// What does not change.
    #[serde(flatten)]
    pub identity: Arc<EngineIdentity>,
    /// How fresh the values are.
    pub status: Freshness,
    /// Since the gauges were read from its page.
    pub age_seconds: f64,
    /// For how long its state holds, as far as its agent has told; absent where it has not.
    pub state_seconds: Option<f64>,
    /// The newest gauges.
    #[serde(flatten)]
    pub gauges: EngineGauges,
    /// What it gained since first seen.
    pub totals: Totals,
}

/// An engine and its windows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EngineDetail {
    /// The engine.
    #[serde(flatten)]
    pub row: EngineRow,
    /// Its windows.
    pub windows: WindowSummaries,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolRow {
    /// Its name: the configured one, or `model/role`.
    pub name: String,
    /// What it is.
    #[serde(flatten)]
    pub key: PoolKey,
    /// Its engines together.
    #[serde(flatten)]
    pub gauges: PoolGauges,
    /// What it gained since first seen.
    pub totals: Totals,
    /// Its windows.
    pub windows: WindowSummaries,
}

/// A model: all its pools.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelRow {
    /// Its name.
    pub model: ModelName,
    /// Its pools' names.
    pub pools: Vec<String>,
    /// Its engines together.
    #[serde(flatten)]
    pub gauges: PoolGauges,
    /// What it gained since first seen.
    pub totals: Totals,
    /// Its windows.
    pub windows: WindowSummaries,
}

fn seconds<S: serde::Serializer>(at: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(at.as_secs_f64())
}

pub(super) fn build(fleet: &Fleet, now: Micros) -> FleetSnapshot {
    let mut shown = FleetSnapshot {
        at: now,
        fleet: empty_row(fleet),
        nodes: Vec::with_capacity(fleet.nodes.len()),
        gpus: Vec::with_capacity(fleet.gpus),
        engines: Vec::with_capacity(fleet.engines),
        pools: Vec::new(),
        models: Vec::new(),
    };
    let mut pools: BTreeMap<&PoolKey, PoolSums<'_>> = BTreeMap::new();
    let mut models: BTreeMap<&ModelName, PoolSums<'_>> = BTreeMap::new();
    // Pools are ordered by model, so that these stay in their order.
    let mut of_model: BTreeMap<Option<&ModelName>, Vec<(&PoolKey, &Accumulator)>> = BTreeMap::new();
    for (key, pool) in &fleet.pools {
        of_model.entry(key.model.as_ref()).or_default().push((key, pool));
    }
    for (name, node) in &fleet.nodes {
        shown.add_node(fleet, now, name, node);
        for engine in node.engines.values() {
            let row = engine_row(fleet, now, (name, node), engine);
            let (_, told) = node.age(now, engine.newest, &fleet.limits);
            let state = engine.gauges.state.filter(|_| told == Freshness::Live);
            let seen = Seen { status: row.status, state, fresh: node.fresh(&fleet.limits) };
            let pool = &engine.identity.pool;
            pools.entry(pool).or_default().add(name, engine, seen);
            if let Some(model) = &pool.model {
                models.entry(model).or_default().add(name, engine, seen);
            }
            shown.add_engine(row, state);
        }
    }
    for (model, of_model) in &of_model {
        let mut of_pools = Vec::with_capacity(of_model.len());
        for (key, pool) in of_model {
            let (gauges, fresh) = pools.remove(key).unwrap_or_default().finish();
            shown.fleet.totals.add(&pool.counts);
            of_pools.push(gather(fleet, now, pool));
            shown.pools.push(PoolRow {
                name: key.to_string(),
                key: PoolKey::clone(key),
                gauges,
                totals: totals([*pool], now),
                windows: summaries(of_pools.last(), fresh),
            });
        }
        let Some(model) = model else { continue };
        let (gauges, fresh) = models.remove(model).unwrap_or_default().finish();
        let whole = of_pools.into_iter().reduce(|mut sum, more| {
            sum.iter_mut().zip(&more).for_each(|(sum, more)| sum.merge(more));
            sum
        });
        shown.models.push(ModelRow {
            model: ModelName::clone(model),
            pools: of_model.iter().map(|(key, _)| key.to_string()).collect(),
            gauges,
            totals: totals(of_model.iter().map(|(_, pool)| *pool), now),
            windows: summaries(whole.as_ref(), fresh),
        });
    }
    shown.fleet.pools = shown.pools.len() as u64;
    shown.fleet.models = shown.models.len() as u64;
    shown
}

fn empty_row(fleet: &Fleet) -> FleetRow {
    FleetRow {
        nodes: Tally::default(),
        gpus: Tally::default(),
        gpus_lost: 0,
        engines: Tally::default(),
        engine_states: EngineStates::default(),
        pools: 0,
        models: 0,
        running_requests: None,
        waiting_requests: None,
        gpu_memory_used_bytes: None,
        gpu_power_watts: None,
        totals: Counts::none(),
        ledger: fleet.ledger,
    }
}

impl FleetSnapshot {
    fn add_node(&mut self, fleet: &Fleet, now: Micros, name: &NodeName, node: &Node) {
        let (age, status) = node.age(now, node.newest, &fleet.limits);
        self.fleet.nodes.count(status);
        self.nodes.push(NodeRow {
            node: name.clone(),
            status,
            left: node.left.is_some(),
            age_seconds: age.as_secs_f64(),
            received_age_seconds: now.saturating_sub(node.received).as_secs_f64(),
            report_interval_seconds: node.cadence.as_secs_f64(),
            machine: node.inventory.machine.clone(),
            host: node.host,
            gpus: node.gpus.len() as u64,
            engines: node.engines.len() as u64,
        });
        let mut on_gpu: BTreeMap<&GpuUuid, Vec<EngineId>> = BTreeMap::new();
        for (id, engine) in &node.engines {
            for uuid in &engine.identity.gpus {
                on_gpu.entry(uuid).or_default().push(id.clone());
            }
        }
        for (uuid, gpu) in &node.gpus {
            let (age, status) = node.age(now, gpu.newest, &fleet.limits);
            self.fleet.gpus.count(status);
            if status == Freshness::Live {
                let reading = &gpu.reading;
                self.fleet.gpus_lost += u64::from(reading.state == Some(GpuState::Lost));
                add(&mut self.fleet.gpu_memory_used_bytes, reading.memory_used_bytes);
                if let Some(watts) = reading.power_watts {
                    let sum = self.fleet.gpu_power_watts.get_or_insert(0.0);
                    // GPUs tell whole milliwatts: what is beyond is noise of the addition.
                    *sum = ((*sum + watts) * 1e3).round() / 1e3;
                }
            }
            self.gpus.push(GpuRow {
                node: name.clone(),
                identity: Arc::clone(&gpu.identity),
                status,
                age_seconds: age.as_secs_f64(),
                reading: gpu.reading,
                engines: on_gpu.remove(uuid).unwrap_or_default(),
            });
        }
    }

    fn add_engine(&mut self, row: EngineRow, state: Option<EngineState>) {
        self.fleet.engines.count(row.status);
        if let Some(state) = state {
            self.fleet.engine_states.count(state);
        }
        if row.status == Freshness::Live {
            add(&mut self.fleet.running_requests, row.gauges.running_requests);
            add(&mut self.fleet.waiting_requests, row.gauges.waiting_requests);
        }
        self.engines.push(row);
    }
}

fn engine_row(fleet: &Fleet, now: Micros, (name, node): (&NodeName, &Node), engine: &Engine) -> EngineRow {
    let (age, _) = node.age(now, engine.newest, &fleet.limits);
    let state_seconds = engine.gauges.state_held.map(|held| held.saturating_add(age).as_secs_f64());
    // A report may repeat gauges of a page that it could not read again: they are as old as the page.
    let age = age.saturating_add(engine.gauges.age.unwrap_or_default());
    EngineRow {
        node: name.clone(),
        identity: Arc::clone(&engine.identity),
        status: fleet.limits.freshness(age, node.cadence),
        age_seconds: age.as_secs_f64(),
        state_seconds,
        gauges: engine.gauges,
        totals: totals([&engine.gained], now),
    }
}

pub(super) fn engine_detail(
    fleet: &Fleet,
    now: Micros,
    node: (&NodeName, &Node),
    engine: &Engine,
) -> EngineDetail {
    let mut windows = gather(fleet, now, &engine.gained);
    windows.iter_mut().for_each(Gathered::place_buckets);
    EngineDetail {
        windows: summaries(Some(&windows), node.1.fresh(&fleet.limits)),
        row: engine_row(fleet, now, node, engine),
    }
}

/// What an accumulator holds for every window.
fn gather(fleet: &Fleet, now: Micros, of: &Accumulator) -> Vec<Gathered> {
    let gather = |window: &Window| {
        let mut gathered = Gathered::new(*window, now);
        gathered.add(of, &fleet.layouts);
        gathered
    };
    Window::ALL.iter().map(gather).collect()
}

fn summaries(gathered: Option<&Vec<Gathered>>, fresh: Micros) -> WindowSummaries {
    gathered.into_iter().flatten().map(|window| (window.window(), window.summary(fresh))).collect()
}

fn totals<'a>(of: impl IntoIterator<Item = &'a Accumulator>, now: Micros) -> Totals {
    let mut totals = Totals { since: now, counts: Counts::none(), distributions: Vec::new() };
    let mut distributions = BTreeMap::new();
    for accumulator in of {
        totals.since = accumulator.covered.map_or(totals.since, |(first, _)| first.min(totals.since));
        totals.counts.add(&accumulator.counts);
        for (key, gained) in &accumulator.distributions {
            let sum: &mut super::DistributionTotal = distributions.entry(*key).or_default();
            sum.count = sum.count.saturating_add(gained.count);
            sum.sum = sum.sum.saturating_add(gained.sum);
        }
    }
    totals.distributions = distributions.into_iter().collect();
    totals
}
