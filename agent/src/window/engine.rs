//! One engine's part of the window, and what the agent's own pages show of it.

use std::{collections::BTreeMap, time::Duration};

use plimsoll_common::{
    engine::DistributionKind,
    histogram::{BucketCounts, BucketLayout, LatencyHistogram, SparseHistogram, place},
    ids::ModelName,
    units::Micros,
    wire::{EngineColumns, EngineInfo, EngineState, HistogramColumns, HistogramEntry},
};
use tokio::time::Instant;

use super::{catalogue::Catalogue, millis};
use crate::{
    config::Endpoint,
    engines::{EngineDelta, EngineGauges, EngineIdentity, EngineReading, HistogramDelta, PageQuality},
};

/// The most `(kind, layout)` pairs of one engine in one window; an engine that changes its buckets starts a new pair.
const MAX_DISTRIBUTIONS: usize = 64;
/// How long the shown distributions reach back at least; at most twice as long.
const RECENT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct EngineWindow {
    endpoint: Endpoint,
    state: EngineState,
    error: Option<String>,
    identity: EngineIdentity,
    gauges: EngineGauges,
    read: Option<Instant>,
    took: Option<Duration>,
    gained: Gained,
    totals: Gained,
    distributions: Vec<Part>,
    cumulative: BTreeMap<DistributionKind, Cumulative>,
    recent: Recent,
    quality: Quality,
    unplaced: u64,
}

/// One distribution since the agent first saw the engine, in the newest of its bucket layouts.
#[derive(Debug, Clone)]
pub struct Cumulative {
    /// Samples by bucket.
    pub counts: BucketCounts,
    /// Their sum, microseconds or tokens.
    pub sum: u64,
}

/// How well an engine's pages could be read, in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quality {
    /// Malformed lines, skipped.
    pub malformed_lines: u64,
    /// Samples left out because a limit was reached.
    pub dropped_samples: u64,
    /// Histograms whose buckets, count and sum contradicted each other; made up for by the next page.
    pub torn_histograms: u64,
}

impl Quality {
    const fn add(&mut self, page: &PageQuality) {
        self.malformed_lines = self.malformed_lines.saturating_add(page.malformed_lines);
        self.dropped_samples = self.dropped_samples.saturating_add(page.dropped_samples);
        self.torn_histograms = self.torn_histograms.saturating_add(page.torn_series);
    }
}

/// Samples of one distribution in one layout.
#[derive(Debug, Clone)]
struct Part {
    kind: DistributionKind,
    layout: BucketLayout,
    buckets: BTreeMap<usize, u64>,
    sum: u64,
}

/// Counters gained; `None` until the page told of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gained {
    pub(crate) arrived: Option<u64>,
    pub(crate) prompt_tokens: Option<u64>,
    pub(crate) generation_tokens: Option<u64>,
    pub(crate) prefix_queries: Option<u64>,
    pub(crate) prefix_hits: Option<u64>,
    pub(crate) preemptions: Option<u64>,
    pub(crate) finished_stop: Option<u64>,
    pub(crate) finished_length: Option<u64>,
    pub(crate) aborted: Option<u64>,
    pub(crate) errored: Option<u64>,
    pub(crate) resets: Option<u64>,
}

impl Gained {
    fn add(&mut self, delta: &EngineDelta) {
        let more = Self {
            arrived: delta.arrived,
            prompt_tokens: delta.prompt_tokens,
            generation_tokens: delta.generation_tokens,
            prefix_queries: delta.prefix_queries,
            prefix_hits: delta.prefix_hits,
            preemptions: delta.preemptions,
            finished_stop: delta.finished_stop,
            finished_length: delta.finished_length,
            aborted: delta.aborted,
            errored: delta.errored,
            resets: (delta.resets > 0).then_some(delta.resets),
        };
        for (sum, gain) in self.fields_mut().into_iter().zip(more.fields()) {
            if let Some(gain) = gain {
                *sum = Some(sum.unwrap_or(0).saturating_add(gain));
            }
        }
    }

    const fn fields(&self) -> [Option<u64>; 11] {
        [
            self.arrived,
            self.prompt_tokens,
            self.generation_tokens,
            self.prefix_queries,
            self.prefix_hits,
            self.preemptions,
            self.finished_stop,
            self.finished_length,
            self.aborted,
            self.errored,
            self.resets,
        ]
    }

    fn fields_mut(&mut self) -> [&mut Option<u64>; 11] {
        [
            &mut self.arrived,
            &mut self.prompt_tokens,
            &mut self.generation_tokens,
            &mut self.prefix_queries,
            &mut self.prefix_hits,
            &mut self.preemptions,
            &mut self.finished_stop,
            &mut self.finished_length,
            &mut self.aborted,
            &mut self.errored,
            &mut self.resets,
        ]
    }

    fn push_to(&self, columns: &mut EngineColumns) {
        columns.arrived.push(self.arrived);
        columns.prompt_tokens.push(self.prompt_tokens);
        columns.generation_tokens.push(self.generation_tokens);
        columns.prefix_queries.push(self.prefix_queries);
        columns.prefix_hits.push(self.prefix_hits);
        columns.preemptions.push(self.preemptions);
        columns.finished_stop.push(self.finished_stop);
        columns.finished_length.push(self.finished_length);
        columns.aborted.push(self.aborted);
        columns.errored.push(self.errored);
        columns.resets.push(self.resets);
    }
}

impl EngineWindow {
    pub(super) fn new(endpoint: Endpoint, now: Instant) -> Self {
        Self {
            endpoint,
            state: EngineState::Pending,
            error: None,
            identity: EngineIdentity::default(),
            gauges: EngineGauges::default(),
            read: None,
            took: None,
            gained: Gained::default(),
            totals: Gained::default(),
            distributions: Vec::new(),
            cumulative: BTreeMap::new(),
            recent: Recent::new(now),
            quality: Quality::default(),
            unplaced: 0,
        }
    }

    pub(super) fn observe(&mut self, reading: EngineReading) {
        self.took = Some(reading.took);
        self.state = reading.state();
        match reading.outcome {
            Ok(update) => {
                self.error = None;
                self.learn(update.identity);
                self.quality.add(&update.quality);
                self.gauges = update.gauges;
                self.read = Some(reading.taken);
                self.gained.add(&update.delta);
                self.totals.add(&update.delta);
                self.recent.turn(reading.taken);
                for histogram in &update.delta.histograms {
                    self.add(histogram);
                    self.accumulate(histogram);
                    self.recent.add(histogram);
                }
            }
            Err(error) => {
                self.error = Some(error.to_string());
                // Gauges of a page that no longer answers are not the engine's any more: absent, not repeated.
                self.gauges = EngineGauges::default();
            }
        }
    }

    /// What a page does not repeat stays known: an engine's version is asked once a connection.
    fn learn(&mut self, now: EngineIdentity) {
        let known = &mut self.identity;
        known.model = now.model.or_else(|| known.model.take());
        known.version = now.version.or_else(|| known.version.take());
        known.kv_capacity_tokens = now.kv_capacity_tokens.or(known.kv_capacity_tokens);
    }

    fn add(&mut self, delta: &HistogramDelta) {
        let known = self.distributions.iter().position(|p| p.kind == delta.kind && p.layout == delta.layout);
        let part = match known {
            Some(at) => &mut self.distributions[at],
            None if self.distributions.len() < MAX_DISTRIBUTIONS => {
                self.distributions.push(Part {
                    kind: delta.kind,
                    layout: delta.layout.clone(),
                    buckets: BTreeMap::new(),
                    sum: 0,
                });
                let last = self.distributions.len() - 1;
                &mut self.distributions[last]
            }
            None => {
                self.unplaced = self.unplaced.saturating_add(delta.buckets.iter().map(|(_, n)| n).sum());
                return;
            }
        };
        for (bucket, n) in &delta.buckets {
            let slot = part.buckets.entry(*bucket).or_insert(0);
            *slot = slot.saturating_add(*n);
        }
        part.sum = part.sum.saturating_add(delta.sum);
    }

    /// Other buckets start anew, as a restarted engine's counters do: scrapers of our page see a counter reset.
    fn accumulate(&mut self, delta: &HistogramDelta) {
        let fresh = || Cumulative { counts: BucketCounts::new(delta.layout.clone()), sum: 0 };
        let total = self.cumulative.entry(delta.kind).or_insert_with(fresh);
        if *total.counts.layout() != delta.layout {
            *total = fresh();
        }
        delta.buckets.iter().for_each(|(bucket, n)| total.counts.add(*bucket, *n));
        total.sum = total.sum.saturating_add(delta.sum);
    }

    pub(super) fn close(
        &mut self,
        row: usize,
        now: Instant,
        catalogue: &mut Catalogue,
        columns: &mut EngineColumns,
        histograms: &mut HistogramColumns,
    ) {
        columns.state.push(Some(self.state.code()));
        columns.running.push(self.gauges.running);
        columns.waiting.push(self.gauges.waiting);
        columns.kv_usage_ppm.push(self.gauges.kv_usage.map(|usage| usage.to_ppm()));
        columns.age_ms.push(self.read.map(|read| millis(now.saturating_duration_since(read))));
        columns.scrape_us.push(self.took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)));
        self.gained.push_to(columns);
        self.gained = Gained::default();
        self.recent.turn(now);
        for part in self.distributions.drain(..) {
            match catalogue.layout(&part.layout) {
                Some(layout) => histograms.push(&HistogramEntry {
                    engine: row,
                    kind: part.kind.code(),
                    layout,
                    cells: part.buckets.into_iter().collect(),
                    sum: part.sum,
                }),
                None => self.unplaced = self.unplaced.saturating_add(part.buckets.values().sum()),
            }
        }
    }

    pub(super) fn info(&self) -> EngineInfo {
        let endpoint = &self.endpoint;
        EngineInfo {
            id: endpoint.id.clone(),
            kind: endpoint.kind.as_str().to_owned(),
            url: endpoint.url.clone(),
            version: self.identity.version.clone(),
            model: self.model(),
            pool: endpoint.pool.clone(),
            role: endpoint.role,
            replica: endpoint.replica.clone(),
            gpus: endpoint.gpus.clone(),
            kv_capacity_tokens: self.identity.kv_capacity_tokens,
        }
    }

    fn model(&self) -> Option<ModelName> {
        self.endpoint.model.clone().or_else(|| self.identity.model.clone())
    }

    pub(super) fn view(&self) -> EngineView {
        EngineView {
            info: self.info(),
            state: self.state,
            error: self.error.clone(),
            gauges: self.gauges,
            read: self.read,
            took: self.took,
            totals: self.totals,
            unplaced: self.unplaced,
            quality: self.quality,
            cumulative: self.cumulative.clone(),
            distributions: self.recent.merged(),
            recent_since: self.recent.full_since,
        }
    }
}

/// What the agent's own pages show of one engine.
#[derive(Debug, Clone)]
pub struct EngineView {
    /// Who it is.
    pub info: EngineInfo,
    /// How it is seen.
    pub state: EngineState,
    /// Why its page could not be read.
    pub error: Option<String>,
    /// The newest gauges.
    pub gauges: EngineGauges,
    /// When its page was last read.
    pub read: Option<Instant>,
    /// How long the last scrape took.
    pub took: Option<Duration>,
    /// What its counters gained since the agent first saw it.
    pub(crate) totals: Gained,
    /// Samples that no distribution had room for.
    pub unplaced: u64,
    /// How well its pages could be read.
    pub quality: Quality,
    /// Its distributions since the agent first saw it.
    pub cumulative: BTreeMap<DistributionKind, Cumulative>,
    /// Its distributions over the last 30 to 60 s.
    pub distributions: BTreeMap<DistributionKind, Distribution>,
    /// Since when those count.
    pub recent_since: Instant,
}

/// A bucketed distribution: an estimate and what is certain.
#[derive(Debug, Clone, Default)]
pub struct Distribution {
    /// Where the samples most likely lie.
    pub placed: SparseHistogram,
    /// In which buckets they lie for sure, one entry a layout.
    pub buckets: Vec<BucketCounts>,
    /// Samples above the last finite edge.
    pub saturated: u64,
}

impl Distribution {
    fn add(&mut self, delta: &HistogramDelta) {
        let placed = &mut self.placed;
        self.saturated += place(&delta.layout, &delta.buckets, delta.sum, |cell, n| placed.add_cell(cell, n));
        self.placed.add_sum(delta.sum);
        self.count(&delta.layout, delta.buckets.iter().copied());
    }

    fn merge(&mut self, other: &Self) {
        other.placed.cells().for_each(|(cell, n)| self.placed.add_cell(cell, n));
        self.placed.add_sum(other.placed.sum());
        self.saturated = self.saturated.saturating_add(other.saturated);
        other.buckets.iter().for_each(|counts| self.count(counts.layout(), counts.nonzero()));
    }

    fn count(&mut self, layout: &BucketLayout, buckets: impl Iterator<Item = (usize, u64)>) {
        let at = match self.buckets.iter().position(|counts| counts.layout() == layout) {
            Some(at) => at,
            None if self.buckets.len() < MAX_DISTRIBUTIONS => {
                self.buckets.push(BucketCounts::new(layout.clone()));
                self.buckets.len() - 1
            }
            None => return,
        };
        buckets.for_each(|(bucket, n)| self.buckets[at].add(bucket, n));
    }

    /// The samples, dense, for quantiles.
    #[must_use]
    pub fn histogram(&self) -> LatencyHistogram {
        let mut dense = LatencyHistogram::new();
        self.placed.add_into(&mut dense);
        dense
    }

    /// The sum of the samples, microseconds or tokens.
    #[must_use]
    pub const fn sum(&self) -> Micros {
        Micros(self.placed.sum())
    }
}

/// Two halves that take turns, so that "recent" reaches back between one and two times [`RECENT`].
#[derive(Debug)]
struct Recent {
    filling: BTreeMap<DistributionKind, Distribution>,
    full: BTreeMap<DistributionKind, Distribution>,
    filling_since: Instant,
    full_since: Instant,
}

impl Recent {
    const fn new(now: Instant) -> Self {
        Self { filling: BTreeMap::new(), full: BTreeMap::new(), filling_since: now, full_since: now }
    }

    fn turn(&mut self, now: Instant) {
        if now.saturating_duration_since(self.filling_since) >= RECENT {
            self.full = std::mem::take(&mut self.filling);
            self.full_since = self.filling_since;
            self.filling_since = now;
        }
    }

    fn add(&mut self, delta: &HistogramDelta) {
        self.filling.entry(delta.kind).or_default().add(delta);
    }

    fn merged(&self) -> BTreeMap<DistributionKind, Distribution> {
        let mut merged = self.full.clone();
        for (kind, distribution) in &self.filling {
            merged.entry(*kind).or_default().merge(distribution);
        }
        merged
    }
}
