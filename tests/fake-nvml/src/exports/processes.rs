//! Processes that hold memory on a GPU.

use std::ffi::c_uint;

use crate::abi::{Code, Out, Outcome, ProcessInfo, ProcessInfoV1};
use crate::call::exports;
use crate::scenario::ProcessKind;
use crate::session::{Running, Target};

/// What a process has that belongs to no MIG instance.
const NO_INSTANCE: c_uint = u32::MAX;

exports! {
    instance fn nvmlDeviceGetComputeRunningProcesses_v3(target, count: Out<c_uint>, infos: Out<ProcessInfo>) {
        list(target, ProcessKind::Compute, count, infos, current_layout)
    }
    instance fn nvmlDeviceGetComputeRunningProcesses_v2(target, count: Out<c_uint>, infos: Out<ProcessInfo>) {
        list(target, ProcessKind::Compute, count, infos, current_layout)
    }
    instance fn nvmlDeviceGetComputeRunningProcesses(target, count: Out<c_uint>, infos: Out<ProcessInfoV1>) {
        list(target, ProcessKind::Compute, count, infos, first_layout)
    }
    instance fn nvmlDeviceGetGraphicsRunningProcesses_v3(target, count: Out<c_uint>, infos: Out<ProcessInfo>) {
        list(target, ProcessKind::Graphics, count, infos, current_layout)
    }
    instance fn nvmlDeviceGetGraphicsRunningProcesses_v2(target, count: Out<c_uint>, infos: Out<ProcessInfo>) {
        list(target, ProcessKind::Graphics, count, infos, current_layout)
    }
    instance fn nvmlDeviceGetGraphicsRunningProcesses(target, count: Out<c_uint>, infos: Out<ProcessInfoV1>) {
        list(target, ProcessKind::Graphics, count, infos, first_layout)
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
        gpu_instance: process.gpu_instance.unwrap_or(NO_INSTANCE),
        // Every GPU instance here has one compute instance, the first.
        compute_instance: process.gpu_instance.map_or(NO_INSTANCE, |_| 0),
    }
}

fn first_layout(process: &Running) -> ProcessInfoV1 {
    ProcessInfoV1 { pid: process.pid, used_memory: process.memory_bytes }
}

/// Fills the caller's array. Too little room is answered with the number that there is.
fn list<T: Copy>(
    target: &Target<'_>,
    kind: ProcessKind,
    count: Out<c_uint>,
    infos: Out<T>,
    layout: fn(&Running) -> T,
) -> Outcome {
    let room = count.get()? as usize;
    let here =
        |process: &&Running| target.mig.is_none_or(|mig| process.gpu_instance == Some(mig.gpu_instance));
    let running = target.gpu.processes();
    let found: Vec<T> =
        running.iter().filter(|process| process.kind == kind).filter(here).map(layout).collect();
    count.set(found.len() as c_uint)?;
    if found.len() > room {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    if found.is_empty() { Ok(()) } else { infos.set_all(&found) }
}
