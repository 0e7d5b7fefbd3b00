//! Multi-instance GPU. The GPUs of a scenario are whole.

use std::ffi::c_uint;

use crate::abi::{Code, Device, Out};
use crate::call::exports;

/// A GPU can be split into at most this many instances.
const MAX_INSTANCES: c_uint = 7;

exports! {
    device fn nvmlDeviceGetMigMode(gpu, current: Out<c_uint>, pending: Out<c_uint>) {
        if !gpu.device().mig_capable {
            return Err(Code::NOT_SUPPORTED);
        }
        current.set(0)?;
        pending.set(0)
    }
    device fn nvmlDeviceIsMigDeviceHandle(_gpu, is_mig: Out<c_uint>) { is_mig.set(0) }
    device fn nvmlDeviceGetMaxMigDeviceCount(gpu, count: Out<c_uint>) {
        count.set(if gpu.device().mig_capable { MAX_INSTANCES } else { 0 })
    }
    device fn nvmlDeviceGetMigDeviceHandleByIndex(gpu, index: c_uint, _mig: Out<Device>) {
        if !gpu.device().mig_capable {
            return Err(Code::NOT_SUPPORTED);
        }
        Err(if index < MAX_INSTANCES { Code::NOT_FOUND } else { Code::INVALID_ARGUMENT })
    }
    device fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(_gpu, _parent: Out<Device>) { Err(Code::INVALID_ARGUMENT) }
    device fn nvmlDeviceGetGpuInstanceId(_gpu, _id: Out<c_uint>) { Err(Code::INVALID_ARGUMENT) }
    device fn nvmlDeviceGetComputeInstanceId(_gpu, _id: Out<c_uint>) { Err(Code::INVALID_ARGUMENT) }
}
