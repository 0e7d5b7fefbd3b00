//! The reactive loop: one replica more or less.

use plimsoll_common::engine::Role;
use plimsoll_core::score::Slo;
use plimsoll_engine::EngineConfig;

use super::{
    super::capacity::{Lengths, decode_s, prefill_s},
    Target,
};
use crate::policy::{PoolObservation, ReplicaObservation};

/// How much of the limit may be used after a reduction.
const SENSITIVITY: f64 = 0.8;

/// Where a loop wants to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Up,
    Stay,
    Down,
}

/// When a static target moves, on its pool's signal.
#[derive(Clone, Copy, Debug)]
struct Rule {
    /// Up if any engine is above it, or at it.
    up: (f64, bool),
    /// Down if all engines are below it, or at it.
    down: (f64, bool),
}

impl Rule {
    fn of(target: Target, role: Role) -> Option<Self> {
        let prefill = role == Role::Prefill;
        let (up, down) = match target {
            Target::Throughput if prefill => ((1.0, true), (0.1, false)),
            Target::Throughput => ((1.0, false), (0.6, false)),
            Target::Latency if prefill => ((0.1, true), (0.0, true)),
            Target::Latency => ((0.4, false), (0.1, false)),
            Target::Load(given) if prefill => ((given.prefill_up, true), (given.prefill_down, true)),
            Target::Load(given) => ((given.decode_up, true), (given.decode_down, true)),
            Target::Sla => return None,
        };
        Some(Self { up, down })
    }

    fn decide(&self, signals: &[f64]) -> Move {
        let n = signals.len() as f64;
        let most = signals.iter().copied().fold(0.0, f64::max);
        if most > self.up.0 || (self.up.1 && most >= self.up.0) {
            return Move::Up;
        }
        let low = most < self.down.0 || (self.down.1 && most <= self.down.0);
        // What all hold, on one fewer, must not call for it again.
        if low && n > 1.0 && most * n / (n - 1.0) < self.up.0 { Move::Down } else { Move::Stay }
    }
}

/// What one pool's engines say, for all that do not drain.
pub(super) fn decide(
    target: Target,
    engine: &EngineConfig,
    pool: &PoolObservation,
    lengths: Option<&Lengths>,
    slo: &Slo,
) -> Move {
    let told: Vec<&ReplicaObservation> = pool.replicas.iter().filter(|replica| !replica.draining).collect();
    if told.is_empty() {
        return Move::Stay;
    }
    if let Some(rule) = Rule::of(target, pool.role) {
        let signals: Vec<f64> =
            told.iter().map(|replica| signal(target, engine, pool.role, replica)).collect();
        return rule.decide(&signals);
    }
    let Some(lengths) = lengths else { return Move::Stay };
    let sla = Sla { engine, lengths, slo, told: &told };
    match pool.role {
        Role::Prefill => sla.ttft(),
        Role::Decode => sla.itl(false),
        _ => match (sla.ttft(), sla.itl(true)) {
            (Move::Up, _) | (_, Move::Up) => Move::Up,
            (Move::Down, Move::Down) => Move::Down,
            _ => Move::Stay,
        },
    }
}

/// The signal of a static target.
fn signal(target: Target, engine: &EngineConfig, role: Role, replica: &ReplicaObservation) -> f64 {
    let queued = replica.queued_prefill_tokens as f64;
    let held = (replica.decode_context + replica.queued_context) as f64;
    match (role, target) {
        (Role::Prefill, Target::Load(_)) => queued,
        (Role::Prefill, _) => queued / f64::from(engine.max_model_len),
        (Role::Decode, _) => held / engine.kv_tokens() as f64,
        _ => (held + queued) / engine.kv_tokens() as f64,
    }
}

/// The target `sla`: by the estimated latency of one request more.
struct Sla<'a> {
    engine: &'a EngineConfig,
    lengths: &'a Lengths,
    slo: &'a Slo,
    told: &'a [&'a ReplicaObservation],
}

impl Sla<'_> {
    /// What is left if the load of N engines is laid on N − 1; none with a single engine.
    fn consolidation(&self) -> Option<f64> {
        let n = self.told.len() as f64;
        (n > 1.0).then(|| n / (n - 1.0))
    }

    fn ttft(&self) -> Move {
        let Some(limit) = self.slo.ttft.map(|limit| limit.as_secs_f64()) else { return Move::Down };
        let known = 1.0 - self.lengths.hit.clamp(0.0, 0.95);
        let estimate = |replica: &ReplicaObservation, times: f64| {
            let tokens = (replica.queued_prefill_tokens as f64 * times + self.lengths.isl) * known;
            let decodes = (f64::from(replica.decode_sequences), replica.decode_context as f64);
            prefill_s(self.engine, tokens, self.lengths, decodes)
        };
        if self.told.iter().all(|replica| estimate(replica, 1.0) > limit) {
            return Move::Up;
        }
        let own = prefill_s(self.engine, self.lengths.to_compute(), self.lengths, (0.0, 0.0));
        let room = (limit - own) * SENSITIVITY;
        let fits = |times: f64| self.told.iter().all(|replica| estimate(replica, times) - own < room);
        if self.consolidation().is_some_and(fits) { Move::Down } else { Move::Stay }
    }

    fn itl(&self, with_prefill: bool) -> Move {
        let Some(limit) = self.slo.itl.map(|limit| limit.as_secs_f64()) else { return Move::Down };
        let load = |replica: &ReplicaObservation, times: f64| {
            let queued = if with_prefill { replica.queued_prefill_tokens } else { 0 };
            let held = (replica.decode_context + replica.queued_context + queued) as f64 * times;
            let sequences = f64::from(replica.decode_sequences + replica.waiting) * times;
            (sequences, held)
        };
        let estimate = |(sequences, held): (f64, f64)| {
            decode_s(self.engine, sequences + 1.0, held + self.lengths.context())
        };
        if self.told.iter().all(|replica| estimate(load(replica, 1.0)) > limit) {
            return Move::Up;
        }
        let fits = |times: f64| {
            self.told.iter().all(|replica| {
                let load = load(replica, times);
                load.1 < self.engine.kv_tokens() as f64 && estimate(load) < SENSITIVITY * limit
            })
        };
        if self.consolidation().is_some_and(fits) { Move::Down } else { Move::Stay }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_targets_move_by_any_up_and_by_all_down() {
        let rule = Rule::of(Target::Throughput, Role::Decode).unwrap();
        assert_eq!(rule.decide(&[1.0, 0.2]), Move::Stay);
        assert_eq!(rule.decide(&[1.01, 0.2]), Move::Up);
        assert_eq!(rule.decide(&[0.5, 0.6]), Move::Stay);
        // 0.55 × 2 is above the threshold, 0.55 × 3 / 2 is not.
        assert_eq!(rule.decide(&[0.55, 0.2]), Move::Stay);
        assert_eq!(rule.decide(&[0.55, 0.2, 0.1]), Move::Down);
        let rule = Rule::of(Target::Latency, Role::Prefill).unwrap();
        assert_eq!(rule.decide(&[0.1, 0.0]), Move::Up);
        assert_eq!(rule.decide(&[0.05, 0.0]), Move::Stay);
        assert_eq!(rule.decide(&[0.0, 0.0]), Move::Down);
        assert_eq!(rule.decide(&[0.0]), Move::Stay);
    }
}
