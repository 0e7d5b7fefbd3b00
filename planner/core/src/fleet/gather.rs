//! Reading windows: slots are added up, quantiles are estimated and bounded.

use std::collections::{BTreeMap, btree_map::Entry};

use plimsoll_common::{
    engine::DistributionKind,
    histogram::{
        BucketCounts, LatencyHistogram, LeanCounts,
        layout::{CELLS, cell_of, highest_in, lowest_in},
        place, quantile_bounds,
    },
    units::{Micros, Ratio},
};

use super::{
    counters::{Counter, Counts, Rates},
    layouts::{LayoutId, Layouts},
    observation::{DistributionKey, Source},
    packed::{self, Series},
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
    /// The samples in cells of the fleet's layout, where there are any.
    cells: Option<LatencyHistogram>,
    /// By layout: the counts and the sum of what was counted in it.
    buckets: BTreeMap<LayoutId, (BucketCounts, u64)>,
    /// By layout: what each report's own sum said of where in its buckets the samples lie. Until [`Gathered::settle`].
    leaned: BTreeMap<LayoutId, LeanCounts>,
}

impl Gathered {
    pub(super) const fn new(window: Window, now: Micros) -> Self {
        Self { window, now, counts: Counts::none(), distributions: BTreeMap::new(), covered: None }
    }

    pub(super) const fn window(&self) -> Window {
        self.window
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
            log.visit(|entry| self.entry(entry, layouts));
        }
    }

    /// Adds all of another, of the same window and instant.
    pub(super) fn merge(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        if let Some((first, last)) = other.covered {
            let (begin, end) = self.covered.unwrap_or((first, last));
            self.covered = Some((begin.min(first), end.max(last)));
        }
        for (key, theirs) in &other.distributions {
            self.distributions.entry(*key).or_default().merge(theirs);
        }
    }

    fn entry(&mut self, entry: &mut packed::Entry<'_, '_>, layouts: &Layouts) {
        let (kind, leaned) = match entry.series {
            Series::Counters => {
                for (index, n) in entry {
                    if let Some(counter) = Counter::ALL.get(index) {
                        self.counts.gain(*counter, n);
                    }
                }
                return;
            }
            Series::Observed(kind) => (kind, false),
            Series::Leaned(kind) => (kind, true),
        };
        let Some(kind) = DistributionKind::from_code(u64::from(kind)) else { return };
        let source = if entry.layout > 0 { Source::Bucketed } else { Source::Exact };
        let into = self.distributions.entry(DistributionKey { kind, source }).or_default();
        into.sum = into.sum.saturating_add(entry.sum);
        let mut count = 0u64;
        let layout = layouts.by_code(entry.layout);
        match layout {
            None if source == Source::Bucketed => return,
            None => {
                let cells = into.cells.get_or_insert_default();
                entry.for_each(|(cell, n)| {
                    cells.add_cell(cell as u16, n);
                    count = count.saturating_add(n);
                });
            }
            Some((id, layout)) if leaned => {
                let places = into.leaned.entry(id).or_insert_with(|| LeanCounts::new(layout.clone()));
                entry.for_each(|(place, n)| {
                    places.add(place, n);
                    count = count.saturating_add(n);
                });
            }
            Some((id, layout)) => {
                let empty = || (BucketCounts::new(layout.layout().clone()), 0);
                let (buckets, sum) = into.buckets.entry(id).or_insert_with(empty);
                *sum = sum.saturating_add(entry.sum);
                entry.for_each(|(bucket, n)| {
                    buckets.add(bucket, n);
                    count = count.saturating_add(n);
                });
            }
        }
        into.count = into.count.saturating_add(count);
    }

    /// Lays samples into cells, once all is added up: what leans as it leans, the buckets of single engines by the sum
    /// of the window.
    pub(super) fn settle(&mut self) {
        for distribution in self.distributions.values_mut() {
            let Distribution { cells, buckets, leaned, .. } = distribution;
            for (counts, sum) in buckets.values() {
                let pairs: Vec<_> = counts.nonzero().collect();
                let cells = cells.get_or_insert_default();
                place(counts.layout(), &pairs, *sum, |cell, n| cells.add_cell(cell, n));
            }
            for (id, places) in std::mem::take(leaned) {
                let cells = cells.get_or_insert_default();
                places.lay(|cell, n| cells.add_cell(cell, n));
                buckets.insert(id, (places.buckets(), 0));
            }
        }
    }

    /// The cells of a distribution; `None` where it was never observed.
    pub(super) fn histogram(&self, key: DistributionKey) -> Option<LatencyHistogram> {
        let distribution = self.distributions.get(&key)?;
        let mut histogram = distribution.cells.clone().unwrap_or_default();
        histogram.add_sum(distribution.sum);
        Some(histogram)
    }

    /// What is shown of it. `fresh` is the age up to which the last observation ends the window; beyond it the window
    /// ends now, in silence.
    pub(super) fn summary(&self, fresh: Micros) -> WindowSummary {
        let span = self.span(fresh);
        WindowSummary {
            span,
            gained: self.counts,
            rates: Rates { gained: self.counts, seconds: span.seconds() },
            prefix_cache_hit_ratio: self.share(Counter::PrefixHits, Counter::PrefixQueries),
            spec_acceptance_ratio: self.share(Counter::AcceptedTokens, Counter::DraftTokens),
            distributions: self
                .distributions
                .iter()
                .map(|(key, distribution)| (*key, distribution.summary(*key)))
                .collect(),
        }
    }

    fn span(&self, fresh: Micros) -> Span {
        let (first, last) = self.covered.unwrap_or((self.now, self.now));
        let to = if self.now.saturating_sub(last) <= fresh { last.min(self.now) } else { self.now };
        Span { from: self.window.begin(self.now).max(first).min(to), to }
    }

    /// A counter's share of another; absent where the other gained nothing.
    fn share(&self, part: Counter, of: Counter) -> Option<f64> {
        let whole = self.counts.get(of).filter(|n| *n > 0)?;
        Some((self.counts.get(part)? as f64 / whole as f64).min(1.0))
    }
}

impl Distribution {
    fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        if let Some(theirs) = &other.cells {
            self.cells.get_or_insert_default().merge(theirs);
        }
        for (id, (theirs, sum)) in &other.buckets {
            let (mine, of_layout) =
                self.buckets.entry(*id).or_insert_with(|| (BucketCounts::new(theirs.layout().clone()), 0));
            theirs.nonzero().for_each(|(bucket, n)| mine.add(bucket, n));
            *of_layout = of_layout.saturating_add(*sum);
        }
        for (id, theirs) in &other.leaned {
            match self.leaned.entry(*id) {
                Entry::Occupied(mine) => mine.into_mut().merge(theirs),
                Entry::Vacant(none) => _ = none.insert(theirs.clone()),
            }
        }
    }

    fn summary(&self, key: DistributionKey) -> DistributionSummary {
        let quantile = |q| self.quantile(key.source, Ratio::new(q).ok()?);
        DistributionSummary {
            key,
            count: self.count,
            sum: self.sum,
            quantiles: QUANTILES.map(|(_, q)| quantile(q)),
            saturated: self.saturated(key.source),
        }
    }

    fn quantile(&self, source: Source, q: Ratio) -> Option<Quantile> {
        let estimate = self.cells.as_ref()?.quantile(q)?;
        let bounds = match source {
            Source::Bucketed => {
                let bounds = quantile_bounds(self.buckets.values().map(|(counts, _)| counts), q)?;
                (bounds.low, bounds.high)
            }
            Source::Exact => {
                let cell = cell_of(estimate.0);
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
                let cells = self.cells.iter().flat_map(LatencyHistogram::nonzero);
                cells
                    .filter(|(cell, _)| usize::from(*cell) == CELLS - 1)
                    .fold(0, |sum, (_, n)| sum.saturating_add(n))
            }
        }
    }
}
