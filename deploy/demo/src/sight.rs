//! What the planner and the agents show, as far as the demo shows it on.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `/api/v1/models` of the planner.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Models {
    /// One each.
    pub models: Vec<Model>,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Model {
    /// Its name.
    pub model: String,
    /// Engines whose page was read.
    pub engines_ready: u64,
    /// In running batches.
    pub running_requests: Option<u64>,
    /// In queues.
    pub waiting_requests: Option<u64>,
    /// Highest of its engines, 0 to 1.
    pub kv_cache_utilization_ratio_max: Option<f64>,
    /// Since first seen.
    pub totals: Totals,
    /// By name: `10s`, `1m`, `5m`.
    pub windows: BTreeMap<String, Window>,
}

/// `/api/v1/plan` of the planner.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Advice {
    /// One a pool of which engines were seen.
    pub pools: Vec<Advised>,
}

/// What is advised for a pool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Advised {
    /// Its name.
    pub pool: String,
    /// Replicas that there are.
    pub from: u32,
    /// Replicas that there should be.
    pub to: u32,
    /// Why.
    pub text: String,
}

/// `/api/v1/engines` of the planner, with windows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Engines {
    /// One each.
    pub engines: Vec<Engine>,
}

/// An engine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Engine {
    /// Its name.
    pub id: String,
    /// The model it serves.
    pub model: Option<String>,
    /// Since first seen.
    pub totals: Totals,
    /// By name.
    pub windows: BTreeMap<String, Window>,
}

/// How an engine is seen, by its agent or by the planner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineStates {
    /// Its state.
    pub state: String,
    /// What that was told from.
    pub evidence: String,
    /// How often its counters began again.
    pub restarts: u64,
    /// How often its buckets changed; 0 at the planner, which does not tell.
    pub layout_changes: u64,
}

/// `/v1/engines` of an agent.
#[derive(Debug, Clone, Deserialize)]
pub struct AgentEngines {
    engines: Vec<AgentEngine>,
}

#[derive(Debug, Clone, Deserialize)]
struct AgentEngine {
    id: String,
    state: String,
    evidence: Evidence,
    bucket_layout_changes: u64,
    since_agent_start: BTreeMap<String, Option<u64>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Evidence {
    code: String,
}

impl AgentEngines {
    /// One of the engines.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<EngineStates> {
        let engine = self.engines.iter().find(|engine| engine.id == id)?;
        Some(EngineStates {
            state: engine.state.clone(),
            evidence: engine.evidence.code.clone(),
            restarts: engine.since_agent_start.get("counter_resets").copied().flatten().unwrap_or(0),
            layout_changes: engine.bucket_layout_changes,
        })
    }
}

/// `/api/v1/engines` of the planner, without windows.
#[derive(Debug, Clone, Deserialize)]
pub struct PlannerEngines {
    /// One each.
    pub engines: Vec<PlannerEngine>,
}

/// An engine as the planner shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct PlannerEngine {
    /// Its name.
    pub id: String,
    /// Its state; `None` where the planner does not know the agent's word.
    pub state: Option<String>,
    /// What that was told from.
    pub state_evidence: Option<String>,
    /// For how long it holds.
    pub state_seconds: Option<f64>,
    /// Since first seen.
    pub totals: Totals,
}

impl PlannerEngines {
    /// One of the engines.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<EngineStates> {
        let engine = self.engines.iter().find(|engine| engine.id == id)?;
        Some(EngineStates {
            state: engine.state.clone().unwrap_or_default(),
            evidence: engine.state_evidence.clone().unwrap_or_default(),
            restarts: engine.totals.counters.get("counter_resets").copied().flatten().unwrap_or(0),
            layout_changes: 0,
        })
    }
}

/// Sums since first seen.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Totals {
    /// By name.
    pub counters: BTreeMap<String, Option<u64>>,
    /// By name.
    pub distributions: BTreeMap<String, Count>,
}

/// How many samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Count {
    /// Samples.
    pub count: u64,
}

/// A sliding window.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Window {
    /// What it covers.
    #[serde(rename = "window")]
    pub span: Span,
    /// By name, per second.
    pub rates: BTreeMap<String, Option<f64>>,
    /// By name.
    pub distributions: BTreeMap<String, Distribution>,
}

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Span {
    /// Seconds since 1970.
    pub from_unix_seconds: f64,
    /// Seconds since 1970.
    pub to_unix_seconds: f64,
}

/// A distribution of times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub struct Distribution {
    /// Samples.
    pub count: u64,
    /// Median.
    #[serde(default)]
    pub p50_seconds: Option<Quantile>,
    /// 95th percentile.
    #[serde(default)]
    pub p95_seconds: Option<Quantile>,
    /// 99th percentile.
    #[serde(default)]
    pub p99_seconds: Option<Quantile>,
}

/// A percentile and its bounds, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Quantile {
    /// The planner's estimate.
    pub estimate: f64,
    /// It is not less.
    pub low: f64,
    /// It is not more; `None` where nothing bounds it.
    pub high: Option<f64>,
}

impl Totals {
    /// How many samples of a distribution.
    #[must_use]
    pub fn samples(&self, distribution: &str) -> u64 {
        self.distributions.get(distribution).map_or(0, |of| of.count)
    }
}

impl Window {
    /// How many samples of a distribution.
    #[must_use]
    pub fn samples(&self, distribution: &str) -> u64 {
        self.distributions.get(distribution).map_or(0, |of| of.count)
    }

    /// p50, p95 and p99 of a distribution.
    #[must_use]
    pub fn quantiles(&self, name: &str) -> [Option<Quantile>; 3] {
        let found = self.distributions.get(name).copied().unwrap_or_default();
        [found.p50_seconds, found.p95_seconds, found.p99_seconds]
    }
}

impl Model {
    /// A sum since first seen.
    #[must_use]
    pub fn total(&self, counter: &str) -> u64 {
        self.totals.counters.get(counter).copied().flatten().unwrap_or_default()
    }
}

/// `/api/v1/gpus` of the planner.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Gpus {
    /// One each.
    pub gpus: Vec<Gpu>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Gpu {
    /// Where it is.
    pub node: String,
    /// The product.
    pub name: Option<String>,
    /// 0 to 100.
    pub utilization_percent: Option<f64>,
    /// Frame buffer in use.
    pub memory_used_bytes: Option<f64>,
    /// Frame buffer.
    pub memory_total_bytes: Option<f64>,
    /// Draw.
    pub power_watts: Option<f64>,
    /// Engines on it.
    pub engines: Vec<String>,
}

/// `/status` of an agent.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct AgentStatus {
    /// Since its start.
    pub uptime_seconds: f64,
    /// What it costs.
    pub cost: Cost,
    /// The way to the planner.
    pub planner: Option<Uplink>,
}

/// What an agent costs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Cost {
    /// CPU time since its start.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_memory_bytes: Option<f64>,
}

/// An agent's way to the planner.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Uplink {
    /// `connected`, or why not.
    pub state: String,
    /// Frames sent since its start, without QUIC's overhead.
    pub frame_bytes_sent: f64,
}
