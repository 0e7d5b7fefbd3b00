//! The emulator through its sockets.

mod api;
mod binary;
mod client;
mod exports;
mod fidelity;
mod lifecycle;
mod page;
mod page_diff;
mod sglang;
mod states;
mod trtllm;
mod versions;
