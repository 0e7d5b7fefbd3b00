//! What stands on a node: sent once a connection and on change, so that reports need not repeat it.

use serde::{Deserialize, Serialize};

use crate::{
    engine::Role,
    ids::{EngineId, Generation, GpuUuid, ModelName, PoolName, ReplicaId},
};

/// Agent → planner: the rows that the columns of reports of this generation speak of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// Rises with every change within an agent epoch.
    #[serde(rename = "g")]
    pub generation: Generation,
    /// The machine.
    #[serde(rename = "h", default)]
    pub host: HostInfo,
    /// The driver; absent where NVML does not answer.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverInfo>,
    /// The GPUs, in the order of [`GpuColumns`](super::GpuColumns)' rows.
    #[serde(rename = "u", default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuInfo>,
    /// The engines, in the order of [`EngineColumns`](super::EngineColumns)' rows.
    #[serde(rename = "n", default, skip_serializing_if = "Vec::is_empty")]
    pub engines: Vec<EngineInfo>,
    /// The finite `le` edges of bucketed families, in the published unit; a histogram names one by its position + 1.
    #[serde(rename = "l", default, skip_serializing_if = "Vec::is_empty")]
    pub layouts: Vec<Vec<f64>>,
}

/// A machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Logical processors.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u64>,
    /// Physical memory, bytes.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Kernel release.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}

/// The NVIDIA driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverInfo {
    /// The driver's version, such as `580.95.05`.
    #[serde(rename = "v")]
    pub version: String,
    /// The newest CUDA version it supports, such as `13.0`.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<String>,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuInfo {
    /// Its lasting name.
    #[serde(rename = "u")]
    pub uuid: GpuUuid,
    /// Its NVML index now; changes with a reboot.
    #[serde(rename = "i")]
    pub index: u32,
    /// The product, such as `NVIDIA H100 80GB HBM3`.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// PCI bus id, `00000000:18:00.0`.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub pci_bus_id: Option<String>,
    /// Frame buffer size, bytes.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// Enforced power limit, milliwatts.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub power_limit_mw: Option<u64>,
    /// The GPUs it reaches by NVLink; absent where the agent does not know, which is not the same as none.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<NvLinkDomain>,
}

/// The set of GPUs that a GPU reaches by NVLink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvLinkDomain {
    /// How they are connected.
    #[serde(rename = "k", default)]
    pub kind: DomainKind,
    /// Its name: unique in the cluster where [`DomainKind::spans_nodes`], unique on the node otherwise. GPUs of one domain
    /// tell the same name.
    #[serde(rename = "i")]
    pub id: String,
    /// Whether something keeps it from working as wired: links down, fabric registration unfinished or failed.
    #[serde(rename = "x", default, skip_serializing_if = "std::ops::Not::not")]
    pub degraded: bool,
}

/// How the GPUs of an NVLink domain are connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DomainKind {
    /// NVSwitches beyond the node: the GPUs of several nodes (one partition of an NVL72 rack, say).
    MultiNode,
    /// The NVSwitches of one node.
    NodeSwitch,
    /// Links from GPU to GPU without a switch.
    Bridge,
    /// No NVLink that can be used: the GPU is alone.
    None,
    /// A kind that this release does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl DomainKind {
    /// The name in JSON and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MultiNode => "multi_node",
            Self::NodeSwitch => "node_switch",
            Self::Bridge => "bridge",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }

    /// Whether GPUs of other nodes may be in the domain.
    #[must_use]
    pub const fn spans_nodes(self) -> bool {
        matches!(self, Self::MultiNode)
    }
}

/// One engine: what its page and the agent's configuration tell together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// Its name on this node.
    #[serde(rename = "i")]
    pub id: EngineId,
    /// The software, in [`EngineKind`](crate::engine::EngineKind)'s words; text, so that new ones pass through.
    #[serde(rename = "k")]
    pub kind: String,
    /// Where its metrics page is read.
    #[serde(rename = "e")]
    pub url: String,
    /// The software's version, where it tells.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The served model.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    /// The pool it belongs to.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// Which part of a request it serves.
    #[serde(rename = "r", default)]
    pub role: Role,
    /// The replica it is, or is a part of.
    #[serde(rename = "R", default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<ReplicaId>,
    /// The GPUs it runs on.
    #[serde(rename = "g", default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuUuid>,
    /// How many tokens its KV cache holds.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub kv_capacity_tokens: Option<u64>,
    /// Whether it is a further node of an engine that spans several: it serves no page of its own.
    #[serde(rename = "f", default, skip_serializing_if = "std::ops::Not::not")]
    pub follower: bool,
}
