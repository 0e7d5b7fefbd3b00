//! GPM samples that clients hold: snapshots of a GPU's totals.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::lock;
use crate::abi::{Code, GpmSample, Outcome};
use crate::state::Totals;

/// A client may hold this many samples.
const MAX_SAMPLES: usize = 4096;

/// What a filled sample holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GpmRecord {
    pub(crate) gpu: usize,
    /// GPU instance, where it is of one.
    pub(crate) instance: Option<u32>,
    pub(crate) totals: Totals,
}

/// All samples of a session, by handle.
#[derive(Debug, Default)]
pub(crate) struct GpmSamples {
    held: Mutex<(usize, BTreeMap<usize, Option<GpmRecord>>)>,
}

impl GpmSamples {
    /// A new, empty sample.
    pub(crate) fn allocate(&self) -> Result<GpmSample, Code> {
        let (last, samples) = &mut *lock(&self.held);
        if samples.len() >= MAX_SAMPLES {
            return Err(Code::INSUFFICIENT_RESOURCES);
        }
        *last += 1;
        samples.insert(*last, None);
        Ok(GpmSample(*last << 4))
    }

    /// Gives a sample back; a second time is refused.
    pub(crate) fn free(&self, sample: GpmSample) -> Outcome {
        lock(&self.held).1.remove(&(sample.0 >> 4)).map(drop).ok_or(Code::INVALID_ARGUMENT)
    }

    /// Fills a sample.
    pub(crate) fn fill(&self, sample: GpmSample, record: GpmRecord) -> Outcome {
        *lock(&self.held).1.get_mut(&(sample.0 >> 4)).ok_or(Code::INVALID_ARGUMENT)? = Some(record);
        Ok(())
    }

    /// What a filled sample holds.
    pub(crate) fn record(&self, sample: GpmSample) -> Result<GpmRecord, Code> {
        lock(&self.held).1.get(&(sample.0 >> 4)).copied().flatten().ok_or(Code::INVALID_ARGUMENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_filled_read_and_freed_once() {
        let samples = GpmSamples::default();
        let sample = samples.allocate().unwrap();
        assert_eq!(samples.record(sample).unwrap_err(), Code::INVALID_ARGUMENT);
        samples.fill(sample, GpmRecord { gpu: 3, instance: None, totals: Totals::default() }).unwrap();
        assert_eq!(samples.record(sample).unwrap().gpu, 3);
        assert!(samples.free(sample).is_ok());
        assert_eq!(samples.free(sample), Err(Code::INVALID_ARGUMENT));
        assert_eq!(samples.free(GpmSample(0)), Err(Code::INVALID_ARGUMENT));
    }

    #[test]
    fn a_leaking_client_is_stopped() {
        let samples = GpmSamples::default();
        let failed = (0..=MAX_SAMPLES).filter(|_| samples.allocate().is_err()).count();
        assert_eq!(failed, 1);
    }
}
