//! How much a fleet may hold, and when silence becomes a fact.

use plimsoll_common::units::Micros;
use serde::Serialize;

/// Bounds of a [`Fleet`](super::Fleet). What does not fit is refused and counted in [`Ledger`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most nodes.
    pub max_nodes: usize,
    /// The most GPUs.
    pub max_gpus: usize,
    /// The most engines.
    pub max_engines: usize,
    /// The most pools.
    pub max_pools: usize,
    /// The most different `le` layouts; at most 65,535.
    pub max_layouts: usize,
    /// A value older than this (or than three of its node's reports, if that is longer) is stale.
    pub stale_after: Micros,
    /// A value older than this (or than twice the time after which it is stale) comes from a silent source.
    pub silent_after: Micros,
    /// What was not observed for this long is forgotten.
    pub forget_after: Micros,
    /// A node whose agent said that it leaves is forgotten after this long: an agent that is only being upgraded is
    /// back before. So is an engine that its agent no longer names.
    pub forget_left_after: Micros,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_nodes: 25_000,
            max_gpus: 250_000,
            max_engines: 250_000,
            max_pools: 5_000,
            max_layouts: 4_096,
            stale_after: Micros::from_millis(5_000),
            silent_after: Micros::from_millis(30_000),
            forget_after: Micros::from_millis(3_600_000),
            forget_left_after: Micros::from_millis(60_000),
        }
    }
}

/// How fresh something is. Worse is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Freshness {
    /// Observed within the last few reports.
    Live,
    /// Late; its last values are shown with their age.
    Stale,
    /// Not heard of for long; it may be gone.
    Silent,
}

impl Freshness {
    /// The name in labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Silent => "silent",
        }
    }

    /// All of them, from best to worst.
    pub const ALL: &[Self] = &[Self::Live, Self::Stale, Self::Silent];
}

impl Limits {
    /// How fresh a value of this age is, given the time between two reports of its node.
    #[must_use]
    pub fn freshness(&self, age: Micros, cadence: Micros) -> Freshness {
        let stale = self.stale_after.max(Micros(cadence.0.saturating_mul(3)));
        let silent = self.silent_after.max(Micros(stale.0.saturating_mul(2)));
        if age > silent {
            Freshness::Silent
        } else if age > stale {
            Freshness::Stale
        } else {
            Freshness::Live
        }
    }
}

/// What the fleet took, and what it could not take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Observations that were folded in.
    pub observed: u64,
    /// Observations refused because there were too many nodes.
    pub refused_nodes: u64,
    /// GPU rows refused because there were too many GPUs.
    pub refused_gpus: u64,
    /// Engine rows refused because there were too many engines.
    pub refused_engines: u64,
    /// Engine rows refused because there were too many pools.
    pub refused_pools: u64,
    /// Distributions that count in totals only, because there were too many different `le` layouts.
    pub refused_layouts: u64,
    /// Observations that count in totals, but not in every window, because they were too late or too long for one.
    pub outside_windows: u64,
    /// Nodes that were forgotten.
    pub forgotten_nodes: u64,
}
