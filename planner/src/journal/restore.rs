//! What was learned before a restart: the newest checkpoint, and what was observed after it.

use plimsoll_common::units::Micros;
use plimsoll_core::{
    controller::{Checkpoint, Controller, Restoration},
    observe::Observation,
    spec::FleetSpec,
    tuning::Tuning,
};
use rusqlite::Connection;

use super::{
    JournalError, Segment,
    reader::{checkpoint, segments, steps},
};

/// How many segments are tried, from the newest on: an older one is better than nothing.
const TRIES: usize = 3;

/// What was learned last.
#[derive(Clone, Debug)]
pub struct Restored {
    checkpoint: Checkpoint,
    /// The observations of each step since.
    since: Vec<(Micros, Vec<Observation>)>,
    /// When it was last known.
    pub last: Micros,
}

/// What a restore did.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// To pools.
    pub restoration: Restoration,
    /// Steps that were taken again since the checkpoint.
    pub steps: u64,
    /// When what was learned was last known.
    pub last: Micros,
}

impl Restored {
    /// Steps that will be taken again.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.since.len() as u64
    }

    /// A controller that goes on where the last one ended, under a policy that may have changed.
    #[must_use]
    pub fn controller(self, spec: FleetSpec, tuning: Tuning) -> (Controller, Resumed) {
        let (mut controller, restoration) = Controller::restore(spec, tuning, self.checkpoint);
        let steps = self.since.len() as u64;
        for (now, observations) in self.since {
            for observation in observations {
                controller.observe(observation);
            }
            // What it advises now is past; that it was advised is what is learned.
            let _ = controller.step(now);
        }
        (controller, Resumed { restoration, steps, last: self.last })
    }
}

/// The newest segment whose checkpoint can be used.
pub(super) fn newest(db: &Connection) -> Result<Option<Restored>, JournalError> {
    let mut first = None;
    for segment in segments(db)?.iter().rev().take(TRIES) {
        match read(db, segment) {
            Ok(restored) => return Ok(Some(restored)),
            Err(error) => {
                tracing::warn!(%error, segment = segment.id, "a segment of the journal can't be restored");
                first.get_or_insert(error);
            }
        }
    }
    first.map_or(Ok(None), Err)
}

fn read(db: &Connection, segment: &Segment) -> Result<Restored, JournalError> {
    let checkpoint = Checkpoint::from_bytes(&checkpoint(db, segment.id)?)?;
    let last = segment.last.unwrap_or(segment.began);
    let mut since = Vec::new();
    let mut before = segment.seq;
    for step in steps(db, segment.id)? {
        // Behind a gap, what was learned would be of two pieces; it is still the best that is known.
        if before + 1 != step.seq {
            tracing::info!(at = step.at.0, "steps are missing in the journal before this one");
        }
        before = step.seq;
        since.push((step.at, step.observations));
    }
    Ok(Restored { checkpoint, since, last })
}
