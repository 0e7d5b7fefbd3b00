//! What one engine's page says: totals since the engine started.

use std::collections::BTreeMap;

use plimsoll_common::{
    engine::{DistributionKind, EngineKind, Role},
    ids::ModelName,
};

use crate::{
    exposition::{LineError, PageTooLarge},
    gauges::{EngineGauges, PageQuality},
};

/// A counter that engines publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Prompt tokens processed.
    PromptTokens,
    /// Tokens generated.
    GenerationTokens,
    /// Prompt tokens looked up in the prefix cache.
    PrefixQueries,
    /// Prompt tokens found in the prefix cache.
    PrefixHits,
    /// Preemptions.
    Preemptions,
    /// Requests finished by a stop token or string.
    FinishedStop,
    /// Requests finished by their length limit.
    FinishedLength,
    /// Requests aborted by their client, as far as the engine counts them.
    Aborted,
    /// Requests that ended any other way.
    Errored,
    /// Requests that ended, where the engine does not tell how.
    Ended,
    /// HTTP requests for the engine that ended, in whichever way.
    HttpEnded,
    /// Requests that came, ended or not.
    Started,
    /// Of these, those that never reached the engine: bad requests, unknown models.
    Refused,
    /// Requests that the engine turned away since it had no room.
    Rejected,
    /// Prompt tokens computed, counted as the batches run.
    LivePrefill,
    /// Prompt tokens found in a cache, counted as the batches run.
    LiveCached,
    /// Tokens generated, the first one of each request left out, counted as the batches run.
    LiveDecoded,
    /// Prompt tokens found in a tier below the KV cache, as a part of the prefix hits.
    CachedBelow,
    /// Prompt tokens found in another engine's cache or below, which are no part of the prefix hits.
    OffloadHits,
    /// Tokens that speculative decoding proposed.
    DraftTokens,
    /// Of these, those that were accepted.
    AcceptedTokens,
    /// Requests that came to a front-end.
    FrontendStarted,
    /// Requests that a front-end is done with.
    FrontendEnded,
}

impl Counter {
    /// The counters that count a request when the engine is done with it.
    pub const FINISHED: [Self; 4] = [Self::FinishedStop, Self::FinishedLength, Self::Aborted, Self::Errored];
}

/// Series of one family by their label set: the text between the braces, without `le`.
pub type ByLabels<T> = BTreeMap<Box<str>, T>;

/// One engine's page, read: totals since the engine started, series by series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EnginePage {
    /// Which software's page it is.
    pub kind: Option<EngineKind>,
    /// Which part of a request the engine serves.
    pub role: Option<Role>,
    /// The served model.
    pub model: Option<ModelName>,
    /// How many tokens the KV caches of all engines of the page hold.
    pub kv_capacity_tokens: Option<u64>,
    /// When the process started, seconds since the Unix epoch. Pages of several API servers do not tell.
    pub process_start: Option<f64>,
    /// How long the process runs, seconds.
    pub uptime: Option<f64>,
    /// Whether the page has a family that moves while requests run.
    pub live: bool,
    /// Numbers that only move with the engine's steps, added up.
    pub pulse: Option<f64>,
    /// The gauges, over all engines of the page.
    pub gauges: EngineGauges,
    /// What the page itself tells as gained since it was last read.
    pub gained: BTreeMap<Counter, u64>,
    /// Counters; one that the page knows and that has no series yet is there, and empty.
    pub counters: BTreeMap<Counter, ByLabels<u64>>,
    /// Histograms.
    pub histograms: BTreeMap<DistributionKind, ByLabels<HistogramSeries>>,
    /// How well the page could be read.
    pub quality: PageQuality,
}

/// One histogram series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistogramSeries {
    /// The finite upper bounds in the order of the page, in the published unit.
    pub edges: Vec<f64>,
    /// What was counted; `None` where buckets, count and sum contradict each other (a torn scrape).
    pub counts: Option<HistogramCounts>,
}

/// What one histogram series counted since the engine started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistogramCounts {
    /// Samples of each bucket, not cumulative; the last is the one up to +Inf.
    pub buckets: Vec<u64>,
    /// The sum of the samples, in the published unit.
    pub sum: f64,
}

/// Why a page is no engine's page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// It is too long.
    #[error(transparent)]
    TooLarge(#[from] PageTooLarge),
    /// Not one of its lines is a sample.
    #[error("this is no metrics page ({0}); check the endpoint's metrics path")]
    Unparsable(LineError),
    /// It is a metrics page, but has none of the engine's core metrics.
    #[error(
        "the page has {samples} samples, but none of {} core metrics{}; check the endpoint's kind and metrics path, and \
         that the engine publishes its statistics",
        .kind.map_or_else(|| "any known engine's".to_owned(), |kind| format!("{kind}'s")),
        .shown.map_or_else(String::new, |shown| format!(" (it has {shown}'s)"))
    )]
    Unrecognised {
        /// The engine that was expected; `None`: any.
        kind: Option<EngineKind>,
        /// The engine whose metrics the page has instead.
        shown: Option<EngineKind>,
        /// How many samples the page has.
        samples: usize,
    },
    /// It starts like TensorRT-LLM's iteration statistics, but can't be read as such.
    #[error("the iteration statistics can't be read: {0}")]
    Iterations(String),
}
