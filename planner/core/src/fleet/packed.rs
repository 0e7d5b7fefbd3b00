//! The contents of one slot of a sliding window, packed into bytes.
//!
//! There are millions of slots, most hold a few dozen numbers, and nearly all are written once and read rarely. So a
//! slot is a log: what comes in is appended, and equal keys are added up only when the log has grown to twice what it
//! was after the last time, or when its slot is closed. A number takes one to three bytes.
//!
//! An entry is `series, layout, sum, n, n × (cell − previous cell, count)`, all LEB128.

/// What an entry speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Series {
    /// Counters: a cell is a counter's index, its count what was gained.
    Counters,
    /// A distribution as it was observed, by its kind's code.
    Observed(u8),
    /// A bucketed distribution placed into cells of the fleet's layout, by its kind's code.
    Placed(u8),
}

const PLACED: u64 = 128;

impl Series {
    const fn code(self) -> u64 {
        match self {
            Self::Counters => 0,
            Self::Observed(kind) => kind as u64,
            Self::Placed(kind) => PLACED + kind as u64,
        }
    }

    const fn from_code(code: u64) -> Self {
        match code {
            0 => Self::Counters,
            1..PLACED => Self::Observed(code as u8),
            _ => Self::Placed((code - PLACED) as u8),
        }
    }
}

/// Appends an entry. `counts` rise; `layout` is 0 for cells of the fleet's layout, and else an interned layout + 1.
pub(super) fn encode(out: &mut Vec<u8>, series: Series, layout: u64, sum: u64, counts: &[(usize, u64)]) {
    for number in [series.code(), layout, sum, counts.len() as u64] {
        write(out, number);
    }
    let mut before = 0;
    for (cell, n) in counts {
        write(out, cell.saturating_sub(before) as u64);
        write(out, *n);
        before = *cell;
    }
}

/// One number of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    /// The sum of the samples.
    Sum(u64),
    /// A cell (bucket, counter) and its count.
    Cell(usize, u64),
}

/// What stands in one slot.
#[derive(Debug, Clone, Default)]
pub(super) struct SlotLog {
    bytes: Vec<u8>,
    compacted: u32,
}

/// Memory that compaction uses again and again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    items: Vec<(u64, u64)>,
    run: Vec<(usize, u64)>,
    bytes: Vec<u8>,
}

/// Logs are not compacted below this size: it would not be worth the time.
const COMPACT_FROM_BYTES: usize = 768;

impl SlotLog {
    /// Appends encoded entries.
    pub(super) fn append(&mut self, entries: &[u8], scratch: &mut Scratch) {
        self.bytes.extend_from_slice(entries);
        if self.bytes.len() >= COMPACT_FROM_BYTES.max(self.compacted as usize * 2) {
            self.compact(scratch);
        }
    }

    /// Adds up equal keys and gives back unused memory. Does nothing where nothing was appended since the last time.
    pub(super) fn compact(&mut self, scratch: &mut Scratch) {
        if self.bytes.len() == self.compacted as usize {
            return;
        }
        scratch.items.clear();
        scratch.bytes.clear();
        let items = &mut scratch.items;
        self.visit(|series, layout, item| {
            items.push(match item {
                Item::Sum(sum) => (key(series, layout, 0), sum),
                Item::Cell(cell, n) => (key(series, layout, cell as u64 + 1), n),
            });
        });
        // Equal keys may come in any order: addition does not care.
        scratch.items.sort_unstable_by_key(|(key, _)| *key);
        scratch.items.dedup_by(|(key, n), (kept, sum)| {
            let same = key == kept;
            if same {
                *sum = sum.saturating_add(*n);
            }
            same
        });
        for entry in scratch.items.chunk_by(|a, b| a.0 >> CELL_BITS == b.0 >> CELL_BITS) {
            let Some(((first, sum), cells)) = entry.split_first() else { continue };
            scratch.run.clear();
            scratch.run.extend(cells.iter().map(|(key, n)| ((key & CELL_MASK) as usize - 1, *n)));
            let (series, layout) =
                (Series::from_code(first >> SERIES_SHIFT), first >> CELL_BITS & LAYOUT_MASK);
            encode(&mut scratch.bytes, series, layout, *sum, &scratch.run);
        }
        self.bytes = scratch.bytes.as_slice().to_vec();
        self.compacted = self.bytes.len() as u32;
    }

    /// Reads all numbers, each entry's sum before its cells. Keys may come more than once: add them up.
    pub(super) fn visit(&self, mut visit: impl FnMut(Series, u64, Item)) {
        let mut rest = self.bytes.as_slice();
        while !rest.is_empty() && visit_entry(&mut rest, &mut visit).is_some() {}
    }

    /// How many bytes it takes, its unused capacity included.
    pub(super) const fn allocated_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

const CELL_BITS: u32 = 20;
const CELL_MASK: u64 = (1 << CELL_BITS) - 1;
const LAYOUT_MASK: u64 = (1 << 20) - 1;
const SERIES_SHIFT: u32 = 40;

const fn key(series: Series, layout: u64, cell: u64) -> u64 {
    series.code() << SERIES_SHIFT | (layout & LAYOUT_MASK) << CELL_BITS | (cell & CELL_MASK)
}

/// `None` where the bytes end early, which they do not: we wrote them.
fn visit_entry(rest: &mut &[u8], visit: &mut impl FnMut(Series, u64, Item)) -> Option<()> {
    let series = Series::from_code(read(rest)?);
    let layout = read(rest)?;
    visit(series, layout, Item::Sum(read(rest)?));
    let mut cell = 0usize;
    for _ in 0..read(rest)? {
        cell += read(rest)? as usize;
        visit(series, layout, Item::Cell(cell, read(rest)?));
    }
    Some(())
}

fn write(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Sums = BTreeMap<(Series, u64, Option<usize>), u64>;

    fn sums(log: &SlotLog) -> Sums {
        let mut sums = Sums::new();
        log.visit(|series, layout, item| {
            let (cell, n) = match item {
                Item::Sum(sum) => (None, sum),
                Item::Cell(cell, n) => (Some(cell), n),
            };
            *sums.entry((series, layout, cell)).or_default() += n;
        });
        sums
    }

    fn entries() -> impl Strategy<Value = Vec<(u8, u64, u64, BTreeMap<usize, u64>)>> {
        let cells = prop::collection::btree_map(0usize..4000, 1u64..1 << 40, 0..12);
        prop::collection::vec((0u8..40, 0u64..5, 0u64..1 << 40, cells), 0..60)
    }

    proptest! {
        /// Invariant: compaction changes no sum, whenever it happens, and afterwards no key stands twice.
        #[test]
        fn compaction_changes_no_sum(entries in entries(), every in 1usize..8) {
            let (mut log, mut plain) = (SlotLog::default(), Sums::new());
            let mut scratch = Scratch::default();
            for (i, (kind, layout, sum, cells)) in entries.iter().enumerate() {
                let series = match kind { 0 => Series::Counters, 1..20 => Series::Observed(*kind), _ => Series::Placed(*kind) };
                let cells: Vec<_> = cells.iter().map(|(cell, n)| (*cell, *n)).collect();
                let mut bytes = Vec::new();
                encode(&mut bytes, series, *layout, *sum, &cells);
                log.append(&bytes, &mut scratch);
                *plain.entry((series, *layout, None)).or_default() += sum;
                for (cell, n) in cells {
                    *plain.entry((series, *layout, Some(cell))).or_default() += n;
                }
                if i % every == 0 {
                    log.compact(&mut scratch);
                }
            }
            prop_assert_eq!(sums(&log), plain.clone());
            log.compact(&mut scratch);
            prop_assert_eq!(sums(&log), plain.clone());
            let mut keys = 0;
            log.visit(|_, _, _| keys += 1);
            prop_assert_eq!(keys, plain.len());
        }
    }
}
