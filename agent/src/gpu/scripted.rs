//! A driver that a test writes, for tests of the sampler and the loop.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use plimsoll_common::ids::GpuUuid;

use super::{
    meter::Meter,
    partition::Mig,
    plan::{Call, Fact, Metric},
    reading::GpuReading,
    source::{CallError, GpuDriver, GpuSource, Outage, RawEvent, SessionEnd},
};

/// One made-up GPU.
#[derive(Debug, Clone)]
pub(super) struct ScriptedGpu {
    pub(super) uuid: &'static str,
    pub(super) lost: bool,
    pub(super) unsupported: BTreeSet<Metric>,
    pub(super) failing: BTreeSet<Metric>,
    pub(super) power_mw: u64,
    /// Whether MIG is on; absent where it is not supported.
    pub(super) mig: Option<bool>,
}

impl ScriptedGpu {
    pub(super) const fn new(uuid: &'static str) -> Self {
        Self {
            uuid,
            lost: false,
            unsupported: BTreeSet::new(),
            failing: BTreeSet::new(),
            power_mw: 300_000,
            mig: None,
        }
    }
}

/// What the driver would say now.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    pub(super) gpus: Vec<ScriptedGpu>,
    pub(super) outage: Option<Outage>,
    pub(super) connects: u64,
    pub(super) calls: BTreeMap<Call, u64>,
    pub(super) events: Vec<RawEvent>,
}

/// A driver whose world the test may change at any time.
#[derive(Debug, Clone, Default)]
pub(super) struct Scripted {
    world: Arc<Mutex<World>>,
}

impl Scripted {
    pub(super) fn with(uuids: &[&'static str]) -> Self {
        let scripted = Self::default();
        scripted.world().gpus = uuids.iter().map(|uuid| ScriptedGpu::new(uuid)).collect();
        scripted
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn calls(&self, call: Call) -> u64 {
        self.world().calls.get(&call).copied().unwrap_or(0)
    }

    fn ask<T>(
        &self,
        call: Call,
        answer: impl FnOnce(&World) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let mut world = self.world();
        *world.calls.entry(call).or_insert(0) += 1;
        match &world.outage {
            Some(outage) => Err(CallError::Down(outage.clone())),
            None => answer(&world),
        }
    }

    fn ask_gpu<T>(
        &self,
        call: Call,
        index: u32,
        answer: impl FnOnce(&ScriptedGpu) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        self.ask(call, |world| match world.gpus.get(index as usize) {
            None => Err(CallError::Other("no such index".to_owned())),
            Some(gpu) if gpu.lost => Err(CallError::Lost),
            Some(gpu) => answer(gpu),
        })
    }
}

impl GpuDriver for Scripted {
    fn session(
        &mut self,
        work: &mut dyn FnMut(&mut dyn GpuSource) -> SessionEnd,
    ) -> Result<SessionEnd, Outage> {
        let refused = {
            let mut world = self.world();
            world.connects += 1;
            world.outage.clone()
        };
        refused.map_or_else(|| Ok(work(self)), Err)
    }
}

impl GpuSource for Scripted {
    fn driver_version(&mut self) -> Result<String, CallError> {
        self.ask(Call::DriverVersion, |_| Ok("580.95.05".to_owned()))
    }

    fn cuda_version(&mut self) -> Result<String, CallError> {
        self.ask(Call::CudaVersion, |_| Err(CallError::NotSupported))
    }

    fn device_count(&mut self) -> Result<u32, CallError> {
        self.ask(Call::DeviceCount, |world| Ok(world.gpus.len() as u32))
    }

    fn open(&mut self, index: u32) -> Result<(), CallError> {
        self.ask_gpu(Call::DeviceHandle, index, |_| Ok(()))
    }

    fn uuid(&mut self, index: u32) -> Result<GpuUuid, CallError> {
        self.ask_gpu(Call::DeviceUuid, index, |gpu| {
            GpuUuid::parse(gpu.uuid).map_err(|error| CallError::Other(error.to_string()))
        })
    }

    fn describe(&mut self, fact: Fact, meter: &mut Meter, reading: &mut GpuReading) -> Result<(), CallError> {
        let (call, index) = (call_of_fact(fact), reading.info.index);
        let info = &mut reading.info;
        meter.time(call, || {
            self.ask_gpu(call, index, |gpu| {
                match fact {
                    Fact::Name => info.name = Some(format!("model of {}", gpu.uuid)),
                    Fact::MemoryTotal => info.memory_total_bytes = Some(80 << 30),
                    Fact::PowerLimit => info.power_limit_mw = Some(700_000),
                    _ => return Err(CallError::NotSupported),
                }
                Ok(())
            })
        })
    }

    fn sample(
        &mut self,
        metric: Metric,
        meter: &mut Meter,
        reading: &mut GpuReading,
    ) -> Result<(), CallError> {
        let (call, index) = (call_of(metric), reading.info.index);
        meter.time(call, || {
            self.ask_gpu(call, index, |gpu| {
                if gpu.unsupported.contains(&metric) {
                    return Err(CallError::NotSupported);
                }
                if gpu.failing.contains(&metric) {
                    return Err(CallError::Other("an internal driver error occurred".to_owned()));
                }
                match metric {
                    Metric::Utilization => {
                        (reading.utilization_percent, reading.memory_activity_percent) = (Some(97), Some(41));
                    }
                    Metric::Memory => reading.memory_used_bytes = Some(40 << 30),
                    Metric::Power => reading.power_mw = Some(gpu.power_mw),
                    Metric::Temperature => reading.temperature_c = Some(61),
                    Metric::Mig => {
                        reading.mig = gpu.mig.map(|enabled| Mig { enabled, ..Mig::default() });
                        return gpu.mig.map(|_| ()).ok_or(CallError::NotSupported);
                    }
                    _ => return Err(CallError::NotSupported),
                }
                Ok(())
            })
        })
    }

    fn watch(&mut self, index: u32, meter: &mut Meter) -> Result<(), CallError> {
        meter.time(Call::EventRegister, || self.ask_gpu(Call::EventRegister, index, |_| Ok(())))
    }

    fn events(&mut self, limit: usize, meter: &mut Meter) -> Result<Vec<RawEvent>, CallError> {
        meter.time(Call::EventWait, || self.ask(Call::EventWait, |_| Ok(())))?;
        let events = &mut self.world().events;
        let count = events.len().min(limit);
        Ok(events.drain(..count).collect())
    }
}

/// The call that a metric is counted under here.
pub(super) const fn call_of(metric: Metric) -> Call {
    match metric {
        Metric::Utilization => Call::UtilizationRates,
        Metric::Memory => Call::MemoryInfo,
        Metric::Power => Call::PowerUsage,
        Metric::Temperature => Call::Temperature,
        Metric::Mig => Call::MigMode,
        Metric::ComputeProcesses => Call::ComputeProcesses,
        Metric::GraphicsProcesses => Call::GraphicsProcesses,
        _ => Call::FieldValues,
    }
}

const fn call_of_fact(fact: Fact) -> Call {
    match fact {
        Fact::Name => Call::DeviceName,
        Fact::PciBusId => Call::PciInfo,
        Fact::MemoryTotal => Call::MemoryInfo,
        Fact::PowerLimit => Call::EnforcedPowerLimit,
        _ => Call::Architecture,
    }
}
