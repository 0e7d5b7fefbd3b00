//! What one GPU tells.

mod activity;
mod facts;
mod health;

use std::{collections::BTreeSet, sync::Arc};

use plimsoll_common::wire::{GpuInfo, GpuState};
use tokio::time::Instant;

pub use self::{
    activity::{Activity, BufferedSamples, Clocks, GpuProcess, GpuProcessKind, Samples, Video},
    facts::{GpuFacts, Pcie},
    health::{Ecc, RecoveryAction, RemappedRows, RetiredPages, ThrottleReasons, Xids},
};
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
    /// Frame buffer that the driver reserves for itself, bytes.
    pub memory_reserved_bytes: Option<u64>,
    /// Power draw, milliwatts: instantaneous where the driver tells it, otherwise averaged by it.
    pub power_mw: Option<u64>,
    /// Energy used since the driver was loaded, millijoules.
    pub energy_mj: Option<u64>,
    /// What the driver sampled by itself since the last look.
    pub samples: BufferedSamples,
    /// How busy the video engines are.
    pub video: Video,
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
    /// Pages of the device memory that are no longer used.
    pub retired_pages: RetiredPages,
    /// Transfers over PCIe that had to be repeated since the driver was loaded.
    pub pcie_replays: Option<u64>,
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
            memory_reserved_bytes: None,
            power_mw: None,
            energy_mj: None,
            samples: BufferedSamples::default(),
            video: Video::default(),
            temperature_c: None,
            memory_temperature_c: None,
            performance_state: None,
            clocks: Clocks::default(),
            throttle: None,
            ecc: Ecc::default(),
            remapped_rows: None,
            retired_pages: RetiredPages::default(),
            pcie_replays: None,
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
            Metric::Memory => (self.memory_used_bytes, self.memory_reserved_bytes) = (None, None),
            Metric::Power => {
                (self.power_mw, self.energy_mj) = (None, None);
                (self.nvlink_tx_bytes, self.nvlink_rx_bytes) = (None, None);
            }
            Metric::Activity => self.activity = Activity::default(),
            Metric::Samples => self.samples = BufferedSamples::default(),
            Metric::Video => self.video = Video::default(),
            Metric::MigActivity => self.forget_mig_activity(),
            Metric::Temperature => self.temperature_c = None,
            Metric::Throttle => self.throttle = None,
            Metric::Clocks => {
                let Clocks { max_sm_mhz, max_memory_mhz, .. } = self.clocks;
                self.clocks = Clocks { max_sm_mhz, max_memory_mhz, ..Clocks::default() };
            }
            Metric::PerformanceState => self.performance_state = None,
            Metric::Ecc => {
                self.ecc = Ecc::default();
                self.retired_pages = RetiredPages::default();
                (self.memory_temperature_c, self.recovery_action, self.pcie_replays) = (None, None, None);
            }
            Metric::ComputeProcesses => self.forget_processes(GpuProcessKind::Compute),
            Metric::GraphicsProcesses => self.forget_processes(GpuProcessKind::Graphics),
            Metric::Mig => self.mig = None,
            Metric::Fabric => self.fabric = None,
            Metric::Links => self.change_links(|link| (link.active, link.version) = (None, None)),
            Metric::LinkErrors => {
                self.change_links(|link| (link.errors, link.traffic) = Default::default());
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

    fn change_links(&mut self, change: impl Fn(&mut NvLink)) {
        let mut links = self.links.to_vec();
        links.iter_mut().for_each(change);
        self.links = links.into();
    }

    fn forget_mig_activity(&mut self) {
        let instances = self.mig.iter_mut().flat_map(|mig| &mut mig.instances);
        instances.for_each(|instance| instance.activity = Activity::default());
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
