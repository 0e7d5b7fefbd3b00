//! From what is known of the pools to how many replicas each shall have: size, split, stabilize, settle, check.

mod check;
mod settle;
mod size;
mod split;
mod thresholds;

pub use check::{Planned, Refused, check};
pub use settle::{Move, settle};
pub use size::{Load, Needs, queue_within_slo, size};
pub use split::{Asked, Limits, Share, split};
pub use thresholds::by_thresholds;
