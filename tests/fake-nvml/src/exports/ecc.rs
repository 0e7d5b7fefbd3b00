//! Memory errors, and memory taken out of use because of them.

use std::ffi::{c_uint, c_ulonglong};

use crate::abi::{Code, Out, Outcome, RowRemapperHistogram};
use crate::call::exports;
use crate::session::Gpu;

exports! {
    device fn nvmlDeviceGetEccMode(gpu, current: Out<c_uint>, pending: Out<c_uint>) {
        current.set(c_uint::from(gpu.device().ecc))?;
        pending.set(c_uint::from(gpu.device().ecc))
    }
    device fn nvmlDeviceGetDefaultEccMode(_gpu, mode: Out<c_uint>) { mode.set(1) }
    device fn nvmlDeviceGetTotalEccErrors(gpu, kind: c_uint, counter: c_uint, count: Out<c_ulonglong>) {
        count.set(errors(gpu, kind, counter)?)
    }
    // The scenario does not say where an error struck: all are put down to device memory.
    device fn nvmlDeviceGetMemoryErrorCounter(
        gpu, kind: c_uint, counter: c_uint, location: c_uint, count: Out<c_ulonglong>,
    ) {
        let total = errors(gpu, kind, counter)?;
        match location {
            2 => count.set(total),
            0 | 1 | 3..=7 => count.set(0),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    }
    device fn nvmlDeviceGetRemappedRows(
        _gpu, corrected: Out<c_uint>, uncorrected: Out<c_uint>, pending: Out<c_uint>, failed: Out<c_uint>,
    ) {
        for out in [corrected, uncorrected, pending, failed] {
            out.set(0)?;
        }
        Ok(())
    }
    device fn nvmlDeviceGetRowRemapperHistogram(_gpu, histogram: Out<RowRemapperHistogram>) {
        histogram.set(RowRemapperHistogram { max: 2560, high: 0, partial: 0, low: 0, none: 0 })
    }
    // Row remapping took the place of page retirement with Ampere.
    device fn nvmlDeviceGetRetiredPages(_gpu, _cause: c_uint, _count: Out<c_uint>, _pages: Out<c_ulonglong>) {
        not_retired()
    }
    device fn nvmlDeviceGetRetiredPages_v2(
        _gpu, _cause: c_uint, _count: Out<c_uint>, _pages: Out<c_ulonglong>, _times: Out<c_ulonglong>,
    ) {
        not_retired()
    }
    device fn nvmlDeviceGetRetiredPagesPendingStatus(_gpu, _pending: Out<c_uint>) { not_retired() }
}

fn not_retired() -> Outcome {
    Err(Code::NOT_SUPPORTED)
}

fn errors(gpu: &Gpu<'_>, kind: c_uint, counter: c_uint) -> Result<c_ulonglong, Code> {
    if !gpu.device().ecc {
        return Err(Code::NOT_SUPPORTED);
    }
    let counts = gpu.spec().ecc;
    match (kind, counter) {
        (0, 0) => Ok(counts.corrected_volatile),
        (0, 1) => Ok(counts.corrected_aggregate),
        (1, 0) => Ok(counts.uncorrected_volatile),
        (1, 1) => Ok(counts.uncorrected_aggregate),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}
