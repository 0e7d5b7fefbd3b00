//! One kept report: a window, or several that were made one.

use plimsoll_common::{ids::Generation, units::Micros, wire::FrameEncoder};

/// What a kept report takes beside its frame, roughly.
const OVERHEAD_BYTES: usize = 128;

/// A report as it will be sent.
#[derive(Debug)]
pub(super) struct Segment {
    /// The first window it stands for.
    pub(super) first: u64,
    /// The last.
    pub(super) last: u64,
    pub(super) generation: Generation,
    /// How long its windows are together.
    pub(super) length_ms: u64,
    pub(super) frame: Vec<u8>,
    /// When its last window was closed.
    pub(super) closed: Micros,
    /// Since when every planner has it; `None` while one does not.
    pub(super) settled: Option<Micros>,
    /// Whether it was found that it can't be merged with what follows.
    pub(super) whole: bool,
}

impl Segment {
    /// How many windows it stands for.
    pub(super) const fn windows(&self) -> u64 {
        self.last - self.first + 1
    }

    pub(super) const fn bytes(&self) -> usize {
        self.frame.len() + OVERHEAD_BYTES
    }

    /// A copy of the frame, with its age as of `now`.
    pub(super) fn frame_at(&self, now: Micros) -> Vec<u8> {
        let mut frame = self.frame.clone();
        let age_ms = now.saturating_sub(self.closed).0 / 1000;
        FrameEncoder::set_age(&mut frame, u32::try_from(age_ms).unwrap_or(u32::MAX));
        frame
    }
}
