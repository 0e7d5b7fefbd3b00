//! What an engine is, and which distributions it publishes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codes::coded_enum;

/// Which software serves the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// vLLM's OpenAI server.
    Vllm,
}

impl EngineKind {
    /// The name in configuration, labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which part of a request a replica serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Prefill and decode in one engine.
    #[default]
    Aggregated,
    /// Prompt processing only; the KV cache is handed to a decode replica.
    Prefill,
    /// Token generation only.
    Decode,
}

impl Role {
    /// The name in configuration, labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aggregated => "aggregated",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

coded_enum! {
    /// One distribution that engines publish. Kinds with different meanings are never merged: an ITL sampled once an
    /// engine step is not an ITL sampled once a token, and neither is a TPOT averaged over a request.
    DistributionKind:
    /// Time to first token, queueing included.
    Ttft = 1, "ttft";
    /// Inter-token latency, one sample for each engine step that gave the request output (vLLM).
    ItlStep = 2, "itl_step";
    /// Inter-token latency, one sample for each token (SGLang: chunk gap divided by its tokens).
    ItlToken = 3, "itl_token";
    /// Time per output token, one mean for each finished request.
    Tpot = 4, "tpot";
    /// Arrival to last token, observed at the end of a request.
    E2e = 5, "e2e";
    /// Arrival to first scheduled, observed at the end of a request.
    Queue = 6, "queue";
    /// First scheduled to first token, observed at the end of a request.
    Prefill = 7, "prefill";
    /// First token to last token, observed at the end of a request.
    Decode = 8, "decode";
    /// First scheduled to last token, observed at the end of a request.
    Inference = 9, "inference";
    /// Input sequence length (ISL): prompt tokens of a finished request.
    Isl = 16, "isl";
    /// Output sequence length (OSL): generated tokens of a finished request.
    Osl = 17, "osl";
}

impl DistributionKind {
    /// The unit of one sample.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::Isl | Self::Osl => Unit::Tokens,
            _ => Unit::Seconds,
        }
    }
}

impl fmt::Display for DistributionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The unit in which an engine publishes a distribution, and the whole unit in which we count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Published in seconds, counted in microseconds.
    Seconds,
    /// Published and counted in tokens.
    Tokens,
}

impl Unit {
    /// How many whole counting units one published unit has.
    #[must_use]
    pub const fn per_published(self) -> f64 {
        match self {
            Self::Seconds => 1e6,
            Self::Tokens => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_kinds_are_one_to_one() {
        for kind in DistributionKind::ALL {
            assert_eq!(DistributionKind::from_code(kind.code()), Some(*kind));
        }
        assert_eq!(DistributionKind::from_code(0), None);
        assert_eq!(DistributionKind::from_code(250), None);
    }
}
