//! What the GPU's parts do, by GPM: differences of two samples that the driver takes.

use std::{collections::BTreeMap, time::Duration};

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

/// The last sample of every GPU, by index.
pub(super) struct Streams<'nvml> {
    last: BTreeMap<u32, (Instant, GpmSample<'nvml>)>,
}

impl<'nvml> Streams<'nvml> {
    /// No sample was taken yet.
    pub(super) const fn new() -> Self {
        Self { last: BTreeMap::new() }
    }

    /// Another GPU is at this index, or the same one anew.
    pub(super) fn forget(&mut self, index: u32) {
        self.last.remove(&index);
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
        let before = self.last.get(&index);
        if before.is_some_and(|(at, _)| meter.now().saturating_duration_since(*at) < SPACING) {
            return Ok(());
        }
        if before.is_none() {
            begin(nvml, device, meter)?;
        }
        let sample = ask(meter, Call::GpmSample, || device.gpm_sample())?;
        let at = meter.now();
        // The first has nothing to be compared with.
        if let Some((then, before)) = self.last.remove(&index) {
            let ids: Vec<GpmMetricId> =
                SHARES.iter().map(|share| share.0).chain(RATES.iter().map(|rate| rate.0)).collect();
            let values = ask(meter, Call::GpmMetrics, || gpm_metrics_get(nvml, &before, &sample, &ids))?;
            let mut values = values.into_iter().map(|value| value.map(|value| value.value));
            reading.activity = activity(&mut values, reading);
            reading.activity.window = Some(at.saturating_duration_since(then));
        }
        self.last.insert(index, (at, sample));
        Ok(())
    }
}

/// Asks whether the GPU knows GPM at all.
fn begin(nvml: &Nvml, device: &Device<'_>, meter: &mut Meter) -> Result<(), CallError> {
    // Dropping a sample panics where it cannot be freed.
    nvml_sym(nvml.lib().nvmlGpmSampleFree.as_ref()).map_err(call_error)?;
    if ask(meter, Call::GpmSupport, || device.gpm_support())? { Ok(()) } else { Err(CallError::NotSupported) }
}

fn activity(values: &mut impl Iterator<Item = Result<f64, NvmlError>>, reading: &mut GpuReading) -> Activity {
    let mut activity = Activity::default();
    let mut next = |field: &'static str| match values.next() {
        Some(Ok(value)) => Some(value),
        Some(Err(NvmlError::NotSupported)) => {
            reading.unsupported.insert(field);
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
    activity
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
