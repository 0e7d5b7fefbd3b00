//! Reports on their way to the planner: a bounded spool, and a QUIC connection that comes back.

mod client;
mod connection;
mod spool;
mod status;

pub use client::{Uplink, run};
pub use spool::{Spool, SpoolUse};
pub use status::{LinkState, UplinkStatus};
