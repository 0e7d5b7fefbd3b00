//! Temperatures and their limits.

use std::ffi::{c_int, c_uint};

use crate::abi::{Code, MarginTemperatureV1, Out, TemperatureV1, struct_version};
use crate::call::{exports, whole};

/// `NVML_TEMPERATURE_GPU`, the only sensor that boards of this kind have.
const SENSOR_GPU: c_uint = 0;

exports! {
    device fn nvmlDeviceGetTemperature(gpu, sensor: c_uint, celsius: Out<c_uint>) {
        if sensor != SENSOR_GPU {
            return Err(Code::INVALID_ARGUMENT);
        }
        celsius.set(whole(gpu.readings().temperature_c))
    }
    device fn nvmlDeviceGetTemperatureV(gpu, temperature: Out<TemperatureV1>) {
        let version = struct_version::<TemperatureV1>(1);
        temperature.expect_version(version)?;
        let sensor = temperature.get()?.sensor;
        if sensor != SENSOR_GPU {
            return Err(Code::INVALID_ARGUMENT);
        }
        let celsius = gpu.readings().temperature_c.round() as c_int;
        temperature.set(TemperatureV1 { version, sensor, temperature: celsius })
    }
    device fn nvmlDeviceGetTemperatureThreshold(gpu, threshold: c_uint, celsius: Out<c_uint>) {
        let limits = &gpu.device().temperature;
        let limit = match threshold {
            0 => limits.shutdown,
            1 => limits.slowdown,
            2 if limits.memory_above.is_none() => return Err(Code::NOT_SUPPORTED),
            2 => limits.memory_max,
            3 => limits.gpu_max,
            4..=7 => return Err(Code::NOT_SUPPORTED),
            _ => return Err(Code::INVALID_ARGUMENT),
        };
        celsius.set(whole(limit))
    }
    device fn nvmlDeviceGetMarginTemperature(gpu, margin: Out<MarginTemperatureV1>) {
        let version = struct_version::<MarginTemperatureV1>(1);
        margin.expect_version(version)?;
        if !gpu.is_hopper_or_newer() {
            return Err(Code::NOT_SUPPORTED);
        }
        let left = gpu.device().temperature.gpu_max - gpu.readings().temperature_c;
        margin.set(MarginTemperatureV1 { version, margin: left.round() as c_int })
    }
}
