//! Commands that change the machine while it runs: `[[timeline]]` entries and the control file speak them.
//!
//! # The control file
//! `PLIMSOLL_FAKE_NVML_CONTROL` (or `control` in the scenario) names a file that may not exist yet. Append lines to it: each
//! line that ends in a line feed is applied once, in order. The file is looked at whenever a call begins, while a call hangs
//! and while an event set is waited on, at most every 20 ms, so the change is there at the first call 20 ms after the write.
//! A process reads the file from its beginning: it is the history of the machine, so an agent that is restarted finds the
//! machine as it is. Blank lines and what follows `#` are ignored; a line that makes no sense is told on standard error and
//! skipped. A file that has become shorter is read again from its beginning.
//!
//! # Timelines
//! The same commands in a scenario file, by time since the scenario began or once a call has been made so often:
//!
//! ```toml
//! [[timeline]]
//! at_s = 30
//! do = ["xid 3 79"]
//!
//! [[timeline]]
//! after = { call = "nvmlDeviceGetPowerUsage", count = 100 }
//! do = ["ecc-rate 1 corrected 40", "hang nvmlDeviceGetMemoryInfo_v2 2"]
//! ```
//!
//! # Commands
//! `<gpu>` is the GPU's number in the scenario, from 0, whatever has been removed, or `*` for all. `<call>` is the name of a
//! C function or `*` for all of them.
//!
//! | Command | Effect |
//! |---|---|
//! | `xid <gpu> <code> [<gpu instance> <compute instance>]` | An XID event; 79 also loses the GPU |
//! | `event <gpu> <type> <data>` | Any other event, by the bit of its type, such as `0x1000` |
//! | `lose <gpu>` | Every call about the GPU returns `GPU_IS_LOST`, asking for its handle too; the count stays |
//! | `return <gpu>` | It is there again, reset; handles from before stay lost, so the client asks for a new one |
//! | `reset <gpu>` | Counters of energy, traffic, time throttled and volatile errors start anew; a pending remap is done |
//! | `remove <gpu>` | It is not enumerated: the count falls, later indices move down, its handles are lost |
//! | `add <gpu>` | It is enumerated again, at its place, reset |
//! | `ecc <gpu> corrected\|uncorrected <count>` | So many errors more, and an ECC event |
//! | `ecc-rate <gpu> corrected\|uncorrected <per second>` | A storm: the counter rises by itself; 0 ends it |
//! | `remap <gpu> <corrected> <uncorrected> [pending] [failed]` | Remapped rows from now on |
//! | `retire <gpu> <single-bit> <double-bit> [pending]` | Retired pages from now on |
//! | `recovery <gpu> <action>` | Recovery action, 0 to 7 (field 230), and its event |
//! | `throttle <gpu> <reasons> <MHz>` | Clocks event reasons, and the SM clock is at most this |
//! | `throttle <gpu> off` | No longer |
//! | `mig <gpu> on [<profile> <count>]...` | MIG is on with these instances: `mig 0 on 3g.40gb 1 1g.10gb 4` |
//! | `mig <gpu> off` | MIG is off |
//! | `mig <gpu> pending on\|off` | The mode after the next reset, which `reset` then puts into force |
//! | `link <gpu> <link>\|* up\|down` | State of NVLinks |
//! | `link-errors <gpu> <link>\|* <kind> <count>` | So many errors more on NVLinks, of a kind that their version counts |
//! | `pcie-replays <gpu> <count>` | So many transfers more that PCIe had to repeat |
//! | `fabric <state> [<cluster uuid> <clique>]` | Fabric of the node: `not_supported`, `not_started`, `in_progress`, `completed` |
//! | `unload` | The driver goes: `UNINITIALIZED` until shutdown, then `DRIVER_NOT_LOADED` at initialisation |
//! | `load` | The driver is back, all GPUs reset; sessions from before stay `UNINITIALIZED` |
//! | `upgrade <version>` | Another driver runs: initialisation with this library is `LIB_RM_VERSION_MISMATCH` |
//! | `library <version>` | The library is replaced: from the next initialisation on it has this version |
//! | `hang <call> [<gpu>]` | The call blocks, when it is about this GPU, until it is released |
//! | `release [<call>]` | Blocked calls go on, and block no longer |
//! | `cost <call> <microseconds>` | What the call takes from now on |
//! | `slow <factor>` | All costs times this factor, 0 to 1000 |
//! | `fail <call> <code> [<gpu>]` | The call returns this error, by number or name: `fail nvmlEventSetWait_v2 GPU_IS_LOST` |
//! | `mend [<call>]` | It no longer does |
//!
//! Kinds of link errors are `replay`, `recovery` and `crc` up to NVLink 4, and `recovery`, `recovery-failed`, `receive`,
//! `malformed`, `overrun`, `remote`, `header`, `integrity`, `discarded`, `effective` and `symbol` from NVLink 5 on.
//!
//! Reasons are a number such as `0x48`, or names joined by commas: `idle`, `applications_clocks`, `sw_power_cap`,
//! `hw_slowdown`, `sync_boost`, `sw_thermal`, `hw_thermal`, `hw_power_brake`, `display_clocks`.

mod parse;

pub use parse::ParseError;
use serde::Deserialize;

use crate::abi::Code;
use crate::scenario::FabricState;

/// Which GPUs a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gpus {
    /// All of them.
    All,
    /// The one with this number in the scenario.
    One(usize),
}

impl Gpus {
    /// Is this GPU one of them?
    #[must_use]
    pub fn contains(self, gpu: usize) -> bool {
        self == Self::All || self == Self::One(gpu)
    }
}

/// Which calls a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Calls {
    /// All of them.
    Any,
    /// The C function with this name.
    Named(String),
}

impl Calls {
    /// Is this call one of them?
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Named(own) => own == name,
        }
    }
}

/// What ECC could do about a memory error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It was corrected.
    Corrected,
    /// It was only noticed.
    Uncorrected,
}

/// Rows that spare ones stand in for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemappedRows {
    /// Because of corrected errors.
    pub corrected: u32,
    /// Because of uncorrected errors.
    pub uncorrected: u32,
    /// Does one wait for a reset?
    pub pending: bool,
    /// Has one failed for want of spare rows?
    pub failed: bool,
}

/// Pages taken out of use, as before row remapping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetiredPages {
    /// Because of repeated single-bit errors.
    pub single_bit: u32,
    /// Because of a double-bit error.
    pub double_bit: u32,
    /// Does one wait for a reset?
    pub pending: bool,
}

/// What can go wrong on an NVLink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkError {
    /// Data was sent again.
    Replay,
    /// The link was trained again and came up.
    Recovery,
    /// A checksum was wrong.
    Crc,
    /// The link was trained again and stayed down.
    RecoveryFailed,
    /// A packet came with an error.
    Receive,
    /// A packet came malformed.
    Malformed,
    /// There was no room for a packet that came.
    Overrun,
    /// A packet came that its sender had marked as bad.
    Remote,
    /// A packet came whose header did not match.
    Header,
    /// Local errors exceeded a threshold.
    Integrity,
    /// A packet was discarded instead of sent.
    Discarded,
    /// An error remained after correction.
    Effective,
    /// A symbol was wrong.
    Symbol,
}

impl LinkError {
    /// Every kind, by its word in commands.
    pub(crate) const WORDS: [(&'static str, Self); 13] = [
        ("replay", Self::Replay),
        ("recovery", Self::Recovery),
        ("crc", Self::Crc),
        ("recovery-failed", Self::RecoveryFailed),
        ("receive", Self::Receive),
        ("malformed", Self::Malformed),
        ("overrun", Self::Overrun),
        ("remote", Self::Remote),
        ("header", Self::Header),
        ("integrity", Self::Integrity),
        ("discarded", Self::Discarded),
        ("effective", Self::Effective),
        ("symbol", Self::Symbol),
    ];
}

/// Clocks held down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// NVML's clocks event reasons.
    pub reasons: u64,
    /// The SM clock is at most this, MHz.
    pub clock_mhz: u32,
}

/// Size of a MIG instance: `3g.40gb` has three of seven compute slices, and about 40 GB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Compute slices, 1, 2, 3, 4 or 7.
    pub compute_slices: u32,
    /// Memory in the name, GB.
    pub memory_gb: u32,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
#[expect(missing_docs, reason = "the table of the module says what each command and its words mean")]
pub enum Command {
    Xid { gpus: Gpus, code: u64, instance: Option<(u32, u32)> },
    Event { gpus: Gpus, kind: u64, data: u64 },
    Lose(Gpus),
    Return(Gpus),
    Reset(Gpus),
    Remove(Gpus),
    Add(Gpus),
    Ecc { gpus: Gpus, severity: Severity, count: u64 },
    EccRate { gpus: Gpus, severity: Severity, per_second: f64 },
    Remap { gpus: Gpus, rows: RemappedRows },
    Retire { gpus: Gpus, pages: RetiredPages },
    Recovery { gpus: Gpus, action: u32 },
    Throttle { gpus: Gpus, throttle: Option<Throttle> },
    Mig { gpus: Gpus, layout: Option<Vec<(Profile, u32)>> },
    MigPending { gpus: Gpus, enabled: bool },
    Link { gpus: Gpus, link: Option<u32>, up: bool },
    LinkErrors { gpus: Gpus, link: Option<u32>, error: LinkError, count: u64 },
    PcieReplays { gpus: Gpus, count: u64 },
    Fabric { state: FabricState, cluster: Option<(String, u32)> },
    Unload,
    Load,
    Upgrade(String),
    Library(String),
    Hang { calls: Calls, gpus: Gpus },
    Release(Calls),
    Cost { calls: Calls, microseconds: u64 },
    Slow(f64),
    Fail { calls: Calls, gpus: Gpus, code: Code },
    Mend(Calls),
}

impl Command {
    /// The GPUs that it names.
    #[must_use]
    pub fn gpus(&self) -> Gpus {
        match self {
            Self::Lose(gpus)
            | Self::Return(gpus)
            | Self::Reset(gpus)
            | Self::Remove(gpus)
            | Self::Add(gpus) => *gpus,
            Self::Xid { gpus, .. }
            | Self::Event { gpus, .. }
            | Self::Ecc { gpus, .. }
            | Self::EccRate { gpus, .. }
            | Self::Remap { gpus, .. }
            | Self::Retire { gpus, .. }
            | Self::Recovery { gpus, .. }
            | Self::Throttle { gpus, .. }
            | Self::Mig { gpus, .. }
            | Self::MigPending { gpus, .. }
            | Self::Link { gpus, .. }
            | Self::LinkErrors { gpus, .. }
            | Self::PcieReplays { gpus, .. }
            | Self::Hang { gpus, .. }
            | Self::Fail { gpus, .. } => *gpus,
            Self::Fabric { .. }
            | Self::Unload
            | Self::Load
            | Self::Upgrade(_)
            | Self::Library(_)
            | Self::Release(_)
            | Self::Cost { .. }
            | Self::Slow(_)
            | Self::Mend(_) => Gpus::All,
        }
    }
}

#[cfg(test)]
mod tests;
