//! Samples become windows: a pure accumulator between the sources and the report.
//!
//! Counters gained and distributions are summed over the window, gauges are the newest, and what the planner needs to
//! read the columns stands in the inventory, which changes only when something on the node does.

mod catalogue;
mod distribution;
mod engine;
mod exact;
mod gained;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use plimsoll_common::{
    ids::Seq,
    wire::{AgentCost, EngineColumns, GpuColumns, HistogramColumns, HostInfo, Inventory, Report},
};
use tokio::time::Instant;

use self::{catalogue::Catalogue, engine::EngineWindow, exact::ExactWindow};
pub use self::{
    distribution::{Cumulative, Distribution},
    engine::{EngineView, Quality},
    exact::{ExactTotal, ExactView, PassView},
};
use crate::{
    config::Endpoint,
    engines::EngineReading,
    exact::{ExactBatch, ExactReading},
    gpu::{GpuReading, GpuSnapshot},
    topology::{Topology, TopologyMemory},
};

/// A closed window, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed {
    /// The inventory, where this report is the first of its generation.
    pub inventory: Option<Inventory>,
    /// The report.
    pub report: Report,
}

/// The window that is being filled.
#[derive(Debug)]
pub struct Window {
    begun: Instant,
    begun_wall_ms: u64,
    seq: Seq,
    /// By the number that readings name them by; in reports they stand in its order.
    engines: BTreeMap<usize, EngineWindow>,
    exact: BTreeMap<usize, ExactWindow>,
    /// Engines that are no longer declared: what they gained is still told.
    leaving: BTreeSet<usize>,
    catalogue: Catalogue,
    topology: TopologyMemory,
}

impl Window {
    /// The first window of an agent epoch.
    #[must_use]
    pub fn new(endpoints: &[Endpoint], host: HostInfo, now: Instant, wall_ms: u64) -> Self {
        Self {
            begun: now,
            begun_wall_ms: wall_ms,
            seq: Seq(0).next(),
            engines: endpoints
                .iter()
                .map(|endpoint| EngineWindow::new(endpoint.clone(), now))
                .enumerate()
                .collect(),
            exact: endpoints.iter().map(|_| ExactWindow::new(now)).enumerate().collect(),
            leaving: BTreeSet::new(),
            catalogue: Catalogue::new(host),
            topology: TopologyMemory::default(),
        }
    }

    /// Takes another engine in, under a number that none had before.
    pub fn add(&mut self, engine: usize, endpoint: Endpoint, now: Instant) {
        // An engine that is declared anew, with other words, has one row only.
        let same = |known: &EngineWindow| known.id() == &endpoint.id;
        let before: Vec<usize> =
            self.engines.iter().filter(|(_, known)| same(known)).map(|(at, _)| *at).collect();
        before.into_iter().for_each(|at| self.forget(at));
        self.engines.insert(engine, EngineWindow::new(endpoint, now));
        self.exact.insert(engine, ExactWindow::new(now));
    }

    /// Lets an engine go that is no longer declared. What it gained so far is told with the next report, its last.
    pub fn remove(&mut self, engine: usize) {
        self.leaving.insert(engine);
    }

    fn forget(&mut self, engine: usize) {
        self.engines.remove(&engine);
        self.exact.remove(&engine);
        self.leaving.remove(&engine);
    }

    /// Takes what one scrape of one engine told, and says whether its state is another than before.
    pub fn observe(&mut self, mut reading: EngineReading) -> bool {
        if let Ok(update) = &mut reading.outcome
            && !update.requests.is_empty()
        {
            let samples = update.requests.take();
            let batch = ExactBatch { samples, passes: None };
            self.observe_exact(ExactReading { engine: reading.engine, taken: reading.taken, batch });
        }
        self.engines.get_mut(&reading.engine).is_some_and(|engine| engine.observe(reading))
    }

    /// Takes what an exact source told of one engine.
    pub fn observe_exact(&mut self, reading: ExactReading) {
        if let Some(engine) = self.exact.get_mut(&reading.engine) {
            engine.observe(reading);
        }
    }

    /// Ends the window at `now` and begins the next one.
    pub fn close(&mut self, now: Instant, wall_ms: u64, gpus: &GpuSnapshot, cost: AgentCost) -> Closed {
        let mut columns = EngineColumns::default();
        let mut histograms = HistogramColumns::default();
        for (row, engine) in self.engines.values_mut().enumerate() {
            engine.close(row, now, &mut self.catalogue, &mut columns, &mut histograms);
        }
        for (row, exact) in self.exact.values_mut().enumerate() {
            exact.close(row, now, &mut columns, &mut histograms);
        }
        let engines = self.engines.values().map(EngineWindow::info).collect();
        self.topology.observe(now, &gpus.gpus);
        let inventory = self.catalogue.settle(gpus, &self.topology.topology(), engines);
        let report = Report {
            seq: self.seq,
            first: None,
            generation: self.catalogue.generation(),
            begin_ms: self.begun_wall_ms,
            length_ms: millis(now.saturating_duration_since(self.begun)),
            gpus: gpu_columns(&gpus.gpus),
            engines: columns,
            histograms,
            cost,
            gpu_source: u8::try_from(gpus.source.code()).unwrap_or(0),
            leaving: false,
        };
        for engine in std::mem::take(&mut self.leaving) {
            self.forget(engine);
        }
        self.seq = self.seq.next();
        self.begun = now;
        self.begun_wall_ms = wall_ms;
        Closed { inventory, report }
    }

    /// How the GPUs are connected, as of the last window: what the pages show is what the planner was told.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        self.topology.topology()
    }

    /// What the agent's own pages show of each engine at `now`.
    #[must_use]
    pub fn views(&self, now: Instant) -> Vec<EngineView> {
        let views = self.engines.values().zip(self.exact.values());
        views.map(|(engine, exact)| EngineView { exact: exact.view(), ..engine.view(now) }).collect()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn gpu_columns(gpus: &[GpuReading]) -> GpuColumns {
    GpuColumns {
        state: gpus.iter().map(|gpu| Some(gpu.state.wire().code())).collect(),
        utilization_percent: gpus.iter().map(|gpu| gpu.utilization_percent).collect(),
        memory_activity_percent: gpus.iter().map(|gpu| gpu.memory_activity_percent).collect(),
        memory_used_bytes: gpus.iter().map(|gpu| gpu.memory_used_bytes).collect(),
        power_mw: gpus.iter().map(|gpu| gpu.power_mw).collect(),
        temperature_c: gpus.iter().map(|gpu| gpu.temperature_c).collect(),
    }
}

#[cfg(test)]
mod tests;
