//! Inventories and reports, all the way into the fleet.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plimsoll_fuzz::delivery::reports(data));
