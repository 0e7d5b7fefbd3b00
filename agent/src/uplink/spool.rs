//! Reports that no planner has acknowledged yet, bounded in bytes.

use std::collections::{BTreeMap, VecDeque};

use plimsoll_common::{
    ids::{Generation, Seq},
    wire::{FrameDecoder, FrameEncoder, Message, WireError},
};
use tokio::time::Instant;

use crate::window::Closed;

/// What the spool holds, for the agent's own pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolUse {
    /// Reports that wait for an acknowledgement.
    pub reports: usize,
    /// Their bytes, inventories included.
    pub bytes: usize,
    /// Windows that had to be dropped, in all.
    pub dropped_windows: u64,
}

/// A report as it will be sent.
#[derive(Debug)]
struct Kept {
    seq: Seq,
    first: Seq,
    generation: Generation,
    frame: Vec<u8>,
    closed: Instant,
    sent: bool,
}

/// Encoded reports in order of their windows, and the inventories that explain them.
///
/// When the budget is used up the oldest report is dropped and counted, and the report behind it covers its windows'
/// numbers, so that the planner's sequence has a counted loss and no hole that never fills.
#[derive(Debug)]
pub struct Spool {
    encoder: FrameEncoder,
    budget: usize,
    bytes: usize,
    reports: VecDeque<Kept>,
    inventories: BTreeMap<Generation, Vec<u8>>,
    dropped_windows: u64,
}

impl Spool {
    /// An empty spool that keeps at most `budget` bytes.
    ///
    /// # Errors
    /// When the encoder's state can't be allocated.
    pub fn new(budget: usize) -> Result<Self, WireError> {
        Ok(Self {
            encoder: FrameEncoder::new()?,
            budget,
            bytes: 0,
            reports: VecDeque::new(),
            inventories: BTreeMap::new(),
            dropped_windows: 0,
        })
    }

    /// Keeps a closed window until it is acknowledged.
    ///
    /// # Errors
    /// When a message breaks the protocol's own limits; then nothing of it is kept.
    pub fn push(&mut self, closed: Closed, now: Instant) -> Result<(), WireError> {
        let (seq, first) = (closed.report.seq, closed.report.first_seq());
        let generation = closed.report.generation;
        let inventory = closed
            .inventory
            .map(|inventory| self.encoder.encode(&Message::Inventory(Box::new(inventory)), 0))
            .transpose()?;
        let frame = self.encoder.encode(&Message::Report(Box::new(closed.report)), 0)?;
        if let Some(inventory) = inventory {
            self.bytes += inventory.len();
            self.inventories.insert(generation, inventory);
        }
        self.bytes += frame.len();
        self.reports.push_back(Kept { seq, first, generation, frame, closed: now, sent: false });
        while self.bytes > self.budget && self.reports.len() > 1 {
            self.drop_oldest()?;
        }
        Ok(())
    }

    /// Forgets what the planner has applied: everything up to `seq`.
    pub fn acknowledge(&mut self, seq: Seq) {
        while self.reports.front().is_some_and(|kept| kept.seq <= seq) {
            if let Some(kept) = self.reports.pop_front() {
                self.bytes -= kept.frame.len();
            }
        }
        self.forget_inventories();
    }

    /// Begins anew for a new connection: everything kept is to be sent.
    pub fn rewind(&mut self) {
        self.reports.iter_mut().for_each(|kept| kept.sent = false);
    }

    /// The next report to send, with the generation that explains it; marks it as sent. Its age is brought up to
    /// `now`.
    pub fn next(&mut self, now: Instant) -> Option<(Generation, Vec<u8>)> {
        let kept = self.reports.iter_mut().find(|kept| !kept.sent)?;
        kept.sent = true;
        let age = now.saturating_duration_since(kept.closed).as_millis();
        FrameEncoder::set_age(&mut kept.frame, u32::try_from(age).unwrap_or(u32::MAX));
        Some((kept.generation, kept.frame.clone()))
    }

    /// The inventory of a generation, as a frame.
    #[must_use]
    pub fn inventory(&self, generation: Generation) -> Option<&[u8]> {
        self.inventories.get(&generation).map(Vec::as_slice)
    }

    /// How full it is.
    #[must_use]
    pub fn usage(&self) -> SpoolUse {
        SpoolUse { reports: self.reports.len(), bytes: self.bytes, dropped_windows: self.dropped_windows }
    }

    fn drop_oldest(&mut self) -> Result<(), WireError> {
        let Some(dropped) = self.reports.pop_front() else { return Ok(()) };
        self.bytes -= dropped.frame.len();
        // A report holds one window's content, even where it covers the numbers of dropped ones.
        self.dropped_windows += 1;
        if let Some(next) = self.reports.front_mut().filter(|next| !next.sent) {
            let frame = FrameDecoder::new()?.decode(&next.frame)?;
            if let Message::Report(mut report) = frame.message {
                report.first = Some(dropped.first);
                report.cost.dropped_windows = Some(self.dropped_windows);
                let again = self.encoder.encode(&Message::Report(report), 0)?;
                self.bytes = self.bytes - next.frame.len() + again.len();
                next.first = dropped.first;
                next.frame = again;
            }
        }
        self.forget_inventories();
        Ok(())
    }

    /// The newest inventory is always kept: the next report needs it.
    fn forget_inventories(&mut self) {
        let newest = self.inventories.keys().next_back().copied();
        let needed = self.reports.front().map(|kept| kept.generation).or(newest);
        while let Some(entry) = self.inventories.first_entry() {
            if needed.is_none_or(|needed| *entry.key() >= needed) {
                break;
            }
            self.bytes -= entry.remove().len();
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_common::wire::{Inventory, Report};

    use super::*;

    fn window(seq: u64, generation: u32, with_inventory: bool) -> Closed {
        let generation = Generation(generation);
        Closed {
            inventory: with_inventory.then(|| Inventory { generation, ..Inventory::default() }),
            report: Report { seq: Seq(seq), generation, length_ms: 1000, ..Report::default() },
        }
    }

    fn decode(frame: &[u8]) -> (Seq, Seq, u32) {
        let frame = FrameDecoder::new().unwrap().decode(frame).unwrap();
        let Message::Report(report) = frame.message else { panic!("not a report") };
        (report.first_seq(), report.seq, frame.age_ms)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_acknowledged_is_sent_again_with_its_age() {
        let mut spool = Spool::new(1 << 20).unwrap();
        spool.push(window(1, 1, true), Instant::now()).unwrap();
        spool.push(window(2, 1, false), Instant::now()).unwrap();
        assert_eq!(decode(&spool.next(Instant::now()).unwrap().1), (Seq(1), Seq(1), 0));
        assert_eq!(decode(&spool.next(Instant::now()).unwrap().1).1, Seq(2));
        assert!(spool.next(Instant::now()).is_none());
        spool.acknowledge(Seq(1));
        tokio::time::advance(std::time::Duration::from_millis(2500)).await;
        spool.rewind();
        assert_eq!(decode(&spool.next(Instant::now()).unwrap().1), (Seq(2), Seq(2), 2500));
        assert!(spool.inventory(Generation(1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_spool_drops_the_oldest_counts_it_and_leaves_no_hole() {
        let mut spool = Spool::new(200).unwrap();
        for seq in 1..=50 {
            spool.push(window(seq, 1, seq == 1), Instant::now()).unwrap();
        }
        let usage = spool.usage();
        assert!(usage.bytes <= 200, "{usage:?}");
        let (first, seq, _) = decode(&spool.next(Instant::now()).unwrap().1);
        assert_eq!(first, Seq(1));
        assert_eq!(seq.0, usage.dropped_windows + 1);
        assert_eq!(usage.dropped_windows as usize + usage.reports, 50);
    }

    #[tokio::test(start_paused = true)]
    async fn inventories_live_as_long_as_a_report_needs_them() {
        let mut spool = Spool::new(1 << 20).unwrap();
        spool.push(window(1, 1, true), Instant::now()).unwrap();
        spool.push(window(2, 2, true), Instant::now()).unwrap();
        assert!(spool.inventory(Generation(1)).is_some());
        spool.acknowledge(Seq(1));
        assert!(spool.inventory(Generation(1)).is_none());
        spool.acknowledge(Seq(2));
        assert!(spool.inventory(Generation(2)).is_some());
        assert_eq!(spool.usage().reports, 0);
    }
}
