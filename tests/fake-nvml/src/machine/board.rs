//! What has happened to one GPU.

use std::collections::{BTreeMap, VecDeque};

use super::mig::Mig;
use crate::control::{LinkError, RemappedRows, RetiredPages, Severity, Throttle};
use crate::scenario::EccCounts;
use crate::state::Totals;

/// So many changes of the throttle are remembered: readings of the last seconds are asked for as well.
const REMEMBERED_THROTTLES: usize = 64;

/// One GPU as far as it is not what the scenario says.
#[derive(Debug, Clone)]
pub(crate) struct Board {
    /// Is it enumerated?
    pub(crate) present: bool,
    /// Has it fallen off the bus?
    pub(crate) lost: bool,
    /// Counts its lives: handles of an earlier one stay lost.
    pub(crate) life: usize,
    /// Rows that spare ones stand in for.
    pub(crate) rows: RemappedRows,
    /// Retired pages, where the board retires pages.
    pub(crate) pages: Option<RetiredPages>,
    /// Recovery action, 0 to 7.
    pub(crate) recovery: u32,
    /// Instances.
    pub(crate) mig: Mig,
    /// Links that are down, bit by bit.
    pub(crate) links_down: u64,
    /// Errors of links, by link and kind.
    pub(crate) link_errors: BTreeMap<(u32, LinkError), u64>,
    /// Transfers that PCIe had to repeat.
    pub(crate) pcie_replays: u64,
    /// Totals when the counters last started anew.
    pub(crate) zero: Totals,
    /// When they start anew next: at the first reading after this time.
    pub(crate) zero_due_s: Option<f64>,
    throttles: VecDeque<(f64, Option<Throttle>)>,
    corrected: ErrorCounter,
    uncorrected: ErrorCounter,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            present: true,
            lost: false,
            life: 0,
            rows: RemappedRows::default(),
            pages: None,
            recovery: 0,
            mig: Mig::default(),
            links_down: 0,
            link_errors: BTreeMap::new(),
            pcie_replays: 0,
            zero: Totals::default(),
            zero_due_s: None,
            throttles: VecDeque::new(),
            corrected: ErrorCounter::default(),
            uncorrected: ErrorCounter::default(),
        }
    }
}

/// Errors beyond those of the scenario: counted ones, and those of a storm that goes on.
#[derive(Debug, Clone, Copy, Default)]
struct ErrorCounter {
    counted: f64,
    since_s: f64,
    per_second: f64,
    /// What of it came before the volatile counter started anew.
    before: f64,
    /// Has the volatile counter started anew, so that the scenario's own count is gone from it?
    cleared: bool,
}

impl ErrorCounter {
    fn at(&self, now_s: f64) -> f64 {
        self.counted + (now_s - self.since_s).max(0.0) * self.per_second
    }

    fn add(&mut self, now_s: f64, count: f64) {
        self.set_rate(now_s, self.per_second);
        self.counted += count;
    }

    fn set_rate(&mut self, now_s: f64, per_second: f64) {
        (self.counted, self.since_s, self.per_second) = (self.at(now_s), now_s, per_second);
    }

    fn clear(&mut self, now_s: f64) {
        self.set_rate(now_s, 0.0);
        (self.before, self.cleared) = (self.counted, true);
    }

    /// Volatile and aggregate count, given those of the scenario.
    fn counts(&self, now_s: f64, volatile: u64, aggregate: u64) -> (u64, u64) {
        let (all, volatile) = (self.at(now_s), if self.cleared { 0 } else { volatile });
        (volatile + (all - self.before) as u64, aggregate + all as u64)
    }
}

impl Board {
    /// Memory errors at a time, given those of the scenario.
    pub(crate) fn ecc(&self, now_s: f64, own: EccCounts) -> EccCounts {
        let (corrected_volatile, corrected_aggregate) =
            self.corrected.counts(now_s, own.corrected_volatile, own.corrected_aggregate);
        let (uncorrected_volatile, uncorrected_aggregate) =
            self.uncorrected.counts(now_s, own.uncorrected_volatile, own.uncorrected_aggregate);
        EccCounts { corrected_volatile, corrected_aggregate, uncorrected_volatile, uncorrected_aggregate }
    }

    /// So many errors more.
    pub(crate) fn add_errors(&mut self, now_s: f64, severity: Severity, count: u64) {
        self.errors(severity).add(now_s, count as f64);
    }

    /// A storm, or its end.
    pub(crate) fn set_error_rate(&mut self, now_s: f64, severity: Severity, per_second: f64) {
        self.errors(severity).set_rate(now_s, per_second);
    }

    fn errors(&mut self, severity: Severity) -> &mut ErrorCounter {
        match severity {
            Severity::Corrected => &mut self.corrected,
            Severity::Uncorrected => &mut self.uncorrected,
        }
    }

    /// What held the clocks down at a time.
    pub(crate) fn throttle_at(&self, at_s: f64) -> Option<Throttle> {
        self.throttles.iter().rev().find(|(from_s, _)| *from_s <= at_s)?.1
    }

    /// Holds the clocks down, or no longer.
    pub(crate) fn set_throttle(&mut self, now_s: f64, throttle: Option<Throttle>) {
        if self.throttles.len() == REMEMBERED_THROTTLES {
            self.throttles.pop_front();
        }
        self.throttles.push_back((now_s, throttle));
    }

    /// What a reset does: counters start anew, what was pending comes into force, storms and throttling end.
    pub(crate) fn reset(&mut self, now_s: f64) {
        self.zero_due_s = Some(now_s);
        self.corrected.clear(now_s);
        self.uncorrected.clear(now_s);
        self.set_throttle(now_s, None);
        self.rows.pending = false;
        if let Some(pages) = &mut self.pages {
            pages.pending = false;
        }
        self.recovery = 0;
        self.links_down = 0;
        self.link_errors.clear();
        self.pcie_replays = 0;
        self.mig.apply_pending();
    }

    /// It is found on the bus again, as after a reset. What was known of it is worth nothing.
    pub(crate) fn come_back(&mut self, now_s: f64) {
        (self.present, self.lost) = (true, false);
        self.life += 1;
        self.reset(now_s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: EccCounts = EccCounts {
        corrected_volatile: 3,
        corrected_aggregate: 10,
        uncorrected_volatile: 0,
        uncorrected_aggregate: 1,
    };

    #[test]
    fn a_storm_counts_by_itself_and_a_reset_clears_what_is_volatile() {
        let mut board = Board::default();
        board.set_error_rate(10.0, Severity::Corrected, 40.0);
        board.add_errors(12.0, Severity::Uncorrected, 2);
        let counts = board.ecc(15.0, OWN);
        assert_eq!((counts.corrected_volatile, counts.corrected_aggregate), (203, 210));
        assert_eq!((counts.uncorrected_volatile, counts.uncorrected_aggregate), (2, 3));
        board.set_error_rate(15.0, Severity::Corrected, 0.0);
        assert_eq!(board.ecc(100.0, OWN).corrected_volatile, 203);
        board.reset(100.0);
        let counts = board.ecc(101.0, OWN);
        assert_eq!((counts.corrected_volatile, counts.corrected_aggregate), (0, 210));
        assert_eq!((counts.uncorrected_volatile, counts.uncorrected_aggregate), (0, 3));
    }

    #[test]
    fn a_throttle_has_a_time() {
        let mut board = Board::default();
        let throttle = Some(Throttle { reasons: 0x48, clock_mhz: 600 });
        board.set_throttle(5.0, throttle);
        board.set_throttle(9.0, None);
        assert_eq!(
            [4.0, 5.0, 8.9, 9.0].map(|at_s| board.throttle_at(at_s)),
            [None, throttle, throttle, None]
        );
    }
}
