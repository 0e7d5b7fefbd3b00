//! The driver's own buffers of recent samples.

use std::ffi::{c_uint, c_ulonglong};

use crate::abi::{Code, Out, Outcome, Sample, Value};
use crate::call::{exports, whole};
use crate::clock;
use crate::session::Gpu;
use crate::state::Readings;

/// The driver keeps this many samples.
const BUFFERED: u64 = 120;
/// A sample is taken this often.
const PERIOD_US: u64 = 100_000;
/// `NVML_VALUE_TYPE_UNSIGNED_INT`, the type of all samples.
const UNSIGNED_INT: c_uint = 1;

exports! {
    device fn nvmlDeviceGetSamples(
        gpu, kind: c_uint, last_seen_us: c_ulonglong, value_type: Out<c_uint>, count: Out<c_uint>, samples: Out<Sample>,
    ) {
        let quantity = quantity(gpu, kind)?;
        value_type.set(UNSIGNED_INT)?;
        if samples.is_null() {
            return count.set(BUFFERED as c_uint);
        }
        fill(gpu, quantity, last_seen_us, count, samples)
    }
}

type Quantity = fn(&Readings, memory_clock: u32) -> f64;

fn quantity(gpu: &Gpu<'_>, kind: c_uint) -> Result<Quantity, Code> {
    match kind {
        0 => Ok(|readings, _| readings.power_w * 1e3),
        1..=4 | 8 | 9 if gpu.state(|board| board.mig.enabled) => Err(Code::NOT_SUPPORTED),
        1 => Ok(|readings, _| readings.utilization_percent),
        2 => Ok(|readings, _| readings.memory_utilization_percent),
        3 => Ok(|readings, _| readings.encoder_percent),
        4 => Ok(|readings, _| readings.decoder_percent),
        8 | 9 => Ok(|_, _| 0.0),
        5 => Ok(|readings, _| readings.sm_clock_mhz),
        6 => Ok(|_, memory_clock| f64::from(memory_clock)),
        // The module of GPU and processor is metered on coherent platforms only.
        7 if gpu.spec().own_numa_node.is_some() => Ok(|readings, _| readings.power_w * 1e3),
        7 => Err(Code::NOT_SUPPORTED),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

fn fill(
    gpu: &Gpu<'_>,
    quantity: Quantity,
    last_seen_us: u64,
    count: Out<c_uint>,
    samples: Out<Sample>,
) -> Outcome {
    let room = u64::from(count.get()?);
    if room == 0 {
        return Err(Code::INVALID_ARGUMENT);
    }
    let (now_us, elapsed_s) = (clock::unix_us(), gpu.elapsed_s());
    let latest = now_us / PERIOD_US;
    // Oldest first; those the caller has seen are left out, and with too little room the newest.
    let ticks = (latest.saturating_sub(BUFFERED - 1)..=latest).filter(|tick| tick * PERIOD_US > last_seen_us);
    let found: Vec<Sample> = ticks
        .take(room as usize)
        .map(|tick| {
            let age_s = (now_us - tick * PERIOD_US) as f64 / 1e6;
            let readings = gpu.readings_at((elapsed_s - age_s).max(0.0));
            let number = whole(quantity(&readings, gpu.device().clocks.memory));
            Sample {
                timestamp_us: tick * PERIOD_US,
                value: Value { unsigned_long_long: c_ulonglong::from(number) },
            }
        })
        .collect();
    if found.is_empty() {
        return Err(Code::NOT_FOUND);
    }
    count.set(found.len() as c_uint)?;
    samples.set_all(&found)
}
