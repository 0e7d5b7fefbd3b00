//! What can be asked of a planner: a reference that knows the future, and the best of many that do not.

mod causal;
mod levels;
mod oracle;

pub use causal::{CausalError, Grid, grid};
pub use oracle::{HEADROOM, Oracle, SLOT};
