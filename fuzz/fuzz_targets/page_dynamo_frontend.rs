//! The dialect of Dynamo's front-end and the tracker.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plimsoll_fuzz::pages(Some("dynamo-frontend"), data));
