//! Where one planner stands in the sequence of windows.

use plimsoll_common::ids::PlannerRun;

/// What one planner has, has been sent, and gets next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Which run of the planner this is about; `None` before its first answer, and for planners that do not tell.
    run: Option<PlannerRun>,
    /// Up to here it has applied everything.
    acked: u64,
    /// Up to here this run was sent something at one time or another: it may have applied any of it.
    tried: u64,
    /// What this connection sends next.
    next: u64,
}

impl Cursor {
    /// A planner that stands right before window `oldest`.
    pub(super) const fn before(oldest: u64) -> Self {
        Self { run: None, acked: oldest - 1, tried: oldest - 1, next: oldest }
    }

    /// Takes the answer to a hello: this run has everything up to `seq` of the `newest` windows there are. `elsewhere` is up
    /// to where the same run was sent something under another address.
    pub(super) fn resume(&mut self, run: Option<PlannerRun>, seq: u64, newest: u64, elsewhere: u64) {
        let seq = seq.min(newest);
        // A planner that does not tell its run, but knows less than it did, has started anew.
        let same = run == self.run && (run.is_some() || seq >= self.acked);
        self.tried = if same { self.tried.max(seq) } else { seq }.max(elsewhere);
        (self.run, self.acked, self.next) = (run, seq, seq + 1);
    }

    /// Takes an acknowledgement. One for what was never sent is worth what was sent.
    pub(super) fn acknowledge(&mut self, seq: u64) {
        self.acked = self.acked.max(seq.min(self.next - 1));
    }

    /// Notes that everything up to `last` was sent, or told to be gone.
    pub(super) fn sent(&mut self, last: u64) {
        self.next = last + 1;
        self.tried = self.tried.max(last);
    }

    /// Whether windows `first..=last` are all the same to this planner: it has all of them, or never saw one.
    pub(super) const fn sees_as_one(&self, first: u64, last: u64) -> bool {
        self.acked >= last || self.tried < first
    }

    /// Up to where this run of a planner was sent something; 0 for another run.
    pub(super) fn tried_by(&self, run: Option<PlannerRun>) -> u64 {
        if run.is_some() && self.run == run { self.tried } else { 0 }
    }

    pub(super) const fn acked(&self) -> u64 {
        self.acked
    }

    pub(super) const fn next(&self) -> u64 {
        self.next
    }
}
