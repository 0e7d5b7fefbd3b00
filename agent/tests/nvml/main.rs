//! The GPU source against the project's own `libnvidia-ml.so.1`: the same code path as with a GPU, another library.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

mod budget;
mod counters;
mod process;
mod release;
mod states;
mod support;
mod topology;
mod unmapped;
mod values;
mod windows;
