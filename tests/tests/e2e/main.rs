//! End-to-end tests: the real programs on loopback, held against the emulators' exact records.

mod access;
mod advise;
mod clocks;
mod cluster;
mod counts;
mod disk;
mod ends;
mod engine_states;
mod exact;
mod expected;
mod faults;
mod gpu_states;
mod lonely;
mod outage;
mod pages;
mod planners;
mod restart;
mod table;
mod trust;
