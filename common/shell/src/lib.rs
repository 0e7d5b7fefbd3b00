//! What the two daemons share around their own work.
//!
//! `main` of either reads the same: flags and file → [`config`], [`logging`], [`tls`], [`shutdown`], tasks under a
//! [`supervise::Supervisor`], pages by [`http`] and [`metrics`]. Nothing in here knows what an agent or a planner does.

pub mod address;
pub mod config;
pub mod duration;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod ready;
pub mod secret;
pub mod shutdown;
pub mod supervise;
pub mod tls;

/// The exit code for a configuration or command line that can't be used (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;
