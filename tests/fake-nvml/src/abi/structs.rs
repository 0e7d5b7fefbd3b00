//! NVML's structs. `tests/layout.rs` holds their sizes and offsets against another crate's bindings of NVIDIA's header.

#![expect(missing_docs, reason = "the fields are NVIDIA's; its header documents them")]

use std::ffi::{c_char, c_int, c_longlong, c_uint, c_ulonglong};

use super::Device;

/// The version number of a versioned struct: its size and the number of its layout.
#[must_use]
pub const fn struct_version<T>(layout: c_uint) -> c_uint {
    size_of::<T>() as c_uint | (layout << 24)
}

macro_rules! structs {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Debug, Clone, Copy)]
            pub struct $name { $(pub $field: $type,)* }
        )*
    };
}

structs! {
    /// `nvmlPciInfo_t`.
    PciInfo {
        bus_id_legacy: [c_char; 16],
        domain: c_uint,
        bus: c_uint,
        device: c_uint,
        pci_device_id: c_uint,
        pci_subsystem_id: c_uint,
        bus_id: [c_char; 32],
    }
    /// `nvmlUtilization_t`, percent.
    Utilization { gpu: c_uint, memory: c_uint, }
    /// `nvmlMemory_t`, bytes.
    Memory { total: c_ulonglong, free: c_ulonglong, used: c_ulonglong, }
    /// `nvmlMemory_v2_t`, bytes.
    MemoryV2 { version: c_uint, total: c_ulonglong, reserved: c_ulonglong, free: c_ulonglong, used: c_ulonglong, }
    /// `nvmlBAR1Memory_t`, bytes.
    Bar1Memory { total: c_ulonglong, free: c_ulonglong, used: c_ulonglong, }
    /// `nvmlTemperature_v1_t`.
    TemperatureV1 { version: c_uint, sensor: c_uint, temperature: c_int, }
    /// `nvmlMarginTemperature_v1_t`.
    MarginTemperatureV1 { version: c_uint, margin: c_int, }
    /// `nvmlGpuFabricInfo_t`.
    FabricInfo { cluster_uuid: [u8; 16], status: c_uint, clique_id: c_uint, state: u8, }
    /// `nvmlGpuFabricInfo_v2_t`.
    FabricInfoV2 {
        version: c_uint,
        cluster_uuid: [u8; 16],
        status: c_uint,
        clique_id: c_uint,
        state: u8,
        health_mask: c_uint,
    }
    /// `nvmlGpuFabricInfo_v3_t`.
    FabricInfoV3 {
        version: c_uint,
        cluster_uuid: [u8; 16],
        status: c_uint,
        clique_id: c_uint,
        state: u8,
        health_mask: c_uint,
        health_summary: u8,
    }
    /// `nvmlProcessInfo_t`, memory in bytes.
    ProcessInfo { pid: c_uint, used_memory: c_ulonglong, gpu_instance: c_uint, compute_instance: c_uint, }
    /// `nvmlProcessInfo_v1_t`, memory in bytes.
    ProcessInfoV1 { pid: c_uint, used_memory: c_ulonglong, }
    /// `nvmlProcessUtilizationSample_t`, microseconds since 1970 and percent.
    ProcessUtilization {
        pid: c_uint,
        timestamp_us: c_ulonglong,
        sm: c_uint,
        memory: c_uint,
        encoder: c_uint,
        decoder: c_uint,
    }
    /// `nvmlEventData_t`.
    EventData {
        device: Device,
        event_type: c_ulonglong,
        event_data: c_ulonglong,
        gpu_instance: c_uint,
        compute_instance: c_uint,
    }
    /// `nvmlSample_t`, microseconds since 1970.
    Sample { timestamp_us: c_ulonglong, value: Value, }
    /// `nvmlFieldValue_t`.
    FieldValue {
        field: c_uint,
        scope: c_uint,
        timestamp_us: c_longlong,
        latency_us: c_longlong,
        value_type: c_uint,
        code: c_uint,
        value: Value,
    }
    /// `nvmlGpmSupport_t`.
    GpmSupport { version: c_uint, supported: c_uint, }
    /// `nvmlGpmMetric_t`.
    GpmMetric {
        metric: c_uint,
        code: c_uint,
        value: f64,
        short_name: *const c_char,
        long_name: *const c_char,
        unit: *const c_char,
    }
    /// The start of `nvmlGpmMetricsGet_t`. The metrics follow it; how many there is room for depends on the header that
    /// the caller was compiled against, so only as many as it asks for are touched.
    GpmMetricsHead { version: c_uint, count: c_uint, earlier: super::GpmSample, later: super::GpmSample, }
    /// `nvmlPlatformInfo_v1_t`.
    PlatformInfoV1 {
        version: c_uint,
        ib_guid: [u8; 16],
        rack_guid: [u8; 16],
        chassis_slot: u8,
        compute_slot: u8,
        node: u8,
        peer_type: u8,
        module: u8,
    }
    /// `nvmlPlatformInfo_v2_t`.
    PlatformInfoV2 {
        version: c_uint,
        ib_guid: [u8; 16],
        chassis_serial: [u8; 16],
        slot: u8,
        tray: u8,
        host: u8,
        peer_type: u8,
        module: u8,
    }
    /// `nvmlRowRemapperHistogramValues_t`.
    RowRemapperHistogram { max: c_uint, high: c_uint, partial: c_uint, low: c_uint, none: c_uint, }
    /// `nvmlViolationTime_t`, nanoseconds.
    ViolationTime { reference_ns: c_ulonglong, violation_ns: c_ulonglong, }
    /// `nvmlDeviceAttributes_t`.
    DeviceAttributes {
        multiprocessors: c_uint,
        copy_engines: c_uint,
        decoders: c_uint,
        encoders: c_uint,
        jpeg_engines: c_uint,
        ofa_engines: c_uint,
        gpu_slices: c_uint,
        compute_slices: c_uint,
        memory_mib: c_ulonglong,
    }
}

/// `nvmlValue_t`: eight bytes that a tag beside them explains.
#[repr(C)]
#[derive(Clone, Copy)]
pub union Value {
    pub double: f64,
    pub signed_int: c_int,
    pub unsigned_int: c_uint,
    pub unsigned_long_long: c_ulonglong,
    pub signed_long_long: c_longlong,
}

impl std::fmt::Debug for Value {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Value")
    }
}
