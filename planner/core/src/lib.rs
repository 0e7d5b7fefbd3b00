//! The pure decision core of the planner: no clock, no IO, no async, no global.
//!
//! Today it is [`Fleet`](fleet::Fleet): what every agent observed, folded into newest values, totals since first seen and three
//! sliding windows; and [`score`], the judge of how well a fleet did. `now` is an argument everywhere; the live planner, a
//! replay and a simulation drive the same code.
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

pub mod fleet;
pub mod forecast;
pub mod policy;
pub mod score;
