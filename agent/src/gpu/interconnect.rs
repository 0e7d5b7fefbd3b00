//! What connects a GPU to others: links, fabric, place in the rack.

/// One NVLink of a GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NvLink {
    /// Its number on this GPU.
    pub index: u32,
    /// Whether it is up.
    pub active: Option<bool>,
    /// NVLink's version, as NVML tells it.
    pub version: Option<u32>,
    /// What is at its other end.
    pub remote: Option<RemoteEnd>,
    /// Errors since the driver was loaded.
    pub errors: LinkErrors,
    /// What went over it since the driver was loaded.
    pub traffic: LinkTraffic,
}

/// Bytes over one NVLink since the driver was loaded, with the protocol's own; told by NVLink 5 and newer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkTraffic {
    /// Sent.
    pub tx_bytes: Option<u64>,
    /// Received.
    pub rx_bytes: Option<u64>,
}

/// Errors of one NVLink since the driver was loaded. Of NVLink 4 and older, replays, recoveries and checksums are told;
/// of NVLink 5 recoveries and all the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkErrors {
    /// Packets that were sent again.
    pub replay: Option<u64>,
    /// Recoveries of the link, whatever came of them.
    pub recovery: Option<u64>,
    /// Checksum errors.
    pub crc: Option<u64>,
    /// Recoveries after which the link came up again.
    pub recovery_succeeded: Option<u64>,
    /// Recoveries after which the link was declared down.
    pub recovery_failed: Option<u64>,
    /// Packets received with errors, of all kinds.
    pub receive: Option<u64>,
    /// Packets received that were malformed.
    pub malformed: Option<u64>,
    /// Packets received for which there was no room.
    pub overrun: Option<u64>,
    /// Packets received that the sender had marked as bad.
    pub remote: Option<u64>,
    /// Packets received whose header did not match.
    pub header: Option<u64>,
    /// Times that local errors exceeded a threshold.
    pub integrity: Option<u64>,
    /// Packets discarded instead of sent.
    pub discarded: Option<u64>,
    /// Errors that remained after correction.
    pub effective: Option<u64>,
    /// Errors in received symbols.
    pub symbol: Option<u64>,
}

/// A kind of link error: its name in labels and JSON, and where it is counted.
pub type LinkErrorKind = (&'static str, fn(&LinkErrors) -> Option<u64>);

impl LinkErrors {
    /// Every kind.
    pub const KINDS: [LinkErrorKind; 14] = [
        ("replay", |errors| errors.replay),
        ("recovery", |errors| errors.recovery),
        ("crc", |errors| errors.crc),
        ("recovery_succeeded", |errors| errors.recovery_succeeded),
        ("recovery_failed", |errors| errors.recovery_failed),
        ("receive", |errors| errors.receive),
        ("malformed", |errors| errors.malformed),
        ("overrun", |errors| errors.overrun),
        ("remote", |errors| errors.remote),
        ("header", |errors| errors.header),
        ("integrity", |errors| errors.integrity),
        ("discarded", |errors| errors.discarded),
        ("effective", |errors| errors.effective),
        ("symbol", |errors| errors.symbol),
    ];
}

/// The other end of an NVLink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteEnd {
    /// What it is.
    pub kind: RemoteKind,
    /// Its PCI bus id, `00000000:18:00.0`; switches of some platforms tell none.
    pub pci_bus_id: Option<String>,
}

/// What is at the other end of an NVLink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemoteKind {
    /// Another GPU.
    Gpu,
    /// An NVSwitch.
    Switch,
    /// A POWER processor.
    IbmNpu,
    /// The driver does not know.
    Unknown,
}

impl RemoteKind {
    /// The name in labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Switch => "nvswitch",
            Self::IbmNpu => "ibmnpu",
            Self::Unknown => "unknown",
        }
    }
}

/// What the NVLink fabric says of a GPU: `nvmlDeviceGetGpuFabricInfoV`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fabric {
    /// How far the registration with the fabric came.
    pub state: FabricState,
    /// NVML's code for how the registration ended; 0 is success. Means something once it is completed.
    pub status: u32,
    /// The fabric's UUID, as lower-case hexadecimal groups; absent when it is nil, which means that there is no domain
    /// beyond this node.
    pub cluster_uuid: Option<String>,
    /// The clique within the fabric; means something together with the UUID only.
    pub clique_id: u32,
    /// What is wrong with it.
    pub health: FabricHealth,
    /// The version of NVML's structure that the driver answered.
    pub version: u8,
}

/// How far the registration of a GPU with its fabric came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FabricState {
    /// It has no fabric.
    NotSupported,
    /// It has not begun.
    NotStarted,
    /// It is under way.
    InProgress,
    /// It has ended; [`Fabric::status`] tells how.
    Completed,
    /// One that this build does not know.
    Other(u8),
}

impl FabricState {
    /// NVML's code.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::NotSupported,
            1 => Self::NotStarted,
            2 => Self::InProgress,
            3 => Self::Completed,
            other => Self::Other(other),
        }
    }

    /// The name in labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotSupported => "not_supported",
            Self::NotStarted => "not_started",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Other(_) => "other",
        }
    }
}

/// Health of a GPU's fabric; absent where the driver's structure is older (version 1 knows no health).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FabricHealth {
    /// NVML's health mask as it is.
    pub mask: Option<u32>,
    /// Summary: 0 not supported, 1 healthy, 2 unhealthy, 3 limited capacity (version 3 and newer).
    pub summary: Option<u8>,
}

impl FabricHealth {
    /// The summary in labels and JSON.
    #[must_use]
    pub const fn summary_str(&self) -> Option<&'static str> {
        match self.summary {
            Some(1) => Some("healthy"),
            Some(2) => Some("unhealthy"),
            Some(3) => Some("limited_capacity"),
            _ => None,
        }
    }

    /// Whether bandwidth is degraded, where the driver tells.
    #[must_use]
    pub const fn degraded_bandwidth(&self) -> Option<bool> {
        // Two bits each: 1 is true, 2 is false, 0 is not supported.
        match self.mask {
            Some(mask) => match mask & 0b11 {
                1 => Some(true),
                2 => Some(false),
                _ => None,
            },
            None => None,
        }
    }
}

/// A GPU's place in chassis and rack: `nvmlDeviceGetPlatformInfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Serial number of the chassis: the rack, on NVL72.
    pub chassis_serial: Option<String>,
    /// Slot in the chassis.
    pub slot: u8,
    /// Tray among those of the same kind.
    pub tray: u8,
    /// Host within the slot.
    pub host: u8,
    /// How GPUs of the platform reach each other: 0 directly, 1 through a switch.
    pub peer_type: u8,
    /// Position on the baseboard.
    pub module_id: u8,
}
