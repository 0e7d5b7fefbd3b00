//! Reading windows: slots are added up, quantiles are estimated and bounded.

use std::collections::BTreeMap;

use plimsoll_common::{
    engine::DistributionKind,
    histogram::{
        BucketCounts, LatencyHistogram,
        layout::{CELLS, highest_in, lowest_in},
        place, quantile_bounds,
    },
    units::{Micros, Ratio},
};

use super::{
    counters::{Counter, Counts, Rates},
    layouts::{LayoutId, Layouts},
    observation::{DistributionKey, Source},
    packed::{Item, Series},
    series::Accumulator,
    summary::{DistributionSummary, QUANTILES, Quantile, Span, WindowSummary},
    window::Window,
};

/// The sum of what one or more engines or pools hold for one window.
#[derive(Debug)]
pub(super) struct Gathered {
    window: Window,
    now: Micros,
    counts: Counts,
    distributions: BTreeMap<DistributionKey, Distribution>,
    covered: Option<(Micros, Micros)>,
}

#[derive(Debug, Default)]
struct Distribution {
    count: u64,
    sum: u64,
    /// Cells of the fleet's layout, in any order.
    cells: Vec<(u16, u64)>,
    /// By layout: the counts and the sum of what was counted in it.
    buckets: BTreeMap<LayoutId, (BucketCounts, u64)>,
}

impl Gathered {
    pub(super) const fn new(window: Window, now: Micros) -> Self {
        Self { window, now, counts: Counts::none(), distributions: BTreeMap::new(), covered: None }
    }

    /// Adds what an accumulator holds for the window.
    pub(super) fn add(&mut self, from: &Accumulator, layouts: &Layouts) {
        self.counts.presence_of(&from.counts);
        for (key, _) in &from.distributions {
            self.distributions.entry(*key).or_default();
        }
        if let Some((first, last)) = from.covered {
            let (begin, end) = self.covered.unwrap_or((first, last));
            self.covered = Some((begin.min(first), end.max(last)));
        }
        for log in from.rings.read(self.window, self.now) {
            log.visit(|series, layout, item| self.item(series, layout, item, layouts));
        }
    }

    fn item(&mut self, series: Series, layout: u64, item: Item, layouts: &Layouts) {
        let (kind, placed) = match (series, item) {
            (Series::Counters, Item::Sum(_)) => return,
            (Series::Counters, Item::Cell(index, n)) => {
                if let Some(counter) = Counter::ALL.get(index) {
                    self.counts.gain(*counter, n);
                }
                return;
            }
            (Series::Observed(kind), _) => (kind, false),
            (Series::Placed(kind), _) => (kind, true),
        };
        let Some(kind) = DistributionKind::from_code(u64::from(kind)) else { return };
        let bucketed = placed || layout > 0;
        let source = if bucketed { Source::Bucketed } else { Source::Exact };
        let into = self.distributions.entry(DistributionKey { kind, source }).or_default();
        match item {
            Item::Cell(cell, n) if placed => into.cells.push((cell as u16, n)),
            Item::Cell(cell, n) if !bucketed => {
                into.count = into.count.saturating_add(n);
                into.cells.push((cell as u16, n));
            }
            Item::Cell(bucket, n) => {
                into.count = into.count.saturating_add(n);
                if let Some((counts, _)) = into.layout(layout, layouts) {
                    counts.add(bucket, n);
                }
            }
            Item::Sum(sum) => {
                into.sum = into.sum.saturating_add(sum);
                if let Some((_, of_layout)) = into.layout(layout, layouts) {
                    *of_layout = of_layout.saturating_add(sum);
                }
            }
        }
    }

    /// Places what was not placed when it was observed: the buckets of single engines, by the sum of the window.
    pub(super) fn place_buckets(&mut self) {
        for distribution in self.distributions.values_mut() {
            for (counts, sum) in distribution.buckets.values() {
                let pairs: Vec<_> = counts.nonzero().collect();
                place(counts.layout(), &pairs, *sum, |cell, n| distribution.cells.push((cell, n)));
            }
        }
    }

    /// The cells of a distribution, dense; `None` where it was never observed.
    pub(super) fn histogram(&self, key: DistributionKey) -> Option<LatencyHistogram> {
        let mut dense = LatencyHistogram::new();
        self.distributions.get(&key)?.fill(&mut dense);
        Some(dense)
    }

    /// What is shown of it. `fresh` is the age up to which the last observation ends the window; beyond it the window
    /// ends now, in silence.
    pub(super) fn summary(&self, fresh: Micros, dense: &mut LatencyHistogram) -> WindowSummary {
        let span = self.span(fresh);
        WindowSummary {
            span,
            gained: self.counts,
            rates: Rates { gained: self.counts, seconds: span.seconds() },
            prefix_cache_hit_ratio: self.hit_ratio(),
            distributions: self
                .distributions
                .iter()
                .map(|(key, distribution)| (*key, distribution.summary(*key, dense)))
                .collect(),
        }
    }

    fn span(&self, fresh: Micros) -> Span {
        let (first, last) = self.covered.unwrap_or((self.now, self.now));
        let to = if self.now.saturating_sub(last) <= fresh { last.min(self.now) } else { self.now };
        Span { from: self.window.begin(self.now).max(first).min(to), to }
    }

    fn hit_ratio(&self) -> Option<f64> {
        let queries = self.counts.get(Counter::PrefixQueries).filter(|n| *n > 0)?;
        let hits = self.counts.get(Counter::PrefixHits)?;
        Some((hits as f64 / queries as f64).min(1.0))
    }
}

impl Distribution {
    fn layout(&mut self, code: u64, layouts: &Layouts) -> Option<&mut (BucketCounts, u64)> {
        let (id, layout) = layouts.by_code(code)?;
        Some(self.buckets.entry(id).or_insert_with(|| (BucketCounts::new(layout.clone()), 0)))
    }

    fn fill(&self, dense: &mut LatencyHistogram) {
        dense.clear();
        for (cell, n) in &self.cells {
            dense.add_cell(*cell, *n);
        }
        dense.add_sum(self.sum);
    }

    fn summary(&self, key: DistributionKey, dense: &mut LatencyHistogram) -> DistributionSummary {
        self.fill(dense);
        let quantiles =
            QUANTILES.map(|(_, q)| Ratio::new(q).ok().and_then(|q| self.quantile(key.source, q, dense)));
        DistributionSummary {
            key,
            count: self.count,
            sum: self.sum,
            quantiles,
            saturated: self.saturated(key.source),
        }
    }

    fn quantile(&self, source: Source, q: Ratio, dense: &LatencyHistogram) -> Option<Quantile> {
        let estimate = dense.quantile(q)?;
        let bounds = match source {
            Source::Bucketed => {
                let bounds = quantile_bounds(self.buckets.values().map(|(counts, _)| counts), q)?;
                (bounds.low, bounds.high)
            }
            Source::Exact => {
                let cell = plimsoll_common::histogram::layout::cell_of(estimate.0);
                let last = usize::from(cell) == CELLS - 1;
                (Micros(lowest_in(cell)), (!last).then_some(Micros(highest_in(cell))))
            }
        };
        Some(Quantile::new(estimate, bounds))
    }

    /// Samples above the last edge (or the last cell): of these only a lower bound is known.
    fn saturated(&self, source: Source) -> u64 {
        let above = |buckets: &BucketCounts| {
            let last = buckets.layout().buckets() - 1;
            buckets
                .nonzero()
                .filter(|(bucket, _)| *bucket == last)
                .fold(0u64, |sum, (_, n)| sum.saturating_add(n))
        };
        match source {
            Source::Bucketed => {
                self.buckets.values().fold(0, |sum, (counts, _)| sum.saturating_add(above(counts)))
            }
            Source::Exact => {
                let last = self.cells.iter().filter(|(cell, _)| usize::from(*cell) == CELLS - 1);
                last.fold(0, |sum, (_, n)| sum.saturating_add(*n))
            }
        }
    }
}
