//! What is said on control streams, at the planner's ledger and the agent's spool.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plimsoll_fuzz::delivery::control(data));
