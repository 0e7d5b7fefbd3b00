//! How many GPUs there are, and their handles.

use std::ffi::c_uint;

use crate::abi::{Code, Device, Out, Outcome, Text};
use crate::call::exports;
use crate::identity::mig_uuid;
use crate::machine::MigDevice;
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
        if let Some(mig) = session.gpus().find_map(|gpu| find_mig(&gpu, &uuid)) {
            return device.set(mig);
        }
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

    // A MIG device's index is that below its GPU.
    instance fn nvmlDeviceGetIndex(target, index: Out<c_uint>) {
        index.set(target.mig.map_or_else(|| target.gpu.index(), |mig| mig.slot) as c_uint)
    }
    device fn nvmlDeviceGetMinorNumber(gpu, minor: Out<c_uint>) { minor.set(gpu.board() as c_uint) }
}

fn by_pci_address(session: &Session, address: Text, device: Out<Device>) -> Outcome {
    let address = pci_address(&address.get()?).ok_or(Code::INVALID_ARGUMENT)?;
    find(session, device, |gpu| pci_address(&gpu.spec().pci) == Some(address))
}

/// The handle of the MIG device with this UUID, if it is on this GPU.
fn find_mig(gpu: &Gpu<'_>, uuid: &str) -> Option<Device> {
    if !uuid.starts_with("MIG-") {
        return None;
    }
    let devices = gpu.state(|board| if board.lost { Vec::new() } else { board.mig.devices.clone() });
    let named = |mig: &&MigDevice| mig_uuid(gpu.uuid(), mig.gpu_instance, mig.compute_instance) == uuid;
    devices.iter().find(named).map(|mig| gpu.session().mig_device(gpu.board(), mig))
}

fn find(session: &Session, device: Out<Device>, wanted: impl Fn(&Gpu<'_>) -> bool) -> Outcome {
    let found = session.gpus().find(wanted).ok_or(Code::NOT_FOUND)?;
    device.set(found.reachable()?.handle())
}
