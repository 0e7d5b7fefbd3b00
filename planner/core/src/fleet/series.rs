//! What one engine or pool gained: totals since it was first seen, and sliding windows.

use plimsoll_common::{histogram::place, units::Micros};

use super::{
    counters::Counts,
    layouts::LayoutId,
    observation::{DistributionKey, EngineReading, Part, Samples},
    packed::{Scratch, Series, encode},
    window::Rings,
};

/// One engine's row of one observation, encoded once for all slots that it goes into.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// Counters and distributions as observed.
    observed: Vec<u8>,
    /// Bucketed distributions placed into cells: for pools only, where reports of many engines come together.
    placed: Vec<u8>,
    counts: Vec<(usize, u64)>,
}

impl Encoded {
    /// Starts over with the counters of a row.
    pub(super) fn begin(&mut self, gained: &Counts) {
        self.observed.clear();
        self.placed.clear();
        self.counts.clear();
        self.counts.extend(gained.iter().filter(|(_, n)| *n > 0).map(|(counter, n)| (counter as usize, n)));
        if !self.counts.is_empty() {
            encode(&mut self.observed, Series::Counters, 0, 0, &self.counts);
        }
    }

    /// Adds a distribution from single samples.
    pub(super) fn exact(&mut self, part: &Part, cells: &[(usize, u64)]) {
        encode(&mut self.observed, Series::Observed(part.kind.code() as u8), 0, part.sum, cells);
    }

    /// Adds a bucketed distribution, and its samples placed into cells by the sum that they had in this one window.
    pub(super) fn bucketed(
        &mut self,
        part: &Part,
        buckets: &[(usize, u64)],
        (id, layout): (LayoutId, &plimsoll_common::histogram::BucketLayout),
    ) {
        let kind = part.kind.code() as u8;
        encode(&mut self.observed, Series::Observed(kind), id.code(), part.sum, buckets);
        self.counts.clear();
        place(layout, buckets, part.sum, |cell, n| self.counts.push((usize::from(cell), n)));
        // Buckets rise and so do the cells within one, but two buckets narrower than a cell share it.
        self.counts.sort_unstable_by_key(|(cell, _)| *cell);
        self.counts.dedup_by(|(cell, n), (kept, sum)| {
            let same = cell == kept;
            if same {
                *sum = sum.saturating_add(*n);
            }
            same
        });
        encode(&mut self.placed, Series::Placed(kind), 0, 0, &self.counts);
    }
}

/// How many samples a distribution had since first seen, and their sum in microseconds or tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DistributionTotal {
    /// Samples.
    pub count: u64,
    /// Their sum, microseconds or tokens.
    pub sum: u64,
}

/// Totals and windows of one engine or pool.
#[derive(Debug, Clone, Default)]
pub(super) struct Accumulator {
    /// What the counters gained since first seen.
    pub(super) counts: Counts,
    /// What the distributions gained since first seen; a short list, rising by key.
    pub(super) distributions: Vec<(DistributionKey, DistributionTotal)>,
    pub(super) rings: Rings,
    /// The begin of the first and the end of the last window; `None` before any.
    pub(super) covered: Option<(Micros, Micros)>,
}

/// When a window ended, how long it is, and when we learn of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Period {
    pub(super) now: Micros,
    pub(super) end: Micros,
    pub(super) length: Micros,
}

impl Accumulator {
    /// Adds one engine's row. Answers whether every window took it.
    pub(super) fn add(
        &mut self,
        period: Period,
        reading: &EngineReading,
        parts: &[Part],
        encoded: &Encoded,
        with_placed: bool,
        scratch: &mut Scratch,
    ) -> bool {
        self.counts.add(&reading.gained);
        for part in parts {
            let total = self.distribution(DistributionKey { kind: part.kind, source: part.samples.source() });
            let count = part.samples.counts().iter().fold(0u64, |sum, (_, n)| sum.saturating_add(*n));
            total.count = total.count.saturating_add(count);
            total.sum = total.sum.saturating_add(part.sum);
        }
        let begin = period.end.saturating_sub(period.length);
        let (first, last) = self.covered.unwrap_or((begin, period.end));
        self.covered = Some((first.min(begin), last.max(period.end)));
        let Period { now, end, length } = period;
        let mut everywhere = true;
        if !encoded.observed.is_empty() {
            everywhere &= self.rings.append(now, end, length, &encoded.observed, scratch);
        }
        if with_placed && !encoded.placed.is_empty() {
            everywhere &= self.rings.append(now, end, length, &encoded.placed, scratch);
        }
        everywhere
    }

    fn distribution(&mut self, key: DistributionKey) -> &mut DistributionTotal {
        let at = match self.distributions.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(at) => at,
            Err(at) => {
                self.distributions.reserve_exact(1);
                self.distributions.insert(at, (key, DistributionTotal::default()));
                at
            }
        };
        &mut self.distributions[at].1
    }
}

/// The parts of one engine, out of parts sorted by engine.
pub(super) fn parts_of(parts: &[Part], engine: usize) -> &[Part] {
    let from = parts.partition_point(|part| part.engine < engine);
    let to = parts.partition_point(|part| part.engine <= engine);
    &parts[from..to]
}

/// Whether a part's counts rise, which placement and packing rely on.
pub(super) fn is_rising(samples: &Samples) -> bool {
    samples.counts().is_sorted_by(|a, b| a.0 < b.0)
}
