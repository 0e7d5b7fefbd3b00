//! What the GPU source publishes.

use std::{sync::Arc, time::Duration};

use plimsoll_common::wire::{DriverInfo, GpuInfo, SourceState};
use tokio::time::Instant;

use super::{
    event::GpuEvent,
    governor::GovernorState,
    meter::{CallCost, Latencies},
    reading::{GpuReading, GpuStatus},
};

/// The state of the GPU source and of all GPUs at one tick.
#[derive(Debug, Clone, PartialEq)]
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
    /// GPUs that were here within the last day and that the driver no longer lists, by UUID.
    pub absent: Vec<AbsentGpu>,
    /// The newest events, the oldest first; at most [`GpuSnapshot::MAX_EVENTS`].
    pub events: Arc<[GpuEvent]>,
    /// While NVML is released on request.
    pub release: Option<Release>,
    /// Why the agent has to be started anew to see GPUs again: the library that it loaded is not the driver's any more.
    pub restart_needed: bool,
    /// How the budget of driver calls is kept.
    pub governor: GovernorState,
    /// How long the calls of each kind took.
    pub latencies: Latencies,
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
    /// How many events are kept.
    pub const MAX_EVENTS: usize = 64;

    /// A snapshot without GPUs and cost.
    #[must_use]
    pub fn empty(taken: Instant, source: SourceState, detail: Option<String>) -> Self {
        Self {
            taken,
            valid_until: None,
            source,
            detail,
            driver: None,
            inventory: 0,
            gpus: Vec::new(),
            absent: Vec::new(),
            events: Arc::default(),
            release: None,
            restart_needed: false,
            governor: GovernorState::default(),
            latencies: Latencies::default(),
            busy: Duration::ZERO,
            tick_busy: Duration::ZERO,
            calls: 0,
            missed_ticks: 0,
            costs: Vec::new(),
        }
    }

    /// What this snapshot is worth at `now`: itself while it is valid; afterwards (a call into the driver hangs) a failed
    /// source whose GPUs are stale. Old values are never repeated as new ones.
    #[must_use]
    pub fn as_of(self: Arc<Self>, now: Instant) -> Arc<Self> {
        match self.valid_until {
            Some(due) if due < now => Arc::new(self.overdue()),
            _ => self,
        }
    }

    fn overdue(&self) -> Self {
        Self {
            source: SourceState::Failed,
            detail: Some(match self.latencies.in_flight() {
                Some(call) => format!(
                    "a call into the NVIDIA driver does not return ({}); look for stuck processes (state D) and XIDs in \
                     dmesg",
                    call.as_str()
                ),
                None => "the thread that asks the NVIDIA driver gives no sign of life".to_owned(),
            }),
            gpus: self
                .gpus
                .iter()
                .map(|gpu| gpu.without_values(GpuStatus::Stale, "the driver does not answer"))
                .collect(),
            ..self.clone()
        }
    }
}

/// A GPU that was here and that the driver no longer lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbsentGpu {
    /// Which one.
    pub info: GpuInfo,
    /// When it was last listed.
    pub last_seen: Instant,
}

/// NVML is shut down and unloaded on request, so that a GPU can be reset, its MIG mode changed or the driver unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// Since when nothing of the driver is held.
    pub since: Instant,
    /// When the agent comes back by itself.
    pub until: Instant,
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
        let reading = GpuReading { power_mw: Some(300_000), ..GpuReading::absent(info, GpuStatus::Ok) };
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
        assert_eq!(late.gpus[0].state, GpuStatus::Stale);
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
