//! End-to-end tests: the real programs on loopback, held against the emulators' exact records.

mod access;
mod cluster;
mod counts;
mod ends;
mod engine_states;
mod exact;
mod expected;
mod faults;
mod gpu_states;
mod lonely;
mod pages;
mod restart;
mod trust;
