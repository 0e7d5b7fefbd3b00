//! How agents, planners and emulators are started: what each is told, as data, and a handle on what runs.

mod agent;
mod board;
mod emulator;
mod planner;

use std::time::Duration;

pub use agent::{Agent, AgentSpec, EndpointSpec, PlannerLink};
pub use board::Board;
pub use emulator::{Emulator, EmulatorSpec};
pub use planner::{Planner, PlannerSpec, PlannerTls};

/// How long a daemon has to bind and get ready. Machines that run tests may be slow.
pub const START: Duration = Duration::from_secs(60);
/// How long a daemon has for its orderly end.
pub const END: Duration = Duration::from_secs(15);
