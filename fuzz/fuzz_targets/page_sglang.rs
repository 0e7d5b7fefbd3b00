//! SGLang's dialect and the tracker.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plimsoll_fuzz::pages(Some("sglang"), data));
