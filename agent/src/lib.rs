//! The Plimsoll agent: one per GPU node, samples GPUs and engines and reports to the planner.

pub mod exposition;
pub mod gpu;
pub mod own;
