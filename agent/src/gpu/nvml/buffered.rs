//! What the driver samples by itself: read incrementally, so that no sample is counted twice.

use std::{collections::BTreeMap, time::Duration};

use nvml_wrapper::{Device, error::NvmlError};
use nvml_wrapper_sys::bindings as sys;

use super::{describe::ask, raw, sample::MAX_POWER_MW};
use crate::gpu::{
    meter::Meter,
    plan::Call,
    reading::{BufferedSamples, GpuReading, Samples},
    source::CallError,
};

/// Larger buffers are read in part: those that are known hold about 120 samples.
const MAX_ROOM: u32 = 4096;

/// What is sampled.
struct Series {
    kind: u32,
    /// Its field, by which it is told where it is not supported.
    field: &'static str,
    /// Above this a sample is a sentinel or garbage.
    max: u64,
    place: fn(&mut BufferedSamples) -> &mut Option<Samples>,
}

const SERIES: [Series; 3] = [
    Series {
        kind: sys::nvmlSamplingType_enum_NVML_GPU_UTILIZATION_SAMPLES,
        field: "utilization_samples",
        max: 100,
        place: |samples| &mut samples.utilization_percent,
    },
    Series {
        kind: sys::nvmlSamplingType_enum_NVML_MEMORY_UTILIZATION_SAMPLES,
        field: "memory_activity_samples",
        max: 100,
        place: |samples| &mut samples.memory_activity_percent,
    },
    Series {
        kind: sys::nvmlSamplingType_enum_NVML_TOTAL_POWER_SAMPLES,
        field: "power_samples",
        max: MAX_POWER_MW,
        place: |samples| &mut samples.power_mw,
    },
];

/// How far each buffer was read, by the GPU's index and the kind of samples.
pub(super) struct Buffers {
    seen: BTreeMap<(u32, u32), Seen>,
}

struct Seen {
    /// How many samples the driver keeps.
    room: u32,
    /// When the newest sample that was read was taken, microseconds on the driver's clock.
    last_us: u64,
}

impl Buffers {
    /// Nothing was read yet.
    pub(super) const fn new() -> Self {
        Self { seen: BTreeMap::new() }
    }

    /// Another GPU is at this index, or the same one anew.
    pub(super) fn forget(&mut self, index: u32) {
        self.seen.retain(|(of, _), _| *of != index);
    }

    /// Reads what is new in every buffer. The first time that is all that it holds.
    pub(super) fn sample(
        &mut self,
        device: &Device<'_>,
        index: u32,
        meter: &mut Meter,
        reading: &mut GpuReading,
    ) -> Result<(), CallError> {
        let mut supported = false;
        for series in &SERIES {
            match self.read(device, index, series, meter) {
                Ok(found) => {
                    supported = true;
                    *(series.place)(&mut reading.samples) = found;
                }
                Err(CallError::NotSupported) => {
                    reading.unsupported.insert(series.field);
                    *(series.place)(&mut reading.samples) = None;
                }
                Err(error) => return Err(error),
            }
        }
        if supported { Ok(()) } else { Err(CallError::NotSupported) }
    }

    fn read(
        &mut self,
        device: &Device<'_>,
        index: u32,
        series: &Series,
        meter: &mut Meter,
    ) -> Result<Option<Samples>, CallError> {
        let key = (index, series.kind);
        let (room, last_us) = match self.seen.get(&key) {
            Some(seen) => (seen.room, seen.last_us),
            None => (ask(meter, Call::Samples, || raw::samples_room(device, series.kind))?.min(MAX_ROOM), 0),
        };
        if room == 0 {
            return Ok(None);
        }
        let found = meter.time(Call::Samples, || match raw::samples(device, series.kind, last_us, room) {
            // None was taken since.
            Err(NvmlError::NotFound) => Ok(Vec::new()),
            other => other.map_err(super::call_error),
        })?;
        let new = || found.iter().filter(|(at_us, _)| *at_us > last_us);
        let last_us = new().map(|(at_us, _)| *at_us).max().unwrap_or(last_us);
        self.seen.insert(key, Seen { room, last_us });
        Ok(aggregate(new().copied().filter(|(_, value)| *value <= series.max)))
    }
}

/// Mean, greatest and span of samples; `None` of none.
fn aggregate(samples: impl Iterator<Item = (u64, u64)>) -> Option<Samples> {
    let (mut count, mut sum, mut max) = (0_u32, 0_u64, 0);
    let (mut first_us, mut last_us) = (u64::MAX, 0);
    for (at_us, value) in samples {
        count += 1;
        sum = sum.saturating_add(value);
        max = value.max(max);
        (first_us, last_us) = (first_us.min(at_us), last_us.max(at_us));
    }
    (count > 0).then(|| Samples {
        mean: sum as f64 / f64::from(count),
        max,
        count,
        span: Duration::from_micros(last_us - first_us),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_mean_greatest_and_span_in_any_order() {
        assert_eq!(aggregate(std::iter::empty()), None);
        let found = aggregate([(3_000_000, 10), (1_000_000, 40), (2_000_000, 25)].into_iter());
        let span = Duration::from_secs(2);
        assert_eq!(found, Some(Samples { mean: 25.0, max: 40, count: 3, span }));
        let huge = aggregate([(1, u64::MAX), (2, u64::MAX)].into_iter()).unwrap();
        assert_eq!((huge.count, huge.max), (2, u64::MAX));
    }
}
