//! What an engine is, and which distributions it publishes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codes::coded_enum;

/// Which software's metrics page an endpoint serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EngineKind {
    /// vLLM's OpenAI server.
    #[serde(rename = "vllm")]
    Vllm,
    /// SGLang's server.
    #[serde(rename = "sglang")]
    Sglang,
    /// TensorRT-LLM's own server, `trtllm-serve`.
    #[serde(rename = "trtllm")]
    TensorRtLlm,
    /// Triton Inference Server with its TensorRT-LLM backend.
    #[serde(rename = "triton")]
    Triton,
    /// The front-end of NVIDIA Dynamo: no engine, but the queue in front of engines.
    #[serde(rename = "dynamo-frontend")]
    DynamoFrontend,
    /// A worker of NVIDIA Dynamo whose page does not show (yet) which engine it runs.
    #[serde(rename = "dynamo-worker")]
    DynamoWorker,
}

impl EngineKind {
    /// All kinds. Where a page shows several, the first of them is the one that it belongs to.
    pub const ALL: &[Self] = &[
        Self::Vllm,
        Self::Sglang,
        Self::TensorRtLlm,
        Self::Triton,
        Self::DynamoFrontend,
        Self::DynamoWorker,
    ];

    /// The name in configuration, labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::TensorRtLlm => "trtllm",
            Self::Triton => "triton",
            Self::DynamoFrontend => "dynamo-frontend",
            Self::DynamoWorker => "dynamo-worker",
        }
    }

    /// The kind with this name; `None` for one that this build does not know.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }

    /// Whether it runs no model itself: its requests are the engines' requests, seen once more on their way.
    #[must_use]
    pub const fn is_front_end(self) -> bool {
        matches!(self, Self::DynamoFrontend)
    }

    /// Whether its pages were captured from running processes of the kind; the others were read in their source.
    #[must_use]
    pub const fn seen_on_the_wire(self) -> bool {
        matches!(self, Self::Vllm | Self::Sglang | Self::DynamoFrontend | Self::DynamoWorker)
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
    /// Time to first token as a front-end sees it: its own queue, the way to the engine and back included.
    FrontendTtft = 10, "frontend_ttft";
    /// Inter-token latency as a front-end sees it, one sample for each answer of the engine.
    FrontendItl = 11, "frontend_itl";
    /// Arrival at a front-end to the last token.
    FrontendE2e = 12, "frontend_e2e";
    /// Wall time of one forward pass that only processed prompts.
    PassPrefill = 13, "pass_prefill";
    /// Wall time of one forward pass that only generated tokens.
    PassDecode = 14, "pass_decode";
    /// Wall time of one forward pass that did both.
    PassMixed = 15, "pass_mixed";
    /// Input sequence length (ISL): prompt tokens of a finished request.
    Isl = 16, "isl";
    /// Output sequence length (OSL): generated tokens of a finished request.
    Osl = 17, "osl";
    /// Input sequence length as a front-end counts it.
    FrontendIsl = 18, "frontend_isl";
    /// Output sequence length as a front-end counts it.
    FrontendOsl = 19, "frontend_osl";
}

coded_enum! {
    /// Whether an engine sleeps: its port answers, but it serves nothing until somebody wakes it.
    SleepState:
    /// It serves.
    Awake = 1, "awake";
    /// Its weights are in host memory, its KV cache is gone.
    WeightsOffloaded = 2, "weights_offloaded";
    /// Weights and KV cache are gone.
    DiscardAll = 3, "discard_all";
}

impl DistributionKind {
    /// The unit of one sample.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::Isl | Self::Osl | Self::FrontendIsl | Self::FrontendOsl => Unit::Tokens,
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
    fn kinds_are_known_by_their_names() {
        for kind in EngineKind::ALL {
            assert_eq!(EngineKind::from_name(kind.as_str()), Some(*kind));
        }
        assert_eq!(EngineKind::from_name("VLLM"), None);
    }

    #[test]
    fn codes_and_kinds_are_one_to_one() {
        for kind in DistributionKind::ALL {
            assert_eq!(DistributionKind::from_code(kind.code()), Some(*kind));
        }
        assert_eq!(DistributionKind::from_code(0), None);
        assert_eq!(DistributionKind::from_code(250), None);
    }
}
