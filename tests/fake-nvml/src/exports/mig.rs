//! Multi-instance GPU: modes, MIG devices and their attributes.

use std::ffi::c_uint;

use crate::abi::{Code, Device, DeviceAttributes, Out, Outcome};
use crate::call::exports;
use crate::machine::MigDevice;
use crate::session::{Gpu, Target};

/// A GPU can be split into at most this many instances.
const MAX_INSTANCES: c_uint = 7;

exports! {
    device fn nvmlDeviceGetMigMode(gpu, current: Out<c_uint>, pending: Out<c_uint>) {
        capable(gpu)?;
        let (enabled, next) = gpu.state(|board| (board.mig.enabled, board.mig.pending()));
        current.set(enabled.into())?;
        pending.set(next.into())
    }
    instance fn nvmlDeviceIsMigDeviceHandle(target, is_mig: Out<c_uint>) { is_mig.set(target.mig.is_some().into()) }
    device fn nvmlDeviceGetMaxMigDeviceCount(gpu, count: Out<c_uint>) {
        count.set(if gpu.device().mig_capable { MAX_INSTANCES } else { 0 })
    }
    device fn nvmlDeviceGetMigDeviceHandleByIndex(gpu, index: c_uint, mig: Out<Device>) {
        capable(gpu)?;
        if index >= MAX_INSTANCES {
            return Err(Code::INVALID_ARGUMENT);
        }
        let found = gpu.state(|board| board.mig.devices.get(index as usize).copied());
        mig.set(gpu.session().mig_device(gpu.board(), &found.ok_or(Code::NOT_FOUND)?))
    }
    instance fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(target, parent: Out<Device>) {
        instance(target)?;
        parent.set(target.gpu.handle())
    }
    instance fn nvmlDeviceGetGpuInstanceId(target, id: Out<c_uint>) { id.set(instance(target)?.gpu_instance) }
    instance fn nvmlDeviceGetComputeInstanceId(target, id: Out<c_uint>) { id.set(instance(target)?.compute_instance) }
    instance fn nvmlDeviceGetAttributes_v2(target, attributes: Out<DeviceAttributes>) {
        set_attributes(target, attributes)
    }
    instance fn nvmlDeviceGetAttributes(target, attributes: Out<DeviceAttributes>) {
        set_attributes(target, attributes)
    }
}

/// The MIG device that a handle stands for.
fn instance(target: &Target<'_>) -> Result<MigDevice, Code> {
    target.mig.ok_or(Code::INVALID_ARGUMENT)
}

fn capable(gpu: &Gpu<'_>) -> Outcome {
    if gpu.device().mig_capable { Ok(()) } else { Err(Code::NOT_SUPPORTED) }
}

/// Attributes belong to MIG devices; a whole GPU has none. Copy engines follow the compute slices, and the other engines
/// stay with the whole GPU.
fn set_attributes(target: &Target<'_>, attributes: Out<DeviceAttributes>) -> Outcome {
    let mig = target.mig.ok_or(Code::NOT_SUPPORTED)?;
    let (device, slices) = (target.gpu.device(), mig.profile.compute_slices);
    attributes.set(DeviceAttributes {
        multiprocessors: mig.multiprocessors(device.multiprocessors),
        copy_engines: slices,
        decoders: 0,
        encoders: 0,
        jpeg_engines: 0,
        ofa_engines: 0,
        gpu_slices: slices,
        compute_slices: slices,
        memory_mib: mig.memory_mib(device.memory_mib),
    })
}
