//! How many requests came, by what engines hold and what left them.

use std::collections::BTreeMap;

use plimsoll_common::{
    ids::{EngineId, PoolName},
    units::Micros,
};
use serde::{Deserialize, Serialize};

use super::TokenLengths;
use crate::observe::{Engine, Observation};

/// Time in which what is known of the error of what was inferred counts half, s.
const ERROR_HALF_LIFE_S: f64 = 600.0;

/// Requests that came by which an error is known.
const ENOUGH: f64 = 50.0;

/// The most that inferring is believed to add to the index of dispersion of what came.
const MOST_ERROR: f64 = 4.0;

/// The most that one window counts, as the squared error of a request.
const OUTLIER: f64 = 16.0;

/// What a pool's engines held when they were seen last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inflow {
    /// Which pool that was; none before the first observation.
    pool: Option<PoolName>,
    /// Requests that each engine held.
    held: BTreeMap<EngineId, Held>,
    /// Requests that were counted though they had been counted before: subtracted from what comes next.
    owed: f64,
    /// Squared errors of what was inferred and the requests that came, both fading.
    error: (f64, f64),
}

/// Requests that an engine holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    all: u64,
    waiting: u64,
}

/// Requests that came to an engine in a window.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Came {
    /// By one way of telling.
    Once(f64),
    /// By what left and is held more, and by prompts computed: each errs by itself.
    Twice(f64, f64),
}

impl Inflow {
    /// Takes what was seen and gives the requests that came since the observation before: those that left, by counters
    /// or else by tokens and the lengths believed, and what the engines hold more than before. Where tokens of prompts are
    /// told, too, the mean of that and of the prompts computed, and those that wait more than before. None where nothing
    /// tells, or at the first observation of a pool, since nobody knows when what is held then came.
    pub fn observe(&mut self, seen: &Observation, lengths: Option<&TokenLengths>) -> Option<f64> {
        let known = self.pool.as_ref() == Some(&seen.pool);
        if !known {
            *self = Self { pool: Some(seen.pool.clone()), ..Self::default() };
        }
        let before = std::mem::take(&mut self.held);
        let (mut came, mut apart, mut told) = (0.0, 0.0, false);
        for (id, engine) in &seen.engines {
            // One that is new held nothing; one that is gone took what it held with it.
            let held = held(engine);
            let before = before.get(id).copied().unwrap_or_default();
            self.held.extend(held.map(|held| (id.clone(), held)));
            match came_to(engine, held.map(|held| (before, held)), seen.window, lengths) {
                Some(Came::Once(one)) => (came, told) = (came + one, true),
                Some(Came::Twice(one, other)) => {
                    (came, told) = (came + f64::midpoint(one, other), true);
                    apart += one - other;
                }
                None => {}
            }
        }
        if !(known && told) {
            return None;
        }
        self.learn_error(seen.window, apart, came);
        // Gauges and counters are not read at the same moment, so a window may come out below zero.
        let came = came - self.owed;
        self.owed = (-came).clamp(0.0, 1e9);
        Some(came.clamp(0.0, 1e12))
    }

    /// The variance of what two ways of telling differ by is the sum of both their errors', since what came is in both; the
    /// mean of two errs by a quarter of it.
    fn learn_error(&mut self, window: Micros, apart: f64, came: f64) {
        let kept = 0.5_f64.powf(window.as_secs_f64().min(1e6) / ERROR_HALF_LIFE_S);
        let (squares, requests) = self.error;
        // A counter that jumps is no error that comes again.
        let (came, square) = (came.max(0.0), apart * apart / 4.0);
        self.error = (squares * kept + square.min(OUTLIER * came), requests * kept + came);
    }

    /// What inferring adds to the index of dispersion of what came, variance over mean: from 0, where it is not known or
    /// nothing is inferred, to 4.
    #[must_use]
    pub fn error(&self) -> f64 {
        let (squares, requests) = self.error;
        if requests < ENOUGH { 0.0 } else { (squares / requests).clamp(0.0, MOST_ERROR) }
    }
}

fn held(engine: &Engine) -> Option<Held> {
    match (engine.running, engine.waiting) {
        (None, None) => None,
        (running, waiting) => {
            let waiting = waiting.unwrap_or(0);
            Some(Held { all: running.unwrap_or(0).saturating_add(waiting), waiting })
        }
    }
}

/// Requests that came to an engine in a window, which held these before and after.
fn came_to(
    engine: &Engine,
    held: Option<(Held, Held)>,
    window: Micros,
    lengths: Option<&TokenLengths>,
) -> Option<Came> {
    let more = |of: fn(Held) -> u64| held.map_or(0.0, |(before, now)| of(now) as f64 - of(before) as f64);
    let more_held = more(|held| held.all);
    if let Some(finished) = engine.gained.finished {
        return Some(Came::Once(finished as f64 + more_held));
    }
    let lengths = lengths?;
    let per = |tokens: Option<u64>, each: Option<f64>| {
        let each = each.filter(|each| *each >= 1.0)?;
        tokens.map(|tokens| tokens as f64 / each)
    };
    let left = per(engine.gained.generated_tokens, lengths.output).map(|left| left + more_held);
    let computed = per(engine.gained.prefilled_tokens, lengths.to_compute);
    match (left, computed) {
        (Some(left), Some(computed)) => Some(Came::Twice(left, computed + more(|held| held.waiting))),
        (Some(left), None) => Some(Came::Once(left)),
        (None, Some(computed)) => Some(Came::Once(computed + more_held)),
        (None, None) => {
            // Little: those that run get a token each in the time between two tokens.
            let rate = engine.running? as f64 / engine.itl.mean_s().filter(|itl| *itl > 0.0)?;
            let output = lengths.output.filter(|output| *output >= 1.0)?;
            Some(Came::Once(rate * window.as_secs_f64() / output + more_held))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Gained, Latency};

    const WINDOW: Micros = Micros(10_000_000);
    const LENGTHS: TokenLengths = TokenLengths { output: Some(200.0), to_compute: Some(1_000.0) };

    fn seen(engines: Vec<(&str, Engine)>) -> Observation {
        let mut seen = Observation::new(PoolName::parse("a").unwrap(), WINDOW);
        seen.engines = engines.into_iter().map(|(id, e)| (EngineId::parse(id).unwrap(), e)).collect();
        seen
    }

    fn engine(held: u64, gained: Gained) -> Engine {
        Engine { running: Some(held), waiting: Some(0), gained, ..Engine::default() }
    }

    fn close(a: Option<f64>, b: f64) -> bool {
        a.is_some_and(|a| (a - b).abs() < 1e-9)
    }

    #[test]
    fn what_left_and_what_is_held_more_came() {
        let finished = |n| Gained { finished: Some(n), ..Gained::default() };
        let mut inflow = Inflow::default();
        assert_eq!(inflow.observe(&seen(vec![("0", engine(50, finished(7)))]), None), None);
        assert!(close(inflow.observe(&seen(vec![("0", engine(55, finished(20)))]), None), 25.0));
        // A new engine held nothing before; one that is gone took its requests along.
        assert!(close(inflow.observe(&seen(vec![("1", engine(3, finished(2)))]), None), 5.0));
        // What comes out below zero is owed.
        assert!(close(inflow.observe(&seen(vec![("1", engine(0, finished(1)))]), None), 0.0));
        assert!(close(inflow.observe(&seen(vec![("1", engine(4, finished(2)))]), None), 4.0));
    }

    #[test]
    fn without_a_count_tokens_tell_and_without_tokens_the_time_between_them() {
        let tokens = Gained { generated_tokens: Some(2_000), ..Gained::default() };
        let itl = Latency { count: 10, sum: Micros(200_000), within: None };
        for told in [engine(4, tokens), Engine { itl, ..engine(4, Gained::default()) }] {
            let mut inflow = Inflow::default();
            inflow.observe(&seen(vec![("0", told.clone())]), Some(&LENGTHS));
            assert!(close(inflow.observe(&seen(vec![("0", told)]), Some(&LENGTHS)), 10.0));
        }
        let mut inflow = Inflow::default();
        let nothing = seen(vec![("0", engine(4, Gained::default()))]);
        inflow.observe(&nothing, Some(&LENGTHS));
        assert_eq!(inflow.observe(&nothing, Some(&LENGTHS)), None);
    }

    #[test]
    fn what_two_ways_of_telling_differ_by_is_known_as_their_error() {
        let tokens = |prefilled| Gained {
            generated_tokens: Some(2_000),
            prefilled_tokens: Some(prefilled),
            ..Gained::default()
        };
        let mut inflow = Inflow::default();
        inflow.observe(&seen(vec![("0", engine(4, tokens(10_000)))]), Some(&LENGTHS));
        // Ten left and two are held more; of prompts, eight were computed.
        let came = inflow.observe(&seen(vec![("0", engine(6, tokens(8_000)))]), Some(&LENGTHS));
        assert!(close(came, 10.0), "{came:?}");
        assert!(inflow.error() < 1e-9, "one window tells nothing");
        // Ten by one, six or fourteen by the other: a variance of 16 in what they differ by, 4 in their mean, of 10.
        for prefilled in [6_000, 14_000].into_iter().cycle().take(200) {
            inflow.observe(&seen(vec![("0", engine(6, tokens(prefilled)))]), Some(&LENGTHS));
        }
        assert!((inflow.error() - 0.4).abs() < 0.02, "{}", inflow.error());
        // Who counts what finished infers nothing.
        let counted = Gained { finished: Some(9), ..tokens(6_000) };
        assert!(close(inflow.observe(&seen(vec![("0", engine(7, counted))]), Some(&LENGTHS)), 10.0));
    }
}
