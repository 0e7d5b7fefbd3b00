//! Attainment minute by minute.

use std::collections::BTreeMap;

use plimsoll_common::{
    histogram::AttainmentInterval,
    units::{Micros, Ratio},
};
use serde::Serialize;

/// A minute, µs.
const MINUTE: u64 = 60_000_000;

/// Attainment of the requests that arrived in each minute.
#[derive(Clone, Debug, Default)]
pub(super) struct Minutes {
    tallies: BTreeMap<u64, Tally>,
}

/// Requests of one minute: whole ones where each was seen, shares where only marginals were.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    requests: u64,
    low: f64,
    high: f64,
}

impl Tally {
    fn interval(&self) -> Option<AttainmentInterval> {
        let part = |part: f64| {
            AttainmentInterval::exactly(
                Ratio::new((part / self.requests as f64).min(1.0)).unwrap_or_default(),
            )
        };
        (self.requests > 0).then(|| AttainmentInterval::spanning(&part(self.low), &part(self.high)))
    }
}

/// One minute, as reports show it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Minute {
    /// When it began.
    pub at: Micros,
    /// Requests that arrived in it.
    pub requests: u64,
    /// The share of them that attained.
    pub attained: AttainmentInterval,
}

/// How long and how often attainment stayed below its goal, in minutes. A minute without requests violates nothing and
/// ends nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Violations {
    /// Minutes with requests.
    pub minutes: u64,
    /// Minutes that were certainly below the goal.
    pub certain: u64,
    /// Minutes that may have been.
    pub possible: u64,
    /// Stretches of minutes that were certainly below, each up to the first minute that was not.
    pub episodes: u64,
    /// The longest time to recover: from the start of such a stretch to its end.
    pub longest: Micros,
    /// The mean time to recover.
    pub mean: Option<Micros>,
}

impl Minutes {
    pub(super) fn request(&mut self, arrival: Micros, attains: bool) {
        let tally = self.tallies.entry(arrival.0 / MINUTE).or_default();
        tally.requests += 1;
        tally.low += f64::from(u8::from(attains));
        tally.high += f64::from(u8::from(attains));
    }

    pub(super) fn share(&mut self, at: Micros, requests: u64, attained: &AttainmentInterval) {
        let tally = self.tallies.entry(at.0 / MINUTE).or_default();
        tally.requests += requests;
        tally.low += attained.low().get() * requests as f64;
        tally.high += attained.high().get() * requests as f64;
    }

    pub(super) fn overall(&self) -> Option<AttainmentInterval> {
        let all = self.tallies.values().fold(Tally::default(), |sum, tally| Tally {
            requests: sum.requests + tally.requests,
            low: sum.low + tally.low,
            high: sum.high + tally.high,
        });
        all.interval()
    }

    /// Requests that certainly attained.
    pub(super) fn attained(&self) -> f64 {
        self.tallies.values().map(|tally| tally.low).sum()
    }

    pub(super) fn list(&self) -> Vec<Minute> {
        let minute = |(minute, tally): (&u64, &Tally)| {
            let attained = tally.interval()?;
            Some(Minute { at: Micros(minute * MINUTE), requests: tally.requests, attained })
        };
        self.tallies.iter().filter_map(minute).collect()
    }

    pub(super) fn violations(&self, goal: Ratio) -> Violations {
        let mut violations = Violations::default();
        let mut since: Option<Micros> = None;
        let (mut last_end, mut lost) = (Micros::ZERO, Micros::ZERO);
        for minute in self.list() {
            violations.minutes += 1;
            // A hair's breadth of rounding must not make a violation of what exactly meets its goal.
            let below = minute.attained.high().get() < goal.get() - 1e-12;
            violations.possible += u64::from(minute.attained.low().get() < goal.get() - 1e-12);
            if below {
                violations.certain += 1;
                since.get_or_insert(minute.at);
                last_end = minute.at.saturating_add(Micros(MINUTE));
            } else if let Some(start) = since.take() {
                violations.end(last_end.saturating_sub(start), &mut lost);
            }
        }
        if let Some(start) = since {
            violations.end(last_end.saturating_sub(start), &mut lost);
        }
        violations.mean = lost.0.checked_div(violations.episodes).map(Micros);
        violations
    }
}

impl Violations {
    fn end(&mut self, took: Micros, lost: &mut Micros) {
        self.episodes += 1;
        self.longest = self.longest.max(took);
        *lost = lost.saturating_add(took);
    }
}
