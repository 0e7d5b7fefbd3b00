//! Prints sizes, alignments and offsets of our structs under NVIDIA's names, one to a line. `tests/clients/nvml_layouts.py`
//! has a C compiler compare them with NVIDIA's published headers.

use std::io::{self, Write};
use std::mem::offset_of;

use plimsoll_fake_nvml::abi::{self, struct_version};

#[path = "../tests/layouts/table.rs"]
mod table;

use table::with_structs;

/// Writes `<C expression> <number>`.
macro_rules! write_layouts {
    ($out:ident: $($ours:ident = $theirs:ident { $($field:ident = $their_field:ident),* })*) => {
        $(
            writeln!($out, "sizeof({}) {}", stringify!($theirs), size_of::<abi::$ours>())?;
            writeln!($out, "_Alignof({}) {}", stringify!($theirs), align_of::<abi::$ours>())?;
            $(
                writeln!(
                    $out, "offsetof({},{}) {}", stringify!($theirs), stringify!($their_field),
                    offset_of!(abi::$ours, $field)
                )?;
            )*
        )*
    };
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    macro_rules! write_all {
        ($($table:tt)*) => { write_layouts! { out: $($table)* } };
    }
    with_structs!(write_all);
    writeln!(out, "offsetof(nvmlGpmMetricsGet_t,metrics) {}", size_of::<abi::GpmMetricsHead>())?;
    writeln!(out, "offsetof(nvmlGpmMetricsGet_t,sample2) {}", offset_of!(abi::GpmMetricsHead, later))?;
    for (name, version) in [
        ("nvmlMemory_v2", struct_version::<abi::MemoryV2>(2)),
        ("nvmlGpuFabricInfo_v2", struct_version::<abi::FabricInfoV2>(2)),
        ("nvmlGpuFabricInfo_v3", struct_version::<abi::FabricInfoV3>(3)),
        ("nvmlPlatformInfo_v1", struct_version::<abi::PlatformInfoV1>(1)),
        ("nvmlPlatformInfo_v2", struct_version::<abi::PlatformInfoV2>(2)),
        ("nvmlTemperature_v1", struct_version::<abi::TemperatureV1>(1)),
        ("nvmlMarginTemperature_v1", struct_version::<abi::MarginTemperatureV1>(1)),
    ] {
        writeln!(out, "{name} {version}")?;
    }
    Ok(())
}
