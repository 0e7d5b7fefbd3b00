//! Memory errors, and memory taken out of use because of them.

use std::ffi::{c_uint, c_ulonglong};

use crate::abi::{Code, Out, RowRemapperHistogram};
use crate::call::exports;
use crate::control::RetiredPages;
use crate::session::Gpu;

/// Banks of the memory, of which each has spare rows.
const BANKS: c_uint = 2560;
/// Size of a retired page, bytes.
const PAGE: c_ulonglong = 0x1_0000;

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
        gpu, corrected: Out<c_uint>, uncorrected: Out<c_uint>, pending: Out<c_uint>, failed: Out<c_uint>,
    ) {
        let rows = gpu.state(|board| board.rows);
        corrected.set(rows.corrected)?;
        uncorrected.set(rows.uncorrected)?;
        pending.set(rows.pending.into())?;
        failed.set(rows.failed.into())
    }
    // Each row remapped is put down to a bank of its own.
    device fn nvmlDeviceGetRowRemapperHistogram(gpu, histogram: Out<RowRemapperHistogram>) {
        let rows = gpu.state(|board| board.rows);
        let touched = rows.corrected.saturating_add(rows.uncorrected).min(BANKS);
        let none = c_uint::from(rows.failed).min(touched);
        histogram.set(RowRemapperHistogram { max: BANKS - touched, high: touched - none, partial: 0, low: 0, none })
    }
    device fn nvmlDeviceGetRetiredPages(gpu, cause: c_uint, count: Out<c_uint>, pages: Out<c_ulonglong>) {
        retired(gpu, cause, count, pages).map(drop)
    }
    device fn nvmlDeviceGetRetiredPages_v2(
        gpu, cause: c_uint, count: Out<c_uint>, pages: Out<c_ulonglong>, times: Out<c_ulonglong>,
    ) {
        for index in 0..retired(gpu, cause, count, pages)? {
            times.element(index).set(0)?;
        }
        Ok(())
    }
    device fn nvmlDeviceGetRetiredPagesPendingStatus(gpu, pending: Out<c_uint>) {
        pending.set(retired_pages(gpu)?.pending.into())
    }
}

/// Row remapping took the place of page retirement with Ampere, so a board retires pages only where a command says so.
fn retired_pages(gpu: &Gpu<'_>) -> Result<RetiredPages, Code> {
    gpu.state(|board| board.pages).ok_or(Code::NOT_SUPPORTED)
}

/// Tells the addresses of retired pages, and returns how many it has stored.
fn retired(
    gpu: &Gpu<'_>,
    cause: c_uint,
    count: Out<c_uint>,
    addresses: Out<c_ulonglong>,
) -> Result<usize, Code> {
    let pages = retired_pages(gpu)?;
    let (first, number) = match cause {
        0 => (0, pages.single_bit),
        1 => (pages.single_bit, pages.double_bit),
        _ => return Err(Code::INVALID_ARGUMENT),
    };
    let room = count.get()?;
    count.set(number)?;
    if number == 0 || addresses.is_null() {
        return Ok(0);
    }
    if room < number {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    let list: Vec<c_ulonglong> =
        (first..first + number).map(|page| (1 << 32) + c_ulonglong::from(page) * PAGE).collect();
    addresses.set_all(&list)?;
    Ok(list.len())
}

fn errors(gpu: &Gpu<'_>, kind: c_uint, counter: c_uint) -> Result<c_ulonglong, Code> {
    if !gpu.device().ecc {
        return Err(Code::NOT_SUPPORTED);
    }
    let counts = gpu.ecc();
    match (kind, counter) {
        (0, 0) => Ok(counts.corrected_volatile),
        (0, 1) => Ok(counts.corrected_aggregate),
        (1, 0) => Ok(counts.uncorrected_volatile),
        (1, 1) => Ok(counts.uncorrected_aggregate),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}
