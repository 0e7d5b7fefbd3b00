//! What the driver tells by itself: XIDs, memory errors, recovery actions.

use plimsoll_common::ids::GpuUuid;
use tokio::time::Instant;

/// One event of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuEvent {
    /// Its number since the agent started, from 1 without gaps.
    pub number: u64,
    /// When it was read: at the tick after it happened.
    pub read: Instant,
    /// The GPU; absent where the driver's handle belongs to none that was seen.
    pub uuid: Option<GpuUuid>,
    /// What happened.
    pub kind: GpuEventKind,
}

/// What happened to a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GpuEventKind {
    /// The driver reported an error with this XID.
    Xid(u64),
    /// ECC corrected a memory error.
    SingleBitEcc,
    /// ECC found a memory error that it cannot correct.
    DoubleBitEcc,
    /// ECC corrects many errors in a short time.
    SingleBitEccStorm,
    /// Memory was retired.
    DramRetirement,
    /// Memory could not be retired.
    DramRetirementFailure,
    /// A process read poisoned memory and was ended.
    NonFatalPoison,
    /// Poisoned memory took the GPU down.
    FatalPoison,
    /// The GPU is not available.
    GpuUnavailable,
    /// The driver asks for another recovery action.
    RecoveryAction,
    /// Event bits that this build does not know.
    Other(u64),
}

impl GpuEventKind {
    /// NVML's event type bits that the agent registers for, as far as a GPU supports them.
    pub const WANTED: u64 = 0x1 | 0x2 | 0x8 | 0x200 | 0x400 | 0x800 | 0x1000 | 0x2000 | 0x4000 | 0x8000;

    /// From NVML's event type bit and its data.
    #[must_use]
    pub const fn from_nvml(event_type: u64, data: u64) -> Self {
        match event_type {
            0x1 => Self::SingleBitEcc,
            0x2 => Self::DoubleBitEcc,
            0x8 => Self::Xid(data),
            0x200 => Self::SingleBitEccStorm,
            0x400 => Self::DramRetirement,
            0x800 => Self::DramRetirementFailure,
            0x1000 => Self::NonFatalPoison,
            0x2000 => Self::FatalPoison,
            0x4000 => Self::GpuUnavailable,
            0x8000 => Self::RecoveryAction,
            other => Self::Other(other),
        }
    }

    /// The name in labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Xid(_) => "xid",
            Self::SingleBitEcc => "single_bit_ecc",
            Self::DoubleBitEcc => "double_bit_ecc",
            Self::SingleBitEccStorm => "single_bit_ecc_storm",
            Self::DramRetirement => "dram_retirement",
            Self::DramRetirementFailure => "dram_retirement_failure",
            Self::NonFatalPoison => "non_fatal_poison",
            Self::FatalPoison => "fatal_poison",
            Self::GpuUnavailable => "gpu_unavailable",
            Self::RecoveryAction => "recovery_action",
            Self::Other(_) => "other",
        }
    }

    /// The XID, where it is one.
    #[must_use]
    pub const fn xid(self) -> Option<u64> {
        match self {
            Self::Xid(code) => Some(code),
            _ => None,
        }
    }
}
