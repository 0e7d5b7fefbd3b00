//! What does not move: identity, limits, links, placement.

use nvml_wrapper::enum_wrappers::device::{
    Brand, Clock, EccCounter, MemoryError, PerformanceState, TemperatureThreshold, TopologyLevel,
};
use nvml_wrapper::enum_wrappers::nv_link::Capability;
use nvml_wrapper::enums::device::DeviceArchitecture;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use plimsoll_fake_nvml::{gpu_serial, gpu_uuid};

use crate::support::nvml;

const MIB: u64 = 1 << 20;

pub(crate) fn hgx_board() {
    let nvml = nvml();
    common(&nvml, "node-a", "hgx-h100-8", 8);
    assert_eq!(nvml.sys_cuda_driver_version().unwrap(), 13000);
    let gpu = nvml.device_by_index(5).unwrap();
    assert_eq!(gpu.name().unwrap(), "NVIDIA H100 80GB HBM3");
    assert_eq!(gpu.architecture().unwrap(), DeviceArchitecture::Hopper);
    let capability = gpu.cuda_compute_capability().unwrap();
    assert_eq!((capability.major, capability.minor), (9, 0));
    assert_eq!(gpu.num_cores().unwrap(), 16896);
    assert_eq!(gpu.board_part_number().unwrap(), "692-2G520-0200-000");
    assert_eq!(gpu.memory_info().unwrap().total, 81559 * MIB);
    assert_eq!(gpu.max_clock_info(Clock::SM).unwrap(), 1980);
    assert_eq!(gpu.max_clock_info(Clock::Memory).unwrap(), 2619);
    assert_eq!(gpu.enforced_power_limit().unwrap(), 700_000);
    assert_eq!(gpu.power_management_limit_default().unwrap(), 700_000);
    let limits = gpu.power_management_limit_constraints().unwrap();
    assert_eq!((limits.min_limit, limits.max_limit), (200_000, 700_000));
    assert_eq!(gpu.temperature_threshold(TemperatureThreshold::Slowdown).unwrap(), 89);
    assert_eq!(gpu.temperature_threshold(TemperatureThreshold::Shutdown).unwrap(), 95);

    let pci = gpu.pci_info().unwrap();
    assert_eq!(pci.bus_id, "00000000:C3:00.0");
    assert_eq!((pci.domain, pci.bus, pci.pci_device_id), (0, 0xc3, 0x2330_10de));
    assert_eq!(nvml.device_by_pci_bus_id("0000:C3:00.0").unwrap().index().unwrap(), 5);

    let link = gpu.link_wrapper_for(17);
    assert_eq!(link.version().unwrap(), 6);
    assert_eq!(link.remote_pci_info().unwrap().bus_id, "00000000:0A:00.0");
    assert!(!gpu.mig_mode().unwrap().current.eq(&1));
    // An x86 host: the GPU is near a NUMA node, it is none.
    assert!(matches!(gpu.numa_node_id(), Err(NvmlError::NotSupported)));
    assert_eq!(gpu.cpu_affinity(4).unwrap()[0], 0xff << 56, "processors 56 to 111 and 168 to 223");
}

pub(crate) fn gb200_tray() {
    let nvml = nvml();
    common(&nvml, "", "gb200-tray", 4);
    let gpu = nvml.device_by_index(3).unwrap();
    assert_eq!(gpu.name().unwrap(), "NVIDIA GB200");
    assert_eq!(gpu.architecture().unwrap(), DeviceArchitecture::Blackwell);
    assert_eq!(gpu.cuda_compute_capability().unwrap().major, 10);
    assert_eq!(gpu.memory_info().unwrap().total, 189_471 * MIB);
    assert_eq!(gpu.enforced_power_limit().unwrap(), 1_200_000);
    let pci = gpu.pci_info().unwrap();
    assert_eq!((pci.domain, pci.bus), (0x19, 1));
    let link = gpu.link_wrapper_for(0);
    assert_eq!(link.version().unwrap(), 7);
    assert!(link.remote_pci_info().is_err(), "the switches are in other trays");
    assert_eq!(gpu.numa_node_id().unwrap(), 26);
}

/// What holds for every GPU of either machine.
fn common(nvml: &Nvml, node: &str, scenario: &str, count: u32) {
    assert_eq!(nvml.sys_driver_version().unwrap(), "580.95.05");
    assert!(nvml.sys_nvml_version().unwrap().starts_with("13.580"));
    assert_eq!(nvml.device_count().unwrap(), count);
    assert!(matches!(nvml.device_by_index(count), Err(NvmlError::InvalidArg)));
    assert!(matches!(nvml.device_by_uuid("GPU-none"), Err(NvmlError::NotFound)));
    for index in 0..count {
        let gpu = nvml.device_by_index(index).unwrap();
        let uuid = gpu_uuid(node, scenario, index as usize);
        assert_eq!(gpu.uuid().unwrap(), uuid);
        assert_eq!(gpu.serial().unwrap(), gpu_serial(node, scenario, index as usize));
        assert_eq!(nvml.device_by_uuid(uuid).unwrap().index().unwrap(), index);
        assert_eq!((gpu.index().unwrap(), gpu.minor_number().unwrap()), (index, index));
        assert_eq!(gpu.brand().unwrap(), Brand::Nvidia);
        assert!(gpu.is_ecc_enabled().unwrap().currently_enabled);
        assert_eq!(gpu.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Aggregate).unwrap(), 0);
        assert_eq!(gpu.performance_state().unwrap(), PerformanceState::Zero);
        assert!(gpu.gpm_support().unwrap());
        assert!(gpu.bar1_memory_info().unwrap().total > gpu.memory_info().unwrap().total);
        assert_eq!((gpu.max_pcie_link_gen().unwrap(), gpu.max_pcie_link_width().unwrap()), (5, 16));
        links(&gpu);
        not_supported(&gpu);
    }
    let first = nvml.device_by_index(0).unwrap();
    let level = |other| first.topology_common_ancestor(nvml.device_by_index(other).unwrap()).unwrap();
    assert_eq!((level(1), level(count - 1)), (TopologyLevel::Node, TopologyLevel::System));
}

fn links(gpu: &Device<'_>) {
    for index in 0..18 {
        let link = gpu.link_wrapper_for(index);
        assert!(link.is_active().unwrap());
        assert!(link.has_capability(Capability::P2p).unwrap());
    }
    assert!(matches!(gpu.link_wrapper_for(18).is_active(), Err(NvmlError::InvalidArg)));
    // What nvml-wrapper 0.13 returns here is not what NVML told it: it passes NVML a copy.
    assert!(gpu.link_wrapper_for(0).remote_device_type(0).is_ok());
}

/// A board in a chassis has no fans of its own, no auto boost and no page retirement.
fn not_supported(gpu: &Device<'_>) {
    assert!(matches!(gpu.fan_speed(0), Err(NvmlError::NotSupported)));
    assert!(matches!(gpu.num_fans(), Err(NvmlError::NotSupported)));
    assert!(gpu.auto_boosted_clocks_enabled().is_err());
    assert!(gpu.running_graphics_processes().unwrap().is_empty());
}
