//! Sizes, alignments and offsets of our structs, held against another crate's bindings of NVIDIA's header.

use std::mem::{offset_of, size_of};

use nvml_wrapper_sys::bindings as nvidia;
use plimsoll_fake_nvml::abi;

#[path = "layouts/table.rs"]
mod table;

use table::with_structs;

macro_rules! same_layout {
    ($($ours:ident = $theirs:ident { $($field:ident = $their_field:ident),* })*) => {
        $(
            assert_eq!(size_of::<abi::$ours>(), size_of::<nvidia::$theirs>(), "size of {}", stringify!($ours));
            assert_eq!(align_of::<abi::$ours>(), align_of::<nvidia::$theirs>(), "alignment of {}", stringify!($ours));
            $(assert_eq!(
                offset_of!(abi::$ours, $field),
                offset_of!(nvidia::$theirs, $their_field),
                "offset of {}.{}", stringify!($ours), stringify!($field)
            );)*
        )*
    };
}

#[test]
fn structs_have_nvidias_layout() {
    with_structs!(same_layout);
    // The head of the request ends where the metrics begin, whatever the number of them that a header has room for.
    assert_eq!(size_of::<abi::GpmMetricsHead>(), offset_of!(nvidia::nvmlGpmMetricsGet_t, metrics));
    assert_eq!(offset_of!(abi::GpmMetricsHead, later), offset_of!(nvidia::nvmlGpmMetricsGet_t, sample2));
}

#[test]
fn versions_are_size_and_layout() {
    // Known from the wild: clients compiled against NVIDIA's header send these numbers.
    assert_eq!(abi::struct_version::<abi::MemoryV2>(2), 40 | 2 << 24);
    assert_eq!(abi::struct_version::<abi::FabricInfoV2>(2), 36 | 2 << 24);
    assert_eq!(abi::struct_version::<abi::FabricInfoV3>(3), 40 | 3 << 24);
}
