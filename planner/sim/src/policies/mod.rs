//! Policies that come with the world.

mod fixed;

pub use fixed::Fixed;
