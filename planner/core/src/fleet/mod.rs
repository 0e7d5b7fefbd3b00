//! The fleet as its agents see it: newest values with their age, totals since first seen, sliding windows.
//!
//! [`Fleet::observe`] folds one node's window in; [`Fleet::snapshot`] shows everything, [`Fleet::engine`] one engine
//! with its distributions, [`Fleet::model_histogram`] one distribution of one model. Windows are deltas, so the order
//! in which they come does not matter for totals and windows; of gauges the newest by the end of its window counts.
//!
//! Memory: an engine keeps sparse bucket counts, a pool the same and where in its buckets each report's samples lean to (a
//! single report's sum tells most); both packed, and laid into the fleet's cells when read. Models are the sum of their
//! pools.

mod capture;
mod counters;
mod gather;
mod layouts;
mod limits;
mod node;
mod observation;
mod packed;
mod pool_gauges;
mod series;
mod snapshot;
mod summary;
mod window;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use plimsoll_common::{
    histogram::LatencyHistogram,
    ids::{EngineId, ModelName, NodeName},
    units::Micros,
};

pub use capture::{Capture, Detail};
pub use counters::{Counter, Counts, Rates};
pub use limits::{Freshness, Ledger, Limits};
pub use observation::{
    DistributionKey, EngineGauges, EngineIdentity, EngineReading, EngineState, GpuIdentity, GpuReading,
    GpuState, HostReading, Machine, NodeInventory, NvLinkDomain, Observation, Part, PoolKey, Samples, Source,
    SourceHealth,
};
pub use pool_gauges::PoolGauges;
pub use series::DistributionTotal;
pub use snapshot::{
    EngineDetail, EngineRow, EngineStates, EngineView, FleetRow, FleetSnapshot, GpuRow, ModelRow, NodeRow,
    PoolRow, Tally, WindowSummaries,
};
pub use summary::{DistributionSummary, QUANTILES, Quantile, Span, Totals, WindowSummary};
pub use window::Window;

use gather::Gathered;
use layouts::Layouts;
use node::{Engine, Gpu, Node, Stamp};
use packed::Scratch;
use series::{Accumulator, Encoded, Period};
use window::Rings;

/// What all agents observed.
#[derive(Debug, Default)]
pub struct Fleet {
    limits: Limits,
    nodes: BTreeMap<NodeName, Node>,
    /// Shared with captures that are still being read.
    pools: BTreeMap<PoolKey, Arc<Accumulator>>,
    layouts: Layouts,
    ledger: Ledger,
    gpus: usize,
    engines: usize,
    scratch: Scratch,
    encoded: Encoded,
}

impl Fleet {
    /// An empty fleet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Folds one node's window in. What does not fit the limits is left out and counted.
    pub fn observe(&mut self, now: Micros, mut observation: Observation) {
        let stamp = Stamp::of(now, &observation);
        let room = self.nodes.len() < self.limits.max_nodes;
        let node = match self.nodes.entry(observation.node.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) if room => new.insert(Node::new(Arc::clone(&observation.inventory))),
            Entry::Vacant(_) => {
                self.ledger.refused_nodes += 1;
                return;
            }
        };
        self.ledger.observed += 1;
        node.observe(now, stamp, &observation);
        for (identity, reading) in observation.inventory.gpus.iter().zip(&observation.gpus) {
            if let Some(added) =
                observe_gpu(node, identity, *reading, stamp, self.gpus < self.limits.max_gpus)
            {
                self.gpus += usize::from(added);
            } else {
                self.ledger.refused_gpus += 1;
            }
        }
        // Equal engines keep their order, so that nothing depends on the sort.
        observation.parts.retain(|part| series::is_rising(&part.samples));
        observation.parts.sort_by_key(|part| part.engine);
        let period = Period { now, end: stamp.end, length: observation.length };
        let mut row = Row {
            observation: &observation,
            stamp,
            period,
            limits: &self.limits,
            layouts: &mut self.layouts,
            ledger: &mut self.ledger,
            engines: &mut self.engines,
            scratch: &mut self.scratch,
            encoded: &mut self.encoded,
            everywhere: true,
        };
        // Engines of a node mostly stand in one pool, which is looked up once.
        let mut pool: Option<(&PoolKey, &mut Accumulator)> = None;
        for (index, (identity, reading)) in
            observation.inventory.engines.iter().zip(&observation.engines).enumerate()
        {
            if !row.has_room(node, identity) {
                continue;
            }
            if pool.as_ref().is_none_or(|(key, _)| **key != identity.pool) {
                pool = pool_of(&mut self.pools, &identity.pool, self.limits.max_pools);
            }
            match &mut pool {
                Some((_, pool)) => row.engine(node, index, (identity, reading), pool),
                None => row.ledger.refused_pools += 1,
            }
        }
        if !row.everywhere {
            self.ledger.outside_windows += 1;
        }
    }

    /// Forgets what was not heard of for long, and gives back the memory of what windows no longer hold. To be called
    /// every few seconds.
    pub fn expire(&mut self, now: Micros) {
        let limits = self.limits;
        let before = self.nodes.len();
        self.nodes.retain(|_, node| !node.is_forgotten(now, &limits));
        self.ledger.forgotten_nodes += (before - self.nodes.len()) as u64;
        let mut pools = BTreeSet::new();
        (self.gpus, self.engines) = (0, 0);
        for node in self.nodes.values_mut() {
            node.gpus.retain(|_, gpu| now.saturating_sub(gpu.newest.end) <= limits.forget_after);
            let newest = node.newest;
            node.engines.retain(|_, engine| {
                // What its agent no longer names was taken away on purpose; silence may end.
                let is_listed = engine.newest >= newest;
                let keep = if is_listed { limits.forget_after } else { limits.forget_left_after };
                now.saturating_sub(engine.newest.end) <= keep.min(limits.forget_after)
            });
            self.gpus += node.gpus.len();
            self.engines += node.engines.len();
            for engine in node.engines.values_mut() {
                engine.gained.rings.expire(now, &mut self.scratch);
                if !pools.contains(&engine.identity.pool) {
                    pools.insert(engine.identity.pool.clone());
                }
            }
        }
        // A pool outlives its engines for as long as they would have been remembered: its totals must not jump back
        // when they return.
        self.pools.retain(|key, pool| {
            let last = pool.covered.map_or(Micros(0), |(_, last)| last);
            pools.contains(key) || now.saturating_sub(last) <= limits.forget_after
        });
        self.pools.values_mut().for_each(|pool| Arc::make_mut(pool).rings.expire(now, &mut self.scratch));
    }

    /// What was taken and what was refused.
    #[must_use]
    pub const fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// The limits it was made with.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// How many bytes the windows of all engines and of all pools take.
    #[must_use]
    pub fn window_bytes(&self) -> (usize, usize) {
        let engines = self.nodes.values().flat_map(|node| node.engines.values());
        (
            engines.map(|engine| engine.gained.rings.allocated_bytes()).sum(),
            self.pools.values().map(|pool| pool.rings.allocated_bytes()).sum(),
        )
    }

    /// Everything, as it is at `now`. Engines come without windows: see [`Self::engine`].
    #[must_use]
    pub fn snapshot(&self, now: Micros) -> FleetSnapshot {
        self.capture(now, Detail::Rows).finish()
    }

    /// What a snapshot needs, taken quickly; the rest of the work may be done elsewhere, while the fleet goes on.
    #[must_use]
    pub fn capture(&self, now: Micros, detail: Detail) -> Capture {
        Capture::of(self, now, detail)
    }

    /// All engines as they are at `now`, by node, then id.
    pub fn engines(&self, now: Micros) -> impl Iterator<Item = EngineView<'_>> {
        self.nodes.iter().flat_map(move |(name, node)| {
            node.engines.values().map(move |engine| {
                let (status, told) = capture::status(self, now, node, engine);
                EngineView {
                    node: name,
                    identity: &engine.identity,
                    pool: &engine.identity.pool,
                    status,
                    told,
                    is_listed: engine.newest >= node.newest,
                    age: now.saturating_sub(engine.newest.end),
                    gauges: &engine.gauges,
                    totals: &engine.gained.counts,
                }
            })
        })
    }

    /// One engine with its windows; `None` for one that is not known.
    #[must_use]
    pub fn engine(&self, now: Micros, node: &NodeName, engine: &EngineId) -> Option<EngineDetail> {
        let node = self.nodes.get_key_value(node)?;
        let engine = node.1.engines.get(engine)?;
        Some(capture::engine_detail(self, now, node, engine))
    }

    /// One distribution of one model over a window; `None` for a model or distribution that is not known.
    #[must_use]
    pub fn model_histogram(
        &self,
        now: Micros,
        model: &ModelName,
        key: DistributionKey,
        window: Window,
    ) -> Option<LatencyHistogram> {
        let mut gathered = Gathered::new(window, now);
        for (_, pool) in self.pools.iter().filter(|(key, _)| key.model.as_ref() == Some(model)) {
            gathered.add(pool, &self.layouts);
        }
        gathered.settle();
        gathered.histogram(key)
    }
}

/// Takes a GPU's row; whether it is a new GPU, or `None` where there is no room for one.
fn observe_gpu(
    node: &mut Node,
    identity: &Arc<GpuIdentity>,
    reading: GpuReading,
    stamp: Stamp,
    room: bool,
) -> Option<bool> {
    if let Some(gpu) = node.gpus.get_mut(&identity.uuid) {
        if stamp >= gpu.newest {
            *gpu = Gpu { identity: Arc::clone(identity), reading, newest: stamp };
        }
        return Some(false);
    }
    room.then(|| {
        let gpu = Gpu { identity: Arc::clone(identity), reading, newest: stamp };
        node.gpus.insert(identity.uuid.clone(), gpu);
        true
    })
}

/// What a pool gained; `None` where there is no room for another pool.
fn pool_of<'f, 'k>(
    pools: &'f mut BTreeMap<PoolKey, Arc<Accumulator>>,
    key: &'k PoolKey,
    max_pools: usize,
) -> Option<(&'k PoolKey, &'f mut Accumulator)> {
    let room = pools.len() < max_pools;
    let pool = match pools.entry(key.clone()) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(new) if room => new.insert(Arc::new(Accumulator::new(Rings::of_pool()))),
        Entry::Vacant(_) => return None,
    };
    Some((key, Arc::make_mut(pool)))
}

/// Where the engine rows of one observation go.
struct Row<'a> {
    observation: &'a Observation,
    stamp: Stamp,
    period: Period,
    limits: &'a Limits,
    layouts: &'a mut Layouts,
    ledger: &'a mut Ledger,
    engines: &'a mut usize,
    scratch: &'a mut Scratch,
    encoded: &'a mut Encoded,
    everywhere: bool,
}

impl Row<'_> {
    fn has_room(&mut self, node: &Node, engine: &EngineIdentity) -> bool {
        let room = *self.engines < self.limits.max_engines || node.engines.contains_key(&engine.id);
        self.ledger.refused_engines += u64::from(!room);
        room
    }

    fn engine(
        &mut self,
        node: &mut Node,
        index: usize,
        (identity, reading): (&Arc<EngineIdentity>, &EngineReading),
        pool: &mut Accumulator,
    ) {
        let parts = series::parts_of(&self.observation.parts, index);
        self.encode(node, reading, parts);
        let engine = match node.engines.entry(identity.id.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                *self.engines += 1;
                new.insert(Box::new(Engine {
                    identity: Arc::clone(identity),
                    gauges: reading.gauges,
                    newest: Stamp::default(),
                    gained: Accumulator::new(Rings::of_engine()),
                }))
            }
        };
        if self.stamp >= engine.newest {
            engine.newest = self.stamp;
            engine.gauges = reading.gauges;
            engine.identity = Arc::clone(identity);
        }
        let Encoded { observed, leaned, .. } = &*self.encoded;
        self.everywhere &= engine.gained.add(self.period, reading, parts, observed, self.scratch);
        self.everywhere &= pool.add(self.period, reading, parts, leaned, self.scratch);
    }

    fn encode(&mut self, node: &mut Node, reading: &EngineReading, parts: &[Part]) {
        self.encoded.begin(&reading.gained);
        for part in parts {
            match &part.samples {
                Samples::Cells(cells) => self.encoded.exact(part, cells),
                Samples::Buckets { layout, counts } => {
                    let inventory = &self.observation.inventory;
                    let id = node.layout(inventory, *layout, self.layouts, self.limits);
                    match id.and_then(|id| self.layouts.by_code(id.code())) {
                        Some(layout) => self.encoded.bucketed(part, counts, layout),
                        None => self.ledger.refused_layouts += 1,
                    }
                }
            }
        }
    }
}
