//! Requests: what comes in, why it may be refused, what is known of it at the end.

use serde::{Deserialize, Serialize};

use plimsoll_common::units::Micros;

/// A request's name, chosen by the driver; unique among the requests that the engine holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// A request as it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// Prompt length (ISL), tokens; at least 1.
    pub prompt_tokens: u32,
    /// Tokens that it will generate (OSL); at least 1.
    pub output_tokens: u32,
    /// Leading prompt tokens found in the prefix cache: they are context, but need no computing. The engine uses whole
    /// blocks of them and always computes at least one token.
    #[serde(default)]
    pub cached_tokens: u32,
    /// Whether another engine has computed the prompt and generated the first token: the keys and values come with the
    /// request, and this engine generates from the second token on, of at least two.
    #[serde(default)]
    pub prefilled: bool,
}

impl Request {
    /// A request without any prefix-cache hit.
    #[must_use]
    pub const fn new(id: RequestId, prompt_tokens: u32, output_tokens: u32) -> Self {
        Self { id, prompt_tokens, output_tokens, cached_tokens: 0, prefilled: false }
    }
}

/// Why a request was refused. A refused request leaves no trace but a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// There is nothing to compute.
    #[error("the prompt has no token: give at least one")]
    EmptyPrompt,
    /// There is nothing to generate.
    #[error("no output token is asked for: ask for at least one")]
    NoOutput,
    /// It could never run.
    #[error("prompt and output make {tokens} tokens, above max_model_len {limit}: shorten the request")]
    TooLong {
        /// Prompt and output tokens together.
        tokens: u64,
        /// The engine's limit.
        limit: u32,
    },
    /// Too many requests wait already.
    #[error("{limit} requests wait already: try again later")]
    QueueFull {
        /// The engine's limit.
        limit: u32,
    },
    /// Another request that the engine holds has this name.
    #[error("a request with this id is held already: choose another id")]
    DuplicateId,
}

/// All that the engine knows of a request that has ended, or was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFacts {
    /// Its name.
    pub id: RequestId,
    /// Prompt length, tokens.
    pub prompt_tokens: u32,
    /// Tokens that it was to generate.
    pub output_tokens: u32,
    /// Tokens that it has generated, the one of another engine's prefill included; fewer than `output_tokens` only if it was aborted.
    pub emitted_tokens: u32,
    /// Prompt tokens taken from the prefix cache.
    pub cached_tokens: u32,
    /// When it was submitted.
    pub arrival: Micros,
    /// When it first left the queue.
    pub first_scheduled: Option<Micros>,
    /// When its first token came out.
    pub first_token: Option<Micros>,
    /// When its latest token came out.
    pub last_token: Option<Micros>,
    /// When it finished or was aborted.
    pub ended: Micros,
    /// How often its KV blocks were taken away.
    pub preemptions: u32,
    /// Tokens computed in prefill, those computed again after a preemption included.
    pub prefilled_tokens: u64,
}

impl RequestFacts {
    /// Time to first token: arrival to first token.
    #[must_use]
    pub fn ttft(&self) -> Option<Micros> {
        Some(self.first_token?.saturating_sub(self.arrival))
    }

    /// Arrival to first scheduling.
    #[must_use]
    pub fn queue_time(&self) -> Option<Micros> {
        Some(self.first_scheduled?.saturating_sub(self.arrival))
    }

    /// First scheduling to first token.
    #[must_use]
    pub fn prefill_time(&self) -> Option<Micros> {
        Some(self.first_token?.saturating_sub(self.first_scheduled?))
    }

    /// First token to last token.
    #[must_use]
    pub fn decode_time(&self) -> Option<Micros> {
        Some(self.last_token?.saturating_sub(self.first_token?))
    }

    /// First scheduling to last token.
    #[must_use]
    pub fn inference_time(&self) -> Option<Micros> {
        Some(self.last_token?.saturating_sub(self.first_scheduled?))
    }

    /// Arrival to the end.
    #[must_use]
    pub fn e2e(&self) -> Micros {
        self.ended.saturating_sub(self.arrival)
    }
}
