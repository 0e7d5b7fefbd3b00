//! What the GPU source publishes.

use std::{sync::Arc, time::Duration};

use plimsoll_common::wire::{DriverInfo, GpuInfo, GpuState, SourceState};
use tokio::time::Instant;

use super::meter::CallCost;

/// The state of the GPU source and of all GPUs at one tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuSnapshot {
    /// When the tick ended.
    pub taken: Instant,
    /// Until when a newer snapshot is due at the latest; `None`: none is due. See [`GpuSnapshot::as_of`].
    pub valid_until: Option<Instant>,
    /// How the source is.
    pub source: SourceState,
    /// Why it is not healthy and what to do; it does not change from tick to tick while the reason stays.
    pub detail: Option<String>,
    /// The driver; absent while it does not answer.
    pub driver: Option<DriverInfo>,
    /// Rises whenever the list of GPUs or a fact about one changed.
    pub inventory: u64,
    /// The GPUs, by index.
    pub gpus: Vec<GpuReading>,
    /// Wall time spent in driver calls since the agent started.
    pub busy: Duration,
    /// Wall time that this tick spent in driver calls.
    pub tick_busy: Duration,
    /// Driver calls made since the agent started.
    pub calls: u64,
    /// Ticks that were left out because an earlier one took too long, since the agent started.
    pub missed_ticks: u64,
    /// The cost of each kind of call since the agent started, in the order of [`Call::ALL`](super::Call::ALL).
    pub costs: Vec<CallCost>,
}

impl GpuSnapshot {
    /// A snapshot without GPUs and cost.
    #[must_use]
    pub const fn empty(taken: Instant, source: SourceState, detail: Option<String>) -> Self {
        Self {
            taken,
            valid_until: None,
            source,
            detail,
            driver: None,
            inventory: 0,
            gpus: Vec::new(),
            busy: Duration::ZERO,
            tick_busy: Duration::ZERO,
            calls: 0,
            missed_ticks: 0,
            costs: Vec::new(),
        }
    }

    /// What this snapshot is worth at `now`: itself while it is valid; afterwards (a call into the driver hangs) a failed
    /// source whose GPUs no longer answer. Old values are never repeated as new ones.
    #[must_use]
    pub fn as_of(self: Arc<Self>, now: Instant) -> Arc<Self> {
        match self.valid_until {
            Some(due) if due < now => Arc::new(self.overdue()),
            _ => self,
        }
    }

    fn overdue(&self) -> Self {
        let lost = |gpu: &GpuReading| GpuReading {
            trouble: Some("the driver does not answer".to_owned()),
            ..GpuReading::absent(gpu.info.clone(), GpuState::Lost)
        };
        Self {
            source: SourceState::Failed,
            detail: Some(
                "a call into the NVIDIA driver does not return; look for stuck processes (state D) and XIDs in dmesg"
                    .to_owned(),
            ),
            gpus: self.gpus.iter().map(lost).collect(),
            ..self.clone()
        }
    }
}

/// One GPU at one tick. What is absent was not told in this tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuReading {
    /// Which GPU, and what does not change.
    pub info: GpuInfo,
    /// How it is seen.
    pub state: GpuState,
    /// Why it is not [`GpuState::Ok`].
    pub trouble: Option<String>,
    /// Share of the driver's last sample period in which a kernel ran, percent 0..=100.
    pub utilization_percent: Option<u64>,
    /// Share of the driver's last sample period in which device memory was read or written, percent 0..=100.
    pub memory_activity_percent: Option<u64>,
    /// Frame buffer in use, bytes, without what the driver reserves.
    pub memory_used_bytes: Option<u64>,
    /// Power draw, milliwatts.
    pub power_mw: Option<u64>,
    /// GPU temperature, °C.
    pub temperature_c: Option<i64>,
}

impl GpuReading {
    /// A reading that tells nothing but the state.
    #[must_use]
    pub const fn absent(info: GpuInfo, state: GpuState) -> Self {
        Self {
            info,
            state,
            trouble: None,
            utilization_percent: None,
            memory_activity_percent: None,
            memory_used_bytes: None,
            power_mw: None,
            temperature_c: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_common::ids::GpuUuid;

    use super::*;

    fn snapshot(now: Instant) -> Arc<GpuSnapshot> {
        let info = GpuInfo {
            uuid: GpuUuid::parse("GPU-a").unwrap(),
            index: 0,
            name: Some("a GPU".to_owned()),
            pci_bus_id: None,
            memory_total_bytes: None,
            power_limit_mw: None,
            domain: None,
        };
        let reading = GpuReading { power_mw: Some(300_000), ..GpuReading::absent(info, GpuState::Ok) };
        Arc::new(GpuSnapshot {
            gpus: vec![reading],
            valid_until: Some(now + Duration::from_secs(3)),
            ..GpuSnapshot::empty(now, SourceState::Healthy, None)
        })
    }

    #[test]
    fn a_valid_snapshot_is_taken_as_it_is() {
        let now = Instant::now();
        let snapshot = snapshot(now);
        assert!(Arc::ptr_eq(&Arc::clone(&snapshot).as_of(now + Duration::from_secs(3)), &snapshot));
    }

    #[test]
    fn an_overdue_snapshot_keeps_the_names_and_drops_the_values() {
        let now = Instant::now();
        let late = snapshot(now).as_of(now + Duration::from_secs(4));
        assert_eq!(late.source, SourceState::Failed);
        assert_eq!(late.taken, now);
        assert_eq!(late.gpus[0].state, GpuState::Lost);
        assert_eq!(late.gpus[0].power_mw, None);
        assert_eq!(late.gpus[0].info.name.as_deref(), Some("a GPU"));
    }

    #[test]
    fn a_final_snapshot_does_not_age() {
        let now = Instant::now();
        let off =
            Arc::new(GpuSnapshot::empty(now, SourceState::Unsupported, Some("switched off".to_owned())));
        assert_eq!(Arc::clone(&off).as_of(now + Duration::from_secs(86_400)), off);
    }
}
