//! Power, its limits, and energy.

use std::ffi::{c_uint, c_ulonglong};

use crate::abi::Out;
use crate::call::{exports, whole};

exports! {
    device fn nvmlDeviceGetPowerUsage(gpu, milliwatts: Out<c_uint>) {
        milliwatts.set(whole(gpu.readings().power_w * 1e3))
    }
    device fn nvmlDeviceGetTotalEnergyConsumption(gpu, millijoules: Out<c_ulonglong>) {
        millijoules.set((gpu.totals().energy_j * 1e3) as c_ulonglong)
    }
    device fn nvmlDeviceGetEnforcedPowerLimit(gpu, milliwatts: Out<c_uint>) {
        milliwatts.set(whole(gpu.device().power.limit_w * 1e3))
    }
    device fn nvmlDeviceGetPowerManagementLimit(gpu, milliwatts: Out<c_uint>) {
        milliwatts.set(whole(gpu.device().power.limit_w * 1e3))
    }
    device fn nvmlDeviceGetPowerManagementDefaultLimit(gpu, milliwatts: Out<c_uint>) {
        milliwatts.set(whole(gpu.device().power.default_limit_w * 1e3))
    }
    device fn nvmlDeviceGetPowerManagementLimitConstraints(gpu, least: Out<c_uint>, most: Out<c_uint>) {
        least.set(whole(gpu.device().power.min_limit_w * 1e3))?;
        most.set(whole(gpu.device().power.max_limit_w * 1e3))
    }
    device fn nvmlDeviceGetPowerManagementMode(_gpu, mode: Out<c_uint>) { mode.set(1) }
    device fn nvmlDeviceGetPowerSource(_gpu, source: Out<c_uint>) { source.set(0) }
    // Data-centre boards stay in P0, idle or not.
    device fn nvmlDeviceGetPerformanceState(_gpu, state: Out<c_uint>) { state.set(0) }
    device fn nvmlDeviceGetPowerState(_gpu, state: Out<c_uint>) { state.set(0) }
}
