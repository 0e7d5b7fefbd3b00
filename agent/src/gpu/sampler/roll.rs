//! Which GPUs there are.

use std::collections::BTreeSet;

use plimsoll_common::{ids::GpuUuid, wire::GpuInfo};
use tokio::time::{Duration, Instant};

use super::{Sampler, gpu::Gpu};
use crate::gpu::{
    meter::Meter,
    plan::{Call, Fact},
    reading::{GpuReading, GpuStatus},
    snapshot::AbsentGpu,
    source::{CallError, GpuSource, Outage},
};

/// The most GPUs of one node that are read; NVL72 trays have 4, HGX baseboards 8, the largest PCIe chassis 20.
pub(super) const MAX_GPUS: u32 = 64;

/// How long a GPU that is gone is remembered, and how many.
const REMEMBERED: Duration = Duration::from_hours(24);
const MAX_ABSENT: usize = 64;

/// How much is asked in an enumeration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gpu) enum Scope {
    /// Every fact about every GPU: after a (re)initialisation.
    All,
    /// Which GPUs there are, and every fact about those that are new, moved or back.
    Changes,
}

/// Who answers at each index.
type Roll = Vec<(u32, Result<GpuUuid, CallError>)>;

impl Sampler {
    /// Finds out which GPUs there are.
    ///
    /// A GPU is known by its UUID. One that was known and no longer answers is kept as lost while an index is silent that
    /// may be its own; one that the driver no longer lists at all is absent.
    ///
    /// # Errors
    /// When the driver is gone or lists no GPU; what was known stays known.
    pub(in crate::gpu) fn enumerate(
        &mut self,
        source: &mut dyn GpuSource,
        meter: &mut Meter,
        scope: Scope,
    ) -> Result<(), Outage> {
        let before = self.infos();
        let busy = meter.busy();
        let (count, found) = identify(source, meter)?;
        self.listed = count;
        let strangers = self.take_over(found, scope, meter.now());
        let described = self.describe(&strangers, source, meter);
        if self.infos() != before {
            self.inventory += 1;
        }
        if scope == Scope::Changes {
            self.governor.spend(meter.now(), meter.busy().saturating_sub(busy));
        }
        described
    }

    /// Whether the driver lists more or fewer GPUs than in the last enumeration.
    ///
    /// # Errors
    /// When the driver is gone.
    pub(in crate::gpu) fn count_changed(
        &mut self,
        source: &mut dyn GpuSource,
        meter: &mut Meter,
    ) -> Result<bool, Outage> {
        let busy = meter.busy();
        let count = meter.time(Call::DeviceCount, || source.device_count());
        self.governor.spend(meter.now(), meter.busy().saturating_sub(busy));
        match count {
            Ok(count) => Ok(count != self.listed),
            Err(CallError::Down(outage)) => Err(outage),
            // The next enumeration will tell.
            Err(_) => Ok(false),
        }
    }

    /// Replaces the list by what was found and returns the UUIDs that have to be described.
    fn take_over(&mut self, found: Roll, scope: Scope, now: Instant) -> BTreeSet<GpuUuid> {
        let mut old = std::mem::take(&mut self.gpus);
        let mut strangers = BTreeSet::new();
        let mut silent = Vec::new();
        for (index, identity) in found {
            match identity {
                Ok(uuid) if self.gpus.iter().any(|gpu| *gpu.uuid() == uuid) => {
                    silent.push((index, format!("it repeats the UUID {uuid}")));
                }
                Ok(uuid) => {
                    let known = old.iter().position(|gpu| *gpu.uuid() == uuid).map(|at| old.swap_remove(at));
                    let as_before = known
                        .as_ref()
                        .is_some_and(|gpu| gpu.lost.is_none() && gpu.reading.info.index == index);
                    if scope == Scope::Changes && as_before {
                        self.gpus.extend(known);
                        continue;
                    }
                    strangers.insert(uuid.clone());
                    self.governor.restart(&uuid);
                    self.gpus.push(Gpu::new(anew(known, uuid, index)));
                }
                Err(error) => silent.push((index, error.to_string())),
            }
        }
        self.keep_lost(old, silent, now);
        self.absent.retain(|gone| {
            gone.last_seen + REMEMBERED > now && self.gpus.iter().all(|gpu| *gpu.uuid() != gone.info.uuid)
        });
        self.gpus.sort_by(|a, b| (a.reading.info.index, a.uuid()).cmp(&(b.reading.info.index, b.uuid())));
        strangers
    }

    /// Keeps as many of the unlisted GPUs as there are silent indices: first those whose own index is silent. The others
    /// are absent.
    fn keep_lost(&mut self, mut unlisted: Vec<Gpu>, silent: Vec<(u32, String)>, now: Instant) {
        unlisted.sort_by_key(|gpu| (gpu.reading.info.index, gpu.uuid().clone()));
        let (mut own, mut unclaimed) = (Vec::new(), Vec::new());
        for (index, why) in silent {
            match unlisted.iter().position(|gpu| gpu.reading.info.index == index) {
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
        for (mut gpu, why) in own {
            // The first reason tells more than that it does not answer.
            if gpu.lost.is_none() {
                gpu.lose(why);
            }
            self.gpus.push(gpu);
        }
        let gone = unlisted.map(|gpu| AbsentGpu { info: gpu.reading.info, last_seen: now });
        self.absent.extend(gone);
        self.absent.sort_by(|a, b| (a.last_seen, &a.info.uuid).cmp(&(b.last_seen, &b.info.uuid)));
        let surplus = self.absent.len().saturating_sub(MAX_ABSENT);
        self.absent.drain(..surplus);
    }

    fn describe(
        &mut self,
        strangers: &BTreeSet<GpuUuid>,
        source: &mut dyn GpuSource,
        meter: &mut Meter,
    ) -> Result<(), Outage> {
        for gpu in self.gpus.iter_mut().filter(|gpu| strangers.contains(gpu.uuid())) {
            let facts = Fact::FIRST.iter().map(|fact| Some(*fact)).chain([None]);
            for fact in facts {
                let answer = match fact {
                    Some(fact) => source.describe(fact, meter, &mut gpu.reading),
                    None => source.watch(gpu.reading.info.index, meter),
                };
                match answer {
                    Err(CallError::Down(outage)) => return Err(outage),
                    Err(error @ CallError::Lost) => {
                        gpu.lose(error.to_string());
                        break;
                    }
                    Err(CallError::NotSupported) if fact.is_none() => {
                        gpu.reading.unsupported.insert("events");
                    }
                    // A fact that is not told stays absent; the call is counted as a failure.
                    Err(CallError::NotSupported | CallError::Other(_)) | Ok(()) => {}
                }
            }
        }
        Ok(())
    }
}

/// A GPU of which everything is asked anew; its name, its facts and what was counted are kept.
fn anew(known: Option<Gpu>, uuid: GpuUuid, index: u32) -> GpuReading {
    let Some(Gpu { reading, .. }) = known else {
        let (name, pci_bus_id) = (None, None);
        let (memory_total_bytes, power_limit_mw, domain) = (None, None, None);
        let info = GpuInfo { uuid, index, name, pci_bus_id, memory_total_bytes, power_limit_mw, domain };
        return GpuReading::absent(info, GpuStatus::Ok);
    };
    let info = GpuInfo { index, ..reading.info };
    GpuReading { facts: reading.facts, xids: reading.xids, ..GpuReading::absent(info, GpuStatus::Ok) }
}

/// Opens every index and asks its UUID; with how many there are.
fn identify(source: &mut dyn GpuSource, meter: &mut Meter) -> Result<(u32, Roll), Outage> {
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
    Ok((count, found))
}
