//! Which GPUs there are and what they say: everything about sampling but threads and clocks.

mod events;
mod gpu;
mod roll;

use std::{collections::BTreeSet, time::Duration};

use plimsoll_common::{
    ids::GpuUuid,
    wire::{DriverInfo, GpuInfo, SourceState},
};
use tokio::time::Instant;

use self::{events::EventLog, gpu::Gpu};
use super::{
    governor::{Ask, Governor, GovernorState, Job, Then},
    meter::Meter,
    plan::{Call, Metric},
    reading::{GpuReading, GpuStatus},
    snapshot::AbsentGpu,
    source::{CallError, GpuSource, Outage},
};

pub(super) use self::roll::Scope;

/// How many reasons a detail spells out.
const MAX_REASONS: usize = 3;

/// The GPUs of this node, remembered over outages.
#[derive(Debug)]
pub(super) struct Sampler {
    gpus: Vec<Gpu>,
    nameless: Vec<String>,
    absent: Vec<AbsentGpu>,
    driver: Option<DriverInfo>,
    /// How many GPUs the driver listed in the last enumeration.
    listed: u32,
    inventory: u64,
    governor: Governor,
    events: EventLog,
}

impl Sampler {
    /// Nothing was seen yet; `interval` is the time between two ticks.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            gpus: Vec::new(),
            nameless: Vec::new(),
            absent: Vec::new(),
            driver: None,
            listed: 0,
            inventory: 0,
            governor: Governor::new(interval),
            events: EventLog::default(),
        }
    }

    /// The driver, as far as it told.
    pub(super) const fn driver(&self) -> Option<&DriverInfo> {
        self.driver.as_ref()
    }

    /// Rises with every change of a [`GpuInfo`] or of their list.
    pub(super) const fn inventory(&self) -> u64 {
        self.inventory
    }

    /// The GPUs that were here and are no longer listed.
    pub(super) fn absent(&self) -> &[AbsentGpu] {
        &self.absent
    }

    /// The newest events.
    pub(super) const fn events(&self) -> &EventLog {
        &self.events
    }

    /// How the budget is kept.
    pub(super) fn governor(&self, now: Instant) -> GovernorState {
        self.governor.state(now)
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

    /// Reads the events that came, and asks every GPU that is not lost what is due and fits into the budget.
    ///
    /// # Errors
    /// When the driver is gone.
    pub(super) fn tick(
        &mut self,
        source: &mut dyn GpuSource,
        meter: &mut Meter,
    ) -> Result<Vec<GpuReading>, Outage> {
        let infos: Vec<GpuInfo> = self.infos();
        self.read_events(source, meter)?;
        let present: BTreeSet<GpuUuid> =
            self.gpus.iter().filter(|gpu| gpu.lost.is_none()).map(|gpu| gpu.uuid().clone()).collect();
        self.governor.begin(&present, meter.now());
        while let Some(job) = self.governor.next(meter.now()) {
            self.ask(&job, source, meter)?;
        }
        let now = meter.now();
        for gpu in &mut self.gpus {
            gpu.settle(&self.governor, now);
        }
        if infos != self.infos() {
            self.inventory += 1;
        }
        Ok(self.gpus.iter().map(Gpu::told).collect())
    }

    /// The GPUs while the driver is not asked: known by name, without values.
    pub(super) fn silent(&mut self, why: &str) -> Vec<GpuReading> {
        self.driver = None;
        self.governor.disconnect();
        for gpu in &mut self.gpus {
            gpu.reading = gpu.reading.without_values(GpuStatus::Stale, why);
            gpu.lost = None;
            gpu.failing.clear();
        }
        self.gpus.iter().map(|gpu| gpu.reading.clone()).collect()
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

    fn infos(&self) -> Vec<GpuInfo> {
        self.gpus.iter().map(|gpu| gpu.reading.info.clone()).collect()
    }

    fn ask(&mut self, job: &Job, source: &mut dyn GpuSource, meter: &mut Meter) -> Result<(), Outage> {
        let Some(gpu) = self.gpus.iter_mut().find(|gpu| *gpu.uuid() == job.gpu && gpu.lost.is_none()) else {
            self.governor.done(job, meter.now(), Duration::ZERO, Then::Repeat);
            return Ok(());
        };
        let before = meter.busy();
        let answer = match job.ask {
            Ask::Metric(metric) => source.sample(metric, meter, &mut gpu.reading),
            Ask::Fact(fact) => source.describe(fact, meter, &mut gpu.reading),
        };
        let (now, took) = (meter.now(), meter.busy().saturating_sub(before));
        if let Ask::Metric(metric) = job.ask {
            gpu.believed[metric as usize] = self.governor.lifetime(metric);
        }
        let partition = gpu.partition.clone();
        let then = gpu.learn(job.ask, answer, now);
        let repartitioned = gpu.partition != partition && partition.is_some();
        if let Ok(then) = then {
            self.governor.done(job, now, took, then);
            if then == Then::Never && matches!(job.ask, Ask::Metric(_)) {
                // What a GPU no longer tells may be due to another partition.
                self.governor.hurry(&job.gpu, Ask::Metric(Metric::Mig), now);
            }
            if repartitioned {
                // What a GPU tells depends on how it is partitioned.
                gpu.reading.unsupported.clear();
                self.governor.restart(&job.gpu);
            }
        }
        then.map(drop)
    }

    fn read_events(&mut self, source: &mut dyn GpuSource, meter: &mut Meter) -> Result<(), Outage> {
        let before = meter.busy();
        let found = match source.events(EventLog::LIMIT, meter) {
            Ok(found) => found,
            Err(CallError::Down(outage)) => return Err(outage),
            Err(_) => Vec::new(),
        };
        let now = meter.now();
        self.governor.spend(now, meter.busy().saturating_sub(before));
        for event in found {
            let gpu = self.gpus.iter_mut().find(|gpu| Some(gpu.uuid()) == event.uuid.as_ref());
            if let Some(gpu) = gpu {
                gpu.note(event.kind, now);
                // Counters and recovery action are worth a look.
                self.governor.hurry(gpu.uuid(), Ask::Metric(Metric::Ecc), now);
            }
            self.events.add(event, now);
        }
        Ok(())
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
