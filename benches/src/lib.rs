//! Criterion benches and measurements of the numbers that the design promises.

pub mod fleet;
pub mod pools;
pub mod program;
