//! Scale actions, and those that take back what was done just before.

use std::collections::BTreeMap;

use plimsoll_common::units::Micros;

/// Within how long an opposite action counts as a reversal.
pub const REVERSAL: Micros = Micros(600_000_000);

/// Every change of a target, pool by pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Moves {
    last: BTreeMap<u32, (Micros, bool)>,
    pub(super) actions: u64,
    pub(super) up: u64,
    pub(super) reversals: u64,
}

impl Moves {
    /// Counts one action; actions of a pool come in the order of time. One that changes nothing is none.
    pub(super) fn action(&mut self, pool: u32, at: Micros, from: u32, to: u32) {
        if from == to {
            return;
        }
        let up = to > from;
        self.actions += 1;
        self.up += u64::from(up);
        let before = self.last.insert(pool, (at, up));
        let reversed =
            before.is_some_and(|(then, was_up)| was_up != up && at.saturating_sub(then) <= REVERSAL);
        self.reversals += u64::from(reversed);
    }
}
