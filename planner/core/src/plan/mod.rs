//! From what is known of the pools to how many replicas each shall have: size, split, place, stabilize, settle, check.

mod check;
mod place;
mod settle;
mod size;
mod split;
mod switch;
mod thresholds;

pub use check::{Planned, Refused, check};
pub use place::{Domain, DomainId, Growth, LeftToScheduler, Place, Placement, Placer, Topology, place};
pub use settle::{Move, settle};
pub use size::{Load, Needs, queue_within_slo, size};
pub use split::{Asked, Limits, Share, split};
pub use switch::{RoleSwitch, Turnable, can_turn, switches};
pub use thresholds::by_thresholds;

#[cfg(test)]
pub(crate) use place::tests as place_tests;
