//! A `libnvidia-ml.so.1` without a GPU: the C ABI of NVML, driven by a scenario file.
//!
//! Any NVML client can load the shared library that this package builds: nvml-wrapper by its path, pynvml through a link
//! named `libnvidia-ml.so.1` in `LD_LIBRARY_PATH`. Which machine it shows is said by the environment:
//!
//! | Variable | Meaning |
//! |---|---|
//! | `PLIMSOLL_FAKE_NVML_SCENARIO` | A built-in scenario (`hgx-h100-8`, `gb200-tray`) or the path of a file; required |
//! | `PLIMSOLL_FAKE_NVML_NODE` | Mixed into UUIDs and serial numbers ([`gpu_uuid`]), so that nodes differ; default empty |
//! | `PLIMSOLL_FAKE_NVML_CALL_LOG` | File that every call is appended to: `<CLOCK_MONOTONIC ns> <call> <index or ->` |
//! | `PLIMSOLL_FAKE_NVML_ACTIVITY` | File or folder with lines `<uuid> util=<percent> mem_used=<bytes> [pid=<pid>]`, looked at every 100 ms; takes the place of the scenario's load |
//! | `PLIMSOLL_FAKE_NVML_CONTROL` | File with commands that change the machine while it runs: see [`control`] |
//! | `PLIMSOLL_FAKE_NVML_EPOCH` | When the scenario began, seconds since 1970, so that several processes share one clock; default: the first `nvmlInit` |
//!
//! Without a scenario `nvmlInit` returns `DRIVER_NOT_LOADED`, with a wrong one `UNKNOWN`; standard error says why.
//!
//! What a real GPU of the kind does not support is not supported here either, handles that are stale are refused, calls
//! before initialisation return `UNINITIALIZED`, and `nvmlDeviceGetPcieThroughput` takes its 20 ms.

#![expect(unsafe_code, reason = "NVML is a C ABI: exported symbols and the pointers that callers pass")]

pub mod abi;
mod activity;
mod call;
mod calllog;
mod clock;
pub mod control;
mod exports;
mod identity;
mod machine;
pub mod scenario;
mod session;
pub mod state;

pub use identity::{gpu_serial, gpu_uuid, mig_uuid};
