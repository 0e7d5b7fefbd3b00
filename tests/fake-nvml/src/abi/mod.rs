//! NVML's C ABI: return codes, structs and the pointers that callers pass. Written from the public header.

mod code;
mod pointer;
mod structs;

pub use code::Code;
pub(crate) use code::Outcome;
pub use pointer::{Device, EventSet, GpmSample};
pub(crate) use pointer::{Out, Text};
pub use structs::*;
