//! What does not change while a GPU is in its slot.

use std::sync::Arc;

use nvml_wrapper::{Device, enum_wrappers::device::Clock, error::NvmlError};

use super::{call_error, plausible, raw, supported};
use crate::gpu::{
    interconnect::{NvLink, RemoteEnd, RemoteKind},
    meter::Meter,
    plan::{Call, Fact},
    reading::{GpuFacts, GpuReading},
    source::CallError,
};

/// `NVML_FI_DEV_NVLINK_LINK_COUNT`.
const NVLINK_COUNT: u32 = 91;
/// More links than any GPU has.
const MAX_LINKS: u64 = 64;
/// `NVML_AFFINITY_SCOPE_NODE`.
const SCOPE_NODE: u32 = 0;
/// NUMA nodes that are looked for, in words of 64.
const NODE_WORDS: usize = 16;
/// NVML gives this generation and width for a link that cannot be read.
const MAX_PCIE: u32 = 64;

/// Asks one fact; see [`GpuSource::describe`](crate::gpu::GpuSource::describe).
pub(super) fn describe(
    device: &Device<'_>,
    fact: Fact,
    meter: &mut Meter,
    reading: &mut GpuReading,
) -> Result<(), CallError> {
    match fact {
        Fact::Name => reading.info.name = Some(ask(meter, Call::DeviceName, || device.name())?),
        Fact::PciBusId => {
            reading.info.pci_bus_id = Some(ask(meter, Call::PciInfo, || device.pci_info())?.bus_id);
        }
        Fact::MemoryTotal => {
            reading.info.memory_total_bytes =
                Some(ask(meter, Call::MemoryInfo, || device.memory_info())?.total);
        }
        Fact::PowerLimit => reading.info.power_limit_mw = Some(power_limit(device, meter)?),
        Fact::Remotes => return next_remote(device, meter, reading),
        Fact::NvLinks => return nvlinks(device, meter, reading),
        Fact::Platform => {
            let platform = ask(meter, Call::PlatformInfo, || raw::platform(device));
            reading.platform = supported(platform, "platform", reading)?;
        }
        Fact::MaxClocks => {
            let mut max = |clock| ask(meter, Call::MaxClockInfo, || device.max_clock_info(clock));
            reading.clocks.max_sm_mhz = Some(u64::from(max(Clock::SM)?));
            reading.clocks.max_memory_mhz = Some(u64::from(max(Clock::Memory)?));
        }
        other => return board(device, other, meter, Arc::make_mut(&mut reading.facts)),
    }
    Ok(())
}

/// The enforced power limit, milliwatts.
pub(super) fn power_limit(device: &Device<'_>, meter: &mut Meter) -> Result<u64, CallError> {
    let limit = ask(meter, Call::EnforcedPowerLimit, || device.enforced_power_limit())?;
    plausible("power limit", u64::from(limit), super::sample::MAX_POWER_MW)
}

fn board(device: &Device<'_>, fact: Fact, meter: &mut Meter, facts: &mut GpuFacts) -> Result<(), CallError> {
    match fact {
        Fact::Architecture => {
            facts.architecture = Some(ask(meter, Call::Architecture, || device.architecture())?.to_string());
        }
        Fact::ComputeCapability => {
            let capability = ask(meter, Call::ComputeCapability, || device.cuda_compute_capability())?;
            let number = |n: i32| u32::try_from(n).unwrap_or(0);
            facts.compute_capability = Some((number(capability.major), number(capability.minor)));
        }
        Fact::Serial => facts.serial = Some(ask(meter, Call::Serial, || device.serial())?),
        Fact::BoardPartNumber => {
            facts.board_part_number = Some(ask(meter, Call::BoardPartNumber, || device.board_part_number())?);
        }
        Fact::Vbios => facts.vbios = Some(ask(meter, Call::VbiosVersion, || device.vbios_version())?),
        Fact::Minor => facts.minor = Some(ask(meter, Call::MinorNumber, || device.minor_number())?),
        Fact::NumaNode => {
            let nodes = ask(meter, Call::MemoryAffinity, || device.memory_affinity(NODE_WORDS, SCOPE_NODE))?;
            facts.numa_node = first_bit(&nodes);
        }
        Fact::ModuleId => facts.module_id = Some(ask(meter, Call::ModuleId, || raw::module_id(device))?),
        Fact::PcieMax => {
            let generation = ask(meter, Call::PcieMax, || device.max_pcie_link_gen())?;
            let width = ask(meter, Call::PcieMax, || device.max_pcie_link_width())?;
            facts.pcie.max_generation = Some(generation).filter(|value| *value <= MAX_PCIE);
            facts.pcie.max_width = Some(width).filter(|value| *value <= MAX_PCIE);
        }
        // The others are written elsewhere.
        _ => return Err(CallError::NotSupported),
    }
    Ok(())
}

/// The number of the first bit that is set.
fn first_bit(words: &[std::ffi::c_ulong]) -> Option<u32> {
    let (at, word) = words.iter().enumerate().find(|(_, word)| **word != 0)?;
    let bits = std::ffi::c_ulong::BITS as usize;
    u32::try_from(at * bits).ok().map(|base| base + word.trailing_zeros())
}

/// How many links there are.
pub(super) fn nvlinks(
    device: &Device<'_>,
    meter: &mut Meter,
    reading: &mut GpuReading,
) -> Result<(), CallError> {
    let asks = [(NVLINK_COUNT, 0)];
    let values = ask(meter, Call::FieldValues, || raw::field_values(device, &asks))?;
    let count =
        values.into_iter().next().map_or(Err(CallError::NotSupported), |value| value.map_err(call_error));
    let count = supported(count, "links", reading)?.unwrap_or(0);
    let count = plausible("count of NVLinks", count, MAX_LINKS)? as u32;
    Arc::make_mut(&mut reading.facts).nvlinks = Some(count);
    if reading.links.len() != count as usize {
        reading.links = (0..count).map(|index| NvLink { index, ..NvLink::default() }).collect();
    }
    Ok(())
}

/// Asks for the other end of the first link whose end is not known.
fn next_remote(device: &Device<'_>, meter: &mut Meter, reading: &mut GpuReading) -> Result<(), CallError> {
    if reading.facts.nvlinks.is_none() {
        nvlinks(device, meter, reading)?;
    }
    let Some(at) = reading.links.iter().position(|link| link.remote.is_none()) else {
        return Ok(());
    };
    let index = reading.links[at].index;
    let kind = ask(meter, Call::NvLinkRemoteType, || raw::remote_kind(device, index));
    // A link that is down has no other end to tell.
    let kind = told(kind)?.unwrap_or(RemoteKind::Unknown);
    let pci = ask(meter, Call::NvLinkRemotePci, || device.link_wrapper_for(index).remote_pci_info());
    let pci_bus_id = told(pci)?.map(|pci| pci.bus_id);
    let mut links = reading.links.to_vec();
    links[at].remote = Some(RemoteEnd { kind, pci_bus_id });
    reading.links = links.into();
    Ok(())
}

/// What is not told is absent; only a GPU or driver that is gone is an error.
pub(super) fn told<T>(answer: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error @ (CallError::Lost | CallError::Down(_))) => Err(error),
        Err(CallError::NotSupported | CallError::Other(_)) => Ok(None),
    }
}

/// Makes a call that is counted.
pub(super) fn ask<T>(
    meter: &mut Meter,
    call: Call,
    make: impl FnOnce() -> Result<T, NvmlError>,
) -> Result<T, CallError> {
    meter.time(call, || make().map_err(call_error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numa_node_of_a_set_is_the_lowest() {
        assert_eq!(first_bit(&[0, 0]), None);
        assert_eq!(first_bit(&[0b100, 1]), Some(2));
        assert_eq!(first_bit(&[0, 1]), Some(std::ffi::c_ulong::BITS));
    }
}
