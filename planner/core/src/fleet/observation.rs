//! What the shell tells the fleet: one node's window.

use std::{fmt, sync::Arc};

use plimsoll_common::{
    engine::{DistributionKind, Role, SleepState},
    histogram::BucketLayout,
    ids::{AgentEpoch, EngineId, GpuUuid, ModelName, NodeName, PoolName, ReplicaId, Seq},
    units::Micros,
};
use serde::Serialize;

use super::counters::Counts;

/// One window of one node: its newest gauges, and what was gained in it.
#[derive(Debug, Clone)]
pub struct Observation {
    /// Where.
    pub node: NodeName,
    /// What the rows below speak of. Share one [`Arc`] between the observations of an inventory: that is how the fleet
    /// sees that nothing changed.
    pub inventory: Arc<NodeInventory>,
    /// Which run of the agent.
    pub epoch: AgentEpoch,
    /// The last of the agent's windows in this observation.
    pub seq: Seq,
    /// How many of the agent's windows it stands for, at least 1.
    pub windows: u64,
    /// How long before `now` the window ended.
    pub age: Micros,
    /// How long the window is.
    pub length: Micros,
    /// The machine and the agent.
    pub host: HostReading,
    /// Row i belongs to the inventory's i-th GPU.
    pub gpus: Vec<GpuReading>,
    /// Row i belongs to the inventory's i-th engine.
    pub engines: Vec<EngineReading>,
    /// Distributions of the engines.
    pub parts: Vec<Part>,
    /// Whether the agent stops on purpose after this window.
    pub leaving: bool,
}

impl Observation {
    /// An observation of one window that just ended and holds nothing yet.
    #[must_use]
    pub fn new(node: NodeName, inventory: Arc<NodeInventory>, epoch: AgentEpoch, seq: Seq) -> Self {
        Self {
            node,
            inventory,
            epoch,
            seq,
            windows: 1,
            age: Micros(0),
            length: Micros(0),
            host: HostReading::default(),
            gpus: Vec::new(),
            engines: Vec::new(),
            parts: Vec::new(),
            leaving: false,
        }
    }
}

/// What stands on a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeInventory {
    /// The machine.
    pub machine: Machine,
    /// The GPUs.
    pub gpus: Vec<Arc<GpuIdentity>>,
    /// The engines.
    pub engines: Vec<Arc<EngineIdentity>>,
    /// The `le` layouts that [`Samples::Buckets`] name.
    pub layouts: Vec<BucketLayout>,
}

/// A machine and its driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Logical processors.
    pub cpus: Option<u64>,
    /// Physical memory.
    pub memory_bytes: Option<u64>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// The NVIDIA driver's version.
    pub driver_version: Option<String>,
    /// The newest CUDA version that the driver supports.
    pub cuda_version: Option<String>,
}

/// What does not change about a GPU.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GpuIdentity {
    /// Its lasting name.
    pub uuid: GpuUuid,
    /// Its NVML index at the moment.
    pub index: u32,
    /// The product.
    pub name: Option<String>,
    /// PCI bus id.
    pub pci_bus_id: Option<String>,
    /// Frame buffer size.
    pub memory_total_bytes: Option<u64>,
    /// Enforced power limit.
    pub power_limit_watts: Option<f64>,
    /// Which GPUs it reaches by NVLink; absent where its agent does not tell.
    pub nvlink_domain: Option<NvLinkDomain>,
}

/// The NVLink domain of a GPU: GPUs that tell the same id are in the same domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NvLinkDomain {
    /// How its GPUs are connected, as text: new kinds pass through.
    pub kind: &'static str,
    /// Its name: unique in the fleet where the domain spans nodes, unique on the node otherwise.
    pub id: String,
    /// Whether something keeps it from working as wired.
    pub degraded: bool,
}

/// What does not change about an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineIdentity {
    /// Its name on its node.
    pub id: EngineId,
    /// The software, as text: new kinds pass through.
    pub kind: String,
    /// Where its metrics page is read.
    pub url: String,
    /// The software's version.
    pub version: Option<String>,
    /// Where it belongs.
    #[serde(flatten)]
    pub pool: PoolKey,
    /// The replica it is, or is a part of.
    pub replica: Option<ReplicaId>,
    /// The GPUs it runs on.
    #[serde(rename = "gpu_uuids")]
    pub gpus: Vec<GpuUuid>,
    /// How many tokens its KV cache holds.
    pub kv_capacity_tokens: Option<u64>,
    /// Whether it is a further node of an engine that spans several, without a page of its own.
    pub follower: bool,
    /// Whether it is no engine but the queue in front of engines.
    pub front_end: bool,
}

/// Replicas that are scaled together: an explicit pool of a model and role, or all without a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PoolKey {
    /// The served model; `None` while an engine does not tell it.
    pub model: Option<ModelName>,
    /// The pool's name, where the agent's configuration gives one.
    pub pool: Option<PoolName>,
    /// Which part of a request its engines serve.
    pub role: Role,
}

/// The explicit name, or `model/role`.
impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.pool, &self.model) {
            (Some(pool), _) => write!(f, "{pool}"),
            (None, Some(model)) => write!(f, "{model}/{}", self.role),
            (None, None) => write!(f, "unknown/{}", self.role),
        }
    }
}

/// How a source of telemetry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceHealth {
    /// It delivers.
    Healthy,
    /// It delivers in part.
    Degraded,
    /// There is no such source on the machine.
    Unsupported,
    /// It should deliver and does not.
    Failed,
}

/// The machine and what the agent costs it, over one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct HostReading {
    /// The GPU source; `None` where this build does not know the agent's word for it.
    pub gpu_source: Option<SourceHealth>,
    /// CPU utilization of the whole host, 0 to 1.
    pub cpu_utilization_ratio: Option<f64>,
    /// Memory in use.
    pub memory_used_bytes: Option<u64>,
    /// Share of one core that the agent used.
    pub agent_cpu_ratio: Option<f64>,
    /// Resident memory of the agent.
    pub agent_resident_bytes: Option<u64>,
    /// Share of the time that the agent spent inside NVML.
    pub agent_nvml_busy_ratio: Option<f64>,
    /// Windows that this run of the agent had to drop.
    pub agent_dropped_windows: Option<u64>,
}

/// How a GPU is seen by its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuState {
    /// Its values are from this window.
    Ok,
    /// It answers, but not with everything.
    Degraded,
    /// It fell off the bus, or no longer answers.
    Lost,
}

/// The newest gauges of a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct GpuReading {
    /// How it is seen.
    pub state: Option<GpuState>,
    /// Share of the last sample period in which a kernel ran, 0 to 100.
    pub utilization_percent: Option<u64>,
    /// Share of the last sample period in which memory was read or written, 0 to 100.
    pub memory_activity_percent: Option<u64>,
    /// Frame buffer in use.
    pub memory_used_bytes: Option<u64>,
    /// Power draw.
    pub power_watts: Option<f64>,
    /// GPU temperature.
    pub temperature_celsius: Option<i64>,
}

/// How an engine is seen by its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineState {
    /// It serves.
    Ready,
    /// It never answered yet, or says that it is not ready for the first time.
    Starting,
    /// Requests run, and nothing moves.
    Frozen,
    /// It was put to sleep, or paused.
    Sleeping,
    /// It finishes what it has and takes nothing more.
    Draining,
    /// It was there, and now its port is closed.
    Gone,
    /// It does not answer in time, or not with its page.
    Unreachable,
    /// Its server wants to know who asks.
    Unauthorised,
    /// Something answers there, but it is no engine's page.
    WrongEndpoint,
    /// A further node of an engine that spans several; it has no page.
    Follower,
    /// Nothing is known yet, or nothing new for long.
    Pending,
}

impl EngineState {
    /// All states.
    pub const ALL: [Self; 11] = [
        Self::Ready,
        Self::Starting,
        Self::Frozen,
        Self::Sleeping,
        Self::Draining,
        Self::Gone,
        Self::Unreachable,
        Self::Unauthorised,
        Self::WrongEndpoint,
        Self::Follower,
        Self::Pending,
    ];

    /// The name in labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Frozen => "frozen",
            Self::Sleeping => "sleeping",
            Self::Draining => "draining",
            Self::Gone => "gone",
            Self::Unreachable => "unreachable",
            Self::Unauthorised => "unauthorised",
            Self::WrongEndpoint => "wrong_endpoint",
            Self::Follower => "follower",
            Self::Pending => "pending",
        }
    }
}

/// The newest gauges of an engine, and what its counters gained.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EngineReading {
    /// The gauges.
    pub gauges: EngineGauges,
    /// What its counters gained in the window.
    pub gained: Counts,
}

/// The newest gauges of an engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct EngineGauges {
    /// How it is seen.
    pub state: Option<EngineState>,
    /// What the state was told from, in a word; new words pass through.
    pub state_evidence: Option<&'static str>,
    /// For how long the state held at the end of the window.
    #[serde(skip)]
    pub state_held: Option<Micros>,
    /// Requests in the running batch.
    pub running_requests: Option<u64>,
    /// Requests waiting to be scheduled.
    pub waiting_requests: Option<u64>,
    /// Of these, those that wait for room in the batch or in the KV cache.
    pub waiting_for_capacity_requests: Option<u64>,
    /// Of these, those that wait for something else than room.
    pub waiting_deferred_requests: Option<u64>,
    /// Requests that keep their place while the engine is paused.
    pub paused_requests: Option<u64>,
    /// KV-cache utilization, 0 to 1; of several engines on one page the mean, weighted by capacity.
    pub kv_cache_utilization_ratio: Option<f64>,
    /// KV-cache utilization of the fullest engine of the page, 0 to 1.
    pub kv_cache_utilization_ratio_max: Option<f64>,
    /// Utilization of the tier below the KV cache, 0 to 1.
    pub kv_offload_utilization_ratio: Option<f64>,
    /// Share of the prompt tokens found in the prefix cache, as an engine averages it that does not count them.
    pub prefix_cache_hit_ratio: Option<f64>,
    /// Share of the drafted tokens that were accepted, as an engine averages it that does not count them.
    pub spec_acceptance_ratio: Option<f64>,
    /// Whether it sleeps.
    pub sleep: Option<SleepState>,
    /// For how long nothing on its page has moved, where gauges only move when a request ends.
    pub signal_age_seconds: Option<f64>,
    /// Requests within a front-end.
    pub frontend_inflight_requests: Option<u64>,
    /// Requests within a front-end that have no first token yet.
    pub frontend_queued_requests: Option<u64>,
    /// How long the last scrape of its page took.
    pub scrape_seconds: Option<f64>,
    /// Ranks whose forward passes its agent hears.
    pub forward_pass_ranks: Option<u64>,
    /// Share of the window spent in forward passes, 0 to 1, the mean of those ranks.
    pub forward_pass_busy_ratio: Option<f64>,
    /// Requests queued for prefill, by the schedulers' own count.
    pub queued_prefill_requests: Option<u64>,
    /// Prompt tokens of those.
    pub queued_prefill_tokens: Option<u64>,
    /// Requests queued for decode: preempted, or waiting for their KV cache to arrive.
    pub queued_decode_requests: Option<u64>,
    /// How old these gauges were at the end of the window; absent: fresh.
    #[serde(skip)]
    pub age: Option<Micros>,
}

/// One distribution of one engine over the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The engine's row.
    pub engine: usize,
    /// What is distributed.
    pub kind: DistributionKind,
    /// The samples.
    pub samples: Samples,
    /// Their sum, microseconds or tokens.
    pub sum: u64,
}

/// How samples were counted: `(cell or bucket, samples)` in rising order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Samples {
    /// In cells of the fleet's layout, by an exact source.
    Cells(Vec<(usize, u64)>),
    /// In `le` buckets.
    Buckets {
        /// The position in the inventory's layouts.
        layout: usize,
        /// The counts.
        counts: Vec<(usize, u64)>,
    },
}

impl Samples {
    /// Where they come from.
    #[must_use]
    pub const fn source(&self) -> Source {
        match self {
            Self::Cells(_) => Source::Exact,
            Self::Buckets { .. } => Source::Bucketed,
        }
    }

    /// The counts.
    #[must_use]
    pub fn counts(&self) -> &[(usize, u64)] {
        match self {
            Self::Cells(counts) | Self::Buckets { counts, .. } => counts,
        }
    }
}

/// What a distribution was made from. The two are never merged under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// From cumulative `le` buckets: quantiles are estimates with bounds.
    Bucketed,
    /// From single samples: quantiles are exact to a cell.
    Exact,
}

/// The name of a distribution: `ttft`, or `ttft_exact` where it was made from single samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DistributionKey {
    /// What is distributed.
    pub kind: DistributionKind,
    /// What it was made from.
    pub source: Source,
}

impl fmt::Display for DistributionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        match self.source {
            Source::Bucketed => Ok(()),
            Source::Exact => f.write_str("_exact"),
        }
    }
}

impl Serialize for DistributionKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
