//! What a GPU is.

use std::ffi::{c_char, c_int, c_uint};

use crate::abi::{Code, DeviceAttributes, Out, Outcome};
use crate::call::exports;
use crate::scenario::Architecture;
use crate::session::Gpu;

/// `NVML_BRAND_NVIDIA`: data-centre boards carry no other brand since Ampere.
const BRAND_NVIDIA: c_uint = 14;

exports! {
    device fn nvmlDeviceGetName(gpu, name: Out<c_char>, length: c_uint) { name.set_text(&gpu.device().name, length) }
    device fn nvmlDeviceGetUUID(gpu, uuid: Out<c_char>, length: c_uint) { uuid.set_text(gpu.uuid(), length) }
    device fn nvmlDeviceGetSerial(gpu, serial: Out<c_char>, length: c_uint) { serial.set_text(gpu.serial(), length) }
    device fn nvmlDeviceGetBrand(_gpu, brand: Out<c_uint>) { brand.set(BRAND_NVIDIA) }
    device fn nvmlDeviceGetBoardPartNumber(gpu, number: Out<c_char>, length: c_uint) {
        number.set_text(&gpu.device().board_part_number, length)
    }
    device fn nvmlDeviceGetBoardId(gpu, id: Out<c_uint>) {
        let pci = gpu.pci_info();
        id.set((pci.domain << 16) | (pci.bus << 8))
    }
    device fn nvmlDeviceGetMultiGpuBoard(_gpu, multi: Out<c_uint>) { multi.set(0) }
    device fn nvmlDeviceGetVbiosVersion(gpu, version: Out<c_char>, length: c_uint) {
        version.set_text(&gpu.device().vbios, length)
    }
    device fn nvmlDeviceGetInforomImageVersion(gpu, version: Out<c_char>, length: c_uint) {
        version.set_text(&gpu.device().inforom, length)
    }
    device fn nvmlDeviceValidateInforom(_gpu) { Ok(()) }
    device fn nvmlDeviceGetGspFirmwareMode(_gpu, enabled: Out<c_uint>, default: Out<c_uint>) {
        enabled.set(1)?;
        default.set(1)
    }
    device fn nvmlDeviceGetGspFirmwareVersion(gpu, version: Out<c_char>) {
        // The caller passes 64 bytes; the firmware has the driver's version.
        version.set_text(&gpu.session().scenario.driver.version, 64)
    }
    device fn nvmlDeviceGetArchitecture(gpu, architecture: Out<c_uint>) {
        architecture.set(match gpu.device().architecture {
            Architecture::Ampere => 7,
            Architecture::Hopper => 9,
            Architecture::Blackwell => 10,
        })
    }
    device fn nvmlDeviceGetCudaComputeCapability(gpu, major: Out<c_int>, minor: Out<c_int>) {
        let [major_number, minor_number] = gpu.device().compute_capability;
        major.set(major_number)?;
        minor.set(minor_number)
    }
    device fn nvmlDeviceGetNumGpuCores(gpu, cores: Out<c_uint>) { cores.set(gpu.device().cores) }
    device fn nvmlDeviceGetAttributes_v2(gpu, attributes: Out<DeviceAttributes>) { set_attributes(gpu, attributes) }
    device fn nvmlDeviceGetAttributes(gpu, attributes: Out<DeviceAttributes>) { set_attributes(gpu, attributes) }

    // A server: no display, persistence daemon running, exclusive to nobody, not virtualised.
    device fn nvmlDeviceGetDisplayMode(_gpu, mode: Out<c_uint>) { mode.set(0) }
    device fn nvmlDeviceGetDisplayActive(_gpu, active: Out<c_uint>) { active.set(0) }
    device fn nvmlDeviceGetPersistenceMode(_gpu, mode: Out<c_uint>) { mode.set(1) }
    device fn nvmlDeviceGetComputeMode(_gpu, mode: Out<c_uint>) { mode.set(0) }
    device fn nvmlDeviceGetVirtualizationMode(_gpu, mode: Out<c_uint>) { mode.set(0) }
    device fn nvmlDeviceGetIrqNum(gpu, number: Out<c_uint>) { number.set(100 + gpu.index() as c_uint) }
}

/// Attributes belong to MIG devices; a whole GPU has none.
fn set_attributes(_gpu: &Gpu<'_>, _attributes: Out<DeviceAttributes>) -> Outcome {
    Err(Code::NOT_SUPPORTED)
}
