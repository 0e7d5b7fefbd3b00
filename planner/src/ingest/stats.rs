//! What ingest counts. Plain atomics: connections count, `/metrics` reads.

use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_common::wire::{CloseCode, WireError};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down, for as long as its [`Held`] lives.
#[derive(Debug, Default)]
pub struct Level(AtomicU64);

/// One unit of a [`Level`].
#[derive(Debug)]
pub struct Held<'a>(&'a Level);

impl Level {
    /// Adds one until the answer is dropped.
    pub fn hold(&self) -> Held<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self)
    }

    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a connection ended, as counted.
pub const CLOSE_LABELS: [&str; 10] = [
    "done",
    "version",
    "malformed",
    "too_large",
    "refused",
    "order",
    "replaced",
    "busy",
    "unproven",
    "duplicate",
];

/// What ingest saw since the start.
#[derive(Debug, Default)]
pub struct IngestStats {
    /// Connections whose hello was taken.
    pub connections: Level,
    /// Connections in their handshake, or before their hello.
    pub pending: Level,
    /// Handshakes that ended well.
    pub accepted: Count,
    /// Connection attempts refused for want of room.
    pub refused: Count,
    /// Connection attempts sent back to prove their address.
    pub retried: Count,
    /// Handshakes that failed or took too long.
    pub handshake_failures: Count,
    /// Connections that did not say hello in time.
    pub hello_timeouts: Count,
    /// Hellos taken.
    pub hellos: Count,
    /// Inventories taken.
    pub inventories: Count,
    /// Reports taken (they may wait for their inventory, or turn out to be known).
    pub reports: Count,
    /// Bytes of frames received.
    pub frame_bytes: Count,
    /// Acknowledgements sent.
    pub acks: Count,
    /// Frames of kinds that a newer agent sends; skipped.
    pub unknown_frames: Count,
    /// Distributions of kinds that this build does not know; skipped.
    pub unknown_distributions: Count,
    /// Streams that an agent gave up midway.
    pub reset_streams: Count,
    /// Times that a connection was not read for a while, because its agent sent too much.
    pub throttled: Count,
    /// Gaps that agents told of.
    pub gaps: Count,
    /// By [`WireError::LABELS`].
    errors: [Count; WireError::LABELS.len()],
    /// By [`CLOSE_LABELS`]: connections that we ended.
    closed: [Count; CLOSE_LABELS.len()],
}

impl IngestStats {
    /// Counts a bad frame.
    pub fn error(&self, error: &WireError) {
        let label = error.label();
        if let Some((_, count)) =
            WireError::LABELS.iter().zip(&self.errors).find(|(known, _)| **known == label)
        {
            count.one();
        }
    }

    /// Counts a connection that we ended.
    pub fn closed(&self, code: CloseCode) {
        if let Some(count) = self.closed.get(code.code() as usize) {
            count.one();
        }
    }

    /// Bad frames by label.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        WireError::LABELS.iter().copied().zip(self.errors.iter().map(Count::get))
    }

    /// Connections that we ended, by reason.
    pub fn closes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        CLOSE_LABELS.iter().copied().zip(self.closed.iter().map(Count::get))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_and_reason_has_its_own_count() {
        let stats = IngestStats::default();
        stats.error(&WireError::TooDeep);
        stats.closed(CloseCode::Busy);
        assert_eq!(stats.errors().filter(|(_, n)| *n > 0).collect::<Vec<_>>(), [("too_deep", 1)]);
        assert_eq!(stats.closes().filter(|(_, n)| *n > 0).collect::<Vec<_>>(), [("busy", 1)]);
        let held = stats.connections.hold();
        assert_eq!(stats.connections.get(), 1);
        drop(held);
        assert_eq!(stats.connections.get(), 0);
    }
}
