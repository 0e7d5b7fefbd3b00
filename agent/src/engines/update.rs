//! What one look at an engine gives.

use std::{sync::Arc, time::Duration};

use plimsoll_common::{
    engine::{DistributionKind, EngineKind, Role},
    histogram::BucketLayout,
    ids::ModelName,
};
pub use plimsoll_pages::{EngineGauges, PageQuality};
use tokio::time::Instant;

use super::{scrape_error::ScrapeError, slo::SloEdge, state::Seen};
use crate::exact::ExactSamples;

/// One scrape of one engine.
#[derive(Debug)]
pub struct EngineReading {
    /// The engine's row in the list of endpoints.
    pub engine: usize,
    /// When the page had been read.
    pub taken: Instant,
    /// How long the request for the page took, the connection's set-up included.
    pub took: Duration,
    /// What the page told, or why there is none.
    pub outcome: Result<EngineUpdate, ScrapeError>,
    /// How the engine is seen from this and all looks before.
    pub seen: Seen,
    /// How the endpoint's SLO fits the engine's buckets; empty without an SLO, or before a page.
    pub slo: Arc<[SloEdge]>,
    /// How often the bounds of a distribution's buckets changed since the agent started.
    pub layout_changes: u64,
}

impl EngineReading {
    /// Whether the engine has a request, or had one since the page before.
    #[must_use]
    pub fn shows_work(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|update| {
            let now = [update.gauges.running, update.gauges.waiting, update.delta.arrived];
            now.into_iter().flatten().any(|n| n > 0)
        })
    }
}

/// What an engine's page tells, compared with the page before.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineUpdate {
    /// What the engine says it is.
    pub identity: EngineIdentity,
    /// How it is now.
    pub gauges: EngineGauges,
    /// What its counters gained.
    pub delta: EngineDelta,
    /// How well the page could be read.
    pub quality: PageQuality,
    /// What the engine tells exactly of requests that ended since the page before.
    pub requests: ExactSamples,
}

/// What an engine says it is. `None`: its pages do not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineIdentity {
    /// Which software's page it is.
    pub kind: Option<EngineKind>,
    /// Which part of a request it serves.
    pub role: Option<Role>,
    /// The served model.
    pub model: Option<ModelName>,
    /// The engine software's version, such as `0.32.0`.
    pub version: Option<String>,
    /// How many tokens its KV cache holds, over all data-parallel engines of the page.
    pub kv_capacity_tokens: Option<u64>,
}

/// What an engine's counters gained since the page before. `None`: the page does not tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineDelta {
    /// Requests that arrived: an estimate whose running total never falls.
    pub arrived: Option<u64>,
    /// Prompt tokens processed.
    pub prompt_tokens: Option<u64>,
    /// Tokens generated.
    pub generation_tokens: Option<u64>,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_queries: Option<u64>,
    /// Prompt tokens found in the prefix cache.
    pub prefix_hits: Option<u64>,
    /// Preemptions.
    pub preemptions: Option<u64>,
    /// Requests finished by a stop token or string.
    pub finished_stop: Option<u64>,
    /// Requests finished by their length limit.
    pub finished_length: Option<u64>,
    /// Requests aborted by their client, as far as the engine counts them.
    pub aborted: Option<u64>,
    /// Requests that ended any other way.
    pub errored: Option<u64>,
    /// Requests that ended, where the engine does not tell how; aborted ones are among them.
    pub ended: Option<u64>,
    /// Requests that the engine turned away since it had no room.
    pub rejected: Option<u64>,
    /// Prompt tokens found in a tier below the KV cache or in another engine's cache.
    pub offload_hits: Option<u64>,
    /// Tokens that speculative decoding proposed.
    pub draft_tokens: Option<u64>,
    /// Of these, those that the model accepted.
    pub accepted_tokens: Option<u64>,
    /// Requests that arrived at a front-end. They are the engines' requests, seen once more: never add the two.
    pub frontend_arrived: Option<u64>,
    /// Whether the engine got on since the page before: a token counter moved, or anything else that only moves with the
    /// engine's steps. `None`: the page has nothing of the kind, or it is the first.
    pub progress: Option<bool>,
    /// Whether anything that speaks of the engine changed since the page before.
    pub moved: bool,
    /// How often the counters were seen to start again: 0 or 1.
    pub resets: u64,
    /// Distributions that gained samples, by kind.
    pub histograms: Vec<HistogramDelta>,
}

/// What one bucketed distribution gained.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramDelta {
    /// What is distributed.
    pub kind: DistributionKind,
    /// The engine's own buckets.
    pub layout: BucketLayout,
    /// `(bucket, samples)`, buckets rising, samples at least 1; not cumulative.
    pub buckets: Vec<(usize, u64)>,
    /// The growth of the sum in whole units (microseconds or tokens).
    pub sum: u64,
}
