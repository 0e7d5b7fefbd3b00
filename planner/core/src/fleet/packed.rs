//! The contents of one slot of a sliding window, packed into bytes.
//!
//! There are millions of slots, most hold a few dozen numbers, and nearly all are written once and read rarely. So a
//! slot is a log: what comes in is appended, and equal keys are added up only when the log has grown to a multiple
//! of what it was after the last time, or when its slot is closed. A number takes one to three bytes.
//!
//! An entry is `series, layout, sum, n, n × (cell − previous cell, count)`, all LEB128.

/// What an entry speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Series {
    /// Counters: a cell is a counter's index, its count what was gained.
    Counters,
    /// A distribution as it was observed, by its kind's code.
    Observed(u8),
    /// A bucketed distribution with where in its buckets its samples lean to, by its kind's code: a cell is a bucket and a
    /// place in it.
    Leaned(u8),
}

const LEANED: u64 = 128;

impl Series {
    const fn code(self) -> u64 {
        match self {
            Self::Counters => 0,
            Self::Observed(kind) => kind as u64,
            Self::Leaned(kind) => LEANED + kind as u64,
        }
    }

    const fn from_code(code: u64) -> Self {
        match code {
            0 => Self::Counters,
            1..LEANED => Self::Observed(code as u8),
            _ => Self::Leaned((code - LEANED) as u8),
        }
    }
}

/// What an entry takes besides its cells, and what a cell takes, mostly.
const HEAD_BYTES: usize = 12;
const PAIR_BYTES: usize = 4;

/// Appends an entry. `counts` rise; `layout` is 0 for cells of the fleet's layout, and else an interned layout + 1.
pub(super) fn encode(out: &mut Vec<u8>, series: Series, layout: u64, sum: u64, counts: &[(usize, u64)]) {
    out.reserve(HEAD_BYTES + counts.len() * PAIR_BYTES);
    for number in [series.code(), layout, sum, counts.len() as u64] {
        write(out, number);
    }
    let mut before = 0;
    for (cell, n) in counts {
        let gap = cell.saturating_sub(before) as u64;
        before = *cell;
        if gap < 0x80 && *n < 0x80 {
            out.extend_from_slice(&[gap as u8, *n as u8]);
        } else {
            write(out, gap);
            write(out, *n);
        }
    }
}

/// One entry while it is read.
#[derive(Debug)]
pub(super) struct Entry<'r, 'b> {
    pub(super) series: Series,
    /// 0 for cells of the fleet's layout, and else an interned layout + 1.
    pub(super) layout: u64,
    /// The sum of the samples.
    pub(super) sum: u64,
    left: u64,
    cell: usize,
    rest: &'r mut &'b [u8],
}

/// Cells (buckets, counters) and their counts, rising.
impl Iterator for Entry<'_, '_> {
    type Item = (usize, u64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.cell += read(self.rest)? as usize;
        Some((self.cell, read(self.rest)?))
    }
}

/// What stands in one slot.
#[derive(Debug, Clone, Default)]
pub(super) struct SlotLog {
    bytes: Vec<u8>,
    compacted: u32,
}

/// Memory that compaction uses again and again: a dense count for every series and layout that a log holds.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    groups: Vec<Group>,
    /// Where to look first for a group.
    next: usize,
    run: Vec<(usize, u64)>,
    bytes: Vec<u8>,
}

/// One series in one layout. Cells outside `low..high` are zero.
#[derive(Debug, Default)]
struct Group {
    series: u64,
    layout: u64,
    sum: u64,
    low: usize,
    high: usize,
    cells: Vec<u64>,
}

impl Group {
    fn add(&mut self, cell: usize, n: u64) {
        if cell >= self.cells.len() {
            self.cells.resize(cell + 1, 0);
        }
        self.cells[cell] = self.cells[cell].saturating_add(n);
        self.low = self.low.min(cell);
        self.high = self.high.max(cell + 1);
    }

    /// Hands out the cells that hold samples and forgets them.
    fn take(&mut self, run: &mut Vec<(usize, u64)>) {
        run.clear();
        let held = self.cells.get_mut(self.low..self.high).unwrap_or_default();
        for (above, n) in held.iter_mut().enumerate().filter(|(_, n)| **n > 0) {
            run.push((self.low + above, std::mem::take(n)));
        }
    }
}

impl Scratch {
    /// The group of a series and layout, out of the first `used`; a new one where there is none.
    fn group(&mut self, used: &mut usize, series: u64, layout: u64) -> &mut Group {
        let is_it = |group: &Group| group.series == series && group.layout == layout;
        // Logs repeat the same few series in the same order: the next one is mostly where the last one's successor was.
        let (before, after) = self.groups[..*used].split_at(self.next.min(*used));
        let found = after.iter().position(is_it).map(|at| at + before.len());
        let found = found.or_else(|| before.iter().position(is_it)).unwrap_or_else(|| {
            if *used == self.groups.len() {
                self.groups.push(Group::default());
            }
            let cells = std::mem::take(&mut self.groups[*used].cells);
            self.groups[*used] = Group { series, layout, sum: 0, low: usize::MAX, high: 0, cells };
            *used += 1;
            *used - 1
        });
        self.next = found + 1;
        &mut self.groups[found]
    }
}

/// A log is compacted when it has grown to so many times what it was after the last time.
const COMPACT_GROWTH: usize = 4;

impl SlotLog {
    /// Appends encoded entries. Below `compact_from` bytes equal keys are not added up: it would not be worth the time.
    pub(super) fn append(&mut self, entries: &[u8], compact_from: usize, scratch: &mut Scratch) {
        self.bytes.extend_from_slice(entries);
        if self.bytes.len() >= compact_from.max(self.compacted as usize * COMPACT_GROWTH) {
            self.compact(scratch);
        }
    }

    /// Adds up equal keys and gives back unused memory. Does nothing where nothing was appended since the last time.
    pub(super) fn compact(&mut self, scratch: &mut Scratch) {
        if self.bytes.len() == self.compacted as usize {
            return;
        }
        let mut used = 0;
        self.visit(|entry| {
            let group = scratch.group(&mut used, entry.series.code(), entry.layout);
            group.sum = group.sum.saturating_add(entry.sum);
            entry.for_each(|(cell, n)| group.add(cell, n));
        });
        scratch.bytes.clear();
        scratch.groups[..used].sort_unstable_by_key(|group| (group.series, group.layout));
        for group in &mut scratch.groups[..used] {
            group.take(&mut scratch.run);
            let series = Series::from_code(group.series);
            encode(&mut scratch.bytes, series, group.layout, group.sum, &scratch.run);
        }
        // Memory that is still about right is kept: logs are many, and so would be the allocations.
        if scratch.bytes.len() <= self.bytes.capacity()
            && scratch.bytes.len() * 5 / 4 >= self.bytes.capacity()
        {
            self.bytes.clear();
            self.bytes.extend_from_slice(&scratch.bytes);
        } else {
            self.bytes = scratch.bytes.as_slice().to_vec();
        }
        self.compacted = self.bytes.len() as u32;
    }

    /// The entries, to be appended elsewhere.
    pub(super) fn entries(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads all entries. The same series and layout may come more than once: add them up.
    pub(super) fn visit(&self, mut visit: impl FnMut(&mut Entry<'_, '_>)) {
        let mut rest = self.bytes.as_slice();
        while !rest.is_empty() && visit_entry(&mut rest, &mut visit).is_some() {}
    }

    /// How many bytes it takes, its unused capacity included.
    pub(super) const fn allocated_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

/// `None` where the bytes end early, which they do not: we wrote them.
fn visit_entry(rest: &mut &[u8], visit: &mut impl FnMut(&mut Entry<'_, '_>)) -> Option<()> {
    let series = Series::from_code(read(rest)?);
    let (layout, sum, left) = (read(rest)?, read(rest)?, read(rest)?);
    let mut entry = Entry { series, layout, sum, left, cell: 0, rest };
    visit(&mut entry);
    // What the visitor did not read stands in front of the next entry.
    entry.by_ref().for_each(drop);
    Some(())
}

fn write(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[inline]
fn read(bytes: &mut &[u8]) -> Option<u64> {
    // Most numbers are small.
    if let Some((byte, rest)) = bytes.split_first().filter(|(byte, _)| **byte < 0x80) {
        *bytes = rest;
        return Some(u64::from(*byte));
    }
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
        log.visit(|entry| {
            let (series, layout) = (entry.series, entry.layout);
            *sums.entry((series, layout, None)).or_default() += entry.sum;
            entry.for_each(|(cell, n)| *sums.entry((series, layout, Some(cell))).or_default() += n);
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
                let series = match kind { 0 => Series::Counters, 1..20 => Series::Observed(*kind), _ => Series::Leaned(*kind) };
                let cells: Vec<_> = cells.iter().map(|(cell, n)| (*cell, *n)).collect();
                let mut bytes = Vec::new();
                encode(&mut bytes, series, *layout, *sum, &cells);
                log.append(&bytes, 768, &mut scratch);
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
            log.visit(|entry| keys += 1 + entry.count());
            prop_assert_eq!(keys, plain.len());
        }
    }
}
