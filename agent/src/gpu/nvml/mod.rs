//! NVML as a [`GpuDriver`], through `nvml-wrapper`.
//!
//! All handles borrow the `Nvml` they came from, and a session's [`GpuSource`] lives on the stack of
//! [`GpuDriver::session`], so the compiler sees to it that no handle outlives `nvmlShutdown`.

mod activity;
mod buffered;
mod describe;
mod links;
mod mig;
mod sample;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    mem,
};

use nvml_wrapper::{Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor, error::NvmlError};
use plimsoll_common::ids::GpuUuid;

use self::{activity::Streams, buffered::Buffers};
use super::{
    event::GpuEventKind,
    meter::Meter,
    plan::{Call, Fact, Metric},
    raw::{self, ARGUMENT_VERSION_MISMATCH, EventQueue},
    reading::GpuReading,
    source::{CallError, GpuDriver, GpuSource, Outage, RawEvent, SessionEnd},
};

/// The library's name on every Linux; the one without `.1` belongs to development packages.
const LIBRARY: &str = "libnvidia-ml.so.1";

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
        let mut session = NvmlSession::new(&nvml);
        let end = work(&mut session);
        drop(session);
        Ok(end)
    }
}

/// NVML between `nvmlInit` and `nvmlShutdown`.
struct NvmlSession<'nvml> {
    nvml: &'nvml Nvml,
    devices: BTreeMap<u32, Device<'nvml>>,
    /// Whose handle is whose: a GPU that fell off the bus no longer tells its UUID.
    names: BTreeMap<usize, GpuUuid>,
    streams: Streams<'nvml>,
    buffers: Buffers,
    events: Option<EventQueue<'nvml>>,
    /// Handles whose GPUs are registered for events.
    watched: BTreeSet<usize>,
}

impl<'nvml> NvmlSession<'nvml> {
    const fn new(nvml: &'nvml Nvml) -> Self {
        Self {
            nvml,
            devices: BTreeMap::new(),
            names: BTreeMap::new(),
            streams: Streams::new(),
            buffers: Buffers::new(),
            events: None,
            watched: BTreeSet::new(),
        }
    }

    fn device(&self, index: u32) -> Result<&Device<'nvml>, CallError> {
        self.devices.get(&index).ok_or_else(|| not_open(index))
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
        let before = self.devices.remove(&index).map(|device| raw::handle(&device));
        let device = self.nvml.device_by_index(index).map_err(call_error)?;
        if before != Some(raw::handle(&device)) {
            self.streams.forget(index);
            self.buffers.forget(index);
        }
        self.devices.insert(index, device);
        Ok(())
    }

    fn uuid(&mut self, index: u32) -> Result<GpuUuid, CallError> {
        let device = self.device(index)?;
        let text = device.uuid().map_err(call_error)?;
        let uuid = GpuUuid::parse(&text).map_err(|error| CallError::Other(error.to_string()))?;
        let handle = raw::handle(device);
        self.names.insert(handle, uuid.clone());
        Ok(uuid)
    }

    fn describe(&mut self, fact: Fact, meter: &mut Meter, reading: &mut GpuReading) -> Result<(), CallError> {
        describe::describe(self.device(reading.info.index)?, fact, meter, reading)
    }

    fn sample(
        &mut self,
        metric: Metric,
        meter: &mut Meter,
        reading: &mut GpuReading,
    ) -> Result<(), CallError> {
        let index = reading.info.index;
        // Borrowed apart from the streams, which the compiler cannot see through a method.
        let device = self.devices.get(&index).ok_or_else(|| not_open(index))?;
        match metric {
            Metric::Activity => self.streams.sample(self.nvml, device, index, meter, reading),
            Metric::MigActivity => self.streams.sample_instances(self.nvml, device, index, meter, reading),
            Metric::Samples => self.buffers.sample(device, index, meter, reading),
            Metric::Mig => mig::sample(device, meter, reading),
            other => sample::sample(device, other, meter, reading),
        }
    }

    fn watch(&mut self, index: u32, meter: &mut Meter) -> Result<(), CallError> {
        let handle = raw::handle(self.device(index)?);
        if self.watched.contains(&handle) {
            return Ok(());
        }
        if self.events.is_none() {
            let queue = meter.time(Call::EventSet, || EventQueue::new(self.nvml).map_err(call_error))?;
            self.events = Some(queue);
        }
        let device = self.device(index)?;
        let Some(queue) = &self.events else { return Err(CallError::NotSupported) };
        meter
            .time(Call::EventRegister, || queue.register(device, GpuEventKind::WANTED).map_err(call_error))?;
        self.watched.insert(handle);
        Ok(())
    }

    fn events(&mut self, limit: usize, meter: &mut Meter) -> Result<Vec<RawEvent>, CallError> {
        let mut events = Vec::new();
        let Some(queue) = self.events.as_ref().filter(|_| !self.watched.is_empty()) else {
            return Ok(events);
        };
        while events.len() < limit {
            match meter.time(Call::EventWait, || queue.poll().map_err(call_error)) {
                Ok(Some(event)) => events.push(RawEvent {
                    uuid: self.names.get(&event.device).cloned(),
                    kind: GpuEventKind::from_nvml(event.event_type, event.data),
                }),
                Ok(None) => break,
                Err(down @ CallError::Down(_)) => return Err(down),
                // What was read so far is not lost; a queue that keeps failing is counted as failed calls.
                Err(_) => break,
            }
        }
        Ok(events)
    }
}

fn not_open(index: u32) -> CallError {
    CallError::Other(format!("no GPU is open at index {index}"))
}

/// Notes that a GPU or driver does not have a field, and gives the value where it does.
fn supported<T>(
    answer: Result<T, CallError>,
    field: &'static str,
    reading: &mut GpuReading,
) -> Result<Option<T>, CallError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(CallError::NotSupported) => {
            reading.unsupported.insert(field);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Drivers answer with sentinels now and then; those are no values.
fn plausible(what: &str, value: u64, max: u64) -> Result<u64, CallError> {
    if value <= max {
        Ok(value)
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
        assert_eq!(plausible("power", 700_000, 100_000_000), Ok(700_000));
        assert!(matches!(plausible("temperature", u64::from(u32::MAX), 500), Err(CallError::Other(_))));
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
