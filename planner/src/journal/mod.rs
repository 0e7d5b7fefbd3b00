//! What the planner saw, believed and decided, kept so that it can be asked about later.
//!
//! ```text
//! advise ── record, checkpoint (never wait) ──▶ Writer ── bounded queue ──▶ thread ──▶ Store (SQLite)
//!                                                                                        │
//!                 replay, explain, shadow ◀── Journal (read only, also while it is written)
//! ```
//!
//! A **run** is one policy and one build. It is cut into **segments**: a checkpoint of the learned state, and the steps
//! that followed it, each with its observations and what was decided. A segment is all that is needed to decide its steps
//! again, so what is too old or too much is given up by whole segments.
//!
//! Nothing here can stop the planner: what can't be written is counted, a store that is damaged is set aside for a new one.

mod blob;
mod command;
mod diff;
pub mod explain;
mod reader;
pub mod replay;
mod restore;
pub mod shadow;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod time;
mod writer;

use std::{path::Path, time::Duration};

use plimsoll_common::units::Micros;
use plimsoll_core::{controller::Controller, spec::FleetSpec, tuning::Tuning};
use serde::{Deserialize, Serialize};

pub use blob::BlobError;
pub use command::{JournalArgs, SpanArgs};
pub use reader::{Journal, JournalError, Recorded, Run, Segment};
pub use restore::{Restored, Resumed};
pub use stats::{Stats, Totals};
pub use time::When;
pub use writer::Writer;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The store's file, bytes. SQLite's write-ahead log comes on top, a few MiB.
    pub bytes: u64,
    /// What is older than this goes.
    pub age: Duration,
    /// Between two checkpoints.
    pub checkpoint_every: Duration,
}

impl Limits {
    /// The smallest store there is, bytes.
    pub const LEAST_BYTES: u64 = 4 << 20;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            age: Duration::from_secs(7 * 86_400),
            checkpoint_every: Duration::from_secs(600),
        }
    }
}

/// What decisions rest on beside observations: all that a replay needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Basis {
    /// The policy as JSON, profiles inlined; for people. Empty where there is none.
    pub policy: String,
    /// The policy in the core's terms.
    pub spec: FleetSpec,
    /// The core's own numbers.
    pub tuning: Tuning,
}

/// What made the decisions: the same build on the same target makes them again, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The version.
    pub version: String,
    /// Architecture and operating system.
    pub target: String,
    /// Whether it is optimised.
    pub profile: String,
}

impl Build {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            profile: profile.to_owned(),
        }
    }
}

impl std::fmt::Display for Build {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} for {} ({})", self.version, self.target, self.profile)
    }
}

/// Opens the journal in a folder, which is made if need be, and gives what was learned last, where there is any.
///
/// This reads and may take a second: not on an event loop. It never fails: where the folder can't be used, the writer
/// counts what it drops and tries again every half minute.
#[must_use]
pub fn open(dir: &Path, limits: Limits, now: Micros) -> (Writer, Option<Restored>) {
    writer::open(dir, limits, now)
}

/// Opens the journal, takes up what was learned, and begins a run: what a planner does at its start.
#[must_use]
pub fn resume(dir: &Path, limits: Limits, now: Micros, basis: Basis) -> (Writer, Controller) {
    let (mut writer, restored) = open(dir, limits, now);
    let controller = match restored {
        Some(restored) => {
            let (controller, resumed) = restored.controller(basis.spec.clone(), basis.tuning);
            let done = &resumed.restoration;
            tracing::info!(
                pools = done.restored.len(),
                fresh = done.fresh.len(),
                dropped = done.dropped.len(),
                steps = resumed.steps,
                age = %now.saturating_sub(resumed.last),
                "what was learned before goes on"
            );
            controller
        }
        None => Controller::new(basis.spec.clone(), basis.tuning),
    };
    writer.begin(now, basis);
    (writer, controller)
}
