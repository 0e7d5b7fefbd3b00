//! Event sets.

use std::ffi::{c_uint, c_ulonglong};
use std::time::Duration;

use crate::abi::{Code, EventData, EventSet, Out};
use crate::call::{exports, guard};
use crate::session;

/// Everything that drivers of release 570 and later tell about data-centre boards: ECC errors, P-state and clock changes,
/// XIDs, MIG changes, row remapping, poison, loss of the GPU and recovery actions.
const SUPPORTED: c_ulonglong = 0xff1f;

exports! {
    library fn nvmlEventSetCreate(session, set: Out<EventSet>) {
        let out = set.required()?;
        out.set(session.events.create()?)
    }
    library fn nvmlEventSetFree(session, set: EventSet) { session.events.free(set) }
    device fn nvmlDeviceGetSupportedEventTypes(_gpu, types: Out<c_ulonglong>) { types.set(SUPPORTED) }
    device fn nvmlDeviceRegisterEvents(gpu, types: c_ulonglong, set: EventSet) {
        if types & !SUPPORTED != 0 {
            return Err(Code::NOT_SUPPORTED);
        }
        let session = gpu.session();
        session.events.register(set, gpu.board(), types, session.machine.next_event())
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetWait_v2(set: EventSet, data: Out<EventData>, timeout_ms: c_uint) -> Code {
    wait("nvmlEventSetWait_v2", set, data, timeout_ms)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetWait(set: EventSet, data: Out<EventData>, timeout_ms: c_uint) -> Code {
    wait("nvmlEventSetWait", set, data, timeout_ms)
}

fn wait(name: &str, set: EventSet, data: Out<EventData>, timeout_ms: c_uint) -> Code {
    guard(|| {
        let session = session::current()?;
        session.begin_call(name, None)?;
        data.required()?.set(session.wait_for_event(set, Duration::from_millis(timeout_ms.into()))?)
    })
}
