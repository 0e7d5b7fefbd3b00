//! What happened.

use plimsoll_common::units::Micros;
use plimsoll_core::score::{ReplicaTimes, RequestTimes, Score, Scorer, Slo};
use serde::Serialize;

use crate::policy::{PoolId, ReplicaId};

/// All that happened in one run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The policy's name.
    pub policy: String,
    /// When the last request had ended, or patience had: what replicas are billed to.
    pub end: Micros,
    /// Every request, in the order of the workload.
    pub requests: Vec<RequestRecord>,
    /// Every replica that was ever asked for, by id.
    pub replicas: Vec<ReplicaSpan>,
    /// Every change of a target, in the order of time.
    pub actions: Vec<Action>,
    /// What the pools looked like at the start and at every tick, by time and then by pool.
    pub samples: Vec<PoolSample>,
    /// GPUs of one replica, by pool.
    pub gpus_per_replica: Vec<u32>,
    /// The names of the pools.
    pub pools: Vec<String>,
}

impl Outcome {
    /// How well it went.
    #[must_use]
    pub fn score(&self, slo: Slo) -> Score {
        self.scorer(slo).finish(self.end)
    }

    /// All that happened, told to the judge: for who wants the minutes too, or knows what was needed.
    #[must_use]
    pub fn scorer(&self, slo: Slo) -> Scorer {
        let mut scorer = Scorer::new(slo);
        for request in &self.requests {
            scorer.request(&request.times());
        }
        for span in &self.replicas {
            let gpus = self.gpus_per_replica.get(span.pool.0 as usize).copied().unwrap_or_default();
            scorer.replica(ReplicaTimes {
                pool: span.pool.0,
                gpus,
                requested: span.requested,
                ready: span.ready,
                draining: span.draining,
                gone: span.gone,
            });
        }
        for action in &self.actions {
            scorer.action(action.pool.0, action.at, action.from, action.to);
        }
        scorer
    }

    /// Requests that ended like this.
    #[must_use]
    pub fn count(&self, ending: Ending) -> usize {
        self.requests.iter().filter(|request| request.ending == ending).count()
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It had not when patience ended.
    Unfinished,
    /// It got every token.
    Finished,
    /// Its replica died, or was stopped before it was done.
    Aborted,
    /// An engine refused it: too long, or too many waited.
    Rejected,
}

/// One request's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// When it arrived.
    pub arrival: Micros,
    /// Prompt length, tokens.
    pub prompt_tokens: u32,
    /// Output length, tokens.
    pub output_tokens: u32,
    /// Prompt tokens found in a prefix cache.
    pub cached_tokens: u32,
    /// Which model it asked for.
    pub model: u16,
    /// When its first token came out.
    pub first_token: Option<Micros>,
    /// When its last one did, if it finished.
    pub last_token: Option<Micros>,
    /// How it ended.
    pub ending: Ending,
    /// How often it was begun again because its replica died.
    pub retries: u8,
}

impl RequestRecord {
    /// Its times, as the judge takes them.
    #[must_use]
    pub const fn times(&self) -> RequestTimes {
        RequestTimes {
            arrival: self.arrival,
            first_token: self.first_token,
            last_token: self.last_token,
            output_tokens: self.output_tokens,
        }
    }

    /// Time to first token.
    #[must_use]
    pub fn ttft(&self) -> Option<Micros> {
        self.first_token.map(|at| at.saturating_sub(self.arrival))
    }

    /// The mean time between its tokens; None unless it finished with two or more.
    #[must_use]
    pub fn mean_itl(&self) -> Option<Micros> {
        let gaps = u64::from(self.output_tokens.checked_sub(1)?);
        let span = self.last_token?.saturating_sub(self.first_token?);
        (gaps > 0).then(|| Micros(span.0 / gaps))
    }
}

/// One replica's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaSpan {
    /// Which.
    pub id: ReplicaId,
    /// Its pool.
    pub pool: PoolId,
    /// When it was asked for and got its GPUs; billing starts.
    pub requested: Micros,
    /// When it took its first request on.
    pub ready: Option<Micros>,
    /// When it was told to take no more.
    pub draining: Option<Micros>,
    /// When its GPUs were free again; billing ends.
    pub gone: Option<Micros>,
    /// Whether its start failed.
    pub failed: bool,
    /// Whether it died.
    pub died: bool,
}

/// A target changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Action {
    /// When.
    pub at: Micros,
    /// Where.
    pub pool: PoolId,
    /// The target before.
    pub from: u32,
    /// The target after.
    pub to: u32,
    /// Why, in the policy's words.
    pub reason: String,
}

/// What one pool looked like at the start, or at one tick, after the decision.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PoolSample {
    /// When.
    pub at: Micros,
    /// Which.
    pub pool: PoolId,
    /// The target.
    pub wanted: u32,
    /// Replicas that take requests.
    pub ready: u32,
    /// Replicas that start.
    pub starting: u32,
    /// Replicas that drain.
    pub draining: u32,
    /// Requests that hold KV blocks.
    pub running: u32,
    /// Requests that wait, at the door or in a replica.
    pub waiting: u32,
    /// The mean share of KV blocks held, 0 to 1.
    pub kv_usage: f64,
}
