//! What proves who somebody is: certificates, tokens, key files, `Authorization` headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plimsoll_fuzz::identity::proofs(data));
