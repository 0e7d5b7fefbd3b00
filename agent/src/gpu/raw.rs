//! The agent's only unsafe code: the NVML calls that `nvml-wrapper` lacks, or where it loses something.
//!
//! What each is for: field values of one link (the wrapper cannot say which), samples
//! (the wrapper asks for their number every time), event bits newer than the wrapper (it drops
//! them), the remote end's type (the wrapper 0.13.0 never reads the answer), fabric, platform, replaced rows, MIG ids.
//! `nvmlDeviceGetGpuFabricInfo_v4` is not among them: `nvml-wrapper-sys` 0.10.0 binds no such symbol.
//!
//! Why each block is sound:
//! * symbols come from the library that [`Nvml`] keeps loaded, and their types from bindings of NVIDIA's header; both
//!   crates are pinned to exact versions that go together;
//! * a device's handle is taken from a [`Device`], which cannot outlive the [`Nvml`] it came from;
//! * every out-pointer is to a live local of the bound type, which for structures with a version is initialised with the
//!   version that names its own size, so NVML writes no further;
//! * zeroed structures are plain data: integers, arrays of them and pointers that may be null.

#![expect(unsafe_code, reason = "NVML is a C library, and its safe wrapper lacks these calls")]

use std::{ffi::c_uint, mem};

use nvml_wrapper::{
    Device, Nvml,
    error::{NvmlError, nvml_sym, nvml_try},
};
use nvml_wrapper_sys::bindings as sys;

use super::interconnect::{Fabric, FabricHealth, FabricState, Platform, RemoteKind};

/// `NVML_ERROR_ARGUMENT_VERSION_MISMATCH`: the driver does not know this version of a structure.
pub(super) const ARGUMENT_VERSION_MISMATCH: u32 = 25;

/// The scope of a field that asks for the sum over all links.
pub(super) const ALL_LINKS: u32 = u32::MAX;

/// A GPU's handle as a number, to recognise it in events.
pub(super) fn handle(device: &Device<'_>) -> usize {
    // SAFETY: the pointer is only looked at, never followed.
    unsafe { device.handle() }.addr()
}

/// Asks fields, each with its scope (a link's number, or 0), in one call. The inner results are the fields' own.
pub(super) fn field_values(
    device: &Device<'_>,
    asks: &[(u32, u32)],
) -> Result<Vec<Result<u64, NvmlError>>, NvmlError> {
    let sym = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
    let count = i32::try_from(asks.len()).map_err(|_| NvmlError::InvalidArg)?;
    let ask = |(field, scope): &(u32, u32)| {
        // SAFETY: plain data.
        let mut value: sys::nvmlFieldValue_t = unsafe { mem::zeroed() };
        (value.fieldId, value.scopeId) = (*field, *scope);
        value
    };
    let mut values: Vec<sys::nvmlFieldValue_t> = asks.iter().map(ask).collect();
    // SAFETY: `values` holds `count` structures.
    nvml_try(unsafe { sym(device.handle(), count, values.as_mut_ptr()) })?;
    Ok(values.iter().map(field_value).collect())
}

fn field_value(field: &sys::nvmlFieldValue_t) -> Result<u64, NvmlError> {
    nvml_try(field.nvmlReturn)?;
    whole(field.valueType, &field.value)
}

/// A tagged value as a whole number. What may be negative or fractional is not asked.
fn whole(value_type: u32, value: &sys::nvmlValue_t) -> Result<u64, NvmlError> {
    // SAFETY: NVML says by the type which member of the union it wrote, and all are plain numbers.
    unsafe {
        match value_type {
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT => Ok(u64::from(value.uiVal)),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG => Ok(value.ulVal),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG => Ok(value.ullVal),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT => {
                u64::try_from(value.siVal).map_err(|_| NvmlError::Unknown)
            }
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG => {
                u64::try_from(value.sllVal).map_err(|_| NvmlError::Unknown)
            }
            other => Err(NvmlError::UnexpectedVariant(other)),
        }
    }
}

/// How many samples of a kind the driver keeps.
pub(super) fn samples_room(device: &Device<'_>, kind: u32) -> Result<u32, NvmlError> {
    let sym = nvml_sym(device.nvml().lib().nvmlDeviceGetSamples.as_ref())?;
    let (mut value_type, mut count) = (0, 0);
    // SAFETY: two live integers of the types that this function fills; without room it writes no samples.
    match nvml_try(unsafe {
        sym(device.handle(), kind, 0, &raw mut value_type, &raw mut count, std::ptr::null_mut())
    }) {
        Ok(()) | Err(NvmlError::InsufficientSize(_)) => Ok(count),
        Err(error) => Err(error),
    }
}

/// Samples of a kind that are newer than `last_us`, at most `room`: when each was taken, microseconds, and what it shows.
pub(super) fn samples(
    device: &Device<'_>,
    kind: u32,
    last_us: u64,
    room: u32,
) -> Result<Vec<(u64, u64)>, NvmlError> {
    let sym = nvml_sym(device.nvml().lib().nvmlDeviceGetSamples.as_ref())?;
    // SAFETY: plain data.
    let empty: sys::nvmlSample_t = unsafe { mem::zeroed() };
    let mut samples = vec![empty; room as usize];
    let (mut value_type, mut count) = (0, room);
    // SAFETY: `samples` has room for `count` structures.
    nvml_try(unsafe {
        sym(device.handle(), kind, last_us, &raw mut value_type, &raw mut count, samples.as_mut_ptr())
    })?;
    let told = samples.iter().take(count as usize);
    told.map(|sample| Ok((sample.timeStamp, whole(value_type, &sample.sampleValue)?))).collect()
}

/// What the fabric says, in the newest structure that the driver knows: version 3, 2, then the one without a version.
pub(super) fn fabric(device: &Device<'_>) -> Result<Fabric, NvmlError> {
    let lib = device.nvml().lib();
    if let Ok(sym) = nvml_sym(lib.nvmlDeviceGetGpuFabricInfoV.as_ref()) {
        for version in [3, 2] {
            // SAFETY: plain data.
            let mut info: sys::nvmlGpuFabricInfo_v3_t = unsafe { mem::zeroed() };
            info.version = match version {
                3 => versioned::<sys::nvmlGpuFabricInfo_v3_t>(3),
                _ => versioned::<sys::nvmlGpuFabricInfo_v2_t>(2),
            };
            // SAFETY: version 3 begins with the fields of version 2, so there is room for either.
            match nvml_try(unsafe { sym(device.handle(), &raw mut info) }) {
                Ok(()) => return Ok(fabric_of(&info, version)),
                Err(NvmlError::UnexpectedVariant(ARGUMENT_VERSION_MISMATCH)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    let sym = nvml_sym(lib.nvmlDeviceGetGpuFabricInfo.as_ref())?;
    // SAFETY: plain data.
    let mut info: sys::nvmlGpuFabricInfo_t = unsafe { mem::zeroed() };
    // SAFETY: a live structure of the type that this function fills.
    nvml_try(unsafe { sym(device.handle(), &raw mut info) })?;
    Ok(Fabric {
        state: FabricState::from_code(info.state),
        status: info.status,
        cluster_uuid: uuid(&info.clusterUuid),
        clique_id: info.cliqueId,
        health: FabricHealth::default(),
        version: 1,
    })
}

fn fabric_of(info: &sys::nvmlGpuFabricInfo_v3_t, version: u8) -> Fabric {
    Fabric {
        state: FabricState::from_code(info.state),
        status: info.status,
        cluster_uuid: uuid(&info.clusterUuid),
        clique_id: info.cliqueId,
        health: FabricHealth {
            mask: Some(info.healthMask),
            summary: (version == 3).then_some(info.healthSummary),
        },
        version,
    }
}

/// A UUID as lower-case hexadecimal groups; `None` when it is nil.
fn uuid(bytes: &[u8; 16]) -> Option<String> {
    if bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    Some(text)
}

/// The place in chassis and rack. Version 1 named other things than version 2, so only the latter is asked.
pub(super) fn platform(device: &Device<'_>) -> Result<Platform, NvmlError> {
    let sym = nvml_sym(device.nvml().lib().nvmlDeviceGetPlatformInfo.as_ref())?;
    // SAFETY: plain data.
    let mut info: sys::nvmlPlatformInfo_v2_t = unsafe { mem::zeroed() };
    info.version = versioned::<sys::nvmlPlatformInfo_v2_t>(2);
    // SAFETY: a live structure of the type that its version names.
    nvml_try(unsafe { sym(device.handle(), &raw mut info) })?;
    let serial: Vec<u8> = info.chassisSerialNumber.iter().copied().take_while(|byte| *byte != 0).collect();
    let serial = String::from_utf8(serial).ok().filter(|text| {
        let text = text.trim();
        !text.is_empty() && !text.chars().any(char::is_control)
    });
    Ok(Platform {
        chassis_serial: serial,
        slot: info.slotNumber,
        tray: info.trayIndex,
        host: info.hostId,
        peer_type: info.peerType,
        module_id: info.moduleId,
    })
}

/// Replaced rows: because of corrected errors, because of uncorrected ones, whether more are pending, whether one failed.
pub(super) fn remapped_rows(device: &Device<'_>) -> Result<(u32, u32, bool, bool), NvmlError> {
    let sym = nvml_sym(device.nvml().lib().nvmlDeviceGetRemappedRows.as_ref())?;
    let (mut corrected, mut uncorrected, mut pending, mut failed) = (0, 0, 0, 0);
    // SAFETY: four live integers of the types that this function fills.
    nvml_try(unsafe {
        sym(device.handle(), &raw mut corrected, &raw mut uncorrected, &raw mut pending, &raw mut failed)
    })?;
    Ok((corrected, uncorrected, pending != 0, failed != 0))
}

/// What is at the other end of a link.
pub(super) fn remote_kind(device: &Device<'_>, link: u32) -> Result<RemoteKind, NvmlError> {
    let sym = nvml_sym(device.nvml().lib().nvmlDeviceGetNvLinkRemoteDeviceType.as_ref())?;
    let mut kind: sys::nvmlIntNvLinkDeviceType_t =
        sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_UNKNOWN;
    // SAFETY: a live integer of the type that this function fills.
    nvml_try(unsafe { sym(device.handle(), link, &raw mut kind) })?;
    Ok(match kind {
        sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU => RemoteKind::Gpu,
        sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH => RemoteKind::Switch,
        sys::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_IBMNPU => RemoteKind::IbmNpu,
        _ => RemoteKind::Unknown,
    })
}

/// Position on the baseboard.
pub(super) fn module_id(device: &Device<'_>) -> Result<u32, NvmlError> {
    let sym = nvml_sym(device.nvml().lib().nvmlDeviceGetModuleId.as_ref())?;
    let mut id: c_uint = 0;
    // SAFETY: a live integer of the type that this function fills.
    nvml_try(unsafe { sym(device.handle(), &raw mut id) })?;
    Ok(id)
}

/// The GPU instance and the compute instance of a MIG device.
pub(super) fn mig_ids(device: &Device<'_>) -> Result<(u32, u32), NvmlError> {
    let lib = device.nvml().lib();
    let gpu_instance = nvml_sym(lib.nvmlDeviceGetGpuInstanceId.as_ref())?;
    let compute_instance = nvml_sym(lib.nvmlDeviceGetComputeInstanceId.as_ref())?;
    let (mut gpu, mut compute): (c_uint, c_uint) = (0, 0);
    // SAFETY: a live integer of the type that this function fills.
    nvml_try(unsafe { gpu_instance(device.handle(), &raw mut gpu) })?;
    // SAFETY: as above.
    nvml_try(unsafe { compute_instance(device.handle(), &raw mut compute) })?;
    Ok((gpu, compute))
}

/// Events of the GPUs that were registered.
#[derive(Debug)]
pub(super) struct EventQueue<'nvml> {
    set: nvml_wrapper::EventSet<'nvml>,
}

/// One event as NVML tells it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    /// [`handle`] of its GPU.
    pub(super) device: usize,
    /// One bit.
    pub(super) event_type: u64,
    /// The XID, where it is one.
    pub(super) data: u64,
}

impl<'nvml> EventQueue<'nvml> {
    /// An empty queue.
    pub(super) fn new(nvml: &'nvml Nvml) -> Result<Self, NvmlError> {
        // Dropping a set panics where it cannot be freed.
        nvml_sym(nvml.lib().nvmlEventSetFree.as_ref())?;
        Ok(Self { set: nvml.create_event_set()? })
    }

    /// Registers a GPU for those of the event types that it supports.
    pub(super) fn register(&self, device: &Device<'nvml>, wanted: u64) -> Result<(), NvmlError> {
        let lib = device.nvml().lib();
        let supported_types = nvml_sym(lib.nvmlDeviceGetSupportedEventTypes.as_ref())?;
        let register = nvml_sym(lib.nvmlDeviceRegisterEvents.as_ref())?;
        let mut supported = 0;
        // SAFETY: a live integer of the type that this function fills.
        nvml_try(unsafe { supported_types(device.handle(), &raw mut supported) })?;
        if supported & wanted == 0 {
            return Err(NvmlError::NotSupported);
        }
        // SAFETY: the set is alive for as long as `self` is.
        nvml_try(unsafe { register(device.handle(), supported & wanted, self.set.handle()) })
    }

    /// The next event, without waiting for one.
    pub(super) fn poll(&self) -> Result<Option<Event>, NvmlError> {
        let wait = nvml_sym(self.set.nvml.lib().nvmlEventSetWait_v2.as_ref())?;
        // SAFETY: plain data.
        let mut data: sys::nvmlEventData_t = unsafe { mem::zeroed() };
        // SAFETY: the set is alive for as long as `self` is, and `data` is what this function fills.
        match nvml_try(unsafe { wait(self.set.handle(), &raw mut data, 0) }) {
            Ok(()) => Ok(Some(Event {
                device: data.device.addr(),
                event_type: data.eventType,
                data: data.eventData,
            })),
            Err(NvmlError::Timeout) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// NVML's version word of a structure: its size, and its version in the highest byte.
const fn versioned<T>(version: u32) -> u32 {
    size_of::<T>() as u32 | (version << 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_name_the_sizes_of_nvidias_header() {
        assert_eq!(versioned::<sys::nvmlGpuFabricInfo_v2_t>(2), 36 | 2 << 24);
        assert_eq!(versioned::<sys::nvmlGpuFabricInfo_v3_t>(3), 40 | 3 << 24);
        assert_eq!(versioned::<sys::nvmlPlatformInfo_v2_t>(2), 44 | 2 << 24);
    }

    #[test]
    fn a_nil_uuid_is_none() {
        assert_eq!(uuid(&[0; 16]), None);
        let bytes = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(uuid(&bytes).unwrap(), "12345678-9abc-def0-0102-030405060708");
    }
}
