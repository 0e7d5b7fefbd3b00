//! The sections of a scenario file that make the GPUs move.

use serde::Deserialize;

use super::Wave;

/// `[load]`: what the GPUs do. Everything but utilization and memory follows from utilization unless it is given here.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Share of time with a kernel running, percent.
    pub utilization_percent: Wave,
    /// Framebuffer in use by programs, MiB.
    pub memory_used_mib: Wave,
    /// Share of time with memory traffic, percent.
    pub memory_utilization_percent: Option<Wave>,
    /// Draw, watts.
    pub power_w: Option<Wave>,
    /// GPU core, degrees Celsius.
    pub temperature_c: Option<Wave>,
    /// SM clock, MHz.
    pub sm_clock_mhz: Option<Wave>,
    /// Share of time with the video encoders busy, percent; they idle unless it is given.
    pub encoder_percent: Option<Wave>,
    /// Share of time with the video decoders busy, percent; they idle unless it is given.
    pub decoder_percent: Option<Wave>,
    /// Sent over NVLink, all links together, MiB/s.
    pub nvlink_tx_mib_per_s: Option<Wave>,
    /// Received over NVLink, all links together, MiB/s.
    pub nvlink_rx_mib_per_s: Option<Wave>,
    /// Sent over PCIe, MiB/s.
    pub pcie_tx_mib_per_s: Option<Wave>,
    /// Received over PCIe, MiB/s.
    pub pcie_rx_mib_per_s: Option<Wave>,
    /// GPU `i` is `i` times this ahead in time, seconds, so that the GPUs of a node do not move as one.
    #[serde(default)]
    pub shift_per_gpu_s: f64,
}

impl Load {
    /// Every waveform with its key.
    pub(crate) fn waves(&self) -> impl Iterator<Item = (&'static str, &Wave)> {
        [
            ("utilization_percent", Some(&self.utilization_percent)),
            ("memory_used_mib", Some(&self.memory_used_mib)),
            ("memory_utilization_percent", self.memory_utilization_percent.as_ref()),
            ("power_w", self.power_w.as_ref()),
            ("temperature_c", self.temperature_c.as_ref()),
            ("sm_clock_mhz", self.sm_clock_mhz.as_ref()),
            ("encoder_percent", self.encoder_percent.as_ref()),
            ("decoder_percent", self.decoder_percent.as_ref()),
            ("nvlink_tx_mib_per_s", self.nvlink_tx_mib_per_s.as_ref()),
            ("nvlink_rx_mib_per_s", self.nvlink_rx_mib_per_s.as_ref()),
            ("pcie_tx_mib_per_s", self.pcie_tx_mib_per_s.as_ref()),
            ("pcie_rx_mib_per_s", self.pcie_rx_mib_per_s.as_ref()),
        ]
        .into_iter()
        .filter_map(|(key, wave)| Some((key, wave?)))
    }
}

/// `[busy]`: what a GPU at 100 % utilization does; all of it scales with utilization. Shares are 0 to 1.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Busy {
    /// Memory utilization.
    pub memory: f64,
    /// SMs with a warp resident.
    pub sm: f64,
    /// Resident warps of those that would fit.
    pub occupancy: f64,
    /// Tensor pipes, all kinds together.
    pub tensor: f64,
    /// DRAM bandwidth.
    pub dram: f64,
    /// Integer pipe.
    pub integer: f64,
    /// FP64 pipe.
    pub fp64: f64,
    /// FP32 pipe.
    pub fp32: f64,
    /// FP16 pipe.
    pub fp16: f64,
    /// Sent over NVLink, and as much received, all links together, MiB/s.
    pub nvlink_mib_per_s: f64,
    /// Sent over PCIe, MiB/s.
    pub pcie_tx_mib_per_s: f64,
    /// Received over PCIe, MiB/s.
    pub pcie_rx_mib_per_s: f64,
}

impl Default for Busy {
    fn default() -> Self {
        Self {
            memory: 0.55,
            sm: 0.85,
            occupancy: 0.30,
            tensor: 0.40,
            dram: 0.60,
            integer: 0.12,
            fp64: 0.0,
            fp32: 0.10,
            fp16: 0.04,
            nvlink_mib_per_s: 60_000.0,
            pcie_tx_mib_per_s: 300.0,
            pcie_rx_mib_per_s: 900.0,
        }
    }
}

impl Busy {
    /// Every share with its key.
    pub(crate) fn shares(&self) -> [(&'static str, f64); 9] {
        [
            ("memory", self.memory),
            ("sm", self.sm),
            ("occupancy", self.occupancy),
            ("tensor", self.tensor),
            ("dram", self.dram),
            ("integer", self.integer),
            ("fp64", self.fp64),
            ("fp32", self.fp32),
            ("fp16", self.fp16),
        ]
    }
}
