//! The page reader that finds out itself whose page it is, and the tracker.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plimsoll_fuzz::pages(None, data));
