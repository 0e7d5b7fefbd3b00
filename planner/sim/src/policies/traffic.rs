//! What came in during the last interval.

use plimsoll_common::{engine::Role, units::Micros};

use super::capacity::Lengths;
use crate::policy::PoolObservation;

/// One model's requests: of the interval under way, and means of the one before.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    window: Micros,
    arrived: u64,
    prompt_tokens: u64,
    finished: u64,
    output_tokens: u64,
    queried: u64,
    hits: u64,
    before: Option<Lengths>,
}

impl Traffic {
    pub(super) fn add(&mut self, pool: &PoolObservation, window: Micros) {
        let enters = pool.role != Role::Decode;
        if enters {
            self.window = self.window.saturating_add(window);
        }
        for replica in &pool.replicas {
            let gained = &replica.gained;
            if enters {
                self.queried += gained.cache_query_tokens;
                self.hits += gained.cache_hit_tokens;
                if pool.door.is_none() {
                    self.arrived += gained.arrived;
                    self.prompt_tokens += gained.arrived_prompt_tokens;
                }
            }
            if pool.role != Role::Prefill {
                self.finished += gained.finished;
                self.output_tokens += gained.finished_output_tokens;
            }
        }
        if let Some(door) = pool.door.filter(|_| enters) {
            self.arrived += door.arrived;
            self.prompt_tokens += door.arrived_prompt_tokens;
        }
    }

    /// Requests a second.
    pub(super) fn rate(&self) -> Option<f64> {
        (self.window > Micros::ZERO).then(|| self.arrived as f64 / self.window.as_secs_f64())
    }

    /// Mean lengths; those of the interval before where nothing came in this one.
    pub(super) fn lengths(&self) -> Option<Lengths> {
        let mean = |sum: u64, n: u64| (n > 0).then(|| sum as f64 / n as f64);
        let before = |of: fn(&Lengths) -> f64| self.before.as_ref().map(of);
        Some(Lengths {
            isl: mean(self.prompt_tokens, self.arrived).or_else(|| before(|lengths| lengths.isl))?,
            osl: mean(self.output_tokens, self.finished).or_else(|| before(|lengths| lengths.osl))?,
            hit: mean(self.hits, self.queried).or_else(|| before(|lengths| lengths.hit)).unwrap_or_default(),
        })
    }

    /// The next interval begins.
    pub(super) fn begin(&mut self) {
        *self = Self { before: self.lengths(), ..Self::default() };
    }
}
