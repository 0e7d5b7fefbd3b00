//! What exact sources tell of one engine: its part of the window, and what the pages show.

use std::{collections::BTreeMap, time::Duration};

use plimsoll_common::{
    engine::DistributionKind,
    units::Ratio,
    wire::{EngineColumns, HistogramColumns, HistogramEntry},
};
use tokio::time::Instant;

use super::distribution::Recent;
use crate::exact::{ExactBatch, ExactReading, ExactSamples, PassGauges, PassUpdate};

/// The number under which reports name the fleet's own layout.
const FLEET_LAYOUT: usize = 0;
/// For how long the newest levels of a stream of forward passes are shown without another word from it.
const GAUGES_LAST: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct ExactWindow {
    samples: ExactSamples,
    passes: PassTime,
    totals: BTreeMap<DistributionKind, ExactTotal>,
    recent: Recent<ExactSamples>,
    /// The newest levels of each stream of forward passes, and when they were told.
    gauges: BTreeMap<usize, (Instant, PassGauges)>,
    /// The busy share of the last closed window.
    busy: Option<Ratio>,
    lost: Option<u64>,
}

/// What the forward passes of one window took.
#[derive(Debug, Clone, Copy, Default)]
struct PassTime {
    busy: Duration,
    watched: Duration,
    lost: Option<u64>,
}

/// Samples since the agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExactTotal {
    /// How many.
    pub count: u64,
    /// Their sum, microseconds or tokens.
    pub sum: u64,
}

/// What the agent's own pages show of an engine's exact sources.
#[derive(Debug, Clone, Default)]
pub struct ExactView {
    /// Since the agent started.
    pub totals: BTreeMap<DistributionKind, ExactTotal>,
    /// Over the last 30 to 60 s.
    pub recent: ExactSamples,
    /// The forward passes; `None` where none were ever heard.
    pub passes: Option<PassView>,
}

/// An engine's forward passes, seen whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PassView {
    /// Share of the last window that ranks spent in forward passes, their mean; `None` while none is heard.
    pub busy: Option<Ratio>,
    /// The schedulers' queues; `None` while none is heard.
    pub gauges: Option<PassGauges>,
    /// Messages lost since the agent started.
    pub lost: u64,
}

impl ExactWindow {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            samples: ExactSamples::default(),
            passes: PassTime::default(),
            totals: BTreeMap::new(),
            recent: Recent::new(now),
            gauges: BTreeMap::new(),
            busy: None,
            lost: None,
        }
    }

    pub(super) fn observe(&mut self, reading: ExactReading) {
        let ExactReading { taken, batch: ExactBatch { samples, passes }, .. } = reading;
        self.recent.turn(taken);
        self.recent.filling().merge(&samples);
        self.samples.merge(&samples);
        for (kind, cells) in samples.iter() {
            let total = self.totals.entry(kind).or_default();
            total.count = total.count.saturating_add(cells.count());
            total.sum = total.sum.saturating_add(cells.sum());
        }
        if let Some((stream, update)) = passes {
            self.observe_passes(taken, stream, update);
        }
    }

    fn observe_passes(&mut self, taken: Instant, stream: usize, update: PassUpdate) {
        let time = &mut self.passes;
        time.busy = time.busy.saturating_add(update.busy);
        time.watched = time.watched.saturating_add(update.watched);
        time.lost = Some(time.lost.unwrap_or(0).saturating_add(update.lost));
        self.lost = Some(self.lost.unwrap_or(0).saturating_add(update.lost));
        match update.gauges {
            Some(gauges) => drop(self.gauges.insert(stream, (taken, gauges))),
            None => drop(self.gauges.remove(&stream)),
        }
    }

    pub(super) fn close(
        &mut self,
        row: usize,
        now: Instant,
        columns: &mut EngineColumns,
        histograms: &mut HistogramColumns,
    ) {
        self.recent.turn(now);
        for (kind, cells) in self.samples.take().iter() {
            histograms.push(&HistogramEntry {
                engine: row,
                kind: kind.code(),
                layout: FLEET_LAYOUT,
                cells: cells.cells().map(|(cell, n)| (usize::from(cell), n)).collect(),
                sum: cells.sum(),
            });
        }
        let time = std::mem::take(&mut self.passes);
        self.busy = time.busy_share();
        self.gauges.retain(|_, (told, _)| now.saturating_duration_since(*told) < GAUGES_LAST);
        let gauges = self.sum_of_gauges();
        columns.pass_busy_ppm.push(self.busy.map(Ratio::to_ppm));
        columns.passes_lost.push(time.lost);
        columns.pass_ranks.push(gauges.map(|gauges| gauges.ranks));
        columns.queued_prefill_requests.push(gauges.map(|gauges| gauges.queued_prefill_requests));
        columns.queued_prefill_tokens.push(gauges.map(|gauges| gauges.queued_prefill_tokens));
        columns.queued_decode_requests.push(gauges.map(|gauges| gauges.queued_decode_requests));
    }

    fn sum_of_gauges(&self) -> Option<PassGauges> {
        self.gauges.values().map(|(_, gauges)| *gauges).reduce(PassGauges::plus)
    }

    pub(super) fn view(&self) -> ExactView {
        let passes = self.lost.map(|lost| PassView { busy: self.busy, gauges: self.sum_of_gauges(), lost });
        ExactView { totals: self.totals.clone(), recent: self.recent.merged(), passes }
    }
}

impl PassTime {
    /// A pass is told of when it ends, with all of its time: a window with the end of a longer pass is busy all over.
    fn busy_share(&self) -> Option<Ratio> {
        let watched = self.watched.as_secs_f64();
        (watched > 0.0).then(|| Ratio::new((self.busy.as_secs_f64() / watched).min(1.0)).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(taken: Instant, batch: ExactBatch) -> ExactReading {
        ExactReading { engine: 0, taken, batch }
    }

    fn one(kind: DistributionKind, value: u64) -> ExactBatch {
        let mut samples = ExactSamples::default();
        samples.record(kind, value);
        ExactBatch { samples, passes: None }
    }

    fn close(window: &mut ExactWindow, now: Instant) -> (EngineColumns, Vec<HistogramEntry>) {
        let (mut columns, mut histograms) = (EngineColumns::default(), HistogramColumns::default());
        window.close(0, now, &mut columns, &mut histograms);
        (columns, histograms.iter().map(Result::unwrap).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn samples_travel_once_in_the_fleet_s_layout() {
        let now = Instant::now();
        let mut window = ExactWindow::new(now);
        window.observe(reading(now, one(DistributionKind::Ttft, 250)));
        window.observe(reading(now, one(DistributionKind::Ttft, 250)));
        window.observe(reading(now, one(DistributionKind::Isl, 7)));
        let (columns, entries) = close(&mut window, now);
        let of = |entry: &HistogramEntry| (entry.kind(), entry.layout, entry.cells.clone(), entry.sum);
        let want = [
            (Some(DistributionKind::Ttft), 0, vec![(250, 2)], 500),
            (Some(DistributionKind::Isl), 0, vec![(7, 1)], 7),
        ];
        assert_eq!(entries.iter().map(of).collect::<Vec<_>>(), want);
        assert_eq!(columns.pass_busy_ppm.get(0), None, "no forward pass was heard, which is not idle");
        assert!(close(&mut window, now).1.is_empty());
        let view = window.view();
        assert_eq!(view.totals[&DistributionKind::Ttft], ExactTotal { count: 2, sum: 500 });
        assert_eq!(view.recent.get(DistributionKind::Ttft).map(|cells| cells.count()), Some(2));
        assert_eq!(view.passes, None);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_of_passes_add_up() {
        let now = Instant::now();
        let mut window = ExactWindow::new(now);
        let gauges = PassGauges { ranks: 1, queued_prefill_requests: 3, ..PassGauges::default() };
        let update = |lost, busy, gauges| PassUpdate {
            lost,
            busy: Duration::from_millis(busy),
            watched: Duration::from_secs(1),
            gauges,
        };
        for (stream, update) in [(0, update(2, 800, Some(gauges))), (1, update(0, 200, Some(gauges)))] {
            let batch = ExactBatch { passes: Some((stream, update)), ..ExactBatch::default() };
            window.observe(reading(now, batch));
        }
        let (columns, _) = close(&mut window, now);
        assert_eq!(columns.pass_busy_ppm.get(0), Some(500_000));
        assert_eq!(columns.passes_lost.get(0), Some(2));
        assert_eq!((columns.pass_ranks.get(0), columns.queued_prefill_requests.get(0)), (Some(2), Some(6)));
        // One stream breaks, the other falls silent.
        let batch = ExactBatch { passes: Some((0, update(0, 0, None))), ..ExactBatch::default() };
        window.observe(reading(now, batch));
        assert_eq!(close(&mut window, now).0.pass_ranks.get(0), Some(1));
        let later = now + GAUGES_LAST;
        let (columns, _) = close(&mut window, later);
        assert_eq!((columns.pass_ranks.get(0), columns.passes_lost.get(0)), (None, None));
        assert_eq!(window.view().passes, Some(PassView { busy: None, gauges: None, lost: 2 }));
    }
}
