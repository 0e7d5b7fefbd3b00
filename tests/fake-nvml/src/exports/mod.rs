//! The exported functions, one file a concern. Their names are NVML's.

mod clocks;
mod ecc;
mod events;
mod fabric;
mod fields;
mod gpm;
mod handles;
mod identity;
mod memory;
mod mig;
mod nvlink;
mod pcie;
mod placement;
mod power;
mod private;
mod processes;
mod samples;
mod system;
mod thermal;
mod unsupported;
mod utilization;
