//! What tells the other machines apart: links, fabric, sensors, generations.

use nvml_wrapper::enums::device::DeviceArchitecture;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, Nvml};

use crate::raw::{fabric, platform, remote_kind};
use crate::support::nvml;

const V2: u32 = 36 | 2 << 24;
const NOT_SUPPORTED: u32 = 3;
/// `NVML_NVLINK_DEVICE_TYPE_GPU` and `…_SWITCH`.
const GPU: u32 = 0;
const SWITCH: u32 = 2;
const NIL: [u8; 16] = [0; 16];

fn memory_temperature(gpu: &Device<'_>) -> bool {
    gpu.field_values_for(&[FieldId(82)]).unwrap()[0].as_ref().is_ok_and(|sample| sample.value.is_ok())
}

/// Name, architecture and number of GPUs, and whether GPM, MIG, a memory sensor and fabric information are there.
fn check(nvml: &Nvml, name: &str, architecture: DeviceArchitecture, count: u32, has: [bool; 4]) {
    assert_eq!(nvml.device_count().unwrap(), count);
    for index in 0..count {
        let gpu = nvml.device_by_index(index).unwrap();
        assert_eq!((gpu.name().unwrap().as_str(), gpu.architecture().unwrap()), (name, architecture.clone()));
        let found = [
            gpu.gpm_support().unwrap(),
            gpu.mig_mode().is_ok(),
            memory_temperature(&gpu),
            fabric(nvml, index, V2).0 != NOT_SUPPORTED,
        ];
        assert_eq!(found, has, "GPM, MIG, memory sensor, fabric of {name}");
        assert!(
            gpu.power_usage().is_ok()
                && gpu.memory_info().is_ok()
                && gpu
                    .temperature_threshold(
                        nvml_wrapper::enum_wrappers::device::TemperatureThreshold::Slowdown
                    )
                    .is_ok()
        );
    }
}

pub(crate) fn hgx_a100() {
    let nvml = nvml();
    check(&nvml, "NVIDIA A100-SXM4-80GB", DeviceArchitecture::Ampere, 8, [false, true, true, false]);
    let gpu = nvml.device_by_index(0).unwrap();
    assert_eq!(remote_kind(&gpu, 11), SWITCH);
    assert!(matches!(gpu.link_wrapper_for(12).is_active(), Err(NvmlError::InvalidArg)));
}

pub(crate) fn hgx_b200() {
    let nvml = nvml();
    check(&nvml, "NVIDIA B200", DeviceArchitecture::Blackwell, 8, [true, true, true, true]);
    let (code, info) = fabric(&nvml, 0, V2);
    assert_eq!((code, info.state, info.clusterUuid), (0, 3, NIL));
    let place = platform(&nvml, 0).unwrap();
    assert_eq!((place.chassisSerialNumber, place.slotNumber, place.peerType), (NIL, 255, 1));
}

/// The trap: a cluster UUID on a platform that is in no rack.
pub(crate) fn hgx_b200_cluster() {
    let nvml = nvml();
    let (code, info) = fabric(&nvml, 7, V2);
    assert_eq!((code, info.state), (0, 3));
    assert_ne!(info.clusterUuid, NIL);
    assert_eq!(platform(&nvml, 7).unwrap().chassisSerialNumber, NIL);
}

pub(crate) fn pcie_bridges() {
    let nvml = nvml();
    check(&nvml, "NVIDIA A100 80GB PCIe", DeviceArchitecture::Ampere, 4, [false, true, true, false]);
    for (index, peer) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        let (gpu, peer) = (nvml.device_by_index(index).unwrap(), nvml.device_by_index(peer).unwrap());
        for number in 0..12 {
            let link = gpu.link_wrapper_for(number);
            assert_eq!(remote_kind(&gpu, number), GPU);
            assert_eq!(link.remote_pci_info().unwrap().bus_id, peer.pci_info().unwrap().bus_id);
        }
    }
}

pub(crate) fn pcie_alone() {
    let nvml = nvml();
    check(&nvml, "NVIDIA L40S", DeviceArchitecture::Ada, 4, [false, false, false, false]);
    let gpu = nvml.device_by_index(0).unwrap();
    assert!(matches!(gpu.link_wrapper_for(0).is_active(), Err(NvmlError::NotSupported)));
    assert!(platform(&nvml, 0).is_none());
}

/// The trap: two racks with the default clique, told apart by the cluster UUID only.
pub(crate) fn a_tray_of_another_rack() {
    let nvml = nvml();
    let (code, info) = fabric(&nvml, 3, V2);
    assert_eq!((code, info.cliqueId, info.clusterUuid), (0, 32_766, [0x11; 16]));
    let place = platform(&nvml, 3).unwrap();
    assert_eq!(
        (&place.chassisSerialNumber[..7], place.slotNumber, place.trayIndex),
        (&b"RACK-B\0"[..], 12, 17)
    );
}
