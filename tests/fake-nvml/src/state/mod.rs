//! What a GPU shows at a moment: a pure function of scenario, elapsed time and, where an engine drives it, its activity.

mod counters;

pub use counters::{Counters, Totals};

use crate::control::Throttle;
use crate::identity::fnv1a;
use crate::scenario::{Scenario, Wave, splitmix};

/// Bytes in a MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// Bits of NVML's clocks event reasons.
const REASON_IDLE: u64 = 0x1;
const REASON_SOFTWARE_POWER_CAP: u64 = 0x4;
const REASON_SOFTWARE_THERMAL: u64 = 0x20;
const REASON_HARDWARE_THERMAL: u64 = 0x40;
const REASON_POWER_BRAKE: u64 = 0x80;

/// What emulated engines do on one GPU.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Activity {
    /// Share of time with a kernel running, percent.
    pub utilization_percent: f64,
    /// Framebuffer in use, bytes.
    pub memory_used_bytes: u64,
    /// Processes and the framebuffer of each, bytes.
    pub processes: Vec<(u32, u64)>,
}

/// Instantaneous values of one GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Readings {
    /// Share of time with a kernel running, percent, 0 to 100.
    pub utilization_percent: f64,
    /// Share of time with memory traffic, percent, 0 to 100.
    pub memory_utilization_percent: f64,
    /// Framebuffer in use by programs, bytes; never more than what the driver leaves.
    pub memory_used_bytes: u64,
    /// Draw, watts; never above the limit in force.
    pub power_w: f64,
    /// GPU core, degrees Celsius.
    pub temperature_c: f64,
    /// Memory, degrees Celsius; that of the core where it has no sensor.
    pub memory_temperature_c: f64,
    /// SM and graphics clock, MHz.
    pub sm_clock_mhz: f64,
    /// Share of time with the video encoders busy, percent, 0 to 100.
    pub encoder_percent: f64,
    /// Share of time with the video decoders busy, percent, 0 to 100.
    pub decoder_percent: f64,
    /// Sent over NVLink, all links together, bytes per second.
    pub nvlink_tx_bytes_per_s: f64,
    /// Received over NVLink, all links together, bytes per second.
    pub nvlink_rx_bytes_per_s: f64,
    /// Sent over PCIe, bytes per second.
    pub pcie_tx_bytes_per_s: f64,
    /// Received over PCIe, bytes per second.
    pub pcie_rx_bytes_per_s: f64,
    /// NVML's clocks event reasons.
    pub clock_event_reasons: u64,
}

impl Readings {
    /// Readings of the GPU with this index. `activity`, where given, takes the place of the scenario's load: power,
    /// temperature, clocks and traffic then follow from its utilization.
    #[must_use]
    pub fn at(scenario: &Scenario, index: usize, elapsed_s: f64, activity: Option<&Activity>) -> Self {
        let gpu_load = scenario.gpus.get(index).and_then(|gpu| gpu.load.as_ref());
        let load = gpu_load.unwrap_or(&scenario.load);
        let at_s = elapsed_s + load.shift_per_gpu_s * index as f64;
        let sample = |key: &str, wave: &Wave| wave.at(at_s, stream(scenario.seed, index, key));
        // A quantity that the file leaves out, or that an engine drives, follows from utilization.
        let own = |key: &str, wave: &Option<Wave>, derived: f64| match (activity, wave) {
            (None, Some(wave)) => sample(key, wave),
            _ => derived,
        };

        let (utilization, memory_used) = match activity {
            Some(activity) => (activity.utilization_percent, activity.memory_used_bytes as f64),
            None => (
                sample("utilization_percent", &load.utilization_percent),
                sample("memory_used_mib", &load.memory_used_mib) * MIB as f64,
            ),
        };
        let utilization = utilization.clamp(0.0, 100.0);
        let share = utilization / 100.0;
        let (device, busy) = (&scenario.device, &scenario.busy);
        let between = |idle: f64, full: f64| idle + (full - idle) * share;

        let power = own("power_w", &load.power_w, between(device.power.idle_w, device.power.busy_w));
        let heat = &device.temperature;
        let temperature = own("temperature_c", &load.temperature_c, between(heat.idle, heat.busy));
        // Clocks step up as soon as there is work: only an idle GPU rests.
        let clock = f64::from(if share > 0.0 { device.clocks.busy } else { device.clocks.idle });
        let memory_utilization =
            own("memory_utilization_percent", &load.memory_utilization_percent, utilization * busy.memory);
        let rate =
            |key: &str, wave: &Option<Wave>, full: f64| own(key, wave, full * share).max(0.0) * MIB as f64;
        let temperature = temperature.clamp(-50.0, 200.0);
        Self {
            utilization_percent: utilization,
            memory_utilization_percent: memory_utilization.clamp(0.0, 100.0),
            memory_used_bytes: (memory_used.max(0.0) as u64)
                .min((device.memory_mib - device.reserved_mib) * MIB),
            power_w: power.clamp(0.0, device.power.limit_w),
            temperature_c: temperature,
            memory_temperature_c: temperature + heat.memory_above.unwrap_or(0.0),
            sm_clock_mhz: own("sm_clock_mhz", &load.sm_clock_mhz, clock)
                .clamp(0.0, f64::from(device.clocks.max)),
            encoder_percent: own("encoder_percent", &load.encoder_percent, 0.0).clamp(0.0, 100.0),
            decoder_percent: own("decoder_percent", &load.decoder_percent, 0.0).clamp(0.0, 100.0),
            nvlink_tx_bytes_per_s: rate(
                "nvlink_tx_mib_per_s",
                &load.nvlink_tx_mib_per_s,
                busy.nvlink_mib_per_s,
            ),
            nvlink_rx_bytes_per_s: rate(
                "nvlink_rx_mib_per_s",
                &load.nvlink_rx_mib_per_s,
                busy.nvlink_mib_per_s,
            ),
            pcie_tx_bytes_per_s: rate("pcie_tx_mib_per_s", &load.pcie_tx_mib_per_s, busy.pcie_tx_mib_per_s),
            pcie_rx_bytes_per_s: rate("pcie_rx_mib_per_s", &load.pcie_rx_mib_per_s, busy.pcie_rx_mib_per_s),
            clock_event_reasons: reasons(share, power >= device.power.limit_w, temperature >= heat.slowdown),
        }
    }
}

impl Readings {
    /// The same with the clocks held down.
    #[must_use]
    pub(crate) fn throttled(self, throttle: Throttle) -> Self {
        Self {
            sm_clock_mhz: self.sm_clock_mhz.min(throttle.clock_mhz.into()),
            clock_event_reasons: self.clock_event_reasons | throttle.reasons,
            ..self
        }
    }
}

fn reasons(share: f64, capped: bool, hot: bool) -> u64 {
    let idle = if share > 0.0 { 0 } else { REASON_IDLE };
    let cap = if capped { REASON_SOFTWARE_POWER_CAP } else { 0 };
    idle | cap | if hot { REASON_SOFTWARE_THERMAL } else { 0 }
}

fn stream(seed: u64, index: usize, key: &str) -> u64 {
    splitmix(seed ^ splitmix(index as u64 ^ fnv1a(key.as_bytes())))
}

#[cfg(test)]
mod tests;
