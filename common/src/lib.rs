//! The words both programs use, the latency histogram and the wire format.
//!
//! This crate is pure: no clock, no IO, no async, no global. What stands here is shared by the agent, the planner
//! shell and the decision core:
//!
//! * [`ids`] and [`units`]: newtypes, so that a node is not a pool and a ratio is not a percentage;
//! * [`engine`]: what an engine is (kind, role) and which distributions it publishes;
//! * [`histogram`]: one HDR layout for the whole fleet, and what cumulative `le` buckets can and cannot tell;
//! * [`wire`] (feature `wire`): the messages between agent and planner and their frames.

mod codes;
pub mod engine;
pub mod histogram;
pub mod ids;
pub mod units;
#[cfg(feature = "wire")]
pub mod wire;
