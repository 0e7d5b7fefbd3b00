//! Which GPUs there are and what they say: everything about sampling but threads and clocks.

use std::collections::BTreeSet;

use plimsoll_common::{
    ids::GpuUuid,
    wire::{DriverInfo, GpuInfo, SourceState},
};

use super::{
    meter::Meter,
    plan::{Call, Fact, Metric},
    reading::{GpuReading, GpuStatus},
    source::{CallError, GpuSource, Outage},
};

/// The most GPUs of one node that are read; NVL72 trays have 4, HGX baseboards 8, the largest PCIe chassis 20.
const MAX_GPUS: u32 = 64;

/// How many reasons a detail spells out.
const MAX_REASONS: usize = 3;

/// How much is asked in an enumeration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every fact about every GPU: after a (re)initialisation.
    All,
    /// Which GPUs there are, and every fact about those that are new, moved or back.
    Changes,
}

/// Who answers at each index.
type Roll = Vec<(u32, Result<GpuUuid, CallError>)>;

/// The GPUs of this node, remembered over outages.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    gpus: Vec<Gpu>,
    nameless: Vec<String>,
    driver: Option<DriverInfo>,
    inventory: u64,
}

#[derive(Debug)]
struct Gpu {
    info: GpuInfo,
    unsupported: BTreeSet<Metric>,
    /// Why nothing is asked of it until the next enumeration.
    lost: Option<String>,
}

impl Sampler {
    /// The driver, as far as it told.
    pub(super) const fn driver(&self) -> Option<&DriverInfo> {
        self.driver.as_ref()
    }

    /// Rises with every change of a [`GpuInfo`] or of their list.
    pub(super) const fn inventory(&self) -> u64 {
        self.inventory
    }

    /// Whether an enumeration is due sooner than usual.
    pub(super) fn misses_some(&self) -> bool {
        !self.nameless.is_empty() || self.gpus.iter().any(|gpu| gpu.lost.is_some())
    }

    /// Asks the driver about itself.
    ///
    /// # Errors
    /// When the driver is gone. A version that it does not tell is no error.
    pub(super) fn greet(&mut self, source: &mut dyn GpuSource, meter: &mut Meter) -> Result<(), Outage> {
        let version = lenient(meter.time(Call::DriverVersion, || source.driver_version()))?;
        let cuda = lenient(meter.time(Call::CudaVersion, || source.cuda_version()))?;
        self.driver = version.map(|version| DriverInfo { version, cuda });
        Ok(())
    }

    /// Finds out which GPUs there are.
    ///
    /// A GPU is known by its UUID. One that was known and no longer answers is kept as lost while an index is silent that
    /// may be its own; one that the driver no longer lists at all was taken out.
    ///
    /// # Errors
    /// When the driver is gone or lists no GPU; what was known stays known.
    pub(super) fn enumerate(
        &mut self,
        source: &mut dyn GpuSource,
        meter: &mut Meter,
        scope: Scope,
    ) -> Result<(), Outage> {
        let before: Vec<GpuInfo> = self.gpus.iter().map(|gpu| gpu.info.clone()).collect();
        let found = identify(source, meter)?;
        let strangers = self.take_over(found, scope);
        let described = self.describe(&strangers, source, meter);
        if self.gpus.iter().map(|gpu| &gpu.info).ne(before.iter()) {
            self.inventory += 1;
        }
        described
    }

    /// Asks every GPU that is not lost everything that is due every tick.
    ///
    /// # Errors
    /// When the driver is gone.
    pub(super) fn tick(
        &mut self,
        source: &mut dyn GpuSource,
        meter: &mut Meter,
    ) -> Result<Vec<GpuReading>, Outage> {
        self.gpus.iter_mut().map(|gpu| read(gpu, source, meter)).collect()
    }

    /// The GPUs while the driver is gone: known by name, without values.
    pub(super) fn silent(&mut self) -> Vec<GpuReading> {
        self.driver = None;
        self.gpus.iter().map(|gpu| lost_reading(gpu, "the driver does not answer")).collect()
    }

    /// How the source is, given what the GPUs said, and why.
    pub(super) fn health(&self, readings: &[GpuReading]) -> (SourceState, Option<String>) {
        let troubles = readings.iter().filter(|reading| reading.state != GpuStatus::Ok).map(|reading| {
            let why = reading.trouble.as_deref().unwrap_or_else(|| reading.state.as_str());
            format!("{} (index {}): {why}", reading.info.uuid, reading.info.index)
        });
        let mut reasons: Vec<String> = troubles.chain(self.nameless.iter().cloned()).collect();
        if reasons.is_empty() {
            return (SourceState::Healthy, None);
        }
        let more = reasons.len().saturating_sub(MAX_REASONS);
        reasons.truncate(MAX_REASONS);
        let mut detail = reasons.join("; ");
        if more > 0 {
            detail.push_str(&format!("; and {more} more"));
        }
        let none_answers = readings.iter().all(|reading| reading.state == GpuStatus::Lost);
        (if none_answers { SourceState::Failed } else { SourceState::Degraded }, Some(detail))
    }

    /// Replaces the list by what was found and returns the UUIDs that have to be described.
    fn take_over(&mut self, found: Roll, scope: Scope) -> BTreeSet<GpuUuid> {
        let mut old = std::mem::take(&mut self.gpus);
        let mut strangers = BTreeSet::new();
        let mut silent = Vec::new();
        for (index, identity) in found {
            match identity {
                Ok(uuid) if self.gpus.iter().any(|gpu| gpu.info.uuid == uuid) => {
                    silent.push((index, format!("it repeats the UUID {uuid}")));
                }
                Ok(uuid) => {
                    let known =
                        old.iter().position(|gpu| gpu.info.uuid == uuid).map(|at| old.swap_remove(at));
                    let as_before =
                        known.as_ref().is_some_and(|gpu| gpu.lost.is_none() && gpu.info.index == index);
                    if scope == Scope::All || !as_before {
                        strangers.insert(uuid.clone());
                    }
                    let info = known.map_or_else(|| unknown(uuid), |gpu| gpu.info);
                    self.gpus.push(Gpu {
                        info: GpuInfo { index, ..info },
                        unsupported: BTreeSet::new(),
                        lost: None,
                    });
                }
                Err(error) => silent.push((index, error.to_string())),
            }
        }
        self.keep_lost(old, silent);
        self.gpus.sort_by(|a, b| (a.info.index, &a.info.uuid).cmp(&(b.info.index, &b.info.uuid)));
        strangers
    }

    /// Keeps as many of the unlisted GPUs as there are silent indices: first those whose own index is silent.
    fn keep_lost(&mut self, mut unlisted: Vec<Gpu>, silent: Vec<(u32, String)>) {
        unlisted.sort_by_key(|gpu| (gpu.info.index, gpu.info.uuid.clone()));
        let (mut own, mut unclaimed) = (Vec::new(), Vec::new());
        for (index, why) in silent {
            match unlisted.iter().position(|gpu| gpu.info.index == index) {
                Some(at) => own.push((unlisted.remove(at), why)),
                None => unclaimed.push((index, why)),
            }
        }
        let mut unlisted = unlisted.into_iter();
        self.nameless.clear();
        for (index, why) in unclaimed {
            match unlisted.next() {
                Some(gpu) => own.push((gpu, why)),
                None => self.nameless.push(format!("the GPU at index {index} cannot be named: {why}")),
            }
        }
        self.gpus.extend(own.into_iter().map(|(gpu, why)| Gpu { lost: Some(why), ..gpu }));
    }

    fn describe(
        &mut self,
        strangers: &BTreeSet<GpuUuid>,
        source: &mut dyn GpuSource,
        meter: &mut Meter,
    ) -> Result<(), Outage> {
        for gpu in self.gpus.iter_mut().filter(|gpu| strangers.contains(&gpu.info.uuid)) {
            for fact in Fact::FIRST {
                match meter.time(fact.call(), || source.describe(*fact, &mut gpu.info)) {
                    Err(CallError::Down(outage)) => return Err(outage),
                    Err(error @ CallError::Lost) => {
                        gpu.lost = Some(error.to_string());
                        break;
                    }
                    // A fact that is not told stays absent; the call is counted as a failure.
                    Err(CallError::NotSupported | CallError::Other(_)) | Ok(()) => {}
                }
            }
        }
        Ok(())
    }
}

/// Opens every index and asks its UUID.
fn identify(source: &mut dyn GpuSource, meter: &mut Meter) -> Result<Roll, Outage> {
    let count = match meter.time(Call::DeviceCount, || source.device_count()) {
        Ok(0) => return Err(Outage::NoGpu),
        Ok(count) => count,
        Err(CallError::Down(outage)) => return Err(outage),
        Err(error) => return Err(Outage::Other(format!("it does not say how many GPUs there are: {error}"))),
    };
    let mut found = Vec::new();
    for index in 0..count.min(MAX_GPUS) {
        let identity = meter
            .time(Call::DeviceHandle, || source.open(index))
            .and_then(|()| meter.time(Call::DeviceUuid, || source.uuid(index)));
        match identity {
            Err(CallError::Down(outage)) => return Err(outage),
            identity => found.push((index, identity)),
        }
    }
    if count > MAX_GPUS {
        let why = format!("the agent reads at most {MAX_GPUS} of this node's {count} GPUs");
        found.push((MAX_GPUS, Err(CallError::Other(why))));
    }
    Ok(found)
}

fn read(gpu: &mut Gpu, source: &mut dyn GpuSource, meter: &mut Meter) -> Result<GpuReading, Outage> {
    if let Some(why) = &gpu.lost {
        return Ok(lost_reading(gpu, why));
    }
    let mut reading = GpuReading::absent(gpu.info.clone(), GpuStatus::Ok);
    let (mut answered, mut refused) = (0u32, 0u32);
    for metric in Metric::EVERY_TICK {
        if gpu.unsupported.contains(metric) {
            continue;
        }
        match meter.time(metric.call(), || source.sample(*metric, &mut reading)) {
            Ok(()) => answered += 1,
            Err(CallError::NotSupported) => {
                gpu.unsupported.insert(*metric);
            }
            Err(CallError::Down(outage)) => return Err(outage),
            Err(error @ CallError::Lost) => {
                let why = error.to_string();
                let reading = lost_reading(gpu, &why);
                gpu.lost = Some(why);
                return Ok(reading);
            }
            Err(error @ CallError::Other(_)) => {
                refused += 1;
                reading.trouble.get_or_insert_with(|| format!("{}: {error}", metric.call().as_str()));
            }
        }
    }
    reading.state = match (answered, refused) {
        (0, 0) => {
            reading.trouble = Some("it supports none of the metrics".to_owned());
            GpuStatus::Degraded
        }
        (0, _) => GpuStatus::Lost,
        (_, 0) => GpuStatus::Ok,
        _ => GpuStatus::Degraded,
    };
    Ok(reading)
}

fn lost_reading(gpu: &Gpu, why: &str) -> GpuReading {
    GpuReading { trouble: Some(why.to_owned()), ..GpuReading::absent(gpu.info.clone(), GpuStatus::Lost) }
}

const fn unknown(uuid: GpuUuid) -> GpuInfo {
    GpuInfo {
        uuid,
        index: 0,
        name: None,
        pci_bus_id: None,
        memory_total_bytes: None,
        power_limit_mw: None,
        domain: None,
    }
}

/// What is not told is absent; only a driver that is gone is an error.
fn lenient<T>(answer: Result<T, CallError>) -> Result<Option<T>, Outage> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(CallError::Down(outage)) => Err(outage),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
