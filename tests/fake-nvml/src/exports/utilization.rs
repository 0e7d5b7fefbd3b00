//! Utilization, and whose it is.

use std::ffi::{c_uint, c_ulonglong};

use crate::abi::{Code, Out, Outcome, ProcessUtilization, Utilization};
use crate::call::{exports, whole};
use crate::clock;
use crate::session::Gpu;

/// The driver averages utilization over a sixth of a second.
const SAMPLING_PERIOD_US: c_uint = 167_000;

exports! {
    device fn nvmlDeviceGetUtilizationRates(gpu, utilization: Out<Utilization>) {
        undivided(gpu)?;
        let readings = gpu.readings();
        utilization.set(Utilization {
            gpu: whole(readings.utilization_percent),
            memory: whole(readings.memory_utilization_percent),
        })
    }
    device fn nvmlDeviceGetEncoderUtilization(gpu, percent: Out<c_uint>, period_us: Out<c_uint>) {
        engine(gpu, gpu.readings().encoder_percent, percent, period_us)
    }
    device fn nvmlDeviceGetDecoderUtilization(gpu, percent: Out<c_uint>, period_us: Out<c_uint>) {
        engine(gpu, gpu.readings().decoder_percent, percent, period_us)
    }
    // Nothing here uses the JPEG and optical-flow engines.
    device fn nvmlDeviceGetJpgUtilization(gpu, percent: Out<c_uint>, period_us: Out<c_uint>) {
        engine(gpu, 0.0, percent, period_us)
    }
    device fn nvmlDeviceGetOfaUtilization(gpu, percent: Out<c_uint>, period_us: Out<c_uint>) {
        engine(gpu, 0.0, percent, period_us)
    }
    device fn nvmlDeviceGetProcessUtilization(
        gpu, samples: Out<ProcessUtilization>, count: Out<c_uint>, last_seen_us: c_ulonglong,
    ) {
        process_utilization(gpu, samples, count, last_seen_us)
    }
}

/// Utilization is not told of a GPU that is split.
fn undivided(gpu: &Gpu<'_>) -> Outcome {
    if gpu.state(|board| board.mig.enabled) { Err(Code::NOT_SUPPORTED) } else { Ok(()) }
}

fn engine(gpu: &Gpu<'_>, busy_percent: f64, percent: Out<c_uint>, period_us: Out<c_uint>) -> Outcome {
    undivided(gpu)?;
    percent.set(whole(busy_percent))?;
    period_us.set(SAMPLING_PERIOD_US)
}

/// One sample for each process that has used the SMs, stamped with the end of the sampling period.
fn process_utilization(
    gpu: &Gpu<'_>,
    samples: Out<ProcessUtilization>,
    count: Out<c_uint>,
    last_seen_us: c_ulonglong,
) -> Outcome {
    undivided(gpu)?;
    let room = count.get()? as usize;
    let now_us = clock::unix_us();
    let timestamp_us = now_us - now_us % c_ulonglong::from(SAMPLING_PERIOD_US);
    let busy: Vec<_> = gpu
        .processes()
        .into_iter()
        .filter(|process| process.sm_percent > 0 && timestamp_us > last_seen_us)
        .map(|process| ProcessUtilization {
            pid: process.pid,
            timestamp_us,
            sm: process.sm_percent,
            memory: whole(f64::from(process.sm_percent) * gpu.session().scenario.busy.memory),
            encoder: 0,
            decoder: 0,
        })
        .collect();
    if samples.is_null() {
        count.set(busy.len() as c_uint)?;
        return Err(if busy.is_empty() { Code::NOT_FOUND } else { Code::INSUFFICIENT_SIZE });
    }
    if busy.is_empty() {
        return Err(Code::NOT_FOUND);
    }
    count.set(busy.len() as c_uint)?;
    if room < busy.len() {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    samples.set_all(&busy)
}
