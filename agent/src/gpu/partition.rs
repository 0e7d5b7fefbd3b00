//! How a GPU is partitioned (MIG).

use plimsoll_common::ids::GpuUuid;

use super::reading::Activity;

/// MIG of one GPU.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mig {
    /// Whether it is on.
    pub enabled: bool,
    /// What it will be after the next reset; absent when the same.
    pub pending: Option<bool>,
    /// The instances that can be computed on, by UUID.
    pub instances: Vec<MigInstance>,
}

/// A compute instance of a partitioned GPU.
#[derive(Debug, Clone, PartialEq)]
pub struct MigInstance {
    /// Its name, `MIG-…`.
    pub uuid: GpuUuid,
    /// The GPU instance that it is in.
    pub gpu_instance_id: Option<u32>,
    /// Its number in the GPU instance.
    pub compute_instance_id: Option<u32>,
    /// Its size in NVIDIA's words, such as `1g.10gb`; absent where the driver does not tell.
    pub profile: Option<String>,
    /// Device memory of its GPU instance, bytes.
    pub memory_total_bytes: Option<u64>,
    /// Device memory in use, bytes.
    pub memory_used_bytes: Option<u64>,
    /// What the parts of its GPU instance did between the last two looks; throughputs are known of whole GPUs only.
    pub activity: Activity,
}
