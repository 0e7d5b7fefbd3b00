//! The sections of a scenario file that describe the machine. [`super::load`] holds those that make it move.

use serde::Deserialize;

/// `[driver]`: versions as the driver reports them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Driver {
    /// Version of the kernel driver, for example `580.95.05`.
    pub version: String,
    /// Version of the library, for example `13.580.95.05`.
    pub nvml: String,
    /// Greatest CUDA version that the driver supports: 1000 × major + 10 × minor.
    pub cuda: i32,
}

impl Driver {
    /// The same library in another version; NVML's own number is the driver's after a prefix for CUDA's major version.
    pub(crate) fn with_version(&self, version: &str) -> Self {
        if version == self.version {
            return self.clone();
        }
        let prefix = self.nvml.split('.').next().unwrap_or_default();
        Self { version: version.to_owned(), nvml: format!("{prefix}.{version}"), cuda: self.cuda }
    }

    /// Major and minor number, which decide how the fields 251 to 273 are numbered.
    #[must_use]
    pub fn release(&self) -> (u32, u32) {
        let mut parts = self.version.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }
}

/// `[device]`: what all GPUs of the node have in common.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Product name.
    pub name: String,
    /// Architecture generation.
    pub architecture: Architecture,
    /// CUDA compute capability: major, minor.
    pub compute_capability: [i32; 2],
    /// CUDA cores.
    pub cores: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Part number of the board.
    pub board_part_number: String,
    /// VBIOS version.
    pub vbios: String,
    /// Version of the InfoROM image.
    pub inforom: String,
    /// Framebuffer, MiB, what the driver keeps for itself included.
    pub memory_mib: u64,
    /// Framebuffer that the driver keeps for itself, MiB.
    pub reserved_mib: u64,
    /// BAR1 aperture, MiB.
    pub bar1_mib: u64,
    /// Memory bus, bits.
    pub memory_bus_bits: u32,
    /// Does ECC run?
    pub ecc: bool,
    /// Can it be partitioned with MIG? Instances come with the command `mig`.
    pub mig_capable: bool,
    /// PCI identity and link.
    pub pci: Pci,
    /// Power limits and draw.
    pub power: Power,
    /// Clocks.
    pub clocks: Clocks,
    /// Temperatures and their limits.
    pub temperature: Temperature,
}

/// Architecture generations that NVML tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// A100 and its kin: no GPM, no fabric information.
    Ampere,
    /// L40S, L4: likewise.
    Ada,
    /// H100, H200, GH200.
    Hopper,
    /// B200, GB200 and later kin.
    Blackwell,
}

/// `[device.pci]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pci {
    /// Device and vendor: `0x233010de` for an H100 SXM.
    pub device_id: u32,
    /// Subsystem device and vendor.
    pub subsystem_id: u32,
    /// PCIe generation of the link.
    pub generation: u32,
    /// Lanes of the link.
    pub width: u32,
}

/// `[device.power]`, watts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// Draw when idle.
    pub idle_w: f64,
    /// Draw at full utilization.
    pub busy_w: f64,
    /// Lowest limit that can be set.
    pub min_limit_w: f64,
    /// Limit after boot.
    pub default_limit_w: f64,
    /// Highest limit that can be set.
    pub max_limit_w: f64,
    /// Limit in force.
    pub limit_w: f64,
}

/// `[device.clocks]`, MHz.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clocks {
    /// Graphics and SM clock when idle.
    pub idle: u32,
    /// Graphics and SM clock at full utilization.
    pub busy: u32,
    /// Highest graphics and SM clock.
    pub max: u32,
    /// Memory clock; data-centre boards keep it constant.
    pub memory: u32,
    /// Highest clock of the video engines.
    pub video_max: u32,
}

/// `[device.temperature]`, degrees Celsius.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Temperature {
    /// GPU core when idle.
    pub idle: f64,
    /// GPU core at full utilization.
    pub busy: f64,
    /// How much hotter the memory is than the core; without it the memory has no sensor.
    pub memory_above: Option<f64>,
    /// Highest operating temperature of the core.
    pub gpu_max: f64,
    /// Highest operating temperature of the memory.
    pub memory_max: f64,
    /// The core slows down here.
    pub slowdown: f64,
    /// The board switches off here.
    pub shutdown: f64,
}

/// `[nvlink]`. Without this section the GPUs have no NVLink.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NvLink {
    /// Links per GPU, all active.
    pub links: u32,
    /// NVML's code: 6 is NVLink 4, 7 is NVLink 5.
    pub version: u32,
    /// Line rate of one link and direction, MB/s.
    pub speed_mbps: u32,
    /// What stands at the far end.
    pub remote: Remote,
    /// PCI address at the far end, one per link. Without it that address is not supported, as where the switches sit in
    /// trays of their own.
    pub remote_pci: Option<Vec<String>>,
    /// PCI device and vendor at the far end.
    #[serde(default)]
    pub remote_pci_device_id: u32,
}

/// What stands at the far end of an NVLink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remote {
    /// Another GPU.
    Gpu,
    /// An NVSwitch.
    Switch,
}

/// `[fabric]`: the GPU's place in a multi-node NVLink domain. Without this section fabric information is not supported.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fabric {
    /// How far the probe has come.
    pub state: FabricState,
    /// UUID of the domain, 8-4-4-4-12 hexadecimal digits. All zero on boards whose NVLink ends within the node.
    pub cluster_uuid: String,
    /// Clique within the domain.
    pub clique_id: u32,
    /// Health in one word.
    pub health: FabricHealth,
    /// Health in detail, NVML's bit mask.
    pub health_mask: u32,
}

/// Progress of the fabric probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FabricState {
    /// This board has no fabric.
    NotSupported,
    /// Not begun.
    NotStarted,
    /// Under way.
    InProgress,
    /// Done: cluster UUID and clique are valid.
    Completed,
}

/// Health of the fabric as NVML sums it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FabricHealth {
    /// This board does not tell.
    NotSupported,
    /// All is well.
    Healthy,
    /// Something is broken.
    Unhealthy,
    /// It works, with less than its full bandwidth.
    LimitedCapacity,
}

/// `[platform]`: place in the rack. Without this section it is not supported.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// Serial number of the chassis, at most 16 characters.
    pub chassis_serial: String,
    /// Slot in the chassis.
    pub slot: u8,
    /// Tray among those of the same kind.
    pub tray: u8,
    /// Host within the slot.
    pub host: u8,
    /// NVML's code for the peer: 0 for a direct connection, 1 for a switch.
    pub peer_type: u8,
}

/// `[[gpu]]`: one GPU; their order is NVML's index.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// PCI address, `domain:bus:device.function` with hexadecimal digits.
    pub pci: String,
    /// NUMA node of the host that is nearest.
    pub numa_node: u32,
    /// Processors of that node: ranges such as `0-55,112-167`.
    pub cpus: String,
    /// NUMA node that the GPU itself is, on coherent platforms.
    pub own_numa_node: Option<u32>,
    /// Position on the baseboard.
    pub module_id: u32,
    /// PCI address of the GPU at the far end of all its links, where they are a bridge.
    pub nvlink_peer: Option<String>,
    /// Memory errors that ECC has counted.
    #[serde(default)]
    pub ecc: EccCounts,
    /// A load of its own, instead of `[load]`.
    pub load: Option<super::Load>,
}

/// `ecc` of a `[[gpu]]`: counted memory errors.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EccCounts {
    /// Corrected since the driver was loaded.
    pub corrected_volatile: u64,
    /// Corrected over the board's life.
    pub corrected_aggregate: u64,
    /// Uncorrected since the driver was loaded.
    pub uncorrected_volatile: u64,
    /// Uncorrected over the board's life.
    pub uncorrected_aggregate: u64,
}

/// `[[process]]`: a process that holds memory on a GPU.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Index of the GPU.
    pub gpu: usize,
    /// Process id on the host.
    pub pid: u32,
    /// Program, as `nvmlSystemGetProcessName` tells it.
    pub name: String,
    /// Framebuffer in use, MiB.
    pub memory_mib: u64,
    /// Kind of context.
    #[serde(default)]
    pub kind: ProcessKind,
    /// SM utilization, percent.
    #[serde(default)]
    pub sm_percent: u32,
    /// Id of the GPU instance that it runs in, where the GPU is split. Without such an instance it is not listed.
    pub gpu_instance: Option<u32>,
}

/// Kind of context that a process has on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessKind {
    /// CUDA.
    #[default]
    Compute,
    /// Rendering.
    Graphics,
}
