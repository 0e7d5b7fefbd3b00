//! How many GPUs there are, and their handles.

use std::ffi::c_uint;

use crate::abi::{Code, Device, Out, Outcome, Text};
use crate::call::exports;
use crate::scenario::pci_address;
use crate::session::{Gpu, Session};

exports! {
    library fn nvmlDeviceGetCount(session, count: Out<c_uint>) { count.set(session.gpus().count() as c_uint) }
    library fn nvmlDeviceGetCount_v2(session, count: Out<c_uint>) { count.set(session.gpus().count() as c_uint) }

    library fn nvmlDeviceGetHandleByIndex(session, index: c_uint, device: Out<Device>) {
        device.set(session.gpu_at(index as usize)?.handle())
    }
    library fn nvmlDeviceGetHandleByIndex_v2(session, index: c_uint, device: Out<Device>) {
        device.set(session.gpu_at(index as usize)?.handle())
    }
    library fn nvmlDeviceGetHandleByUUID(session, uuid: Text, device: Out<Device>) {
        let uuid = uuid.get()?;
        find(session, device, |gpu| gpu.uuid() == uuid)
    }
    library fn nvmlDeviceGetHandleBySerial(session, serial: Text, device: Out<Device>) {
        let serial = serial.get()?;
        find(session, device, |gpu| gpu.serial() == serial)
    }
    library fn nvmlDeviceGetHandleByPciBusId(session, address: Text, device: Out<Device>) {
        by_pci_address(session, address, device)
    }
    library fn nvmlDeviceGetHandleByPciBusId_v2(session, address: Text, device: Out<Device>) {
        by_pci_address(session, address, device)
    }

    device fn nvmlDeviceGetIndex(gpu, index: Out<c_uint>) { index.set(gpu.index() as c_uint) }
    device fn nvmlDeviceGetMinorNumber(gpu, minor: Out<c_uint>) { minor.set(gpu.index() as c_uint) }
}

fn by_pci_address(session: &Session, address: Text, device: Out<Device>) -> Outcome {
    let address = pci_address(&address.get()?).ok_or(Code::INVALID_ARGUMENT)?;
    find(session, device, |gpu| pci_address(&gpu.spec().pci) == Some(address))
}

fn find(session: &Session, device: Out<Device>, wanted: impl Fn(&Gpu<'_>) -> bool) -> Outcome {
    let found = session.gpus().find(wanted).ok_or(Code::NOT_FOUND)?;
    device.set(found.handle())
}
