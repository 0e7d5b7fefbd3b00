//! What can be asked of a planner: a reference that knows the future.

mod levels;
mod oracle;

pub use oracle::{Oracle, SLOT};
