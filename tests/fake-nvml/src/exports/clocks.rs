//! Clocks and why they are not higher.

use std::ffi::{c_uint, c_ulonglong};

use crate::abi::{Code, Out, Outcome, ViolationTime};
use crate::call::{exports, whole};
use crate::session::Gpu;

const GRAPHICS: c_uint = 0;
const SM: c_uint = 1;
const MEMORY: c_uint = 2;
const VIDEO: c_uint = 3;

/// All clocks event reasons that boards of this kind can report.
const SUPPORTED_REASONS: c_ulonglong = 0x1ff;

exports! {
    device fn nvmlDeviceGetClockInfo(gpu, clock: c_uint, mhz: Out<c_uint>) { mhz.set(current(gpu, clock)?) }
    device fn nvmlDeviceGetMaxClockInfo(gpu, clock: c_uint, mhz: Out<c_uint>) { mhz.set(greatest(gpu, clock)?) }
    device fn nvmlDeviceGetMaxCustomerBoostClock(gpu, clock: c_uint, mhz: Out<c_uint>) { mhz.set(greatest(gpu, clock)?) }
    device fn nvmlDeviceGetApplicationsClock(gpu, clock: c_uint, mhz: Out<c_uint>) { application(gpu, clock, mhz) }
    device fn nvmlDeviceGetDefaultApplicationsClock(gpu, clock: c_uint, mhz: Out<c_uint>) {
        application(gpu, clock, mhz)
    }
    device fn nvmlDeviceGetClock(gpu, clock: c_uint, id: c_uint, mhz: Out<c_uint>) {
        match id {
            0 => mhz.set(current(gpu, clock)?),
            1 | 2 => application(gpu, clock, mhz),
            3 => mhz.set(greatest(gpu, clock)?),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    }
    // The same bits under the name that they have had since driver 535, and under the one before.
    device fn nvmlDeviceGetCurrentClocksEventReasons(gpu, reasons: Out<c_ulonglong>) {
        reasons.set(gpu.readings().clock_event_reasons)
    }
    device fn nvmlDeviceGetCurrentClocksThrottleReasons(gpu, reasons: Out<c_ulonglong>) {
        reasons.set(gpu.readings().clock_event_reasons)
    }
    device fn nvmlDeviceGetSupportedClocksEventReasons(_gpu, reasons: Out<c_ulonglong>) {
        reasons.set(SUPPORTED_REASONS)
    }
    device fn nvmlDeviceGetSupportedClocksThrottleReasons(_gpu, reasons: Out<c_ulonglong>) {
        reasons.set(SUPPORTED_REASONS)
    }
    device fn nvmlDeviceGetViolationStatus(gpu, policy: c_uint, time: Out<ViolationTime>) {
        let totals = gpu.totals();
        let seconds = match policy {
            0 => totals.power_capped_s,
            1 => totals.software_thermal_s + totals.hardware_thermal_s,
            2..=5 | 10 | 11 => 0.0,
            _ => return Err(Code::INVALID_ARGUMENT),
        };
        let ns = |seconds: f64| (seconds * 1e9) as c_ulonglong;
        time.set(ViolationTime { reference_ns: ns(totals.elapsed_s), violation_ns: ns(seconds) })
    }
}

fn current(gpu: &Gpu<'_>, clock: c_uint) -> Result<c_uint, Code> {
    let clocks = &gpu.device().clocks;
    let sm = gpu.readings().sm_clock_mhz;
    match clock {
        GRAPHICS | SM => Ok(whole(sm)),
        MEMORY => Ok(clocks.memory),
        // The video clock follows the SM clock at a fixed ratio.
        VIDEO => Ok(whole(sm * f64::from(clocks.video_max) / f64::from(clocks.max.max(1)))),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

fn greatest(gpu: &Gpu<'_>, clock: c_uint) -> Result<c_uint, Code> {
    let clocks = &gpu.device().clocks;
    match clock {
        GRAPHICS | SM => Ok(clocks.max),
        MEMORY => Ok(clocks.memory),
        VIDEO => Ok(clocks.video_max),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

fn application(gpu: &Gpu<'_>, clock: c_uint, mhz: Out<c_uint>) -> Outcome {
    match clock {
        GRAPHICS | MEMORY => mhz.set(greatest(gpu, clock)?),
        SM | VIDEO => Err(Code::NOT_SUPPORTED),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}
