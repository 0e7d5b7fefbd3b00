//! What boards of this kind do not have: fans, auto boost, operation modes, cooling of their own.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use crate::abi::{Code, Out};
use crate::call::exports;

exports! {
    device fn nvmlDeviceGetFanSpeed(_gpu, _percent: Out<c_uint>) { Err(Code::NOT_SUPPORTED) }
    device fn nvmlDeviceGetFanSpeed_v2(_gpu, _fan: c_uint, _percent: Out<c_uint>) { Err(Code::NOT_SUPPORTED) }
    device fn nvmlDeviceGetFanSpeedRPM(_gpu, _speed: Out<c_void>) { Err(Code::NOT_SUPPORTED) }
    device fn nvmlDeviceGetTargetFanSpeed(_gpu, _fan: c_uint, _percent: Out<c_uint>) { Err(Code::NOT_SUPPORTED) }
    device fn nvmlDeviceGetNumFans(_gpu, _count: Out<c_uint>) { Err(Code::NOT_SUPPORTED) }
    device fn nvmlDeviceGetMinMaxFanSpeed(_gpu, _least: Out<c_uint>, _most: Out<c_uint>) { Err(Code::NOT_SUPPORTED) }
    device fn nvmlDeviceGetAutoBoostedClocksEnabled(_gpu, _enabled: Out<c_uint>, _default: Out<c_uint>) {
        Err(Code::NOT_SUPPORTED)
    }
    device fn nvmlDeviceGetGpuOperationMode(_gpu, _current: Out<c_uint>, _pending: Out<c_uint>) {
        Err(Code::NOT_SUPPORTED)
    }
    device fn nvmlDeviceGetDriverModel(_gpu, _current: Out<c_uint>, _pending: Out<c_uint>) { Err(Code::NOT_SUPPORTED) }
    device fn nvmlDeviceGetDriverModel_v2(_gpu, _current: Out<c_uint>, _pending: Out<c_uint>) {
        Err(Code::NOT_SUPPORTED)
    }
    device fn nvmlDeviceGetBridgeChipInfo(_gpu, _hierarchy: Out<c_void>) { Err(Code::NOT_SUPPORTED) }
    device fn nvmlDeviceGetGpcClkVfOffset(_gpu, _offset: Out<c_int>) { Err(Code::NOT_SUPPORTED) }
    device fn nvmlDeviceGetMemClkVfOffset(_gpu, _offset: Out<c_int>) { Err(Code::NOT_SUPPORTED) }
    device fn nvmlDeviceGetNvLinkUtilizationCounter(
        _gpu, _link: c_uint, _counter: c_uint, _received: Out<c_ulonglong>, _sent: Out<c_ulonglong>,
    ) {
        // Deprecated; Hopper and later count in field values.
        Err(Code::NOT_SUPPORTED)
    }
}
