//! The pure decision core of the planner: no clock, no IO, no async, no global.
//!
//! [`controller`] is the loop: observations in, a plan and its explanation out. Below it [`demand`] and [`forecast`] say
//! what will be asked, [`perf`] what a replica takes within its SLO, [`plan`] how many that makes within bounds and
//! budgets, and [`explain`] why. [`policy`] is what operators want. [`fleet`] is what every agent observed, folded into
//! newest values, totals and sliding windows; [`score`] judges how well a fleet did. `now` is an argument everywhere;
//! the live planner, a replay and a simulation drive the same code.
//!
//! ```
//! use std::sync::Arc;
//!
//! use plimsoll_common::{ids::{AgentEpoch, NodeName, Seq}, units::Micros};
//! use plimsoll_core::fleet::{Fleet, Limits, NodeInventory, Observation};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut fleet = Fleet::new(Limits::default());
//! let observation = Observation::new(NodeName::parse("gpu-7")?, Arc::new(NodeInventory::default()), AgentEpoch(1), Seq(1));
//! fleet.observe(Micros(1_000_000), observation);
//! assert_eq!(fleet.snapshot(Micros(2_000_000)).fleet.nodes.live, 1);
//! # Ok(())
//! # }
//! ```

mod budget;
pub mod controller;
pub mod demand;
pub mod explain;
pub mod fleet;
pub mod forecast;
pub mod infer;
pub mod observe;
mod patience;
pub mod perf;
pub mod plan;
pub mod policy;
mod pool;
pub mod score;
pub mod spec;
pub mod startup;
pub mod tuning;
