//! What comes in: requests with their lengths, at their times.
//!
//! [`read()`] takes published traces and one's own, [`Generator`] draws workloads of every shape, [`spec`] writes
//! generators down in one line; [`Workload`] can be sped up, scaled, cut and laid over others.

mod change;
mod generate;
mod read;
mod shape;
pub mod spec;
mod summary;

use plimsoll_common::units::Micros;

pub use generate::{Clients, GenerateError, Generator, Lengths, MAX_REQUESTS};
pub use read::{Format, MAX_ROWS, Problem, ReadError, Trace, read};
pub use shape::Shape;
pub use summary::{Spread, Summary};

/// Which part of a [`Workload`]'s block hashes is one request's prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixRef {
    start: u32,
    len: u32,
}

/// One request to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When, from the workload's start.
    pub at: Micros,
    /// Prompt length (ISL), tokens; at least 1.
    pub prompt_tokens: u32,
    /// Output length (OSL), tokens; at least 1.
    pub output_tokens: u32,
    /// Who sent it, where that is known; 0 otherwise.
    pub client: u32,
    /// Which model it asks for: a number in the world's configuration.
    pub model: u16,
    /// Its prompt as a list of block hashes, for prefix caches; empty where nothing is known.
    pub prefix: PrefixRef,
}

impl Arrival {
    /// A request of the first model, of nobody in particular, that shares no prefix.
    #[must_use]
    pub const fn new(at: Micros, prompt_tokens: u32, output_tokens: u32) -> Self {
        Self { at, prompt_tokens, output_tokens, client: 0, model: 0, prefix: PrefixRef { start: 0, len: 0 } }
    }
}

/// Requests in the order of their arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    arrivals: Vec<Arrival>,
    hashes: Vec<u64>,
    /// Tokens that one block hash stands for; 0 if there are none.
    prefix_block_tokens: u32,
}

impl Workload {
    /// Takes requests in any order; those of one moment stay in the order in which they are given.
    #[must_use]
    pub fn new(mut arrivals: Vec<Arrival>) -> Self {
        arrivals.sort_by_key(|arrival| arrival.at);
        Self { arrivals, hashes: Vec::new(), prefix_block_tokens: 0 }
    }

    /// The requests, by arrival.
    #[must_use]
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// The block hashes of one request's prompt.
    #[must_use]
    pub fn prefix(&self, arrival: &Arrival) -> &[u64] {
        let start = arrival.prefix.start as usize;
        self.hashes.get(start..start + arrival.prefix.len as usize).unwrap_or_default()
    }

    /// Tokens of one prefix block; 0 where no request has any.
    #[must_use]
    pub const fn prefix_block_tokens(&self) -> u32 {
        self.prefix_block_tokens
    }

    /// Number of requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// Whether nothing comes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }

    /// When the last request comes.
    #[must_use]
    pub fn span(&self) -> Micros {
        self.arrivals.last().map_or(Micros::ZERO, |arrival| arrival.at)
    }
}
