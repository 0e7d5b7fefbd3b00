//! Processes that hold memory on a GPU.

use std::ffi::c_uint;

use crate::abi::{Code, Out, Outcome, ProcessInfo, ProcessInfoV1};
use crate::call::exports;
use crate::scenario::ProcessKind;
use crate::session::{Gpu, Running};

/// What a process has that belongs to no MIG instance.
const NO_INSTANCE: c_uint = u32::MAX;

exports! {
    device fn nvmlDeviceGetComputeRunningProcesses_v3(gpu, count: Out<c_uint>, infos: Out<ProcessInfo>) {
        list(gpu, ProcessKind::Compute, count, infos, current_layout)
    }
    device fn nvmlDeviceGetComputeRunningProcesses_v2(gpu, count: Out<c_uint>, infos: Out<ProcessInfo>) {
        list(gpu, ProcessKind::Compute, count, infos, current_layout)
    }
    device fn nvmlDeviceGetComputeRunningProcesses(gpu, count: Out<c_uint>, infos: Out<ProcessInfoV1>) {
        list(gpu, ProcessKind::Compute, count, infos, first_layout)
    }
    device fn nvmlDeviceGetGraphicsRunningProcesses_v3(gpu, count: Out<c_uint>, infos: Out<ProcessInfo>) {
        list(gpu, ProcessKind::Graphics, count, infos, current_layout)
    }
    device fn nvmlDeviceGetGraphicsRunningProcesses_v2(gpu, count: Out<c_uint>, infos: Out<ProcessInfo>) {
        list(gpu, ProcessKind::Graphics, count, infos, current_layout)
    }
    device fn nvmlDeviceGetGraphicsRunningProcesses(gpu, count: Out<c_uint>, infos: Out<ProcessInfoV1>) {
        list(gpu, ProcessKind::Graphics, count, infos, first_layout)
    }
    // Nobody runs under MPS.
    device fn nvmlDeviceGetMPSComputeRunningProcesses_v3(_gpu, count: Out<c_uint>, _infos: Out<ProcessInfo>) {
        count.set(0)
    }
    device fn nvmlDeviceGetMPSComputeRunningProcesses_v2(_gpu, count: Out<c_uint>, _infos: Out<ProcessInfo>) {
        count.set(0)
    }
}

fn current_layout(process: &Running) -> ProcessInfo {
    ProcessInfo {
        pid: process.pid,
        used_memory: process.memory_bytes,
        gpu_instance: NO_INSTANCE,
        compute_instance: NO_INSTANCE,
    }
}

fn first_layout(process: &Running) -> ProcessInfoV1 {
    ProcessInfoV1 { pid: process.pid, used_memory: process.memory_bytes }
}

/// Fills the caller's array. Too little room is answered with the number that there is.
fn list<T: Copy>(
    gpu: &Gpu<'_>,
    kind: ProcessKind,
    count: Out<c_uint>,
    infos: Out<T>,
    layout: fn(&Running) -> T,
) -> Outcome {
    let room = count.get()? as usize;
    let found: Vec<T> = gpu.processes().iter().filter(|process| process.kind == kind).map(layout).collect();
    count.set(found.len() as c_uint)?;
    if found.len() > room {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    if found.is_empty() { Ok(()) } else { infos.set_all(&found) }
}
