//! What an iteration reports.

use serde::{Deserialize, Serialize};

use plimsoll_common::units::Micros;

use crate::{
    engine::{Load, Totals},
    request::{RequestFacts, RequestId},
    timing::StepShape,
};

/// An iteration under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Iteration {
    /// When it began.
    pub started_at: Micros,
    /// When it ends by the model: the earliest time at which it may be finished.
    pub ends_at: Micros,
    /// What it computes.
    pub stats: StepStats,
}

/// What one iteration computes, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepStats {
    /// The terms that the duration depends on.
    pub shape: StepShape,
    /// Sequences in the batch.
    pub sequences: u32,
    /// Tokens that the batch computes: never above `max_num_batched_tokens`.
    pub batched_tokens: u32,
    /// Requests that left the queue for this iteration, returning ones included.
    pub admitted: u32,
    /// Requests that lost their blocks to this iteration.
    pub preempted: u32,
}

/// What an iteration brought, each list in scheduling order. Borrowed from the engine: read it before the next call.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// When the iteration began.
    pub started_at: Micros,
    /// When it ended: the time of every token in it.
    pub ended_at: Micros,
    /// What it computed.
    pub stats: StepStats,
    /// Requests that left the queue for the first time when the iteration began.
    pub admitted: &'a [Admission],
    /// Requests that lost their blocks when the iteration began.
    pub preempted: &'a [Preemption],
    /// Tokens that came out, at most one a sequence.
    pub tokens: &'a [Token],
    /// Requests whose last token is among them.
    pub finished: &'a [RequestFacts],
    /// How full the engine is after it.
    pub load: Load,
    /// What the engine has done, this included.
    pub totals: &'a Totals,
}

/// A request left the queue for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Which.
    pub id: RequestId,
    /// Its prompt length.
    pub prompt_tokens: u32,
    /// Prompt tokens that the prefix cache held.
    pub cached_tokens: u32,
    /// Whether another engine had computed it.
    pub prefilled: bool,
    /// How long it had waited.
    pub queue_time: Micros,
}

/// A request went back to the head of the queue; its computed tokens are lost and will be computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// Which.
    pub id: RequestId,
    /// Computed tokens that were lost.
    pub lost_tokens: u32,
}

/// A token came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whose.
    pub id: RequestId,
    /// Which one: 1 for the first.
    pub index: u32,
    /// For the first token the time since arrival (TTFT), for each later one the time since the one before (ITL; a
    /// preemption between the two is inside it).
    pub latency: Micros,
    /// The request's prompt length: counted as processed when the first token comes.
    pub prompt_tokens: u32,
    /// Prompt tokens among them that the prefix cache held.
    pub cached_tokens: u32,
}

impl Token {
    /// Whether this ends the prefill.
    #[must_use]
    pub const fn is_first(&self) -> bool {
        self.index == 1
    }
}
