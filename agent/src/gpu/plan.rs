//! Which NVML calls are made, and how often: the plan as data.

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// A kind of call into the driver, for accounting.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Call {
            $($(#[$doc])* $name,)*
        }

        impl Call {
            /// Every kind, in the order of the discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in labels and JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

calls! {
    /// Loading the library and `nvmlInit_v2`.
    Init = "init";
    /// `nvmlSystemGetDriverVersion`.
    DriverVersion = "driver_version";
    /// `nvmlSystemGetCudaDriverVersion_v2`.
    CudaVersion = "cuda_version";
    /// `nvmlDeviceGetCount_v2`.
    DeviceCount = "device_count";
    /// `nvmlDeviceGetHandleByIndex_v2`.
    DeviceHandle = "device_handle";
    /// `nvmlDeviceGetUUID`.
    DeviceUuid = "device_uuid";
    /// `nvmlDeviceGetName`.
    DeviceName = "device_name";
    /// `nvmlDeviceGetPciInfo_v3`.
    PciInfo = "pci_info";
    /// `nvmlDeviceGetEnforcedPowerLimit`.
    EnforcedPowerLimit = "enforced_power_limit";
    /// `nvmlDeviceGetMemoryInfo_v2`.
    MemoryInfo = "memory_info";
    /// `nvmlDeviceGetUtilizationRates`.
    UtilizationRates = "utilization_rates";
    /// `nvmlDeviceGetSamples`.
    Samples = "samples";
    /// `nvmlDeviceGetEncoderUtilization` and `nvmlDeviceGetDecoderUtilization`.
    VideoUtilization = "video_utilization";
    /// `nvmlDeviceGetPowerUsage`.
    PowerUsage = "power_usage";
    /// `nvmlDeviceGetTemperature` of the GPU sensor.
    Temperature = "temperature";
    /// `nvmlDeviceGetFieldValues`.
    FieldValues = "field_values";
    /// `nvmlGpmQueryDeviceSupport`.
    GpmSupport = "gpm_support";
    /// `nvmlGpmSampleAlloc` and `nvmlGpmSampleGet`.
    GpmSample = "gpm_sample";
    /// `nvmlGpmSampleAlloc` and `nvmlGpmMigSampleGet`.
    GpmMigSample = "gpm_mig_sample";
    /// `nvmlGpmMetricsGet`.
    GpmMetrics = "gpm_metrics";
    /// `nvmlEventSetCreate`.
    EventSet = "event_set";
    /// `nvmlDeviceGetSupportedEventTypes` and `nvmlDeviceRegisterEvents`.
    EventRegister = "event_register";
    /// `nvmlEventSetWait_v2` without waiting.
    EventWait = "event_wait";
    /// `nvmlDeviceGetClockInfo`.
    ClockInfo = "clock_info";
    /// `nvmlDeviceGetMaxClockInfo`.
    MaxClockInfo = "max_clock_info";
    /// `nvmlDeviceGetCurrentClocksThrottleReasons`.
    ThrottleReasons = "throttle_reasons";
    /// `nvmlDeviceGetPerformanceState`.
    PerformanceState = "performance_state";
    /// `nvmlDeviceGetComputeRunningProcesses_v3`.
    ComputeProcesses = "compute_processes";
    /// `nvmlDeviceGetGraphicsRunningProcesses_v3`.
    GraphicsProcesses = "graphics_processes";
    /// `nvmlDeviceGetNvLinkState`.
    NvLinkState = "nvlink_state";
    /// `nvmlDeviceGetNvLinkRemoteDeviceType`.
    NvLinkRemoteType = "nvlink_remote_type";
    /// `nvmlDeviceGetNvLinkRemotePciInfo_v2`.
    NvLinkRemotePci = "nvlink_remote_pci";
    /// `nvmlDeviceGetRemappedRows`.
    RemappedRows = "remapped_rows";
    /// `nvmlDeviceGetGpuFabricInfoV` or `nvmlDeviceGetGpuFabricInfo`.
    FabricInfo = "fabric_info";
    /// `nvmlDeviceGetMigMode`.
    MigMode = "mig_mode";
    /// `nvmlDeviceGetMaxMigDeviceCount`.
    MigCount = "mig_count";
    /// `nvmlDeviceGetMigDeviceHandleByIndex`.
    MigHandle = "mig_handle";
    /// `nvmlDeviceGetGpuInstanceId` and `nvmlDeviceGetComputeInstanceId`.
    MigIds = "mig_ids";
    /// `nvmlDeviceGetAttributes_v2`.
    MigAttributes = "mig_attributes";
    /// `nvmlDeviceGetCurrPcieLinkGeneration` and `nvmlDeviceGetCurrPcieLinkWidth`.
    PcieLink = "pcie_link";
    /// `nvmlDeviceGetMaxPcieLinkGeneration` and `nvmlDeviceGetMaxPcieLinkWidth`.
    PcieMax = "pcie_max";
    /// `nvmlDeviceGetArchitecture`.
    Architecture = "architecture";
    /// `nvmlDeviceGetCudaComputeCapability`.
    ComputeCapability = "compute_capability";
    /// `nvmlDeviceGetSerial`.
    Serial = "serial";
    /// `nvmlDeviceGetBoardPartNumber`.
    BoardPartNumber = "board_part_number";
    /// `nvmlDeviceGetVbiosVersion`.
    VbiosVersion = "vbios_version";
    /// `nvmlDeviceGetMinorNumber`.
    MinorNumber = "minor_number";
    /// `nvmlDeviceGetModuleId`.
    ModuleId = "module_id";
    /// `nvmlDeviceGetMemoryAffinity`.
    MemoryAffinity = "memory_affinity";
    /// `nvmlDeviceGetPlatformInfo`.
    PlatformInfo = "platform_info";
}

/// What does not change while a GPU is in its slot; asked when it is first seen and after every (re)initialisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// Product name.
    Name,
    /// PCI bus id.
    PciBusId,
    /// Frame buffer size.
    MemoryTotal,
    /// Enforced power limit.
    PowerLimit,
    /// Architecture.
    Architecture,
    /// CUDA compute capability.
    ComputeCapability,
    /// Serial number.
    Serial,
    /// Part number of the board.
    BoardPartNumber,
    /// VBIOS version.
    Vbios,
    /// Number of the device file.
    Minor,
    /// NUMA node.
    NumaNode,
    /// Position on the baseboard.
    ModuleId,
    /// Place in chassis and rack.
    Platform,
    /// The best PCIe link.
    PcieMax,
    /// The highest clocks.
    MaxClocks,
    /// How many NVLinks there are.
    NvLinks,
    /// What is at the other end of each of them.
    Remotes,
}

impl Fact {
    /// What the planner is told of a GPU; asked before the first tick.
    pub const FIRST: &'static [Self] = &[Self::Name, Self::PciBusId, Self::MemoryTotal, Self::PowerLimit];

    /// The others, in the order in which they are asked, between the ticks' values.
    pub const LATER: &'static [Self] = &[
        Self::Architecture,
        Self::Minor,
        Self::ComputeCapability,
        Self::NvLinks,
        Self::Remotes,
        Self::Platform,
        Self::ModuleId,
        Self::NumaNode,
        Self::MaxClocks,
        Self::PcieMax,
        Self::Serial,
        Self::BoardPartNumber,
        Self::Vbios,
    ];
}

/// How often something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Every tick.
    Fast,
    /// Every ten seconds.
    Slow,
    /// Every minute.
    Rare,
}

impl Tier {
    /// Every tier, the most frequent first.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Slow, Self::Rare];

    /// The name in labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Slow => "slow",
            Self::Rare => "rare",
        }
    }
}

/// What changes all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// GPU and memory utilization rates.
    Utilization,
    /// Frame buffer in use.
    Memory,
    /// Power, energy and NVLink bytes, in one batch of field values.
    Power,
    /// What the GPU's parts do (GPM).
    Activity,
    /// Temperature.
    Temperature,
    /// Why clocks are held down.
    Throttle,
    /// Clocks.
    Clocks,
    /// Performance state.
    PerformanceState,
    /// Memory errors, retired pages, memory temperature, recovery action and PCIe replays, in one batch of field values.
    Ecc,
    /// What the driver sampled by itself: utilization, memory activity, power.
    Samples,
    /// How busy the video engines are.
    Video,
    /// Processes that compute.
    ComputeProcesses,
    /// Processes that render.
    GraphicsProcesses,
    /// MIG mode and instances.
    Mig,
    /// What the parts of MIG instances do (GPM).
    MigActivity,
    /// What the fabric says.
    Fabric,
    /// State and version of all NVLinks, in one batch of field values.
    Links,
    /// Errors and traffic of all NVLinks, in one batch of field values.
    LinkErrors,
    /// Replaced rows of the device memory.
    RemappedRows,
    /// PCIe link now.
    Pcie,
    /// Enforced power limit, which an operator may change.
    PowerLimit,
}

impl Metric {
    /// Every metric, in the order of the discriminants, which is the order in which what is due is asked.
    pub const ALL: &'static [Self] = &[
        Self::Utilization,
        Self::Memory,
        Self::Power,
        Self::Activity,
        Self::Temperature,
        Self::Throttle,
        Self::Clocks,
        Self::PerformanceState,
        Self::Ecc,
        Self::Samples,
        Self::Video,
        Self::ComputeProcesses,
        Self::GraphicsProcesses,
        Self::Mig,
        Self::MigActivity,
        Self::Fabric,
        Self::Links,
        Self::LinkErrors,
        Self::RemappedRows,
        Self::Pcie,
        Self::PowerLimit,
    ];

    /// How often it is asked.
    #[must_use]
    pub const fn tier(self) -> Tier {
        match self {
            Self::Utilization | Self::Memory | Self::Power | Self::Activity => Tier::Fast,
            Self::Temperature
            | Self::Throttle
            | Self::Clocks
            | Self::PerformanceState
            | Self::Ecc
            | Self::Samples
            | Self::Video
            | Self::ComputeProcesses
            | Self::Mig
            | Self::MigActivity => Tier::Slow,
            // Nothing renders on the boards of data centres.
            Self::GraphicsProcesses
            | Self::Fabric
            | Self::Links
            | Self::LinkErrors
            | Self::RemappedRows
            | Self::Pcie
            | Self::PowerLimit => Tier::Rare,
        }
    }

    /// Whether it is asked at least every ten seconds whatever it costs: without these there is no telemetry.
    #[must_use]
    pub const fn is_essential(self) -> bool {
        matches!(self, Self::Utilization | Self::Memory | Self::Power)
    }

    /// Whether it lists processes, which takes milliseconds on some drivers: one such call a tick.
    #[must_use]
    pub const fn lists_processes(self) -> bool {
        matches!(self, Self::ComputeProcesses | Self::GraphicsProcesses)
    }

    /// The name in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Utilization => "utilization",
            Self::Memory => "memory",
            Self::Power => "power",
            Self::Activity => "activity",
            Self::Temperature => "temperature",
            Self::Throttle => "throttle",
            Self::Clocks => "clocks",
            Self::PerformanceState => "performance_state",
            Self::Ecc => "ecc",
            Self::Samples => "samples",
            Self::Video => "video",
            Self::ComputeProcesses => "compute_processes",
            Self::GraphicsProcesses => "graphics_processes",
            Self::Mig => "mig",
            Self::MigActivity => "mig_activity",
            Self::Fabric => "fabric",
            Self::Links => "links",
            Self::LinkErrors => "link_errors",
            Self::RemappedRows => "remapped_rows",
            Self::Pcie => "pcie",
            Self::PowerLimit => "power_limit",
        }
    }

    /// The fields of the JSON API that it fills; what a GPU does not support is told by these names.
    #[must_use]
    pub const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Utilization => &["utilization_percent", "memory_activity_percent"],
            Self::Memory => &["memory_used_bytes"],
            Self::Power => &["power_watts"],
            Self::Activity => &[
                "graphics_activity",
                "sm_activity",
                "sm_occupancy",
                "tensor_activity",
                "dram_activity",
                "fp16_activity",
                "fp32_activity",
                "fp64_activity",
            ],
            Self::Temperature => &["temperature_celsius"],
            Self::Throttle => &["throttle_reasons"],
            Self::Clocks => &["clocks"],
            Self::PerformanceState => &["performance_state"],
            Self::Ecc => &["ecc"],
            Self::Samples => &["utilization_samples", "memory_activity_samples", "power_samples"],
            Self::Video => &["encoder_utilization_percent", "decoder_utilization_percent"],
            Self::ComputeProcesses => &["compute_processes"],
            Self::GraphicsProcesses => &["graphics_processes"],
            Self::Mig => &["mig"],
            Self::MigActivity => &["mig_activity"],
            Self::Fabric => &["fabric"],
            Self::Links => &["links"],
            Self::LinkErrors => &["link_errors"],
            Self::RemappedRows => &["remapped_rows"],
            Self::Pcie => &["pcie"],
            Self::PowerLimit => &["power_limit_watts"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_everything_at_its_place() {
        for (at, call) in Call::ALL.iter().enumerate() {
            assert_eq!(*call as usize, at, "{}", call.as_str());
        }
        for (at, metric) in Metric::ALL.iter().enumerate() {
            assert_eq!(*metric as usize, at, "{}", metric.as_str());
        }
    }

    #[test]
    fn pcie_throughput_is_never_planned() {
        assert!(Call::ALL.iter().all(|call| !call.as_str().contains("throughput")));
    }
}
