//! Windows on their way to every planner: stored once, bounded in bytes, each planner with its own place. Pure.
//!
//! A window stays until every planner has it, and [`RETAIN`] longer: a planner that starts empty gets what happened
//! before. Where room runs out, windows that no planner has seen in part are made one, oldest first (1 s → 10 s → 60 s):
//! counts stay exact, time gets coarser. Only where that is not enough are the oldest dropped, and counted.

mod coalesce;
mod cursor;
mod segment;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

use plimsoll_common::{
    ids::{Generation, PlannerRun, Seq},
    units::Micros,
    wire::{FrameDecoder, FrameEncoder, Gap, Message, WireError},
};

use self::{cursor::Cursor, segment::Segment};
use crate::window::Closed;

/// How long a window is kept after every planner has it.
pub const RETAIN: Micros = Micros(300_000_000);
/// How many reports a planner may have before it has acknowledged the first of them.
pub const MAX_IN_FLIGHT: usize = 64;

/// What the spool holds, for the agent's own pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolUse {
    /// Reports that at least one planner has not acknowledged.
    pub reports: usize,
    /// Reports that every planner has, kept for one that starts empty.
    pub retained: usize,
    /// The bytes of both, inventories included.
    pub bytes: usize,
    /// Windows that were made one with others, in all.
    pub coalesced_windows: u64,
    /// Windows that had to be dropped before every planner had them, in all.
    pub dropped_windows: u64,
}

/// What a planner is to be sent next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// A report, its age brought up to date, and the inventory that explains it.
    Report {
        /// The inventory's generation.
        generation: Generation,
        /// The encoded report.
        frame: Vec<u8>,
    },
    /// Windows that it will never get.
    Gap(Gap),
}

/// Encoded reports in order of their windows, the inventories that explain them, and where each planner stands.
#[derive(Debug)]
pub struct Spool {
    encoder: FrameEncoder,
    decoder: FrameDecoder,
    budget: usize,
    bytes: usize,
    segments: VecDeque<Segment>,
    inventories: BTreeMap<Generation, Vec<u8>>,
    cursors: BTreeMap<SocketAddr, Cursor>,
    /// The newest window that was pushed.
    newest: u64,
    coalesced_windows: u64,
    dropped_windows: u64,
}

impl Spool {
    /// An empty spool that keeps at most `budget` bytes.
    ///
    /// # Errors
    /// When the encoder's or decoder's state can't be allocated.
    pub fn new(budget: usize) -> Result<Self, WireError> {
        Ok(Self {
            encoder: FrameEncoder::new()?,
            decoder: FrameDecoder::new()?,
            budget,
            bytes: 0,
            segments: VecDeque::new(),
            inventories: BTreeMap::new(),
            cursors: BTreeMap::new(),
            newest: 0,
            coalesced_windows: 0,
            dropped_windows: 0,
        })
    }

    /// Keeps a window that was closed at `now`.
    ///
    /// # Errors
    /// When a message breaks the protocol's own limits; then the window is dropped and counted.
    pub fn push(&mut self, closed: Closed, now: Micros) -> Result<(), WireError> {
        let windows = closed.report.seq.0.saturating_sub(self.newest);
        self.newest = self.newest.max(closed.report.seq.0);
        self.keep(closed, now).inspect_err(|_| self.dropped_windows += windows)?;
        self.trim(now);
        self.fit();
        Ok(())
    }

    fn keep(&mut self, closed: Closed, now: Micros) -> Result<(), WireError> {
        let Closed { inventory, report } = closed;
        let (first, last) = (report.first_seq().0, report.seq.0);
        let (generation, length_ms) = (report.generation, report.length_ms);
        if let Some(inventory) = inventory {
            let frame = self.encoder.encode(&Message::Inventory(Box::new(inventory)), 0)?;
            self.bytes += frame.len();
            if let Some(replaced) = self.inventories.insert(generation, frame) {
                self.bytes -= replaced.len();
            }
        }
        let mut frame = self.encoder.encode(&Message::Report(Box::new(report)), 0)?;
        frame.shrink_to_fit();
        let segment =
            Segment { first, last, generation, length_ms, frame, closed: now, settled: None, whole: false };
        self.bytes += segment.bytes();
        self.segments.push_back(segment);
        Ok(())
    }

    /// The oldest window that is still there, or the next one where none is.
    #[must_use]
    pub fn oldest(&self) -> Seq {
        Seq(self.segments.front().map_or(self.newest + 1, |segment| segment.first))
    }

    /// A planner is to get every window that is still there, and all that come. Nothing changes for one that is known.
    pub fn attach(&mut self, planner: SocketAddr) {
        let oldest = self.oldest().0;
        self.cursors.entry(planner).or_insert_with(|| Cursor::before(oldest));
    }

    /// Nothing is kept for this planner any more.
    pub fn detach(&mut self, planner: SocketAddr, now: Micros) {
        self.cursors.remove(&planner);
        self.settle(now);
    }

    /// A planner answered the hello: this run of it has everything up to `seq`, and gets what follows.
    pub fn resume(&mut self, planner: SocketAddr, run: Option<PlannerRun>, seq: Seq, now: Micros) {
        let newest = self.newest;
        let elsewhere = self.cursors.values().map(|cursor| cursor.tried_by(run)).max().unwrap_or(0);
        let cursor = self.cursors.entry(planner).or_insert_with(|| Cursor::before(1));
        cursor.resume(run, seq.0, newest, elsewhere);
        self.settle(now);
    }

    /// A planner has everything up to `seq`.
    pub fn acknowledge(&mut self, planner: SocketAddr, seq: Seq, now: Micros) {
        if let Some(cursor) = self.cursors.get_mut(&planner) {
            cursor.acknowledge(seq.0);
        }
        self.settle(now);
        self.trim(now);
    }

    /// What a planner is to be sent next, noted as sent; `None` where it has all, or enough unacknowledged.
    pub fn next(&mut self, planner: SocketAddr, now: Micros) -> Option<Outgoing> {
        let cursor = self.cursors.get_mut(&planner)?;
        let next = cursor.next();
        let at = self.segments.partition_point(|segment| segment.last < next);
        let segment = self.segments.get(at)?;
        if segment.first != next {
            // What lies before it is gone; what was merged with parts that the planner has can't be given in part.
            let last = if segment.first > next { segment.first - 1 } else { segment.last };
            let last = last.min(next + plimsoll_common::wire::MAX_GAP_WINDOWS - 1);
            cursor.sent(last);
            return Some(Outgoing::Gap(Gap { first: Seq(next), last: Seq(last) }));
        }
        let acked = cursor.acked();
        if at - self.segments.partition_point(|segment| segment.last <= acked) >= MAX_IN_FLIGHT {
            return None;
        }
        cursor.sent(segment.last);
        Some(Outgoing::Report { generation: segment.generation, frame: segment.frame_at(now) })
    }

    /// Whether a planner was sent something that it has not acknowledged.
    #[must_use]
    pub fn is_outstanding(&self, planner: SocketAddr) -> bool {
        self.cursors.get(&planner).is_some_and(|cursor| cursor.acked() + 1 < cursor.next())
    }

    /// Whether a planner lacks something.
    #[must_use]
    pub fn is_behind(&self, planner: SocketAddr) -> bool {
        self.cursors.get(&planner).is_some_and(|cursor| cursor.acked() < self.newest)
    }

    /// Up to which window a planner has acknowledged everything.
    #[must_use]
    pub fn acknowledged(&self, planner: SocketAddr) -> Option<Seq> {
        self.cursors.get(&planner).map(|cursor| Seq(cursor.acked()))
    }

    /// The inventory of a generation, as a frame.
    #[must_use]
    pub fn inventory(&self, generation: Generation) -> Option<&[u8]> {
        self.inventories.get(&generation).map(Vec::as_slice)
    }

    /// How full it is.
    #[must_use]
    pub fn usage(&self) -> SpoolUse {
        let retained = self.segments.partition_point(|segment| segment.last <= self.everybody_has());
        SpoolUse {
            reports: self.segments.len() - retained,
            retained,
            bytes: self.bytes,
            coalesced_windows: self.coalesced_windows,
            dropped_windows: self.dropped_windows,
        }
    }

    /// Up to which window every planner has everything. Where there is no planner: what they all had.
    fn everybody_has(&self) -> u64 {
        let had = || {
            let settled = self.segments.iter().take_while(|segment| segment.settled.is_some());
            settled.last().map_or(0, |segment| segment.last)
        };
        self.cursors.values().map(Cursor::acked).min().unwrap_or_else(had)
    }

    /// Notes since when everybody has what everybody has.
    fn settle(&mut self, now: Micros) {
        let level = self.everybody_has();
        let upto = self.segments.partition_point(|segment| segment.last <= level);
        let unsettled = self.segments.range_mut(..upto).rev();
        unsettled.take_while(|segment| segment.settled.is_none()).for_each(|s| s.settled = Some(now));
    }

    /// Forgets what everybody has had for long enough.
    fn trim(&mut self, now: Micros) {
        let level = self.everybody_has();
        let old = |segment: &Segment| {
            segment.last <= level && segment.settled.is_some_and(|at| now.saturating_sub(at) >= RETAIN)
        };
        while self.segments.front().is_some_and(old) {
            self.pop();
        }
        self.forget_inventories();
    }

    /// Makes room: coarser time from seven eighths of the budget on, and where that does not do, the oldest goes.
    fn fit(&mut self) {
        let comfortable = self.budget - self.budget / 8;
        while self.bytes > comfortable && coalesce::STEPS_MS.into_iter().any(|step| self.coalesce(step)) {}
        while self.bytes > self.budget && self.segments.len() > 1 {
            self.drop_oldest();
        }
    }

    /// Merges the oldest group that may be; whether there was one.
    fn coalesce(&mut self, length_ms: u64) -> bool {
        let cursors = &self.cursors;
        let as_one = |first, last| cursors.values().all(|cursor| cursor.sees_as_one(first, last));
        let Some(group) = coalesce::group(&self.segments, length_ms, as_one) else { return false };
        let start = group.start;
        let windows = self.segments.make_contiguous();
        match coalesce::merged(&mut self.encoder, &mut self.decoder, &windows[group.clone()]) {
            Ok(merged) => {
                let before: usize = windows[group.clone()].iter().map(Segment::bytes).sum();
                let fresh = windows[group.clone()].iter().filter(|segment| segment.windows() == 1);
                self.coalesced_windows += fresh.count() as u64;
                self.bytes = self.bytes - before + merged.bytes();
                self.segments.drain(start + 1..group.end);
                self.segments[start] = merged;
            }
            Err(error) => {
                tracing::debug!(%error, "windows can't be made one");
                windows[group].iter_mut().for_each(|segment| segment.whole = true);
            }
        }
        self.forget_inventories();
        true
    }

    fn drop_oldest(&mut self) {
        let level = self.everybody_has();
        if let Some(dropped) = self.pop().filter(|dropped| dropped.last > level) {
            self.dropped_windows += dropped.windows();
        }
        self.forget_inventories();
    }

    fn pop(&mut self) -> Option<Segment> {
        let popped = self.segments.pop_front()?;
        self.bytes -= popped.bytes();
        Some(popped)
    }

    /// The newest inventory is always kept: the next report needs it.
    fn forget_inventories(&mut self) {
        let newest = self.inventories.keys().next_back().copied();
        let needed = self.segments.front().map(|segment| segment.generation).or(newest);
        while let Some(entry) = self.inventories.first_entry() {
            if needed.is_none_or(|needed| *entry.key() >= needed) {
                break;
            }
            self.bytes -= entry.remove().len();
        }
    }
}
