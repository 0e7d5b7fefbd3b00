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
    /// `nvmlDeviceGetPowerUsage`.
    PowerUsage = "power_usage";
    /// `nvmlDeviceGetTemperature` of the GPU sensor.
    Temperature = "temperature";
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
}

impl Fact {
    /// In the order in which they are asked.
    pub const ALL: &'static [Self] = &[Self::Name, Self::PciBusId, Self::MemoryTotal, Self::PowerLimit];

    /// The call that answers it.
    #[must_use]
    pub const fn call(self) -> Call {
        match self {
            Self::Name => Call::DeviceName,
            Self::PciBusId => Call::PciInfo,
            Self::MemoryTotal => Call::MemoryInfo,
            Self::PowerLimit => Call::EnforcedPowerLimit,
        }
    }
}

/// What changes all the time; asked every tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// GPU and memory utilization rates.
    Utilization,
    /// Frame buffer in use.
    Memory,
    /// Power draw.
    Power,
    /// Temperature.
    Temperature,
}

impl Metric {
    /// In the order in which they are asked.
    pub const EVERY_TICK: &'static [Self] =
        &[Self::Utilization, Self::Memory, Self::Power, Self::Temperature];

    /// The call that answers it.
    #[must_use]
    pub const fn call(self) -> Call {
        match self {
            Self::Utilization => Call::UtilizationRates,
            Self::Memory => Call::MemoryInfo,
            Self::Power => Call::PowerUsage,
            Self::Temperature => Call::Temperature,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_every_call_at_its_place() {
        for (at, call) in Call::ALL.iter().enumerate() {
            assert_eq!(*call as usize, at, "{}", call.as_str());
        }
    }

    #[test]
    fn pcie_throughput_is_never_planned() {
        assert!(Call::ALL.iter().all(|call| !call.as_str().contains("throughput")));
    }
}
