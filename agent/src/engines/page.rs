//! What one engine's page says: totals since the engine started.

use std::collections::BTreeMap;

use plimsoll_common::{
    engine::{DistributionKind, EngineKind, Role},
    ids::ModelName,
};

use super::update::{EngineGauges, PageQuality};
use crate::exposition::{LineError, PageTooLarge};

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
    /// HTTP requests for the engine that ended, in whichever way.
    HttpEnded,
}

impl Counter {
    /// The counters that count a request when the engine is done with it.
    pub(super) const FINISHED: [Self; 4] =
        [Self::FinishedStop, Self::FinishedLength, Self::Aborted, Self::Errored];
}

/// Series of one family by their label set: the text between the braces, without `le`.
pub(super) type ByLabels<T> = BTreeMap<Box<str>, T>;

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
    /// The gauges, over all engines of the page.
    pub gauges: EngineGauges,
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
        "the page has {samples} samples, but none of {} core metrics; check the endpoint's kind and metrics path, \
         and that the engine publishes its statistics", .kind.map_or("any known engine's".to_owned(), |kind| format!("{kind}'s"))
    )]
    Unrecognised {
        /// The engine that was expected; `None`: any.
        kind: Option<EngineKind>,
        /// How many samples the page has.
        samples: usize,
    },
}
