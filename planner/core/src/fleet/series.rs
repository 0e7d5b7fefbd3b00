//! What one engine or pool gained: totals since it was first seen, and sliding windows.

use plimsoll_common::{histogram::LeanLayout, units::Micros};

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
    /// For the engine: counters, and distributions as they were observed.
    pub(super) observed: Vec<u8>,
    /// For the pool, where reports of many engines come together: the same, but bucketed distributions with where in its
    /// buckets this one window's sum puts them.
    pub(super) leaned: Vec<u8>,
    counts: Vec<(usize, u64)>,
}

impl Encoded {
    /// Starts over with the counters of a row.
    pub(super) fn begin(&mut self, gained: &Counts) {
        self.observed.clear();
        self.leaned.clear();
        self.counts.clear();
        self.counts.extend(gained.iter().filter(|(_, n)| *n > 0).map(|(counter, n)| (counter as usize, n)));
        if !self.counts.is_empty() {
            encode(&mut self.observed, Series::Counters, 0, 0, &self.counts);
            self.leaned.extend_from_slice(&self.observed);
        }
    }

    /// Adds a distribution from single samples.
    pub(super) fn exact(&mut self, part: &Part, cells: &[(usize, u64)]) {
        let begin = self.observed.len();
        encode(&mut self.observed, Series::Observed(part.kind.code() as u8), 0, part.sum, cells);
        self.leaned.extend_from_slice(&self.observed[begin..]);
    }

    /// Adds a bucketed distribution.
    pub(super) fn bucketed(
        &mut self,
        part: &Part,
        buckets: &[(usize, u64)],
        (id, layout): (LayoutId, &LeanLayout),
    ) {
        let kind = part.kind.code() as u8;
        encode(&mut self.observed, Series::Observed(kind), id.code(), part.sum, buckets);
        self.counts.clear();
        layout.lean(buckets, part.sum, |place, n| self.counts.push((place, n)));
        encode(&mut self.leaned, Series::Leaned(kind), id.code(), part.sum, &self.counts);
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
#[derive(Debug, Clone)]
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
    /// Nothing yet.
    pub(super) const fn new(rings: Rings) -> Self {
        Self { counts: Counts::none(), distributions: Vec::new(), rings, covered: None }
    }

    /// Adds one engine's row. Answers whether every window took it.
    pub(super) fn add(
        &mut self,
        period: Period,
        reading: &EngineReading,
        parts: &[Part],
        entries: &[u8],
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
        entries.is_empty() || self.rings.append(now, end, length, entries, scratch)
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
