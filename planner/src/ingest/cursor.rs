//! Which windows of one agent epoch were applied. Pure.

use std::collections::BTreeMap;

use plimsoll_common::{ids::Seq, units::Micros};

/// How many separate runs of windows are remembered. Gaps beyond that are closed from below, and counted.
const MAX_RUNS: usize = 64;
/// Of agents that do not tell of gaps: after this long one no longer holds acknowledgements back. What belongs in it still
/// counts if it comes.
pub const GAP_PATIENCE: Micros = Micros(1_000_000);

/// What is to be done with a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is new: apply it.
    Apply,
    /// It was applied before: drop it.
    Duplicate,
    /// It stands for several windows of which some were applied: it can't be applied in part, so it is dropped and
    /// the rest of its windows are lost.
    Overlap,
}

/// Remembers the settled windows (applied, or given up) of one agent epoch as runs, so that every window counts once in
/// whatever order they come and however often they are sent again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// First → last window of every run; runs neither touch nor overlap.
    runs: BTreeMap<u64, u64>,
    acknowledged: u64,
    /// Whether the agent tells of gaps: then one holds acknowledgements back until it is filled or given up.
    told: bool,
    /// Since when a gap above the acknowledged windows has been seen.
    gap_since: Option<Micros>,
    lost: u64,
}

impl Cursor {
    /// Takes the oldest window that the agent still has. What a cursor that is new to the agent missed before was before
    /// its time; what a known one misses is lost.
    pub fn begin(&mut self, oldest: Seq) {
        let before = oldest.0.saturating_sub(1);
        if self.told {
            if before > self.acknowledged {
                self.give_up(Seq(self.acknowledged + 1), Seq(before));
            }
        } else if before > 0 && self.runs.is_empty() {
            self.insert(1, before);
        }
        self.told = true;
    }

    /// Takes windows `first..=last` (from 1, `first <= last`) for lost, save those that were applied.
    pub fn give_up(&mut self, first: Seq, last: Seq) {
        let (first, last) = (first.0, last.0);
        let missing = (last - first).saturating_add(1) - self.covered(first, last);
        self.lost = self.lost.saturating_add(missing);
        self.insert(first, last);
        self.bound();
    }

    /// Takes windows `first..=last` (from 1, `first <= last`) and says what to do with them.
    pub fn take(&mut self, now: Micros, first: Seq, last: Seq) -> Verdict {
        let (first, last) = (first.0, last.0);
        let covered = self.covered(first, last);
        let verdict = match covered {
            0 => Verdict::Apply,
            all if all == (last - first).saturating_add(1) => return Verdict::Duplicate,
            some => {
                self.lost = self.lost.saturating_add((last - first).saturating_add(1) - some);
                Verdict::Overlap
            }
        };
        self.insert(first, last);
        self.bound();
        self.advance(now);
        verdict
    }

    fn bound(&mut self) {
        while self.runs.len() > MAX_RUNS {
            self.close_lowest_gap();
        }
    }

    /// Up to which window the agent may forget at `now`; 0 where nothing was applied yet.
    pub fn acknowledged(&mut self, now: Micros) -> Seq {
        self.advance(now);
        Seq(self.acknowledged)
    }

    /// The newest window that is settled; 0 where none is.
    #[must_use]
    pub fn newest(&self) -> Seq {
        Seq(self.runs.last_key_value().map_or(0, |(_, last)| *last))
    }

    /// How many windows were lost for good, because they overlapped or because there were too many gaps.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// How many windows between the first and the last applied one never came (yet).
    #[must_use]
    pub fn missing(&self) -> u64 {
        let gaps = self.runs.values().zip(self.runs.keys().skip(1));
        gaps.map(|(last, next)| next - last - 1).fold(0, u64::saturating_add)
    }

    fn covered(&self, first: u64, last: u64) -> u64 {
        let touching = self.runs.range(..=last).rev().take_while(|(_, run_last)| **run_last >= first);
        touching.map(|(run_first, run_last)| (*run_last).min(last) - (*run_first).max(first) + 1).sum()
    }

    /// Adds a run and merges it with those that it touches.
    fn insert(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first, last);
        while let Some((run_first, run_last)) = self
            .runs
            .range(..=last.saturating_add(1))
            .next_back()
            .map(|(run_first, run_last)| (*run_first, *run_last))
            .filter(|(_, run_last)| run_last.saturating_add(1) >= first)
        {
            self.runs.remove(&run_first);
            first = first.min(run_first);
            last = last.max(run_last);
        }
        self.runs.insert(first, last);
    }

    fn close_lowest_gap(&mut self) {
        if let (Some((first, last)), Some((next, end))) = (self.runs.pop_first(), self.runs.pop_first()) {
            self.lost = self.lost.saturating_add(next - last - 1);
            self.runs.insert(first, end);
        }
    }

    /// Moves the acknowledgement up to the end of its run, and over gaps that have been there for long.
    fn advance(&mut self, now: Micros) {
        let next = self.acknowledged.saturating_add(1);
        if let Some((_, last)) = self.runs.range(..=next).next_back().filter(|(_, last)| **last >= next) {
            self.acknowledged = *last;
            self.gap_since = None;
        }
        let Some((_, last)) = self.runs.range(self.acknowledged.saturating_add(1)..).next() else {
            self.gap_since = None;
            return;
        };
        if self.told {
            return;
        }
        let since = *self.gap_since.get_or_insert(now);
        if now.saturating_sub(since) >= GAP_PATIENCE {
            self.acknowledged = *last;
            self.gap_since = self.runs.range(last.saturating_add(1)..).next().map(|_| now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn take(cursor: &mut Cursor, now: u64, seq: u64) -> Verdict {
        cursor.take(Micros(now), Seq(seq), Seq(seq))
    }

    #[test]
    fn acknowledgements_wait_for_gaps_but_not_forever() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.acknowledged(Micros(0)), Seq(0));
        assert_eq!(take(&mut cursor, 0, 1), Verdict::Apply);
        assert_eq!(cursor.acknowledged(Micros(0)), Seq(1));
        take(&mut cursor, 10, 3);
        assert_eq!(cursor.acknowledged(Micros(GAP_PATIENCE.0)), Seq(1));
        assert_eq!(cursor.acknowledged(Micros(10 + GAP_PATIENCE.0)), Seq(3));
        assert_eq!(cursor.missing(), 1);
        // What was given up still counts once.
        assert_eq!(take(&mut cursor, 20 + GAP_PATIENCE.0, 2), Verdict::Apply);
        assert_eq!(take(&mut cursor, 20 + GAP_PATIENCE.0, 2), Verdict::Duplicate);
        assert_eq!(cursor.missing(), 0);
    }

    #[test]
    fn a_planner_that_starts_late_begins_where_the_agent_is() {
        let mut cursor = Cursor::default();
        take(&mut cursor, 0, 4_991);
        take(&mut cursor, 1, 4_990);
        assert_eq!(cursor.acknowledged(Micros(2)), Seq(0));
        assert_eq!(cursor.acknowledged(Micros(1 + GAP_PATIENCE.0)), Seq(4_991));
        assert_eq!(cursor.missing(), 0, "what was before our time is not missing");
    }

    #[test]
    fn a_gap_that_an_agent_can_tell_of_waits_until_it_is_filled_or_given_up() {
        let mut cursor = Cursor::default();
        cursor.begin(Seq(301));
        assert_eq!(
            (cursor.acknowledged(Micros(0)), cursor.lost()),
            (Seq(300), 0),
            "that was before our time"
        );
        take(&mut cursor, 0, 301);
        take(&mut cursor, 0, 304);
        assert_eq!(cursor.acknowledged(Micros(u64::MAX)), Seq(301));
        assert_eq!((cursor.missing(), cursor.lost()), (2, 0));
        assert_eq!(take(&mut cursor, 0, 302), Verdict::Apply);
        cursor.give_up(Seq(302), Seq(303));
        assert_eq!((cursor.acknowledged(Micros(0)), cursor.lost(), cursor.missing()), (Seq(304), 1, 0));
        assert_eq!(
            take(&mut cursor, 0, 303),
            Verdict::Duplicate,
            "what was given up does not count any more"
        );
        // Back after a while, the agent has less than we lack.
        cursor.begin(Seq(310));
        assert_eq!((cursor.acknowledged(Micros(0)), cursor.lost()), (Seq(309), 6));
        cursor.begin(Seq(1));
        assert_eq!((cursor.acknowledged(Micros(0)), cursor.lost()), (Seq(309), 6));
    }

    #[test]
    fn an_agent_that_claims_to_have_lost_everything_hurts_only_itself() {
        let mut cursor = Cursor::default();
        cursor.begin(Seq(u64::MAX));
        cursor.give_up(Seq(1), Seq(u64::MAX));
        assert_eq!(cursor.acknowledged(Micros(0)), Seq(u64::MAX));
        assert_eq!(take(&mut cursor, 0, 5), Verdict::Duplicate);
    }

    #[test]
    fn merged_windows_apply_whole_or_not_at_all() {
        let mut cursor = Cursor::default();
        take(&mut cursor, 0, 1);
        assert_eq!(cursor.take(Micros(0), Seq(2), Seq(11)), Verdict::Apply);
        assert_eq!(cursor.take(Micros(0), Seq(2), Seq(11)), Verdict::Duplicate);
        assert_eq!(cursor.take(Micros(0), Seq(10), Seq(13)), Verdict::Overlap);
        assert_eq!(cursor.lost(), 2);
        assert_eq!(cursor.acknowledged(Micros(0)), Seq(13), "what can't be applied is not asked for again");
    }

    #[test]
    fn the_end_of_the_numbers_is_survived() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.take(Micros(0), Seq(u64::MAX), Seq(u64::MAX)), Verdict::Apply);
        assert_eq!(cursor.take(Micros(u64::MAX), Seq(1), Seq(u64::MAX)), Verdict::Overlap);
        assert_eq!(cursor.take(Micros(0), Seq(1), Seq(u64::MAX)), Verdict::Duplicate);
        assert_eq!(cursor.acknowledged(Micros(0)), Seq(u64::MAX));
    }

    proptest! {
        /// Invariants: a window is applied the first time it comes and never again, in whatever order and however
        /// often; acknowledgements never fall; once all came and gaps are closed, all is acknowledged.
        #[test]
        fn every_window_counts_once(sent in prop::collection::vec((1u64..60, 0u64..3_000_000), 1..200)) {
            let mut cursor = Cursor::default();
            let (mut seen, mut before, mut now) = (BTreeSet::new(), Seq(0), 0);
            for (seq, pause) in sent {
                now += pause;
                let verdict = take(&mut cursor, now, seq);
                prop_assert_eq!(verdict, if seen.insert(seq) { Verdict::Apply } else { Verdict::Duplicate });
                let acknowledged = cursor.acknowledged(Micros(now));
                prop_assert!(acknowledged >= before && acknowledged.0 <= *seen.last().unwrap());
                before = acknowledged;
            }
            let span = seen.last().unwrap() - seen.first().unwrap() + 1;
            prop_assert_eq!(cursor.missing(), span - seen.len() as u64);
            for _ in 0..60 {
                now += GAP_PATIENCE.0;
                before = cursor.acknowledged(Micros(now));
            }
            prop_assert_eq!(before.0, *seen.last().unwrap());
        }

        /// Invariant: ranges of any kind never count a window twice, and memory stays bounded.
        #[test]
        fn ranges_never_count_twice(ranges in prop::collection::vec((1u64..5_000, 0u64..6), 1..400)) {
            let mut cursor = Cursor::default();
            let mut applied = BTreeSet::new();
            for (first, more) in ranges {
                let verdict = cursor.take(Micros(0), Seq(first), Seq(first + more));
                if verdict == Verdict::Apply {
                    for seq in first..=first + more {
                        prop_assert!(applied.insert(seq), "{} twice", seq);
                    }
                }
                prop_assert!(cursor.runs.len() <= MAX_RUNS);
            }
        }
    }
}
