//! What the GPU's parts do, by GPM: differences of two samples that the driver takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use nvml_wrapper::{
    Device, Nvml,
    enums::gpm::GpmMetricId,
    error::{NvmlError, nvml_sym},
    gpm::{GpmSample, gpm_metrics_get},
};
use plimsoll_common::units::Ratio;
use tokio::time::Instant;

use super::{call_error, describe::ask};
use crate::gpu::{
    meter::Meter,
    plan::Call,
    reading::{Activity, GpuReading},
    source::CallError,
};

/// NVML computes nothing from samples that are closer; some slack keeps clear of clocks that differ.
const SPACING: Duration = Duration::from_millis(105);

/// NVML tells throughputs in MiB a second.
const MIB: f64 = 1_048_576.0;

/// Shares of time or of a peak, percent: what is asked, the field's name, where it goes.
type Share = (GpmMetricId, &'static str, fn(&mut Activity) -> &mut Option<Ratio>);
/// Throughputs: the same.
type Rate = (GpmMetricId, &'static str, fn(&mut Activity) -> &mut Option<u64>);

const SHARES: [Share; 8] = [
    (GpmMetricId::GraphicsUtil, "graphics_activity", |to| &mut to.graphics),
    (GpmMetricId::SmUtil, "sm_activity", |to| &mut to.sm),
    (GpmMetricId::SmOccupancy, "sm_occupancy", |to| &mut to.sm_occupancy),
    (GpmMetricId::AnyTensorUtil, "tensor_activity", |to| &mut to.tensor),
    (GpmMetricId::DramBwUtil, "dram_activity", |to| &mut to.dram),
    (GpmMetricId::Fp16Util, "fp16_activity", |to| &mut to.fp16),
    (GpmMetricId::Fp32Util, "fp32_activity", |to| &mut to.fp32),
    (GpmMetricId::Fp64Util, "fp64_activity", |to| &mut to.fp64),
];

const RATES: [Rate; 4] = [
    (GpmMetricId::PcieTxPerSec, "pcie_tx_bytes_per_second", |to| &mut to.pcie_tx_bytes_per_second),
    (GpmMetricId::PcieRxPerSec, "pcie_rx_bytes_per_second", |to| &mut to.pcie_rx_bytes_per_second),
    (GpmMetricId::NvlinkTotalTxPerSec, "nvlink_tx_bytes_per_second", |to| &mut to.nvlink_tx_bytes_per_second),
    (GpmMetricId::NvlinkTotalRxPerSec, "nvlink_rx_bytes_per_second", |to| &mut to.nvlink_rx_bytes_per_second),
];

/// The last sample of every GPU and of every instance of one.
pub(super) struct Streams<'nvml> {
    last: BTreeMap<Whose, (Instant, GpmSample<'nvml>)>,
}

/// The index of a GPU, and the GPU instance where it is not the whole.
type Whose = (u32, Option<u32>);

/// What the driver made of two samples, and how far they lie apart.
type Difference = (Vec<Result<f64, NvmlError>>, Duration);

impl<'nvml> Streams<'nvml> {
    /// No sample was taken yet.
    pub(super) const fn new() -> Self {
        Self { last: BTreeMap::new() }
    }

    /// Another GPU is at this index, or the same one anew.
    pub(super) fn forget(&mut self, index: u32) {
        self.last.retain(|(of, _), _| *of != index);
    }

    /// Takes a sample and tells what happened since the one before. Too soon after it, nothing is asked.
    pub(super) fn sample(
        &mut self,
        nvml: &'nvml Nvml,
        device: &Device<'nvml>,
        index: u32,
        meter: &mut Meter,
        reading: &mut GpuReading,
    ) -> Result<(), CallError> {
        let ids: Vec<GpmMetricId> =
            SHARES.iter().map(|share| share.0).chain(RATES.iter().map(|rate| rate.0)).collect();
        if let Some((values, window)) = self.look(nvml, device, (index, None), &ids, meter)? {
            let (activity, missing) = activity(values, window);
            reading.activity = activity;
            reading.unsupported.extend(missing);
        }
        Ok(())
    }

    /// The same of every GPU instance that the GPU is split into, as far as they are known.
    pub(super) fn sample_instances(
        &mut self,
        nvml: &'nvml Nvml,
        device: &Device<'nvml>,
        index: u32,
        meter: &mut Meter,
        reading: &mut GpuReading,
    ) -> Result<(), CallError> {
        let Some(mig) = &mut reading.mig else {
            return if reading.unsupported.contains("mig") { Err(CallError::NotSupported) } else { Ok(()) };
        };
        if !mig.enabled {
            return Err(CallError::NotSupported);
        }
        let present: BTreeSet<u32> = mig.instances.iter().filter_map(|it| it.gpu_instance_id).collect();
        self.last.retain(|(of, instance), _| *of != index || instance.is_none_or(|it| present.contains(&it)));
        let ids = SHARES.map(|share| share.0);
        for id in present {
            let (values, window) = match self.look(nvml, device, (index, Some(id)), &ids, meter) {
                Ok(Some(difference)) => difference,
                // One that went away since its GPU was asked is absent.
                Ok(None) | Err(CallError::Other(_)) => continue,
                Err(error) => return Err(error),
            };
            let (activity, _) = activity(values, window);
            let its = mig.instances.iter_mut().filter(|instance| instance.gpu_instance_id == Some(id));
            its.for_each(|instance| instance.activity = activity);
        }
        Ok(())
    }

    /// Takes a sample and compares it with the one before; the first has nothing to be compared with.
    fn look(
        &mut self,
        nvml: &'nvml Nvml,
        device: &Device<'nvml>,
        whose: Whose,
        ids: &[GpmMetricId],
        meter: &mut Meter,
    ) -> Result<Option<Difference>, CallError> {
        let before = self.last.get(&whose);
        if before.is_some_and(|(at, _)| meter.now().saturating_duration_since(*at) < SPACING) {
            return Ok(None);
        }
        if before.is_none() {
            begin(nvml, device, meter)?;
        }
        let sample = match whose.1 {
            None => ask(meter, Call::GpmSample, || device.gpm_sample())?,
            Some(instance) => ask(meter, Call::GpmMigSample, || device.gpm_mig_sample(instance))?,
        };
        let at = meter.now();
        let mut difference = None;
        if let Some((then, before)) = self.last.remove(&whose) {
            let values = ask(meter, Call::GpmMetrics, || gpm_metrics_get(nvml, &before, &sample, ids))?;
            let values = values.into_iter().map(|value| value.map(|value| value.value)).collect();
            difference = Some((values, at.saturating_duration_since(then)));
        }
        self.last.insert(whose, (at, sample));
        Ok(difference)
    }
}

/// Asks whether the GPU knows GPM at all.
fn begin(nvml: &Nvml, device: &Device<'_>, meter: &mut Meter) -> Result<(), CallError> {
    // Dropping a sample panics where it cannot be freed.
    nvml_sym(nvml.lib().nvmlGpmSampleFree.as_ref()).map_err(call_error)?;
    if ask(meter, Call::GpmSupport, || device.gpm_support())? { Ok(()) } else { Err(CallError::NotSupported) }
}

/// What the values say, in the order of [`SHARES`] and [`RATES`], and the fields that are not supported. Rates that were
/// not asked stay absent.
fn activity(values: Vec<Result<f64, NvmlError>>, window: Duration) -> (Activity, Vec<&'static str>) {
    let mut activity = Activity { window: Some(window), ..Activity::default() };
    let (mut values, mut missing) = (values.into_iter(), Vec::new());
    let mut next = |field: &'static str| match values.next() {
        Some(Ok(value)) => Some(value),
        Some(Err(NvmlError::NotSupported)) => {
            missing.push(field);
            None
        }
        // A metric that failed this time is absent this time.
        Some(Err(_)) | None => None,
    };
    for (_, field, place) in SHARES {
        *place(&mut activity) = next(field).and_then(share);
    }
    for (_, field, place) in RATES {
        *place(&mut activity) = next(field).and_then(bytes);
    }
    (activity, missing)
}

/// Rounding may put a share a little above the whole; more than that is no value.
fn share(percent: f64) -> Option<Ratio> {
    (0.0..=101.0).contains(&percent).then(|| Ratio::new((percent / 100.0).min(1.0)).ok()).flatten()
}

fn bytes(mib: f64) -> Option<u64> {
    // 2^40 MiB a second is more than any link carries.
    (0.0..1e12).contains(&mib).then_some((mib * MIB) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_share_and_no_rate_is_absent() {
        assert_eq!(share(50.0), Ratio::new(0.5).ok());
        assert_eq!(share(100.4), Ratio::new(1.0).ok());
        for wrong in [f64::NAN, -1.0, 150.0, f64::INFINITY] {
            assert_eq!(share(wrong), None, "{wrong}");
        }
        assert_eq!(bytes(2.0), Some(2 << 20));
        assert_eq!(bytes(f64::NAN), None);
    }
}
