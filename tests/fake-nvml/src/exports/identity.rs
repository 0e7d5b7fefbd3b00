//! What a GPU is.

use std::ffi::{c_char, c_int, c_uint};

use crate::abi::Out;
use crate::call::exports;
use crate::identity::mig_uuid;
use crate::scenario::Architecture;

/// `NVML_BRAND_NVIDIA`: data-centre boards carry no other brand since Ampere.
const BRAND_NVIDIA: c_uint = 14;

exports! {
    instance fn nvmlDeviceGetName(target, name: Out<c_char>, length: c_uint) {
        let board = &target.gpu.device().name;
        match target.mig {
            None => name.set_text(board, length),
            Some(mig) => name.set_text(&format!("{board} MIG {}", mig.profile_name()), length),
        }
    }
    instance fn nvmlDeviceGetUUID(target, uuid: Out<c_char>, length: c_uint) {
        match target.mig {
            None => uuid.set_text(target.gpu.uuid(), length),
            Some(mig) => uuid.set_text(&mig_uuid(target.gpu.uuid(), mig.gpu_instance, mig.compute_instance), length),
        }
    }
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
        version.set_text(&gpu.session().driver.version, 64)
    }
    device fn nvmlDeviceGetArchitecture(gpu, architecture: Out<c_uint>) {
        architecture.set(match gpu.device().architecture {
            Architecture::Ampere => 7,
            Architecture::Ada => 8,
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

    // A server: no display, persistence daemon running, exclusive to nobody, not virtualised.
    device fn nvmlDeviceGetDisplayMode(_gpu, mode: Out<c_uint>) { mode.set(0) }
    device fn nvmlDeviceGetDisplayActive(_gpu, active: Out<c_uint>) { active.set(0) }
    device fn nvmlDeviceGetPersistenceMode(_gpu, mode: Out<c_uint>) { mode.set(1) }
    instance fn nvmlDeviceGetComputeMode(_target, mode: Out<c_uint>) { mode.set(0) }
    device fn nvmlDeviceGetVirtualizationMode(_gpu, mode: Out<c_uint>) { mode.set(0) }
    device fn nvmlDeviceGetIrqNum(gpu, number: Out<c_uint>) { number.set(100 + gpu.board() as c_uint) }
}
