//! PCI identity, and the PCIe link.

use std::ffi::c_uint;
use std::time::Duration;

use crate::abi::{Code, Out, PciInfo};
use crate::call::{exports, whole};

/// The driver measures PCIe throughput by reading a counter twice, this far apart, while the caller waits.
const THROUGHPUT_WINDOW: Duration = Duration::from_millis(20);
/// `NVML_BUS_TYPE_PCIE`.
const BUS_TYPE_PCIE: c_uint = 2;

exports! {
    device fn nvmlDeviceGetPciInfo(gpu, info: Out<PciInfo>) { info.set(gpu.pci_info()) }
    device fn nvmlDeviceGetPciInfo_v2(gpu, info: Out<PciInfo>) { info.set(gpu.pci_info()) }
    device fn nvmlDeviceGetPciInfo_v3(gpu, info: Out<PciInfo>) { info.set(gpu.pci_info()) }
    device fn nvmlDeviceGetBusType(_gpu, bus: Out<c_uint>) { bus.set(BUS_TYPE_PCIE) }
    device fn nvmlDeviceGetCurrPcieLinkGeneration(gpu, generation: Out<c_uint>) {
        generation.set(gpu.device().pci.generation)
    }
    device fn nvmlDeviceGetMaxPcieLinkGeneration(gpu, generation: Out<c_uint>) {
        generation.set(gpu.device().pci.generation)
    }
    device fn nvmlDeviceGetGpuMaxPcieLinkGeneration(gpu, generation: Out<c_uint>) {
        generation.set(gpu.device().pci.generation)
    }
    device fn nvmlDeviceGetCurrPcieLinkWidth(gpu, width: Out<c_uint>) { width.set(gpu.device().pci.width) }
    device fn nvmlDeviceGetMaxPcieLinkWidth(gpu, width: Out<c_uint>) { width.set(gpu.device().pci.width) }
    // Codes of this enumeration count up with the generation.
    device fn nvmlDeviceGetPcieLinkMaxSpeed(gpu, speed: Out<c_uint>) { speed.set(gpu.device().pci.generation) }
    device fn nvmlDeviceGetPcieSpeed(gpu, megatransfers: Out<c_uint>) {
        megatransfers.set(match gpu.device().pci.generation {
            1 => 2_500,
            2 => 5_000,
            generation => 1_000 << generation.min(6),
        })
    }
    device fn nvmlDeviceGetPcieReplayCounter(gpu, replays: Out<c_uint>) {
        replays.set(gpu.state(|board| board.pcie_replays) as c_uint)
    }
    device fn nvmlDeviceGetPcieThroughput(gpu, counter: c_uint, kib_per_s: Out<c_uint>) {
        let kib_per_s = kib_per_s.required()?;
        if counter > 1 {
            return Err(Code::INVALID_ARGUMENT);
        }
        let bytes = |sent: f64, received: f64| if counter == 0 { sent } else { received };
        let before = gpu.totals();
        gpu.session().wait_in_driver(THROUGHPUT_WINDOW);
        let after = gpu.totals();
        let moved = bytes(after.pcie_tx_bytes - before.pcie_tx_bytes, after.pcie_rx_bytes - before.pcie_rx_bytes);
        kib_per_s.set(whole(moved / (after.elapsed_s - before.elapsed_s).max(1e-3) / 1024.0))
    }
}
