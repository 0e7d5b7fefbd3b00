//! The seam: what the sampler needs of a driver, so that a script can stand in for NVML.

use std::time::Duration;

use plimsoll_common::ids::GpuUuid;

use super::{
    event::GpuEventKind,
    meter::Meter,
    plan::{Fact, Metric},
    reading::GpuReading,
};

/// A driver that can be connected to.
pub trait GpuDriver {
    /// Connects, hands the connected source to `work` and disconnects when `work` returns.
    ///
    /// The source lives within this call only, so a handle to a GPU cannot outlive the connection that it came from: a
    /// stale handle after a restart of the driver can crash inside NVML.
    ///
    /// # Errors
    /// When it cannot be connected; `work` was not called then.
    fn session(
        &mut self,
        work: &mut dyn FnMut(&mut dyn GpuSource) -> SessionEnd,
    ) -> Result<SessionEnd, Outage>;
}

/// Why a session's work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// The agent stops.
    Stopped,
    /// The driver is given free for so long, or until it is taken back.
    Released(Duration),
    /// The driver no longer serves us; connect again later.
    Down(Outage),
}

/// A connected driver. A method without a [`Meter`] is one call into the driver, so that the caller can count and time it.
pub trait GpuSource {
    /// The driver's version, such as `580.95.05`.
    ///
    /// # Errors
    /// As [`CallError`] says.
    fn driver_version(&mut self) -> Result<String, CallError>;

    /// The newest CUDA version that the driver supports, such as `13.0`.
    ///
    /// # Errors
    /// As [`CallError`] says.
    fn cuda_version(&mut self) -> Result<String, CallError>;

    /// How many GPUs the driver lists; lost ones may be among them.
    ///
    /// # Errors
    /// As [`CallError`] says.
    fn device_count(&mut self) -> Result<u32, CallError>;

    /// Takes the handle of the GPU at an index and forgets the one that was taken there before.
    ///
    /// # Errors
    /// As [`CallError`] says.
    fn open(&mut self, index: u32) -> Result<(), CallError>;

    /// The UUID of the GPU that was opened at an index.
    ///
    /// # Errors
    /// As [`CallError`] says.
    fn uuid(&mut self, index: u32) -> Result<GpuUuid, CallError>;

    /// Asks one fact about the GPU opened at `reading.info.index` and writes it to `reading`. Counts each call that it
    /// makes. [`Fact::Remotes`] asks one link at a time: there is more to ask while a link's remote end is absent.
    ///
    /// # Errors
    /// As [`CallError`] says; what was not told is unchanged then.
    fn describe(&mut self, fact: Fact, meter: &mut Meter, reading: &mut GpuReading) -> Result<(), CallError>;

    /// Asks one metric of the GPU opened at `reading.info.index` and writes it to `reading`. Counts each call that it
    /// makes. Fields that this GPU does not have are left absent and named in `reading.unsupported`.
    ///
    /// # Errors
    /// As [`CallError`] says; values of the metric may be old then.
    fn sample(
        &mut self,
        metric: Metric,
        meter: &mut Meter,
        reading: &mut GpuReading,
    ) -> Result<(), CallError>;

    /// Asks for events of the GPU opened at an index.
    ///
    /// # Errors
    /// As [`CallError`] says.
    fn watch(&mut self, index: u32, meter: &mut Meter) -> Result<(), CallError>;

    /// The events that happened since the last time, at most `limit`, without waiting for any.
    ///
    /// # Errors
    /// As [`CallError`] says.
    fn events(&mut self, limit: usize, meter: &mut Meter) -> Result<Vec<RawEvent>, CallError>;
}

/// An event, before it is numbered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEvent {
    /// The GPU; absent where the driver's handle belongs to none that was seen.
    pub uuid: Option<GpuUuid>,
    /// What happened.
    pub kind: GpuEventKind,
}

/// Why one call gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// This GPU or driver has no such value. Not a fault: the value is absent and need not be asked again.
    #[error("not supported by this GPU or driver")]
    NotSupported,
    /// The GPU is gone: nothing can be asked of it.
    #[error("the GPU fell off the bus or is otherwise inaccessible")]
    Lost,
    /// The whole driver is gone.
    #[error(transparent)]
    Down(Outage),
    /// Anything else; the next tick may succeed.
    #[error("{0}")]
    Other(String),
}

/// Why there is no driver to ask, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Outage {
    /// The library is not there.
    #[error(
        "no NVML library ({reason}); on a GPU node install the NVIDIA driver, in a container ask the NVIDIA runtime for \
         it (NVIDIA_DRIVER_CAPABILITIES=utility), or name the file with --nvml-library"
    )]
    NoLibrary {
        /// What the dynamic linker said.
        reason: String,
    },
    /// The library is there and cannot be used.
    #[error(
        "the NVML library cannot be used ({reason}); check that --nvml-library names the driver's own library"
    )]
    BadLibrary {
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel driver is not loaded.
    #[error(
        "the NVIDIA kernel driver is not loaded; load it (modprobe nvidia) or run the agent on GPU nodes only"
    )]
    NoDriver,
    /// The driver lists no GPU.
    #[error(
        "NVML lists no GPU; in a container make them visible (NVIDIA_VISIBLE_DEVICES=all, or with CDI \
         management.nvidia.com/gpu=all)"
    )]
    NoGpu,
    /// The user-space library and the kernel driver are of different versions.
    #[error(
        "the NVML library and the kernel driver are of different versions, as after a driver upgrade; restart the agent's \
         container so that it gets the new library, or reboot"
    )]
    VersionMismatch,
    /// The agent may not talk to the driver.
    #[error(
        "no permission to talk to the NVIDIA driver; check the access rights of /dev/nvidiactl and /dev/nvidia*"
    )]
    Denied,
    /// Anything else.
    #[error("NVML failed: {0}")]
    Other(String),
}
