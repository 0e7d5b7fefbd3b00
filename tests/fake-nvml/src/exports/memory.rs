//! Framebuffer and BAR1.

use std::ffi::c_uint;

use crate::abi::{Bar1Memory, Memory, MemoryV2, Out, struct_version};
use crate::call::exports;
use crate::machine::MigDevice;
use crate::session::Target;
use crate::state::MIB;

exports! {
    // The first version counts what the driver keeps for itself as used.
    instance fn nvmlDeviceGetMemoryInfo(target, memory: Out<Memory>) {
        let Framebuffer { total, reserved, used } = framebuffer(target);
        memory.set(Memory { total, free: total - used - reserved, used: used + reserved })
    }
    instance fn nvmlDeviceGetMemoryInfo_v2(target, memory: Out<MemoryV2>) {
        let version = struct_version::<MemoryV2>(2);
        memory.expect_version(version)?;
        let Framebuffer { total, reserved, used } = framebuffer(target);
        memory.set(MemoryV2 { version, total, reserved, free: total - reserved - used, used })
    }
    // The aperture is split as the memory is.
    instance fn nvmlDeviceGetBAR1MemoryInfo(target, memory: Out<Bar1Memory>) {
        let bar1_mib = target.gpu.device().bar1_mib;
        let total = target.mig.map_or(bar1_mib, |mig| mig.memory_mib(bar1_mib)) * MIB;
        let used = MIB.min(total);
        memory.set(Bar1Memory { total, free: total - used, used })
    }
    device fn nvmlDeviceGetMemoryBusWidth(gpu, bits: Out<c_uint>) { bits.set(gpu.device().memory_bus_bits) }
}

/// Framebuffer, bytes.
struct Framebuffer {
    total: u64,
    /// What the driver keeps for itself.
    reserved: u64,
    used: u64,
}

/// That of a GPU, or of a MIG device: the instances of a GPU share its use and the driver's by their sizes.
fn framebuffer(target: &Target<'_>) -> Framebuffer {
    let device = target.gpu.device();
    let (whole, reserved) = (device.memory_mib * MIB, device.reserved_mib * MIB);
    let used = target.gpu.readings().memory_used_bytes;
    let Some(mig) = target.mig else { return Framebuffer { total: whole, reserved, used } };
    let size = |mig: &MigDevice| mig.memory_mib(device.memory_mib) * MIB;
    let all = target.gpu.state(|board| board.mig.devices.iter().map(size).sum::<u64>()).max(1);
    let (total, share) = (size(&mig), size(&mig) as f64 / all as f64);
    let reserved = (reserved as f64 * size(&mig) as f64 / whole as f64) as u64;
    Framebuffer { total, reserved, used: ((used as f64 * share) as u64).min(total - reserved) }
}
