//! How well a fleet did: one judge for the live planner and for every simulated one.
//!
//! A [`Scorer`] is told of requests, replicas and scale actions, in any order but for the actions of one pool, and
//! gives a [`Score`]. A simulation and whoever sees single requests tell it of each; a live planner sees marginals only
//! (how many met the TTFT limit, how many the ITL limit) and tells it those, and the score's attainment is then an
//! interval.
//!
//! ```
//! use plimsoll_common::units::Micros;
//! use plimsoll_core::score::{RequestTimes, Scorer, Slo};
//!
//! let mut scorer = Scorer::new(Slo::of_millis(1_000, 30));
//! scorer.request(&RequestTimes {
//!     arrival: Micros(0),
//!     first_token: Some(Micros(400_000)),
//!     last_token: Some(Micros(1_400_000)),
//!     output_tokens: 51,
//! });
//! let score = scorer.finish(Micros(60_000_000));
//! assert_eq!(score.attained.map(|share| share.low().get()), Some(1.0));
//! ```

mod capacity;
mod minutes;
mod moves;
mod slo;

use std::collections::BTreeMap;

use plimsoll_common::{histogram::AttainmentInterval, units::Micros};
use serde::Serialize;

pub use capacity::{GpuHours, Provision, ReplicaTimes};
pub use minutes::{Minute, Violations};
pub use moves::REVERSAL;
pub use slo::{RequestTimes, Slo};

use minutes::Minutes;
use moves::Moves;

/// Takes note of what happened.
#[derive(Clone, Debug)]
pub struct Scorer {
    slo: Slo,
    minutes: Minutes,
    requests: u64,
    finished: u64,
    replicas: Vec<ReplicaTimes>,
    moves: Moves,
    needs: BTreeMap<u32, Vec<(Micros, u32)>>,
}

/// What a live planner knows of the requests of one window: marginals.
#[derive(Clone, Copy, Debug)]
pub struct Marginals {
    /// When the window began.
    pub at: Micros,
    /// Requests that finished.
    pub finished: u64,
    /// Requests that were aborted or refused: they miss.
    pub lost: u64,
    /// The share of the finished ones that met the TTFT limit; none for "nobody knows".
    pub ttft: Option<AttainmentInterval>,
    /// The share of the finished ones whose mean time between tokens met the ITL limit; none for "nobody knows".
    pub itl: Option<AttainmentInterval>,
}

/// How well it went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// What was promised.
    pub slo: Slo,
    /// Requests that arrived.
    pub requests: u64,
    /// Requests that got all their tokens.
    pub finished: u64,
    /// The share of requests that attained: a point where every request was seen. None without requests.
    pub attained: Option<AttainmentInterval>,
    /// Requests that certainly attained, a second.
    pub goodput_rps: f64,
    /// How long and how often attainment per minute was below the goal.
    pub violations: Violations,
    /// GPU time held.
    pub gpu_hours: GpuHours,
    /// Changes of targets.
    pub actions: u64,
    /// Of them, upwards.
    pub actions_up: u64,
    /// Changes that went the other way than the one before in their pool, within [`REVERSAL`].
    pub reversals: u64,
    /// Reversals an hour.
    pub reversals_per_hour: f64,
    /// How far ready capacity was from need, if anybody said what was needed.
    pub provision: Option<Provision>,
    /// From time zero to the end.
    pub span: Micros,
}

impl Score {
    /// Whether the promise was certainly kept over the whole time.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.attained.is_some_and(|attained| attained.low().get() >= self.slo.goal.get() - 1e-12)
    }
}

impl Scorer {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(slo: Slo) -> Self {
        Self {
            slo,
            minutes: Minutes::default(),
            requests: 0,
            finished: 0,
            replicas: Vec::new(),
            moves: Moves::default(),
            needs: BTreeMap::new(),
        }
    }

    /// One request, finished or not; it counts in the minute of its arrival.
    pub fn request(&mut self, request: &RequestTimes) {
        self.requests += 1;
        self.finished += u64::from(request.last_token.is_some());
        self.minutes.request(request.arrival, self.slo.attains(request));
    }

    /// A window of requests of which only marginals are known.
    pub fn marginals(&mut self, window: &Marginals) {
        self.requests += window.finished + window.lost;
        self.finished += window.finished;
        let known = |share: Option<AttainmentInterval>, limit: Option<Micros>| match (share, limit) {
            (_, None) => AttainmentInterval::exactly(plimsoll_common::units::Ratio::from_ppm(1_000_000)),
            (Some(share), Some(_)) => share,
            (None, Some(_)) => AttainmentInterval::unknown(),
        };
        let both = known(window.ttft, self.slo.ttft).and(&known(window.itl, self.slo.itl));
        let none = AttainmentInterval::exactly(plimsoll_common::units::Ratio::from_ppm(0));
        self.minutes.share(window.at, window.finished, &both);
        self.minutes.share(window.at, window.lost, &none);
    }

    /// One replica's life.
    pub fn replica(&mut self, replica: ReplicaTimes) {
        self.replicas.push(replica);
    }

    /// A pool's target changed; those of one pool are told in the order of time.
    pub fn action(&mut self, pool: u32, at: Micros, from: u32, to: u32) {
        self.moves.action(pool, at, from, to);
    }

    /// From `at` on a pool needed so many replicas; told in the order of time. What is needed is for an oracle to say.
    pub fn need(&mut self, pool: u32, at: Micros, replicas: u32) {
        self.needs.entry(pool).or_default().push((at, replicas));
    }

    /// Attainment minute by minute.
    #[must_use]
    pub fn minutes(&self) -> Vec<Minute> {
        self.minutes.list()
    }

    /// Sums up from time zero to `end`.
    #[must_use]
    pub fn finish(&self, end: Micros) -> Score {
        let mut gpu_hours = GpuHours::default();
        for replica in &self.replicas {
            gpu_hours.add(replica, end);
        }
        let (seconds, hours) = (end.as_secs_f64(), end.as_secs_f64() / 3_600.0);
        let per = |n: f64, time: f64| if time > 0.0 { n / time } else { 0.0 };
        let provision = capacity::provision(&self.replicas, &self.needs, end);
        Score {
            slo: self.slo,
            requests: self.requests,
            finished: self.finished,
            attained: self.minutes.overall(),
            goodput_rps: per(self.minutes.attained(), seconds),
            violations: self.minutes.violations(self.slo.goal),
            gpu_hours,
            actions: self.moves.actions,
            actions_up: self.moves.up,
            reversals: self.moves.reversals,
            reversals_per_hour: per(self.moves.reversals as f64, hours),
            provision: (!self.needs.is_empty()).then_some(provision),
            span: end,
        }
    }
}

#[cfg(test)]
mod tests;
