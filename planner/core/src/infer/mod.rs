//! What can be inferred where little is told.
//!
//! A host may know no more of its engines than how many requests run and wait, how full the KV cache is, how many tokens
//! were computed, and mean latencies. [`Inflow`] finds out how many requests came, [`Tokens`] and [`Stretch`] how long they are, and
//! [`Starts`] how long replicas take to start of which only the number is told. Whatever is told counts instead.

mod inflow;
mod lengths;
mod starts;
mod stretch;

pub use inflow::Inflow;
pub use lengths::{Inferred, Known, TokenLengths, Tokens};
pub use starts::{Started, Starts};
pub use stretch::{Flow, Stretch};
