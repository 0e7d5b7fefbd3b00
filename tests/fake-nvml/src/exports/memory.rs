//! Framebuffer and BAR1.

use std::ffi::c_uint;

use crate::abi::{Bar1Memory, Memory, MemoryV2, Out, struct_version};
use crate::call::exports;
use crate::state::MIB;

exports! {
    // The first version counts what the driver keeps for itself as used.
    device fn nvmlDeviceGetMemoryInfo(gpu, memory: Out<Memory>) {
        let (device, used) = (gpu.device(), gpu.readings().memory_used_bytes);
        let (total, used) = (device.memory_mib * MIB, used + device.reserved_mib * MIB);
        memory.set(Memory { total, free: total - used, used })
    }
    device fn nvmlDeviceGetMemoryInfo_v2(gpu, memory: Out<MemoryV2>) {
        let version = struct_version::<MemoryV2>(2);
        memory.expect_version(version)?;
        let (device, used) = (gpu.device(), gpu.readings().memory_used_bytes);
        let (total, reserved) = (device.memory_mib * MIB, device.reserved_mib * MIB);
        memory.set(MemoryV2 { version, total, reserved, free: total - reserved - used, used })
    }
    device fn nvmlDeviceGetBAR1MemoryInfo(gpu, memory: Out<Bar1Memory>) {
        let total = gpu.device().bar1_mib * MIB;
        let used = MIB.min(total);
        memory.set(Bar1Memory { total, free: total - used, used })
    }
    device fn nvmlDeviceGetMemoryBusWidth(gpu, bits: Out<c_uint>) { bits.set(gpu.device().memory_bus_bits) }
}
