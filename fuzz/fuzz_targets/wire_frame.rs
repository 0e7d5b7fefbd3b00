//! The decoder of frames between agent and planner.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plimsoll_fuzz::wire_frame(data));
