//! NVLinks: state, errors and traffic of all of them, in one batch of field values each.

use nvml_wrapper::Device;

use super::{
    describe::{ask, nvlinks},
    sample::fields,
    supported,
};
use crate::gpu::{
    interconnect::{LinkErrors, LinkTraffic, NvLink},
    meter::Meter,
    plan::Call,
    reading::GpuReading,
    source::CallError,
};

/// NVML's code for NVLink 5, which counts other errors than those before it.
const NVLINK_5: u32 = 7;

/// `NVML_FI_DEV_NVLINK_GET_STATE` and `NVML_FI_DEV_NVLINK_GET_VERSION`.
const STATE: u32 = 165;
const VERSION: u32 = 166;

/// The id of a field value and what it counts.
type Counter = (u32, fn(&mut NvLink) -> &mut Option<u64>);

/// `NVML_FI_DEV_NVLINK_ERROR_DL_…`: `REPLAY`, `RECOVERY`, `CRC`.
const UP_TO_NVLINK_4: &[Counter] = &[
    (161, |link| &mut link.errors.replay),
    (162, |link| &mut link.errors.recovery),
    (163, |link| &mut link.errors.crc),
];

/// `NVML_FI_DEV_NVLINK_COUNT_…`.
const SINCE_NVLINK_5: &[Counter] = &[
    (202, |link| &mut link.traffic.tx_bytes),
    (204, |link| &mut link.traffic.rx_bytes),
    (206, |link| &mut link.errors.malformed),
    (207, |link| &mut link.errors.overrun),
    (208, |link| &mut link.errors.receive),
    (209, |link| &mut link.errors.remote),
    (210, |link| &mut link.errors.header),
    (211, |link| &mut link.errors.integrity),
    (212, |link| &mut link.errors.discarded),
    (213, |link| &mut link.errors.recovery_succeeded),
    (214, |link| &mut link.errors.recovery_failed),
    (215, |link| &mut link.errors.recovery),
    (219, |link| &mut link.errors.effective),
    (221, |link| &mut link.errors.symbol),
];

/// State and version. What is older than the fields for them tells the state alone, a call a link.
pub(super) fn states(
    device: &Device<'_>,
    meter: &mut Meter,
    reading: &mut GpuReading,
) -> Result<(), CallError> {
    let mut links = known(device, meter, reading)?;
    let asks: Vec<(u32, u32)> =
        links.iter().flat_map(|link| [(STATE, link.index), (VERSION, link.index)]).collect();
    let mut values = fields(device, meter, &asks)?.map(Result::ok);
    for link in &mut links {
        link.active = values.next().flatten().map(|state| state != 0);
        link.version = values.next().flatten().and_then(|version| u32::try_from(version).ok());
    }
    if links.iter().all(|link| link.active.is_none()) {
        for link in &mut links {
            let active = ask(meter, Call::NvLinkState, || device.link_wrapper_for(link.index).is_active());
            link.active = supported(active, "link_state", reading)?;
        }
    }
    reading.links = links.into();
    Ok(())
}

/// Errors and, from NVLink 5 on, traffic. Until a link has told its version it is asked as an older one.
pub(super) fn errors(
    device: &Device<'_>,
    meter: &mut Meter,
    reading: &mut GpuReading,
) -> Result<(), CallError> {
    let mut links = known(device, meter, reading)?;
    let asks: Vec<(u32, u32)> =
        links.iter().flat_map(|link| counters(link).iter().map(|(field, _)| (*field, link.index))).collect();
    let mut values = fields(device, meter, &asks)?.map(Result::ok);
    let mut told = false;
    for link in &mut links {
        (link.errors, link.traffic) = (LinkErrors::default(), LinkTraffic::default());
        for (_, place) in counters(link) {
            let value = values.next().flatten();
            told |= value.is_some();
            *place(link) = value;
        }
    }
    let versions_known = links.iter().all(|link| link.version.is_some());
    reading.links = links.into();
    // Older drivers tell neither these nor the version.
    if told || !versions_known { Ok(()) } else { Err(CallError::NotSupported) }
}

fn counters(link: &NvLink) -> &'static [Counter] {
    if link.version.is_some_and(|version| version >= NVLINK_5) { SINCE_NVLINK_5 } else { UP_TO_NVLINK_4 }
}

/// The links of the GPU, as far as they are known.
fn known(device: &Device<'_>, meter: &mut Meter, reading: &mut GpuReading) -> Result<Vec<NvLink>, CallError> {
    if reading.facts.nvlinks.is_none() {
        nvlinks(device, meter, reading)?;
    }
    if reading.links.is_empty() { Err(CallError::NotSupported) } else { Ok(reading.links.to_vec()) }
}
