//! What is shown of a fleet: owned rows, ready for JSON.

use std::{collections::BTreeMap, sync::Arc};

use plimsoll_common::{
    ids::{EngineId, ModelName, NodeName},
    units::Micros,
};
use serde::Serialize;

use super::{
    counters::Counts,
    limits::{Freshness, Ledger},
    observation::{
        EngineGauges, EngineIdentity, EngineState, GpuIdentity, GpuReading, HostReading, Machine, PoolKey,
    },
    pool_gauges::PoolGauges,
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

/// An engine as it is in the fleet, without a copy of anything.
#[derive(Debug, Clone, Copy)]
pub struct EngineView<'a> {
    /// Where it is.
    pub node: &'a NodeName,
    /// What does not change.
    pub identity: &'a Arc<EngineIdentity>,
    /// Where it belongs.
    pub pool: &'a PoolKey,
    /// How fresh its gauges are.
    pub status: Freshness,
    /// How fresh what its agent tells of it is, its state above all: the page behind the gauges may be older.
    pub told: Freshness,
    /// Whether its node's newest report still names it.
    pub is_listed: bool,
    /// How old its newest report is.
    pub age: Micros,
    /// The newest gauges.
    pub gauges: &'a EngineGauges,
    /// What it gained since first seen.
    pub totals: &'a Counts,
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
