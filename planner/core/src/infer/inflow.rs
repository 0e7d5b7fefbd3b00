//! How many requests came, by what engines hold and what left them.

use std::collections::BTreeMap;

use plimsoll_common::{
    ids::{EngineId, PoolName},
    units::Micros,
};
use serde::{Deserialize, Serialize};

use super::TokenLengths;
use crate::observe::{Engine, Observation};

/// What a pool's engines held when they were seen last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inflow {
    /// Which pool that was; none before the first observation.
    pool: Option<PoolName>,
    /// Requests that each engine held.
    held: BTreeMap<EngineId, u64>,
    /// Requests that were counted though they had been counted before: subtracted from what comes next.
    owed: f64,
}

impl Inflow {
    /// Takes what was seen and gives the requests that came since the observation before: those that left, by counters
    /// or else by tokens and the lengths believed, and what the engines hold more than before. None where nothing tells,
    /// or at the first observation of a pool, since nobody knows when what is held then came.
    pub fn observe(&mut self, seen: &Observation, lengths: Option<&TokenLengths>) -> Option<f64> {
        let known = self.pool.as_ref() == Some(&seen.pool);
        if !known {
            *self = Self { pool: Some(seen.pool.clone()), ..Self::default() };
        }
        let before = std::mem::take(&mut self.held);
        let (mut came, mut told) = (0.0, false);
        for (id, engine) in &seen.engines {
            let held = held(engine);
            // One that is new held nothing; one that is gone took what it held with it.
            let more = held.map_or(0.0, |now| now as f64 - before.get(id).copied().unwrap_or(0) as f64);
            self.held.extend(held.map(|held| (id.clone(), held)));
            if let Some(left) = left(engine, seen.window, lengths) {
                told = true;
                came += left + more;
            }
        }
        if !(known && told) {
            return None;
        }
        // Gauges and counters are not read at the same moment, so a window may come out below zero.
        let came = came - self.owed;
        self.owed = (-came).clamp(0.0, 1e9);
        Some(came.clamp(0.0, 1e12))
    }
}

fn held(engine: &Engine) -> Option<u64> {
    match (engine.running, engine.waiting) {
        (None, None) => None,
        (running, waiting) => Some(running.unwrap_or(0).saturating_add(waiting.unwrap_or(0))),
    }
}

/// Requests that left an engine in a window.
fn left(engine: &Engine, window: Micros, lengths: Option<&TokenLengths>) -> Option<f64> {
    if let Some(finished) = engine.gained.finished {
        return Some(finished as f64);
    }
    let lengths = lengths?;
    let per = |tokens: Option<u64>, each: Option<f64>| {
        let each = each.filter(|each| *each >= 1.0)?;
        tokens.map(|tokens| tokens as f64 / each)
    };
    let generated = per(engine.gained.generated_tokens, lengths.output);
    let by_tokens = generated.or_else(|| per(engine.gained.prefilled_tokens, lengths.to_compute));
    by_tokens.or_else(|| {
        // Little: those that run get a token each in the time between two tokens.
        let rate = engine.running? as f64 / engine.itl.mean_s().filter(|itl| *itl > 0.0)?;
        Some(rate * window.as_secs_f64() / lengths.output.filter(|output| *output >= 1.0)?)
    })
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
}
