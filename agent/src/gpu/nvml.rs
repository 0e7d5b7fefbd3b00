//! NVML as a [`GpuDriver`], through `nvml-wrapper`.
//!
//! All handles borrow the `Nvml` they came from, and a session's [`GpuSource`] lives on the stack of
//! [`GpuDriver::session`], so the compiler sees to it that no handle outlives `nvmlShutdown`.

use std::{collections::BTreeMap, ffi::OsString, mem};

use nvml_wrapper::{
    Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor,
    enum_wrappers::device::TemperatureSensor, error::NvmlError,
};
use plimsoll_common::{ids::GpuUuid, wire::GpuInfo};

use super::{
    plan::{Fact, Metric},
    reading::GpuReading,
    source::{CallError, GpuDriver, GpuSource, Outage, SessionEnd},
};

/// The library's name on every Linux; the one without `.1` belongs to development packages.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// `NVML_ERROR_ARGUMENT_VERSION_MISMATCH`: the driver does not know this version of a structure.
const ARGUMENT_VERSION_MISMATCH: u32 = 25;

/// Above these a driver's answer is a sentinel or garbage, not a reading.
const MAX_POWER_MW: u32 = 100_000_000;
const MAX_TEMPERATURE_C: u32 = 500;

/// NVML, not yet loaded.
#[derive(Debug)]
pub(super) struct NvmlDriver {
    library: OsString,
}

impl NvmlDriver {
    /// NVML at this path, or where the dynamic linker finds it.
    pub(super) fn new(library: Option<OsString>) -> Self {
        Self { library: library.unwrap_or_else(|| LIBRARY.into()) }
    }
}

impl GpuDriver for NvmlDriver {
    fn session(
        &mut self,
        work: &mut dyn FnMut(&mut dyn GpuSource) -> SessionEnd,
    ) -> Result<SessionEnd, Outage> {
        let nvml = Nvml::builder().lib_path(&self.library).init().map_err(outage)?;
        if nvml.lib().nvmlShutdown.is_err() {
            // Dropping it would panic for want of the symbol. What is not NVML may stay loaded.
            mem::forget(nvml);
            return Err(Outage::BadLibrary { reason: "it has no nvmlShutdown".to_owned() });
        }
        let mut session = NvmlSession { nvml: &nvml, devices: BTreeMap::new() };
        let end = work(&mut session);
        drop(session);
        Ok(end)
    }
}

/// NVML between `nvmlInit` and `nvmlShutdown`.
struct NvmlSession<'nvml> {
    nvml: &'nvml Nvml,
    devices: BTreeMap<u32, Device<'nvml>>,
}

impl<'nvml> NvmlSession<'nvml> {
    fn device(&self, index: u32) -> Result<&Device<'nvml>, CallError> {
        self.devices.get(&index).ok_or_else(|| CallError::Other(format!("no GPU is open at index {index}")))
    }
}

impl GpuSource for NvmlSession<'_> {
    fn driver_version(&mut self) -> Result<String, CallError> {
        self.nvml.sys_driver_version().map_err(call_error)
    }

    fn cuda_version(&mut self) -> Result<String, CallError> {
        let version = self.nvml.sys_cuda_driver_version().map_err(call_error)?;
        Ok(format!("{}.{}", cuda_driver_version_major(version), cuda_driver_version_minor(version)))
    }

    fn device_count(&mut self) -> Result<u32, CallError> {
        self.nvml.device_count().map_err(call_error)
    }

    fn open(&mut self, index: u32) -> Result<(), CallError> {
        self.devices.remove(&index);
        let device = self.nvml.device_by_index(index).map_err(call_error)?;
        self.devices.insert(index, device);
        Ok(())
    }

    fn uuid(&mut self, index: u32) -> Result<GpuUuid, CallError> {
        let text = self.device(index)?.uuid().map_err(call_error)?;
        GpuUuid::parse(&text).map_err(|error| CallError::Other(error.to_string()))
    }

    fn describe(&mut self, fact: Fact, info: &mut GpuInfo) -> Result<(), CallError> {
        let device = self.device(info.index)?;
        match fact {
            Fact::Name => info.name = Some(device.name().map_err(call_error)?),
            Fact::PciBusId => info.pci_bus_id = Some(device.pci_info().map_err(call_error)?.bus_id),
            Fact::MemoryTotal => {
                info.memory_total_bytes = Some(device.memory_info().map_err(call_error)?.total)
            }
            Fact::PowerLimit => {
                let limit = device.enforced_power_limit().map_err(call_error)?;
                info.power_limit_mw = Some(plausible("power limit", limit, MAX_POWER_MW)?);
            }
            _ => return Err(CallError::NotSupported),
        }
        Ok(())
    }

    fn sample(&mut self, metric: Metric, reading: &mut GpuReading) -> Result<(), CallError> {
        let device = self.device(reading.info.index)?;
        match metric {
            Metric::Utilization => {
                let rates = device.utilization_rates().map_err(call_error)?;
                let gpu = plausible("GPU utilization", rates.gpu, 100)?;
                let memory = plausible("memory utilization", rates.memory, 100)?;
                (reading.utilization_percent, reading.memory_activity_percent) = (Some(gpu), Some(memory));
            }
            Metric::Memory => {
                reading.memory_used_bytes = Some(device.memory_info().map_err(call_error)?.used);
            }
            Metric::Power => {
                let power = device.power_usage().map_err(call_error)?;
                reading.power_mw = Some(plausible("power", power, MAX_POWER_MW)?);
            }
            Metric::Temperature => {
                let celsius = device.temperature(TemperatureSensor::Gpu).map_err(call_error)?;
                let celsius = plausible("temperature", celsius, MAX_TEMPERATURE_C)?;
                reading.temperature_c = Some(celsius.cast_signed());
            }
            _ => return Err(CallError::NotSupported),
        }
        Ok(())
    }
}

/// Drivers answer with sentinels now and then; those are no values.
fn plausible(what: &str, value: u32, max: u32) -> Result<u64, CallError> {
    if value <= max {
        Ok(u64::from(value))
    } else {
        Err(CallError::Other(format!("a {what} of {value} is not plausible")))
    }
}

/// What an error of a call means to the sampler.
fn call_error(error: NvmlError) -> CallError {
    match error {
        // A driver that lacks the function or the structure's version has no such value either.
        NvmlError::NotSupported
        | NvmlError::FunctionNotFound
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::UnexpectedVariant(ARGUMENT_VERSION_MISMATCH) => CallError::NotSupported,
        NvmlError::GpuLost => CallError::Lost,
        NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch => {
            CallError::Down(outage(error))
        }
        other => CallError::Other(other.to_string()),
    }
}

/// What an error of the initialisation means.
fn outage(error: NvmlError) -> Outage {
    match error {
        NvmlError::LibloadingError(error) => {
            let reason = error.to_string();
            // The dynamic linker tells what went wrong as text only.
            if reason.contains("No such file") {
                Outage::NoLibrary { reason }
            } else {
                Outage::BadLibrary { reason }
            }
        }
        NvmlError::FailedToLoadSymbol(reason) => Outage::BadLibrary { reason },
        NvmlError::NulError(_) => Outage::BadLibrary { reason: "its path holds a NUL".to_owned() },
        NvmlError::DriverNotLoaded => Outage::NoDriver,
        NvmlError::LibRmVersionMismatch => Outage::VersionMismatch,
        NvmlError::NoPermission => Outage::Denied,
        other => Outage::Other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_mean_what_nvml_says_they_mean() {
        assert_eq!(call_error(NvmlError::NotSupported), CallError::NotSupported);
        assert_eq!(call_error(NvmlError::FailedToLoadSymbol("x".to_owned())), CallError::NotSupported);
        assert_eq!(call_error(NvmlError::UnexpectedVariant(25)), CallError::NotSupported);
        assert!(matches!(call_error(NvmlError::UnexpectedVariant(26)), CallError::Other(_)));
        assert_eq!(call_error(NvmlError::GpuLost), CallError::Lost);
        assert_eq!(call_error(NvmlError::DriverNotLoaded), CallError::Down(Outage::NoDriver));
        assert_eq!(call_error(NvmlError::LibRmVersionMismatch), CallError::Down(Outage::VersionMismatch));
        assert!(matches!(call_error(NvmlError::Uninitialized), CallError::Down(Outage::Other(_))));
        // One call that is not permitted says nothing of the others.
        assert!(matches!(call_error(NvmlError::NoPermission), CallError::Other(_)));
        assert_eq!(outage(NvmlError::NoPermission), Outage::Denied);
    }

    #[test]
    fn sentinels_are_no_values() {
        assert_eq!(plausible("power", 700_000, MAX_POWER_MW), Ok(700_000));
        assert!(matches!(plausible("temperature", u32::MAX, MAX_TEMPERATURE_C), Err(CallError::Other(_))));
        assert!(matches!(plausible("GPU utilization", 101, 100), Err(CallError::Other(_))));
    }

    fn connect(library: &str) -> Outage {
        let mut driver = NvmlDriver::new(Some(library.into()));
        driver.session(&mut |_| SessionEnd::Stopped).unwrap_err()
    }

    #[test]
    fn a_missing_library_is_told_from_a_wrong_one() {
        let missing = connect("/nowhere/libnvidia-ml.so.1");
        assert!(matches!(missing, Outage::NoLibrary { .. }), "{missing}");
        assert!(missing.to_string().contains("--nvml-library"), "{missing}");

        let text = connect(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        assert!(matches!(text, Outage::BadLibrary { .. }), "{text}");

        // The C library loads, but it is no NVML.
        let libc = connect("libc.so.6");
        assert!(matches!(libc, Outage::BadLibrary { .. }), "{libc}");
    }
}
