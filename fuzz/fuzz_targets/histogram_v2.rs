//! The reader of HdrHistogram V2 bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plimsoll_fuzz::histogram_v2(data));
