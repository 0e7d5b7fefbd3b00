//! The GPU source: what NVML tells about the GPUs of this node, at a cost that is measured and published.
//!
//! The driver's lock is the hard budget, not our CPU: NVML calls serialise with the work of the engines. So one thread
//! asks what the [plan] lists, a [governor] keeps the time in those calls under 5 ms a second, what a GPU
//! does not support is remembered, and new or lost GPUs are looked for rarely. `nvmlDeviceGetPcieThroughput` (20 ms a
//! call) is never among it. On request the driver is [given free](GpuControl::release) for a while.
//!
//! From top to bottom; a file imports only what stands below it:
//! * [`duty`]: what the process does about it;
//! * [`monitor`]: the thread and how it starts, stops and is told to give the driver free;
//! * [`session`]: connect, enumerate, tick, and again after an outage;
//! * [`sampler`]: which GPUs there are and what they say in one tick; knows nothing of threads and clocks;
//! * [`governor`], [`connection`] and [`schedule`]: what is asked when, back-off, and the grid of ticks; pure;
//! * [`nvml`]: the [`GpuSource`] that is NVML; [`raw`]: the calls that its safe wrapper lacks;
//! * [`snapshot`], [`reading`] and the rest: the words.

mod connection;
mod duty;
mod event;
mod governor;
mod interconnect;
mod meter;
mod monitor;
mod nvml;
mod orders;
mod partition;
mod plan;
mod raw;
mod reading;
mod sampler;
mod schedule;
#[cfg(test)]
mod scripted;
mod session;
mod snapshot;
mod source;

use std::{path::PathBuf, time::Duration};

pub use self::{
    duty::{OnDriverUpgrade, RestartNeeded, end_when_outdated, release_on_signal},
    event::{GpuEvent, GpuEventKind},
    governor::{DearQuestion, GovernorState, TierState},
    interconnect::{
        Fabric, FabricHealth, FabricState, LinkErrorKind, LinkErrors, LinkTraffic, NvLink, Platform,
        RemoteEnd, RemoteKind,
    },
    meter::{CallCost, Latencies, Meter},
    monitor::{GpuControl, GpuMonitor, NotRunning, Stopped, spawn},
    partition::{Mig, MigInstance},
    plan::{Call, Fact, Metric, Tier},
    reading::{
        Activity, BufferedSamples, Clocks, Ecc, GpuFacts, GpuProcess, GpuProcessKind, GpuReading, GpuStatus,
        Pcie, RecoveryAction, RemappedRows, RetiredPages, Samples, Taken, ThrottleReasons, Video, Xids,
    },
    snapshot::{AbsentGpu, GpuSnapshot, Release},
    source::{CallError, GpuDriver, GpuSource, Outage, RawEvent, SessionEnd},
};

/// How GPUs are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuOptions {
    /// Whether NVML is loaded at all; off, the source is unsupported and says that it was switched off.
    pub enabled: bool,
    /// The NVML library; `libnvidia-ml.so.1` on the dynamic linker's path by default.
    pub library: Option<PathBuf>,
    /// The time between two ticks, at least [`GpuOptions::MIN_INTERVAL`].
    pub interval: Duration,
    /// Places the ticks within the interval, so that the nodes of a fleet that start together do not tick together. The
    /// node's name is a good seed: see [`GpuOptions::seed_of`].
    pub seed: u64,
}

impl GpuOptions {
    /// Ticks closer than this were seen to cost engines decode time, so they are not offered.
    pub const MIN_INTERVAL: Duration = Duration::from_millis(100);

    /// What was not seen to cost them any. Less is possible, and warned of.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);

    /// A seed that is the same for the same text on every machine and build (FNV-1a).
    #[must_use]
    pub fn seed_of(text: &str) -> u64 {
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

impl Default for GpuOptions {
    fn default() -> Self {
        Self { enabled: true, library: None, interval: Self::DEFAULT_INTERVAL, seed: 0 }
    }
}
