//! NVLink.

use std::ffi::{c_uint, c_ulonglong};

use crate::abi::{Code, Out, PciInfo};
use crate::call::exports;
use crate::control::LinkError;
use crate::scenario::{NvLink, Remote};
use crate::session::{Gpu, pci_info};

/// NVML's code for NVLink 5: replays and checksums are no longer counted there, recoveries elsewhere.
pub(super) const NVLINK_5: c_uint = 7;

exports! {
    device fn nvmlDeviceGetNvLinkState(gpu, link: c_uint, active: Out<c_uint>) {
        existing(gpu, link)?;
        active.set(is_up(gpu, link).into())
    }
    device fn nvmlDeviceGetNvLinkVersion(gpu, link: c_uint, version: Out<c_uint>) {
        version.set(existing(gpu, link)?.version)
    }
    // GPUs reach each other's memory and do atomics there; the rest came with other hosts and other boards.
    device fn nvmlDeviceGetNvLinkCapability(gpu, link: c_uint, capability: c_uint, has: Out<c_uint>) {
        existing(gpu, link)?;
        match capability {
            0..=3 | 5 => has.set(1),
            4 => has.set(0),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    }
    device fn nvmlDeviceGetNvLinkRemotePciInfo(gpu, link: c_uint, info: Out<PciInfo>) {
        info.set(remote_pci(gpu, link)?)
    }
    device fn nvmlDeviceGetNvLinkRemotePciInfo_v2(gpu, link: c_uint, info: Out<PciInfo>) {
        info.set(remote_pci(gpu, link)?)
    }
    device fn nvmlDeviceGetNvLinkRemoteDeviceType(gpu, link: c_uint, kind: Out<c_uint>) {
        kind.set(match existing(gpu, link)?.remote {
            Remote::Gpu => 0,
            Remote::Switch => 2,
        })
    }
    device fn nvmlDeviceGetNvLinkErrorCounter(gpu, link: c_uint, counter: c_uint, count: Out<c_ulonglong>) {
        if existing(gpu, link)?.version >= NVLINK_5 {
            return Err(Code::NOT_SUPPORTED);
        }
        count.set(match counter {
            0 => errors(gpu, link, LinkError::Replay),
            1 => errors(gpu, link, LinkError::Recovery),
            2 => errors(gpu, link, LinkError::Crc),
            3 | 4 => 0,
            _ => return Err(Code::INVALID_ARGUMENT),
        })
    }
}

/// Errors of a link.
pub(super) fn errors(gpu: &Gpu<'_>, link: c_uint, error: LinkError) -> c_ulonglong {
    gpu.state(|board| board.link_errors.get(&(link, error)).copied().unwrap_or(0))
}

/// Is that link up?
pub(super) fn is_up(gpu: &Gpu<'_>, link: c_uint) -> bool {
    gpu.state(|board| board.links_down >> link.min(63) & 1 == 0)
}

/// The GPU's NVLink, if it has that link.
pub(super) fn existing<'a>(gpu: &Gpu<'a>, link: c_uint) -> Result<&'a NvLink, Code> {
    let nvlink = gpu.session().scenario.nvlink.as_ref().ok_or(Code::NOT_SUPPORTED)?;
    if link < nvlink.links { Ok(nvlink) } else { Err(Code::INVALID_ARGUMENT) }
}

fn remote_pci(gpu: &Gpu<'_>, link: c_uint) -> Result<PciInfo, Code> {
    let nvlink = existing(gpu, link)?;
    if let Some(peer) = &gpu.spec().nvlink_peer {
        return Ok(pci_info(peer, nvlink.remote_pci_device_id, gpu.device().pci.subsystem_id));
    }
    let addresses = nvlink.remote_pci.as_ref().ok_or(Code::NOT_SUPPORTED)?;
    let address = addresses.get(link as usize).ok_or(Code::INVALID_ARGUMENT)?;
    Ok(pci_info(address, nvlink.remote_pci_device_id, 0))
}
