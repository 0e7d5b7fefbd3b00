//! What a GPU does: clocks, what its parts did in a window, and who uses it.

use std::time::Duration;

use plimsoll_common::units::Ratio;

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

/// What a buffer of the driver's held since it was read last: the driver samples more often than it is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Samples {
    /// The mean of the samples, in the unit of what is sampled.
    pub mean: f64,
    /// The greatest of them.
    pub max: u64,
    /// How many there were.
    pub count: u32,
    /// From the first to the last of them: less than the time between two looks where the buffer is shorter.
    pub span: Duration,
}

/// The buffers of samples that the driver keeps. Absent where it has none, and where it took no new sample.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BufferedSamples {
    /// Share of time in which a kernel ran, percent.
    pub utilization_percent: Option<Samples>,
    /// Share of time in which device memory was read or written, percent.
    pub memory_activity_percent: Option<Samples>,
    /// Power draw, milliwatts.
    pub power_mw: Option<Samples>,
}

/// How busy the video engines are: the share of the driver's last sample period, percent 0..=100.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Video {
    /// The encoders.
    pub encoder_percent: Option<u64>,
    /// The decoders.
    pub decoder_percent: Option<u64>,
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
