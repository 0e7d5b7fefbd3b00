//! A `libnvidia-ml.so.1` without a GPU: the C ABI of NVML, driven by a scenario file.
//!
//! Any NVML client can load the shared library that this package builds: nvml-wrapper by its path, pynvml through a link
//! named `libnvidia-ml.so.1` in `LD_LIBRARY_PATH`. Which machine it shows is said by the environment:
//!
//! | Variable | Meaning |
//! |---|---|
//! | `PLIMSOLL_FAKE_NVML_SCENARIO` | A built-in scenario or the path of a file; required |
//! | `PLIMSOLL_FAKE_NVML_NODE` | Mixed into UUIDs and serial numbers ([`gpu_uuid`]), so that nodes differ; default empty |
//! | `PLIMSOLL_FAKE_NVML_CLUSTER`, `…_CLIQUE` | Cluster UUID and clique, instead of the scenario's: a node of another rack |
//! | `PLIMSOLL_FAKE_NVML_CHASSIS`, `…_SLOT`, `…_TRAY` | Place in the rack, instead of the scenario's |
//! | `PLIMSOLL_FAKE_NVML_CALL_LOG` | File that every call is appended to: `<CLOCK_MONOTONIC ns> <call> <number of the GPU in the scenario, or ->` |
//! | `PLIMSOLL_FAKE_NVML_ACTIVITY` | File or folder with lines `<uuid> util=<percent> mem_used=<bytes> [pid=<pid>]`, looked at every 100 ms; takes the place of the scenario's load |
//! | `PLIMSOLL_FAKE_NVML_CONTROL` | File with commands that change the machine while it runs: see [`control`] |
//! | `PLIMSOLL_FAKE_NVML_EPOCH` | When the scenario began, seconds since 1970, so that several processes share one clock; default: the first `nvmlInit` |
//!
//! | Built-in | Machine |
//! |---|---|
//! | `hgx-h100-8` | Eight H100 SXM5 on NVSwitches; fabric completed with a nil cluster UUID |
//! | `hgx-a100-8` | Eight A100 SXM4 on NVSwitches; neither GPM nor fabric information |
//! | `hgx-b200-8` | Eight B200 on NVSwitches; nil cluster UUID, a platform without chassis |
//! | `hgx-b200-8-cluster` | The same with a cluster UUID, though no NVLink leaves the node |
//! | `gb200-tray` | One tray of a GB200 NVL72 rack: four GPUs in a multi-node domain |
//! | `gb200-tray-clique-32766` | The same with the clique that many racks have by default |
//! | `pcie-a100-bridge-4` | Four A100 PCIe in two pairs with NVLink bridges |
//! | `pcie-l40s-4` | Four L40S without NVLink, MIG, GPM, memory sensor |
//!
//! A rack is eighteen processes with `gb200-tray`, one cluster UUID and each its own `…_NODE` and `…_TRAY`.
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
