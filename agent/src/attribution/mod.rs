//! Whose the GPUs are: GPU → process → container → pod.
//!
//! Two sources, each optional:
//!
//! * the kubelet's pod-resources API (v1, gRPC over its unix socket) tells which devices it gave to which container: whole
//!   GPUs, MIG instances, time-sliced replicas (a GPU lists all its pods) and devices of resource claims (DRA);
//! * the control group of each process on a GPU, which needs the host's pid namespace (`hostPID`) and is therefore off
//!   unless asked for. It tells the pod's UID and the container's id, and sees also pods that use a GPU without having
//!   asked the kubelet for one.
//!
//! The kubelet is asked every 30 s, and soon after the processes on the GPUs or the GPUs themselves change; never for longer
//! than 10 s. No socket means that this is no Kubernetes node: unsupported, which is no failure. Everything else that goes
//! wrong is told, and the last answer holds for [`AttributionOptions::KEPT`], with its time.
//!
//! * [`podresources`]: the client; [`devices`]: from device names to GPUs, pure; [`allocations`]: from the kubelet's answer
//!   to pods, pure; [`cgroup`]: from control groups to pods, pure, and reading them; [`task`]: when to ask.

mod allocations;
mod cgroup;
mod devices;
#[cfg(test)]
mod fake_kubelet;
mod podresources;
mod task;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use plimsoll_common::{ids::GpuUuid, wire::SourceState};
use tokio::time::Instant;

pub use self::{
    cgroup::{CgroupPod, parse as parse_cgroup},
    devices::{DeviceInventory, KnownGpu},
    task::run,
};

/// The most containers that are listed; those beyond are counted.
pub const MAX_PODS: usize = 4096;

/// How pods are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributionOptions {
    /// The kubelet's pod-resources socket.
    pub socket: PathBuf,
    /// Where `/proc` is mounted, to attribute processes by their control group; `None`: this is off.
    pub proc: Option<PathBuf>,
    /// Between two questions to the kubelet while nothing changes.
    pub every: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl AttributionOptions {
    /// Where kubelets listen.
    pub const SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";
    /// How long the last answer holds while the kubelet does not give a new one.
    pub const KEPT: Duration = Duration::from_secs(90);
    /// Between two questions while things change.
    pub const AT_MOST_EVERY: Duration = Duration::from_secs(2);
}

impl Default for AttributionOptions {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(Self::SOCKET),
            proc: None,
            every: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
        }
    }
}

/// Whose the GPUs are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attribution {
    /// The containers of each GPU, in their order. A GPU that is not listed has none that is known.
    pub gpus: BTreeMap<GpuUuid, Vec<PodRef>>,
    /// Containers with a device that could not be matched to a GPU of this node, and why.
    pub unplaced: Vec<Unplaced>,
    /// Containers that were left out because there were more than [`MAX_PODS`], or because their names are no names.
    pub dropped: usize,
    /// How asking the kubelet goes.
    pub kubelet: SourceStatus,
    /// How attributing by control group goes.
    pub cgroup: SourceStatus,
    /// Questions to the kubelet since the agent started.
    pub asked: u64,
    /// Questions that it did not answer properly.
    pub failed: u64,
}

/// How a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    /// Healthy, failed, or unsupported: not there, or switched off.
    pub state: SourceState,
    /// Why it is not healthy and what to do.
    pub detail: Option<String>,
    /// When it last told what is listed.
    pub taken: Option<Instant>,
}

impl Default for SourceStatus {
    fn default() -> Self {
        Self { state: SourceState::Unsupported, detail: Some("not yet asked".to_owned()), taken: None }
    }
}

/// A container that has, or uses, a GPU or a part of it. What is absent is not known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRef {
    /// The pod's namespace.
    pub namespace: Option<String>,
    /// The pod's name.
    pub pod: Option<String>,
    /// The container's name.
    pub container: Option<String>,
    /// Who says so.
    pub source: PodSource,
    /// The part of the GPU: a MIG instance's UUID, or the name of its device.
    pub mig: Option<String>,
    /// The resource claim, `namespace/name`, where it was given by one.
    pub claim: Option<String>,
    /// The pod's UID; control groups tell it, the kubelet does not.
    pub pod_uid: Option<String>,
    /// The container's id at its runtime; control groups tell it.
    pub container_id: Option<String>,
    /// Its processes on the GPU, where control groups are read.
    pub pids: Vec<u32>,
}

/// Who says that a container has a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodSource {
    /// The kubelet: handed out by a device plugin.
    DevicePlugin,
    /// The kubelet: allocated to a resource claim.
    Claim,
    /// The control group of a process on the GPU.
    Cgroup,
}

impl PodSource {
    /// The name in labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DevicePlugin => "device_plugin",
            Self::Claim => "claim",
            Self::Cgroup => "cgroup",
        }
    }
}

/// A container with a device that is not known here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unplaced {
    /// The container.
    pub pod: PodRef,
    /// The device as it was told.
    pub device: String,
    /// Why it could not be matched.
    pub why: &'static str,
}
