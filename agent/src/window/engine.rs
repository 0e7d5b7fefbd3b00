//! One engine's part of the window, and what the agent's own pages show of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use plimsoll_common::{
    engine::{DistributionKind, EngineKind, Role, SleepState},
    histogram::BucketLayout,
    ids::{EngineId, ModelName},
    units::Ratio,
    wire::{EngineColumns, EngineInfo, EngineState, HistogramColumns, HistogramEntry},
};
use tokio::time::Instant;

use super::{
    catalogue::Catalogue,
    distribution::{Cumulative, Distribution, MAX_DISTRIBUTIONS, Recent},
    exact::ExactView,
    gained::Gained,
    millis,
};
use crate::{
    config::Endpoint,
    engines::{EngineGauges, EngineIdentity, EngineReading, HistogramDelta, PageQuality, Seen, SloEdge},
};

#[derive(Debug)]
pub(super) struct EngineWindow {
    endpoint: Endpoint,
    seen: Seen,
    slo: Arc<[SloEdge]>,
    layout_changes: u64,
    identity: EngineIdentity,
    gauges: EngineGauges,
    read: Option<Instant>,
    /// When anything on its page last moved.
    moved: Option<Instant>,
    took: Option<Duration>,
    gained: Gained,
    totals: Gained,
    /// The number of the last scrape that read a page.
    scrapes: u64,
    distributions: Vec<Part>,
    cumulative: BTreeMap<DistributionKind, Cumulative>,
    recent: Recent,
    quality: Quality,
    unplaced: u64,
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
    /// Iterations that TensorRT-LLM's statistics lacked.
    pub missed_iterations: u64,
}

impl Quality {
    const fn add(&mut self, page: &PageQuality) {
        self.malformed_lines = self.malformed_lines.saturating_add(page.malformed_lines);
        self.dropped_samples = self.dropped_samples.saturating_add(page.dropped_samples);
        self.torn_histograms = self.torn_histograms.saturating_add(page.torn_series);
        self.missed_iterations = self.missed_iterations.saturating_add(page.missed_iterations);
    }
}

/// How many scrapes of one window keep their samples of a distribution apart; more are added up. The planner places
/// samples by the sum that they have together, and the sum of one scrape tells most (`docs/model.md`).
const APART: usize = 4;

/// Samples of one distribution in one layout.
#[derive(Debug, Clone)]
struct Part {
    /// The number of the scrape that told of the first of them.
    scrape: u64,
    kind: DistributionKind,
    layout: BucketLayout,
    buckets: BTreeMap<usize, u64>,
    sum: u64,
}

impl EngineWindow {
    pub(super) fn new(endpoint: Endpoint, now: Instant) -> Self {
        Self {
            endpoint,
            seen: Seen::nothing(now),
            slo: Arc::default(),
            layout_changes: 0,
            identity: EngineIdentity::default(),
            gauges: EngineGauges::default(),
            read: None,
            moved: None,
            took: None,
            gained: Gained::default(),
            totals: Gained::default(),
            scrapes: 0,
            distributions: Vec::new(),
            cumulative: BTreeMap::new(),
            recent: Recent::new(now),
            quality: Quality::default(),
            unplaced: 0,
        }
    }

    /// Takes a reading, and says whether the engine's state is another than before.
    pub(super) fn observe(&mut self, reading: EngineReading) -> bool {
        let changed = reading.seen.state != self.seen.state;
        self.took = Some(reading.took);
        self.seen = reading.seen;
        self.slo = reading.slo;
        self.layout_changes = reading.layout_changes;
        match reading.outcome {
            Ok(mut update) => {
                self.learn(update.identity);
                if self.role() == Role::Decode {
                    // The request came to its prefill engine, where it was counted.
                    update.delta.arrived = None;
                }
                if update.delta.moved || self.moved.is_none() {
                    self.moved = Some(reading.taken);
                }
                self.quality.add(&update.quality);
                self.gauges = update.gauges;
                self.read = Some(reading.taken);
                self.gained.add(&update.delta);
                self.totals.add(&update.delta);
                self.recent.turn(reading.taken);
                self.scrapes = self.scrapes.wrapping_add(1);
                for histogram in &update.delta.histograms {
                    self.add(histogram);
                    let fresh = || Cumulative::new(&histogram.layout);
                    self.cumulative.entry(histogram.kind).or_insert_with(fresh).add(histogram);
                    self.recent.add(histogram);
                }
            }
            Err(_) => {
                // Gauges of a page that no longer answers are not the engine's any more: absent, not repeated.
                self.gauges = EngineGauges::default();
            }
        }
        changed
    }

    /// What a page does not repeat stays known: an engine's version is asked once a connection.
    fn learn(&mut self, now: EngineIdentity) {
        let known = &mut self.identity;
        known.kind = now.kind.or(known.kind);
        known.role = now.role.or(known.role);
        known.model = now.model.or_else(|| known.model.take());
        known.version = now.version.or_else(|| known.version.take());
        known.kv_capacity_tokens = now.kv_capacity_tokens.or(known.kv_capacity_tokens);
    }

    fn add(&mut self, delta: &HistogramDelta) {
        let held = self.distributions.iter().enumerate();
        let held = held.filter(|(_, part)| part.kind == delta.kind && part.layout == delta.layout);
        let (apart, last) = held.fold((0, None), |(n, _), (at, _)| (n + 1, Some(at)));
        let room = self.distributions.len();
        let known = last.filter(|at| {
            self.distributions[*at].scrape == self.scrapes || apart >= APART || room >= MAX_DISTRIBUTIONS / 2
        });
        let part = match known {
            Some(at) => &mut self.distributions[at],
            None if room < MAX_DISTRIBUTIONS => {
                self.distributions.push(Part {
                    scrape: self.scrapes,
                    kind: delta.kind,
                    layout: delta.layout.clone(),
                    buckets: BTreeMap::new(),
                    sum: 0,
                });
                &mut self.distributions[room]
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

    pub(super) fn close(
        &mut self,
        row: usize,
        now: Instant,
        catalogue: &mut Catalogue,
        columns: &mut EngineColumns,
        histograms: &mut HistogramColumns,
    ) {
        let seen = self.seen.as_of(now);
        columns.state.push(Some(seen.state.code()));
        columns.evidence.push(Some(seen.evidence.code()));
        columns.state_ms.push(Some(millis(now.saturating_duration_since(seen.since))));
        self.push_gauges(now, columns);
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

    fn push_gauges(&self, now: Instant, columns: &mut EngineColumns) {
        let gauges = &self.gauges;
        let ppm = |ratio: Option<Ratio>| ratio.map(Ratio::to_ppm);
        columns.running.push(gauges.running);
        columns.waiting.push(gauges.waiting);
        columns.waiting_capacity.push(gauges.waiting_capacity);
        columns.waiting_deferred.push(gauges.waiting_deferred);
        columns.paused.push(gauges.paused);
        columns.kv_usage_ppm.push(ppm(gauges.kv_usage));
        // One engine is its own fullest: nothing is said twice.
        columns
            .kv_usage_max_ppm
            .push(ppm(gauges.kv_usage_max.filter(|_| gauges.kv_usage_max != gauges.kv_usage)));
        columns.kv_offload_ppm.push(ppm(gauges.kv_offload_usage));
        columns.prefix_hit_ppm.push(ppm(gauges.prefix_hit_ratio));
        columns.spec_acceptance_ppm.push(ppm(gauges.spec_acceptance));
        columns.sleep.push(gauges.sleep.map(SleepState::code));
        let signal_age = self.signal_since().map(|since| millis(now.saturating_duration_since(since)));
        columns.signal_age_ms.push(signal_age);
        columns.frontend_inflight.push(gauges.frontend_inflight);
        columns.frontend_queued.push(gauges.frontend_queued);
    }

    /// Since when nothing on the page has moved, for engines whose gauges only move when a request ends.
    fn signal_since(&self) -> Option<Instant> {
        let slow =
            matches!(self.kind(), Some(EngineKind::TensorRtLlm)) && self.seen.state == EngineState::Ready;
        self.moved.filter(|_| slow)
    }

    pub(super) const fn id(&self) -> &EngineId {
        &self.endpoint.id
    }

    fn role(&self) -> Role {
        self.endpoint.role.or(self.identity.role).unwrap_or_default()
    }

    pub(super) fn info(&self) -> EngineInfo {
        let endpoint = &self.endpoint;
        EngineInfo {
            id: endpoint.id.clone(),
            kind: self.kind().map_or("unknown", EngineKind::as_str).to_owned(),
            url: endpoint.url.clone(),
            version: self.identity.version.clone(),
            model: self.model(),
            pool: endpoint.pool.clone(),
            role: self.role(),
            replica: endpoint.replica.clone(),
            gpus: endpoint.gpus.clone(),
            kv_capacity_tokens: self.identity.kv_capacity_tokens,
            follower: endpoint.follower,
        }
    }

    /// What the page shows, since it knows more: behind a Dynamo worker's page there is an engine.
    fn kind(&self) -> Option<EngineKind> {
        self.identity.kind.or(self.endpoint.kind)
    }

    fn model(&self) -> Option<ModelName> {
        self.endpoint.model.clone().or_else(|| self.identity.model.clone())
    }

    pub(super) fn view(&self, now: Instant) -> EngineView {
        EngineView {
            info: self.info(),
            seen: self.seen.as_of(now),
            slo: Arc::clone(&self.slo),
            layout_changes: self.layout_changes,
            gauges: self.gauges,
            read: self.read,
            signal_since: self.signal_since(),
            took: self.took,
            totals: self.totals,
            unplaced: self.unplaced,
            quality: self.quality,
            cumulative: self.cumulative.clone(),
            distributions: self.recent.merged(),
            recent_since: self.recent.since(),
            exact: ExactView::default(),
        }
    }
}

/// What the agent's own pages show of one engine.
#[derive(Debug, Clone)]
pub struct EngineView {
    /// Who it is.
    pub info: EngineInfo,
    /// How it is seen.
    pub seen: Seen,
    /// How its SLO fits its buckets.
    pub slo: Arc<[SloEdge]>,
    /// How often the bounds of a distribution's buckets changed since the agent started.
    pub layout_changes: u64,
    /// The newest gauges.
    pub gauges: EngineGauges,
    /// When its page was last read.
    pub read: Option<Instant>,
    /// Since when nothing on its page has moved, where gauges only move when a request ends.
    pub signal_since: Option<Instant>,
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
    /// What exact sources tell of it.
    pub exact: ExactView,
}
