//! A snapshot in two steps: a quick look at the fleet, and the rest, which may be done elsewhere.
//!
//! Looking costs a few nanoseconds for each GPU and engine, and with [`Detail::Rows`] a copy of each. Windows of pools are
//! shared with the fleet, which copies a pool that it adds to while somebody still reads it. Adding windows up, laying
//! samples into cells and reading quantiles is [`Capture::finish`].

use std::{collections::BTreeMap, sync::Arc};

use plimsoll_common::{
    ids::{EngineId, GpuUuid, ModelName, NodeName},
    units::Micros,
};

use super::{
    DistributionTotal, Fleet,
    counters::Counts,
    gather::Gathered,
    layouts::Layouts,
    limits::Freshness,
    node::{Engine, Node},
    observation::{EngineGauges, EngineState, GpuState, PoolKey},
    pool_gauges::{PoolSums, Seen, add},
    series::Accumulator,
    snapshot::{
        EngineDetail, EngineRow, EngineStates, FleetRow, FleetSnapshot, GpuRow, ModelRow, NodeRow, PoolRow,
        Tally, WindowSummaries,
    },
    summary::Totals,
    window::Window,
};

/// How much of a fleet is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// The fleet, its pools and models; there are no rows of nodes, GPUs and engines.
    Sums,
    /// Everything.
    Rows,
}

/// What was taken of a fleet at one instant.
#[derive(Debug)]
pub struct Capture {
    shown: FleetSnapshot,
    layouts: Layouts,
    /// By pool, in the order of the pools' rows: its sums, and up to which age its engines' values are live.
    pools: Vec<(Arc<Accumulator>, Micros)>,
    /// By model, in the order of the models' rows: how many of the pools are its own, and the same age.
    models: Vec<(usize, Micros)>,
    /// How many pools stand before those of the first model: their engines have not told a model.
    unnamed: usize,
}

impl Capture {
    pub(super) fn of(fleet: &Fleet, now: Micros, detail: Detail) -> Self {
        let mut shown = empty(fleet, now);
        let mut pools: BTreeMap<&PoolKey, PoolSums<'_>> = BTreeMap::new();
        let mut models: BTreeMap<&ModelName, PoolSums<'_>> = BTreeMap::new();
        for (name, node) in &fleet.nodes {
            shown.add_node(fleet, now, (name, node), detail);
            for engine in node.engines.values() {
                let (status, told) = status(fleet, now, node, engine);
                let state = engine.gauges.state.filter(|_| told == Freshness::Live);
                let seen = Seen { status, state, fresh: node.fresh(&fleet.limits) };
                let pool = &engine.identity.pool;
                pools.entry(pool).or_default().add(name, engine, seen);
                if let Some(model) = &pool.model {
                    models.entry(model).or_default().add(name, engine, seen);
                }
                shown.fleet.add_engine(status, state, &engine.gauges);
                if detail == Detail::Rows {
                    shown.engines.push(engine_row(fleet, now, (name, node), engine));
                }
            }
        }
        let mut capture =
            Self { shown, layouts: fleet.layouts.clone(), pools: Vec::new(), models: Vec::new(), unnamed: 0 };
        capture.add_pools(fleet, pools, models);
        capture
    }

    fn add_pools<'f>(
        &mut self,
        fleet: &'f Fleet,
        mut sums: BTreeMap<&'f PoolKey, PoolSums<'f>>,
        mut of_models: BTreeMap<&'f ModelName, PoolSums<'f>>,
    ) {
        let now = self.shown.at;
        // Pools are ordered by model: those of one stand together, those without one first.
        let mut of_model: BTreeMap<Option<&ModelName>, Vec<(&PoolKey, &Arc<Accumulator>)>> = BTreeMap::new();
        for (key, pool) in &fleet.pools {
            of_model.entry(key.model.as_ref()).or_default().push((key, pool));
        }
        for (model, of_model) in of_model {
            for (key, pool) in &of_model {
                let (gauges, fresh) = sums.remove(key).unwrap_or_default().finish();
                self.shown.fleet.totals.add(&pool.counts);
                self.pools.push((Arc::clone(pool), fresh));
                self.shown.pools.push(PoolRow {
                    name: key.to_string(),
                    key: PoolKey::clone(key),
                    gauges,
                    totals: totals([pool.as_ref()], now),
                    windows: WindowSummaries::new(),
                });
            }
            let Some(model) = model else {
                self.unnamed = of_model.len();
                continue;
            };
            let (gauges, fresh) = of_models.remove(model).unwrap_or_default().finish();
            self.models.push((of_model.len(), fresh));
            self.shown.models.push(ModelRow {
                model: ModelName::clone(model),
                pools: of_model.iter().map(|(key, _)| key.to_string()).collect(),
                gauges,
                totals: totals(of_model.iter().map(|(_, pool)| pool.as_ref()), now),
                windows: WindowSummaries::new(),
            });
        }
        self.shown.fleet.pools = self.shown.pools.len() as u64;
        self.shown.fleet.models = self.shown.models.len() as u64;
    }

    /// Adds the windows up.
    #[must_use]
    pub fn finish(self) -> FleetSnapshot {
        let Self { mut shown, layouts, pools, models, unnamed } = self;
        let now = shown.at;
        let mut pools = shown.pools.iter_mut().zip(&pools);
        for (row, (pool, fresh)) in pools.by_ref().take(unnamed) {
            row.windows = summaries(&mut gather(&layouts, now, pool), *fresh);
        }
        for (model, (n, fresh)) in shown.models.iter_mut().zip(models) {
            let mut whole = empty_windows(now);
            for (row, (pool, fresh)) in pools.by_ref().take(n) {
                let mut windows = gather(&layouts, now, pool);
                whole.iter_mut().zip(&windows).for_each(|(whole, window)| whole.merge(window));
                row.windows = summaries(&mut windows, *fresh);
            }
            model.windows = summaries(&mut whole, fresh);
        }
        shown
    }
}

fn empty(fleet: &Fleet, now: Micros) -> FleetSnapshot {
    let fleet = FleetRow {
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
    };
    FleetSnapshot {
        at: now,
        fleet,
        nodes: Vec::new(),
        gpus: Vec::new(),
        engines: Vec::new(),
        pools: Vec::new(),
        models: Vec::new(),
    }
}

impl FleetSnapshot {
    fn add_node(&mut self, fleet: &Fleet, now: Micros, (name, node): (&NodeName, &Node), detail: Detail) {
        let (age, status) = node.age(now, node.newest, &fleet.limits);
        self.fleet.nodes.count(status);
        for gpu in node.gpus.values() {
            let (_, status) = node.age(now, gpu.newest, &fleet.limits);
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
        }
        if detail == Detail::Sums {
            return;
        }
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
        self.gpus.extend(node.gpus.iter().map(|(uuid, gpu)| {
            let (age, status) = node.age(now, gpu.newest, &fleet.limits);
            GpuRow {
                node: name.clone(),
                identity: Arc::clone(&gpu.identity),
                status,
                age_seconds: age.as_secs_f64(),
                reading: gpu.reading,
                engines: on_gpu.remove(uuid).unwrap_or_default(),
            }
        }));
    }
}

impl FleetRow {
    fn add_engine(&mut self, status: Freshness, state: Option<EngineState>, gauges: &EngineGauges) {
        self.engines.count(status);
        if let Some(state) = state {
            self.engine_states.count(state);
        }
        if status == Freshness::Live {
            add(&mut self.running_requests, gauges.running_requests);
            add(&mut self.waiting_requests, gauges.waiting_requests);
        }
    }
}

/// How fresh an engine's gauges are, and how fresh what its agent tells of it.
pub(super) fn status(fleet: &Fleet, now: Micros, node: &Node, engine: &Engine) -> (Freshness, Freshness) {
    let (age, told) = node.age(now, engine.newest, &fleet.limits);
    // A report may repeat gauges of a page that it could not read again: they are as old as the page.
    let age = age.saturating_add(engine.gauges.age.unwrap_or_default());
    (fleet.limits.freshness(age, node.cadence), told)
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

/// One engine with its windows.
pub(super) fn engine_detail(
    fleet: &Fleet,
    now: Micros,
    node: (&NodeName, &Node),
    engine: &Engine,
) -> EngineDetail {
    EngineDetail {
        windows: summaries(&mut gather(&fleet.layouts, now, &engine.gained), node.1.fresh(&fleet.limits)),
        row: engine_row(fleet, now, node, engine),
    }
}

/// What an accumulator holds for every window.
fn gather(layouts: &Layouts, now: Micros, of: &Accumulator) -> Vec<Gathered> {
    let mut windows = empty_windows(now);
    windows.iter_mut().for_each(|window| window.add(of, layouts));
    windows
}

fn empty_windows(now: Micros) -> Vec<Gathered> {
    Window::ALL.iter().map(|window| Gathered::new(*window, now)).collect()
}

fn summaries(gathered: &mut [Gathered], fresh: Micros) -> WindowSummaries {
    let summary = |window: &mut Gathered| {
        window.settle();
        (window.window(), window.summary(fresh))
    };
    gathered.iter_mut().map(summary).collect()
}

fn totals<'a>(of: impl IntoIterator<Item = &'a Accumulator>, now: Micros) -> Totals {
    let mut totals = Totals { since: now, counts: Counts::none(), distributions: Vec::new() };
    let mut distributions = BTreeMap::new();
    for accumulator in of {
        totals.since = accumulator.covered.map_or(totals.since, |(first, _)| first.min(totals.since));
        totals.counts.add(&accumulator.counts);
        for (key, gained) in &accumulator.distributions {
            let sum: &mut DistributionTotal = distributions.entry(*key).or_default();
            sum.count = sum.count.saturating_add(gained.count);
            sum.sum = sum.sum.saturating_add(gained.sum);
        }
    }
    totals.distributions = distributions.into_iter().collect();
    totals
}
