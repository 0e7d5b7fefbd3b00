//! Counters: integrals of the readings over time.

use super::Readings;

/// Length of an integration step, seconds. A step is counted with the readings at its middle.
const STEP_S: f64 = 0.5;

/// Running totals since the scenario began. They never fall.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Time the totals reach to, seconds since the scenario began.
    pub elapsed_s: f64,
    /// Utilization as a share, times seconds.
    pub busy_s: f64,
    /// Energy, joules.
    pub energy_j: f64,
    /// Sent over NVLink, bytes.
    pub nvlink_tx_bytes: f64,
    /// Received over NVLink, bytes.
    pub nvlink_rx_bytes: f64,
    /// Sent over PCIe, bytes.
    pub pcie_tx_bytes: f64,
    /// Received over PCIe, bytes.
    pub pcie_rx_bytes: f64,
    /// Time under the software power cap, seconds.
    pub power_capped_s: f64,
    /// Time slowed down by the driver because of heat, seconds.
    pub software_thermal_s: f64,
    /// Time slowed down by the board because of heat, seconds.
    pub hardware_thermal_s: f64,
    /// Time slowed down by the power brake, seconds.
    pub power_brake_s: f64,
}

impl Totals {
    fn add(&mut self, readings: &Readings, seconds: f64) {
        self.elapsed_s += seconds;
        self.busy_s += readings.utilization_percent / 100.0 * seconds;
        self.energy_j += readings.power_w * seconds;
        self.nvlink_tx_bytes += readings.nvlink_tx_bytes_per_s * seconds;
        self.nvlink_rx_bytes += readings.nvlink_rx_bytes_per_s * seconds;
        self.pcie_tx_bytes += readings.pcie_tx_bytes_per_s * seconds;
        self.pcie_rx_bytes += readings.pcie_rx_bytes_per_s * seconds;
        for (reason, total_s) in [
            (super::REASON_SOFTWARE_POWER_CAP, &mut self.power_capped_s),
            (super::REASON_SOFTWARE_THERMAL, &mut self.software_thermal_s),
            (super::REASON_HARDWARE_THERMAL, &mut self.hardware_thermal_s),
            (super::REASON_POWER_BRAKE, &mut self.power_brake_s),
        ] {
            if readings.clock_event_reasons & reason != 0 {
                *total_s += seconds;
            }
        }
    }

    /// What has come since `zero`, save for time and work: those go on.
    #[must_use]
    pub(crate) fn since(&self, zero: &Self) -> Self {
        Self {
            elapsed_s: self.elapsed_s,
            busy_s: self.busy_s,
            energy_j: self.energy_j - zero.energy_j,
            nvlink_tx_bytes: self.nvlink_tx_bytes - zero.nvlink_tx_bytes,
            nvlink_rx_bytes: self.nvlink_rx_bytes - zero.nvlink_rx_bytes,
            pcie_tx_bytes: self.pcie_tx_bytes - zero.pcie_tx_bytes,
            pcie_rx_bytes: self.pcie_rx_bytes - zero.pcie_rx_bytes,
            power_capped_s: self.power_capped_s - zero.power_capped_s,
            software_thermal_s: self.software_thermal_s - zero.software_thermal_s,
            hardware_thermal_s: self.hardware_thermal_s - zero.hardware_thermal_s,
            power_brake_s: self.power_brake_s - zero.power_brake_s,
        }
    }
}

/// Totals that move forward as they are read.
///
/// The steps lie on a fixed grid, so that processes which share an epoch and have no activity file agree on the totals
/// whenever they read them. Only the step under way is cut: it is counted once and for all up to the time of reading.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    totals: Totals,
}

impl Counters {
    /// Moves the totals to `now_s` and returns them. `readings` gives the readings at a time. A `now_s` that lies before
    /// the last one changes nothing.
    pub fn advance(&mut self, now_s: f64, mut readings: impl FnMut(f64) -> Readings) -> Totals {
        while self.totals.elapsed_s < now_s {
            let from_s = self.totals.elapsed_s;
            // The end of the step that `from_s` lies in: multiples of a half are exact, so it always lies ahead.
            let end_s = ((from_s / STEP_S).floor() + 1.0) * STEP_S;
            let middle_s = end_s - STEP_S / 2.0;
            let until_s = end_s.min(now_s);
            self.totals.add(&readings(middle_s), until_s - from_s);
            // Set, not summed: rounding must not carry the clock off the grid.
            self.totals.elapsed_s = until_s;
        }
        self.totals
    }
}
