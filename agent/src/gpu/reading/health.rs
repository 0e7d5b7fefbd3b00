//! What is wrong with a GPU.

use std::collections::BTreeMap;

use tokio::time::Instant;

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

/// Pages of the device memory that are no longer used, on boards before Ampere; later ones replace rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetiredPages {
    /// Because of single-bit errors.
    pub single_bit: Option<u64>,
    /// Because of a double-bit error.
    pub double_bit: Option<u64>,
    /// Whether one waits for a reset.
    pub pending: Option<bool>,
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
