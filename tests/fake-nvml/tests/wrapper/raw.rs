//! What nvml-wrapper has only as raw functions: fabric, modules, fields of one link; and the manners towards wrong pointers.

#![expect(unsafe_code, reason = "NVML's own calling convention is what is tested here")]

use std::ffi::c_uint;
use std::ptr::null_mut;

use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings as nvidia;

use crate::support::nvml;

const NIL: [u8; 16] = [0; 16];
const VERSION_MISMATCH: c_uint = 25;

fn handle(gpu: &Device<'_>) -> nvidia::nvmlDevice_t {
    // SAFETY: the handle is used only while the library that gave it is loaded.
    unsafe { gpu.handle() }
}

/// Fabric information in the layout with this version.
pub(crate) fn fabric(nvml: &Nvml, index: u32, version: c_uint) -> (c_uint, nvidia::nvmlGpuFabricInfo_v3_t) {
    let gpu = nvml.device_by_index(index).unwrap();
    // SAFETY: zero is a value of every field.
    let mut info: nvidia::nvmlGpuFabricInfo_v3_t = unsafe { std::mem::zeroed() };
    info.version = version;
    // SAFETY: the struct is that of the third layout, which begins with the second.
    let code = unsafe { nvml.lib().nvmlDeviceGetGpuFabricInfoV(handle(&gpu), (&raw mut info).cast()) };
    (code, info)
}

/// A field of one link.
pub(crate) fn field_of_link(nvml: &Nvml, gpu: &Device<'_>, id: u32, link: u32) -> Result<u64, c_uint> {
    // SAFETY: zero is a value of every field.
    let mut field: nvidia::nvmlFieldValue_t = unsafe { std::mem::zeroed() };
    (field.fieldId, field.scopeId) = (id, link);
    // SAFETY: one value is passed as one.
    let code = unsafe { nvml.lib().nvmlDeviceGetFieldValues(handle(gpu), 1, &raw mut field) };
    assert_eq!(code, 0);
    // SAFETY: the library fills all eight bytes.
    if field.nvmlReturn == 0 { Ok(unsafe { field.value.ullVal }) } else { Err(field.nvmlReturn) }
}

/// What stands at the far end of a link. nvml-wrapper's own function stores the answer where it does not look for it, and says
/// `Unknown` for everything.
pub(crate) fn remote_kind(gpu: &Device<'_>, link: u32) -> c_uint {
    let mut kind = c_uint::MAX;
    // SAFETY: the place has room for what the function stores.
    let code =
        unsafe { gpu.nvml().lib().nvmlDeviceGetNvLinkRemoteDeviceType(handle(gpu), link, &raw mut kind) };
    assert_eq!(code, 0);
    kind
}

/// Place in the rack, if the platform tells.
pub(crate) fn platform(nvml: &Nvml, index: u32) -> Option<nvidia::nvmlPlatformInfo_v2_t> {
    let gpu = nvml.device_by_index(index).unwrap();
    // SAFETY: zero is a value of every field.
    let mut info: nvidia::nvmlPlatformInfo_v2_t = unsafe { std::mem::zeroed() };
    info.version = 44 | 2 << 24;
    // SAFETY: the struct has the layout that its version says.
    let code = unsafe { nvml.lib().nvmlDeviceGetPlatformInfo(handle(&gpu), (&raw mut info).cast()) };
    (code == 0).then_some(info)
}

pub(crate) fn fabric_of_a_board() {
    let nvml = nvml();
    let (code, info) = fabric(&nvml, 0, 40 | 3 << 24);
    assert_eq!((code, info.state, info.clusterUuid, info.cliqueId), (0, 3, NIL, 0));
    assert!(platform(&nvml, 0).is_none(), "an x86 board does not know its rack");
}

pub(crate) fn fabric_of_a_tray() {
    let nvml = nvml();
    for index in 0..4 {
        let (code, info) = fabric(&nvml, index, 40 | 3 << 24);
        assert_eq!((code, info.state, info.cliqueId, info.status), (0, 3, 2, 0));
        assert_eq!(info.clusterUuid[..4], [0x7f, 0x5a, 0x9c, 0x1e]);
        assert_eq!((info.healthSummary, info.healthMask), (1, 0x1aa));
        assert_eq!(
            fabric(&nvml, index, 36 | 2 << 24).1.healthSummary,
            0,
            "nothing beyond the second layout is touched"
        );
        for wrong in [0, 1, 40 | 2 << 24, 548 | 4 << 24] {
            assert_eq!(fabric(&nvml, index, wrong).0, VERSION_MISMATCH);
        }
    }
    let gpu = nvml.device_by_index(0).unwrap();
    let (mut module, mut first_layout) = (0, std::mem::MaybeUninit::<nvidia::nvmlGpuFabricInfo_t>::zeroed());
    // SAFETY: both places have room for what the functions store.
    unsafe {
        assert_eq!(nvml.lib().nvmlDeviceGetModuleId(handle(&gpu), &raw mut module), 0);
        assert_eq!(nvml.lib().nvmlDeviceGetGpuFabricInfo(handle(&gpu), first_layout.as_mut_ptr()), 0);
        assert_eq!((module, first_layout.assume_init().cliqueId), (2, 2));
    }
    let platform = platform(&nvml, 0).unwrap();
    assert_eq!((platform.trayIndex, platform.moduleId), (3, 2));
    assert!(platform.chassisSerialNumber.starts_with(b"1821924180061\0"));
}

pub(crate) fn older_driver() {
    let nvml = nvml();
    assert_eq!(fabric(&nvml, 0, 40 | 3 << 24).0, VERSION_MISMATCH);
    assert_eq!(fabric(&nvml, 0, 36 | 2 << 24).0, 0);
    // Fields 251 to 253 have moved to 269 to 271 since; nvml-wrapper asks for those that the driver's release has.
    let gpu = nvml.device_by_index(0).unwrap();
    let fields = [251, 269].map(nvml_wrapper::structs::device::FieldId);
    let values = gpu.field_values_for(&fields).unwrap();
    let known =
        values.into_iter().map(|value| value.is_ok_and(|value| value.value.is_ok())).collect::<Vec<_>>();
    assert_eq!(known, [true, false]);
}

pub(crate) fn null_and_stale() {
    let nvml = nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    let device = handle(&gpu);
    let lib = nvml.lib();
    // SAFETY: null is what NVML must refuse, and buffers have the lengths that are passed.
    unsafe {
        assert_eq!(lib.nvmlDeviceGetPowerUsage(device, null_mut()), 2);
        assert_eq!(lib.nvmlDeviceGetName(device, null_mut(), 96), 2);
        assert_eq!(lib.nvmlDeviceGetFieldValues(device, 1, null_mut()), 2);
        assert_eq!(lib.nvmlDeviceGetHandleByUUID(std::ptr::null(), null_mut()), 2);
        assert_eq!(lib.nvmlGpmMetricsGet(null_mut()), 2);
        assert_eq!(lib.nvmlEventSetWait_v2(null_mut(), null_mut(), 0), 2);
        let mut memory: nvidia::nvmlMemory_v2_t = std::mem::zeroed();
        assert_eq!(lib.nvmlDeviceGetMemoryInfo_v2(device, &raw mut memory), VERSION_MISMATCH);
        let mut name = [0; 4];
        assert_eq!(lib.nvmlDeviceGetName(device, name.as_mut_ptr(), 4), 7);
        assert_eq!(name, [0; 4]);
        let mut power = 0;
        assert_eq!(lib.nvmlDeviceGetPowerUsage(null_mut(), &raw mut power), 2);
        // A client that shuts down and starts again must ask for its handles again.
        assert_eq!(lib.nvmlShutdown(), 0);
        assert_eq!(lib.nvmlDeviceGetPowerUsage(device, &raw mut power), 1);
        assert_eq!(lib.nvmlShutdown(), 1);
        assert_eq!(lib.nvmlInit_v2(), 0);
        assert_eq!(lib.nvmlDeviceGetPowerUsage(device, &raw mut power), 2);
    }
}

pub(crate) fn fields_by_link() {
    let nvml = nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    // SAFETY: zero is a value of every field.
    let mut fields: [nvidia::nvmlFieldValue_t; 5] = unsafe { std::mem::zeroed() };
    for (field, (id, scope)) in
        fields.iter_mut().zip([(138, u32::MAX), (138, 0), (164, 17), (164, 18), (202, 3)])
    {
        (field.fieldId, field.scopeId) = (id, scope);
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    // SAFETY: five values are passed as five.
    assert_eq!(unsafe { nvml.lib().nvmlDeviceGetFieldValues(handle(&gpu), 5, fields.as_mut_ptr()) }, 0);
    // SAFETY: all of these fields are unsigned integers, and the library fills all eight bytes.
    let values = fields.map(|field| (field.nvmlReturn, unsafe { field.value.ullVal }));
    assert!(values[0].0 == 0 && values[1].0 == 0 && values[1].1 > 0);
    let ratio = values[0].1 as f64 / values[1].1 as f64;
    assert!((17.0..19.0).contains(&ratio), "all links against one: {ratio}");
    assert_eq!(values[2], (0, 53125));
    assert_eq!(values[3].0, 2);
    assert_eq!(values[4].0, 0);
}
