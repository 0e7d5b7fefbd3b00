//! What one GPU tells.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use plimsoll_common::{
    units::Ratio,
    wire::{GpuInfo, GpuState},
};
use tokio::time::Instant;

use super::{
    interconnect::{Fabric, NvLink, Platform},
    partition::Mig,
    plan::Metric,
};

/// How a GPU is seen. What supports no value is another thing ([`GpuReading::unsupported`]), and so is a GPU that is gone
/// ([`GpuSnapshot::absent`](super::GpuSnapshot::absent)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GpuStatus {
    /// It answers.
    Ok,
    /// It answers, but not with everything it should.
    Degraded,
    /// NVML says that it fell off the bus, or it answers nothing.
    Lost,
    /// Nothing newer is known of it, because the driver is not asked or does not answer. Its values are absent.
    Stale,
}

impl GpuStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Degraded, Self::Lost, Self::Stale];

    /// The name in labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Lost => "lost",
            Self::Stale => "stale",
        }
    }

    /// In the wire's words, where a GPU that no longer answers is lost whatever the reason.
    #[must_use]
    pub const fn wire(self) -> GpuState {
        match self {
            Self::Ok => GpuState::Ok,
            Self::Degraded => GpuState::Degraded,
            Self::Lost | Self::Stale => GpuState::Lost,
        }
    }
}

/// One GPU. What is absent is not known; [`GpuReading::taken`] tells when what is known was asked, since dear values are
/// asked less often than others.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuReading {
    /// Which GPU, and what the planner is told of it.
    pub info: GpuInfo,
    /// What else does not change.
    pub facts: Arc<GpuFacts>,
    /// How it is seen.
    pub state: GpuStatus,
    /// Why it is not [`GpuStatus::Ok`].
    pub trouble: Option<String>,
    /// When each group of values was asked successfully for the last time.
    pub taken: Taken,
    /// The fields (in the words of the JSON API) that this GPU or its driver does not have. They are absent for good, until
    /// the driver or the GPU's partition changes.
    pub unsupported: BTreeSet<&'static str>,
    /// Share of the driver's last sample period in which a kernel ran, percent 0..=100.
    pub utilization_percent: Option<u64>,
    /// Share of the driver's last sample period in which device memory was read or written, percent 0..=100.
    pub memory_activity_percent: Option<u64>,
    /// Frame buffer in use, bytes, without what the driver reserves.
    pub memory_used_bytes: Option<u64>,
    /// Power draw, milliwatts: instantaneous where the driver tells it, otherwise averaged by it.
    pub power_mw: Option<u64>,
    /// Energy used since the driver was loaded, millijoules.
    pub energy_mj: Option<u64>,
    /// GPU temperature, °C.
    pub temperature_c: Option<i64>,
    /// Temperature of the device memory, °C.
    pub memory_temperature_c: Option<i64>,
    /// Performance state, 0 (fastest) to 15.
    pub performance_state: Option<u8>,
    /// Clocks.
    pub clocks: Clocks,
    /// Why the clocks are lower than they could be.
    pub throttle: Option<ThrottleReasons>,
    /// Memory errors.
    pub ecc: Ecc,
    /// Rows of the device memory that were replaced.
    pub remapped_rows: Option<RemappedRows>,
    /// What the GPU's parts did between the last two looks.
    pub activity: Activity,
    /// XIDs since the agent started.
    pub xids: Xids,
    /// What the driver says has to be done to repair it.
    pub recovery_action: Option<RecoveryAction>,
    /// Links to other GPUs and switches, by index.
    pub links: Arc<[NvLink]>,
    /// Payload sent over all links since the driver was loaded, bytes.
    pub nvlink_tx_bytes: Option<u64>,
    /// Payload received over all links since the driver was loaded, bytes.
    pub nvlink_rx_bytes: Option<u64>,
    /// What the NVLink fabric says of this GPU.
    pub fabric: Option<Fabric>,
    /// Its place in chassis and rack.
    pub platform: Option<Platform>,
    /// How it is partitioned.
    pub mig: Option<Mig>,
    /// The processes that use it, by id.
    pub processes: Option<Arc<[GpuProcess]>>,
}

impl GpuReading {
    /// A reading that tells nothing but the state.
    #[must_use]
    pub fn absent(info: GpuInfo, state: GpuStatus) -> Self {
        Self {
            info,
            facts: Arc::default(),
            state,
            trouble: None,
            taken: Taken::default(),
            unsupported: BTreeSet::new(),
            utilization_percent: None,
            memory_activity_percent: None,
            memory_used_bytes: None,
            power_mw: None,
            energy_mj: None,
            temperature_c: None,
            memory_temperature_c: None,
            performance_state: None,
            clocks: Clocks::default(),
            throttle: None,
            ecc: Ecc::default(),
            remapped_rows: None,
            activity: Activity::default(),
            xids: Xids::default(),
            recovery_action: None,
            links: Arc::default(),
            nvlink_tx_bytes: None,
            nvlink_rx_bytes: None,
            fabric: None,
            platform: None,
            mig: None,
            processes: None,
        }
    }

    /// Forgets the values of a metric: they are too old, or could not be asked.
    pub(super) fn clear(&mut self, metric: Metric) {
        self.taken.set(metric, None);
        match metric {
            Metric::Utilization => (self.utilization_percent, self.memory_activity_percent) = (None, None),
            Metric::Memory => self.memory_used_bytes = None,
            Metric::Power => {
                (self.power_mw, self.energy_mj) = (None, None);
                (self.nvlink_tx_bytes, self.nvlink_rx_bytes) = (None, None);
            }
            Metric::Activity => self.activity = Activity::default(),
            Metric::Temperature => self.temperature_c = None,
            Metric::Throttle => self.throttle = None,
            Metric::Clocks => {
                let Clocks { max_sm_mhz, max_memory_mhz, .. } = self.clocks;
                self.clocks = Clocks { max_sm_mhz, max_memory_mhz, ..Clocks::default() };
            }
            Metric::PerformanceState => self.performance_state = None,
            Metric::Ecc => {
                self.ecc = Ecc::default();
                (self.memory_temperature_c, self.recovery_action) = (None, None);
            }
            Metric::ComputeProcesses => self.forget_processes(GpuProcessKind::Compute),
            Metric::GraphicsProcesses => self.forget_processes(GpuProcessKind::Graphics),
            Metric::Mig => self.mig = None,
            Metric::Fabric => self.fabric = None,
            Metric::Links => {
                let known = |link: &NvLink| NvLink {
                    index: link.index,
                    remote: link.remote.clone(),
                    ..NvLink::default()
                };
                self.links = self.links.iter().map(known).collect();
            }
            Metric::RemappedRows => self.remapped_rows = None,
            Metric::Pcie => {
                let pcie = &mut Arc::make_mut(&mut self.facts).pcie;
                (pcie.generation, pcie.width) = (None, None);
            }
            // It is a fact that changes seldom; the last one told holds.
            Metric::PowerLimit => {}
        }
    }

    /// Leaves the other kind alone; with neither kind known there is no list.
    fn forget_processes(&mut self, kind: GpuProcessKind) {
        let Some(processes) = &self.processes else { return };
        let rest: Vec<GpuProcess> =
            processes.iter().filter(|process| process.kind != kind).cloned().collect();
        let both = [Metric::ComputeProcesses, Metric::GraphicsProcesses];
        let known = both.iter().any(|metric| self.taken.of(*metric).is_some());
        self.processes = known.then(|| rest.into());
    }

    /// The same GPU without values that age: its names, what was counted so far, and the last recovery action.
    #[must_use]
    pub fn without_values(&self, state: GpuStatus, trouble: &str) -> Self {
        Self {
            facts: Arc::clone(&self.facts),
            trouble: Some(trouble.to_owned()),
            unsupported: self.unsupported.clone(),
            xids: self.xids.clone(),
            recovery_action: self.recovery_action,
            platform: self.platform.clone(),
            ..Self::absent(self.info.clone(), state)
        }
    }
}

/// When each [`Metric`] was asked successfully for the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken([Option<Instant>; Metric::ALL.len()]);

impl Default for Taken {
    fn default() -> Self {
        Self([None; Metric::ALL.len()])
    }
}

impl Taken {
    /// When this metric was asked; `None` when it has no value.
    #[must_use]
    pub const fn of(&self, metric: Metric) -> Option<Instant> {
        self.0[metric as usize]
    }

    /// Notes when a metric was asked, or that it has no value.
    pub const fn set(&mut self, metric: Metric, at: Option<Instant>) {
        self.0[metric as usize] = at;
    }
}

/// What does not change while a GPU is in its slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuFacts {
    /// Architecture, such as `Hopper`.
    pub architecture: Option<String>,
    /// CUDA compute capability, major and minor.
    pub compute_capability: Option<(u32, u32)>,
    /// Serial number of the board.
    pub serial: Option<String>,
    /// Part number of the board.
    pub board_part_number: Option<String>,
    /// Version of the VBIOS.
    pub vbios: Option<String>,
    /// Number of the device file `/dev/nvidia<minor>`.
    pub minor: Option<u32>,
    /// NUMA node that the GPU is attached to.
    pub numa_node: Option<u32>,
    /// Position on the baseboard.
    pub module_id: Option<u32>,
    /// PCIe link now and at best.
    pub pcie: Pcie,
    /// How many NVLinks it has.
    pub nvlinks: Option<u32>,
}

/// A PCIe link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pcie {
    /// Generation now; it falls while the GPU is idle.
    pub generation: Option<u32>,
    /// Lanes now.
    pub width: Option<u32>,
    /// The best generation that GPU and slot support.
    pub max_generation: Option<u32>,
    /// The most lanes that GPU and slot support.
    pub max_width: Option<u32>,
}

/// Clocks, MHz.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clocks {
    /// Streaming multiprocessors.
    pub sm_mhz: Option<u64>,
    /// Device memory.
    pub memory_mhz: Option<u64>,
    /// Graphics.
    pub graphics_mhz: Option<u64>,
    /// Video encoder and decoder.
    pub video_mhz: Option<u64>,
    /// The highest of the streaming multiprocessors.
    pub max_sm_mhz: Option<u64>,
    /// The highest of the device memory.
    pub max_memory_mhz: Option<u64>,
}

/// Why clocks are lower than they could be: NVML's `nvmlClocksEventReasons` bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ThrottleReasons(pub u64);

impl ThrottleReasons {
    /// The reasons that are told by name; what only says that the GPU is idle or was set so by its owner is no throttling.
    pub const NAMES: [(u64, &'static str); 6] = [
        (0x04, "sw_power_cap"),
        (0x08, "hw_slowdown"),
        (0x10, "sync_boost"),
        (0x20, "sw_thermal_slowdown"),
        (0x40, "hw_thermal_slowdown"),
        (0x80, "hw_power_brake"),
    ];

    /// The names of the reasons that hold, in the order of their bits.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(bit, _)| self.0 & bit != 0).map(|(_, name)| name)
    }

    /// Whether anything holds the clocks down.
    #[must_use]
    pub fn is_throttled(self) -> bool {
        self.names().next().is_some()
    }
}

/// Memory errors that ECC counted: volatile since the driver was loaded, aggregate over the board's life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ecc {
    /// Whether ECC is on.
    pub enabled: Option<bool>,
    /// Corrected since the driver was loaded.
    pub corrected_volatile: Option<u64>,
    /// Uncorrected since the driver was loaded.
    pub uncorrected_volatile: Option<u64>,
    /// Corrected over the board's life.
    pub corrected_aggregate: Option<u64>,
    /// Uncorrected over the board's life.
    pub uncorrected_aggregate: Option<u64>,
}

/// Rows of the device memory that were replaced by spare ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemappedRows {
    /// Because of corrected errors.
    pub corrected: u64,
    /// Because of uncorrected errors.
    pub uncorrected: u64,
    /// Whether a reset is needed to replace more.
    pub pending: bool,
    /// Whether a row could not be replaced: the GPU has to be exchanged.
    pub failed: bool,
}

/// What the parts of a GPU did in a window, by NVML's GPM (Hopper and newer).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Activity {
    /// Share of time in which the graphics or compute engine was active.
    pub graphics: Option<Ratio>,
    /// Share of time in which a multiprocessor had a warp, averaged over them.
    pub sm: Option<Ratio>,
    /// Share of the warps that a multiprocessor can hold, averaged over them.
    pub sm_occupancy: Option<Ratio>,
    /// Share of time in which the tensor cores were active.
    pub tensor: Option<Ratio>,
    /// Share of the device memory's bandwidth in use.
    pub dram: Option<Ratio>,
    /// Share of time in which the FP16 pipe was active.
    pub fp16: Option<Ratio>,
    /// Share of time in which the FP32 pipe was active.
    pub fp32: Option<Ratio>,
    /// Share of time in which the FP64 pipe was active.
    pub fp64: Option<Ratio>,
    /// Bytes a second sent over PCIe.
    pub pcie_tx_bytes_per_second: Option<u64>,
    /// Bytes a second received over PCIe.
    pub pcie_rx_bytes_per_second: Option<u64>,
    /// Bytes a second sent over all NVLinks.
    pub nvlink_tx_bytes_per_second: Option<u64>,
    /// Bytes a second received over all NVLinks.
    pub nvlink_rx_bytes_per_second: Option<u64>,
    /// How long the window was; absent when there was none.
    pub window: Option<Duration>,
}

/// XIDs: the driver's error events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Xids {
    /// How often each code came since the agent started.
    pub counts: BTreeMap<u64, u64>,
    /// The newest: its code and when it was read.
    pub last: Option<(u64, Instant)>,
}

/// What has to be done to repair a GPU: NVML's `nvmlDeviceGpuRecoveryAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryAction {
    /// Nothing.
    None,
    /// Reset the GPU.
    GpuReset,
    /// Reboot the node.
    NodeReboot,
    /// Drain the peers of this GPU.
    DrainP2p,
    /// Drain the GPU, then reset it.
    DrainAndReset,
    /// Recover the IMEX domain.
    RecoverImexDomain,
    /// Reset the bus.
    BusReset,
    /// Reboot the system.
    SystemReboot,
    /// One that this build does not know.
    Other(u64),
}

impl RecoveryAction {
    /// NVML's code.
    #[must_use]
    pub const fn from_code(code: u64) -> Self {
        match code {
            0 => Self::None,
            1 => Self::GpuReset,
            2 => Self::NodeReboot,
            3 => Self::DrainP2p,
            4 => Self::DrainAndReset,
            5 => Self::RecoverImexDomain,
            6 => Self::BusReset,
            7 => Self::SystemReboot,
            other => Self::Other(other),
        }
    }

    /// The name in labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::GpuReset => "gpu_reset",
            Self::NodeReboot => "node_reboot",
            Self::DrainP2p => "drain_p2p",
            Self::DrainAndReset => "drain_and_reset",
            Self::RecoverImexDomain => "recover_imex_domain",
            Self::BusReset => "bus_reset",
            Self::SystemReboot => "system_reboot",
            Self::Other(_) => "other",
        }
    }
}

/// A process on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GpuProcess {
    /// Process id in the host's pid namespace.
    pub pid: u32,
    /// What it does there.
    pub kind: GpuProcessKind,
    /// Device memory in use, bytes; absent where the driver does not tell.
    pub memory_used_bytes: Option<u64>,
}

/// What a process does on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GpuProcessKind {
    /// CUDA.
    Compute,
    /// Rendering.
    Graphics,
}

impl GpuProcessKind {
    /// The name in labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Graphics => "graphics",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_gpu_is_not_throttled() {
        assert!(!ThrottleReasons(0x1).is_throttled());
        assert!(!ThrottleReasons(0x2 | 0x100).is_throttled());
        let hot = ThrottleReasons(0x1 | 0x8 | 0x40);
        assert!(hot.names().eq(["hw_slowdown", "hw_thermal_slowdown"]));
    }

    #[test]
    fn an_unknown_recovery_action_passes_through() {
        assert_eq!(RecoveryAction::from_code(1), RecoveryAction::GpuReset);
        assert_eq!(RecoveryAction::from_code(99), RecoveryAction::Other(99));
    }
}
