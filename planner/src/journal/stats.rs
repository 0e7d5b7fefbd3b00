//! What the journal did and what it could not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters that the writing thread, the planner's own thread and the pages share.
#[derive(Debug, Default)]
pub struct Stats {
    pub(super) steps_written: AtomicU64,
    pub(super) steps_dropped: AtomicU64,
    pub(super) checkpoints_written: AtomicU64,
    pub(super) checkpoints_dropped: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) set_aside: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) limit: AtomicU64,
    pub(super) oldest: AtomicU64,
    pub(super) restored_steps: AtomicU64,
    pub(super) failing: AtomicBool,
}

/// All of [`Stats`] at a moment. Counters count since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Steps that are in the store, or were until they grew too old.
    pub steps_written: u64,
    /// Steps that are not: the queue was full, or the store could not be written to.
    pub steps_dropped: u64,
    /// Checkpoints written.
    pub checkpoints_written: u64,
    /// Checkpoints that are not in the store.
    pub checkpoints_dropped: u64,
    /// Writes that failed.
    pub errors: u64,
    /// Stores that were damaged, or of another build's format, and set aside for a new one.
    pub set_aside: u64,
    /// Bytes that the store uses.
    pub bytes: u64,
    /// The most that it may use.
    pub limit: u64,
    /// When the oldest segment began, Unix microseconds; 0 for an empty store.
    pub oldest: u64,
    /// Steps by which the learned state was brought up from its checkpoint at the start.
    pub restored_steps: u64,
    /// Whether the last write failed.
    pub failing: bool,
}

impl Stats {
    /// As they are now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            steps_written: of(&self.steps_written),
            steps_dropped: of(&self.steps_dropped),
            checkpoints_written: of(&self.checkpoints_written),
            checkpoints_dropped: of(&self.checkpoints_dropped),
            errors: of(&self.errors),
            set_aside: of(&self.set_aside),
            bytes: of(&self.bytes),
            limit: of(&self.limit),
            oldest: of(&self.oldest),
            restored_steps: of(&self.restored_steps),
            failing: self.failing.load(Ordering::Relaxed),
        }
    }
}

pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
