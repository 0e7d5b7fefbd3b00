//! How many requests missed what was promised: what the error budget books.

use plimsoll_common::{engine::Role, units::Micros};

use super::Pool;
use crate::{
    budget::Missed,
    observe::{Engine, Observation},
    score::Slo,
};

impl Pool {
    /// Books what was used of the error budget: what the engines' latencies tell, and where they don't tell all of it, what
    /// the model believes, too.
    pub(super) fn book(&mut self, now: Micros, seen: &Observation) {
        let Some(posed) = &self.derived().posed else { return };
        let known = self.table.known(now, posed);
        let slo = posed.question().slo;
        let (Some(rate), window) = (self.demand.rate(), seen.window) else { return };
        let allowed = 1.0 - slo.goal.get();
        let requests = rate * window.as_secs_f64();
        let ready = f64::from(seen.replicas.ready) * self.engines_per_replica();
        // What was never searched is a guess, and no misses are believed by a guess.
        let believed = if self.is_unsearched() { 0.0 } else { known.capacity.spent(ready, rate) * allowed };
        let believed = believed.min(1.0);
        let (told, believed) = match self.told(seen, &slo) {
            Some((told, true)) => (told, told),
            // A short answer misses by one late token that no engine's mean shows: the truth lies between them.
            Some((told, false)) => (told, believed),
            None => (believed, believed),
        };
        let missed = Missed { told: requests * told, believed: requests * believed };
        self.budget.observe(window, requests, allowed, missed);
    }

    /// The share of requests that missed as the engines tell, and whether that is exact; none where they do not tell all
    /// that is promised.
    fn told(&self, seen: &Observation, slo: &Slo) -> Option<(f64, bool)> {
        let first =
            slo.ttft.filter(|_| self.spec.role != Role::Decode).map(|limit| late_first_tokens(seen, limit));
        let others =
            slo.itl.filter(|_| self.spec.role != Role::Prefill).map(|limit| late_tokens(seen, limit));
        match (first, others) {
            (Some(first), Some(others)) => Some((first?.0.max(others?), false)),
            (Some(first), None) => first,
            (None, others) => Some((others??, false)),
        }
    }
}

/// The share of requests whose first token came late, and whether that is exact: so it is where the limit is the edge of
/// one of the engines' buckets; otherwise it is what certainly came late. Where only means are told, it is what would of
/// times that are the sum of two exponential ones of the same mean (Erlang-2): waiting is one by itself, and what a prompt
/// takes to compute varies less. None without samples.
fn late_first_tokens(seen: &Observation, limit: Micros) -> Option<(f64, bool)> {
    let ttft = seen.ttft();
    let samples = (ttft.count > 0).then_some(ttft.count as f64)?;
    if let Some((certain, possible)) = ttft.within {
        return Some((1.0 - possible.min(ttft.count) as f64 / samples, certain == possible));
    }
    let late = |engine: &Engine| {
        let mean = engine.ttft.mean_s().filter(|mean| *mean > 0.0)?;
        let phases = 2.0 * limit.as_secs_f64() / mean;
        Some((-phases).exp() * (1.0 + phases) * engine.ttft.count as f64)
    };
    Some((seen.engines.values().filter_map(late).sum::<f64>() / samples, false))
}

/// The share of tokens that came from engines whose mean time between tokens was above the limit; none without tokens. A
/// request's mean is about that of its engine while it ran.
fn late_tokens(seen: &Observation, limit: Micros) -> Option<f64> {
    let (mut late, mut all) = (0.0, 0.0);
    for itl in seen.engines.values().map(|engine| &engine.itl) {
        all += itl.count as f64;
        late +=
            if itl.mean_s().is_some_and(|mean| mean > limit.as_secs_f64()) { itl.count as f64 } else { 0.0 };
    }
    (all > 0.0).then(|| late / all)
}

#[cfg(test)]
mod tests {
    use plimsoll_common::ids::EngineId;

    use super::*;
    use crate::observe::Latency;

    fn engine(itl_ms: u64, tokens: u64, ttft: (u64, u64)) -> Engine {
        let itl = Latency { count: tokens, sum: Micros(itl_ms * 1_000 * tokens), within: None };
        let (count, possible) = ttft;
        let ttft = Latency { count, sum: Micros(count), within: Some((0, possible)) };
        Engine { itl, ttft, ..Engine::default() }
    }

    fn seen(engines: Vec<Engine>) -> Observation {
        let mut seen = Observation::new("p".parse().unwrap(), Micros(5_000_000));
        let names = ["a", "b", "c"].map(|name| EngineId::parse(name).unwrap());
        seen.engines = names.into_iter().zip(engines).collect();
        seen
    }

    #[test]
    fn late_tokens_are_those_of_engines_that_were_slow_for_a_window() {
        let observed = seen(vec![engine(20, 300, (8, 6)), engine(40, 100, (2, 2))]);
        assert_eq!(late_tokens(&observed, Micros(30_000)), Some(0.25));
        assert_eq!(late_tokens(&observed, Micros(50_000)), Some(0.0));
        // Two first tokens of ten certainly came late; what is between two edges is nobody's miss for sure.
        let (late, is_exact) = late_first_tokens(&observed, Micros(1_000_000)).unwrap();
        assert!((late - 0.2).abs() < 1e-12 && !is_exact);
    }

    #[test]
    fn who_tells_nothing_is_not_taken_for_punctual() {
        assert_eq!(late_tokens(&seen(vec![]), Micros(30_000)), None);
        assert_eq!(late_tokens(&seen(vec![engine(0, 0, (0, 0))]), Micros(30_000)), None);
        assert_eq!(late_first_tokens(&seen(vec![engine(20, 10, (0, 0))]), Micros(1_000_000)), None);
    }
}
