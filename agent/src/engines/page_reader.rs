//! From a page's bytes to an [`EnginePage`], by an engine's dialect.

use std::collections::BTreeMap;

use plimsoll_common::{
    engine::{DistributionKind, EngineKind},
    histogram::MAX_BUCKET_EDGES,
    ids::ModelName,
    units::Ratio,
};

use super::{
    dialect::{self, Dialect, Part, Signal},
    page::{ByLabels, Counter, EnginePage, HistogramCounts, HistogramSeries, PageError},
};
use crate::exposition::{Entry, Labels, Limits, Sample, parse_float, read};

/// The most label sets that are kept of one page.
const MAX_SERIES: usize = 8192;

/// Reads an engine's page.
///
/// # Errors
/// When the page is too long, is no metrics page at all, or has none of the engine's core metrics.
pub fn read_page(kind: Option<EngineKind>, bytes: &[u8], limits: Limits) -> Result<EnginePage, PageError> {
    let mut lines = read(bytes, limits)?;
    let Some(dialect) = dialect::of(kind.unwrap_or(EngineKind::Vllm)) else {
        return Err(PageError::Unrecognised { kind, samples: lines.by_ref().count() });
    };
    let mut reader = PageReader::new(dialect);
    for entry in lines.by_ref() {
        match entry {
            Entry::Sample(sample) => reader.sample(&sample),
            Entry::Type { name, .. } => reader.announced(name),
            Entry::Help { .. } | Entry::Unit { .. } => {}
        }
    }
    if !reader.core {
        return Err(match lines.skipped().first {
            Some(first) if lines.samples() == 0 => PageError::Unparsable(first),
            _ => PageError::Unrecognised { kind, samples: lines.samples() },
        });
    }
    let mut page = reader.finish();
    page.kind = Some(kind.unwrap_or(EngineKind::Vllm));
    page.quality.malformed_lines = lines.skipped().malformed;
    page.quality.first_malformed = lines.skipped().first;
    page.quality.dropped_samples += lines.skipped().over_limit;
    Ok(page)
}

/// A sample's family, the rank of its name, and its part.
type Found = Option<(usize, usize, Part)>;

struct PageReader<'a> {
    dialect: &'static Dialect,
    /// Whether a core family was seen.
    core: bool,
    /// The lowest rank seen of each family's names.
    ranks: Vec<Option<usize>>,
    /// The name of the last line and what it is: buckets of one family follow each other.
    last: (&'a str, Found),
    running: Option<f64>,
    waiting: Option<f64>,
    kv_usage: BTreeMap<Box<str>, f64>,
    kv_capacity: BTreeMap<Box<str>, u64>,
    histograms: BTreeMap<DistributionKind, ByLabels<Gathered>>,
    series: usize,
    page: EnginePage,
    /// Scratch space for a label set without `le`.
    labels: String,
}

/// A histogram series while its page is read.
#[derive(Default)]
struct Gathered {
    edges: Vec<f64>,
    /// Cumulative counts of the finite edges.
    cumulative: Vec<u64>,
    infinite: Option<u64>,
    count: Option<u64>,
    sum: Option<f64>,
    /// Whether a number was no count, or the buckets were no layout.
    broken: bool,
}

impl<'a> PageReader<'a> {
    fn new(dialect: &'static Dialect) -> Self {
        Self {
            dialect,
            core: false,
            ranks: vec![None; dialect.families.len()],
            last: ("", None),
            running: None,
            waiting: None,
            kv_usage: BTreeMap::new(),
            kv_capacity: BTreeMap::new(),
            histograms: BTreeMap::new(),
            series: 0,
            page: EnginePage::default(),
            labels: String::new(),
        }
    }

    /// A `TYPE` line: the engine knows the family, even if it has no series yet.
    fn announced(&mut self, name: &'a str) {
        let Some((family, _, Part::Whole)) = self.dialect.find(name) else { return };
        self.core |= self.dialect.families[family].core;
        for counter in counters_of(self.dialect.families[family].signal) {
            self.page.counters.entry(*counter).or_default();
        }
    }

    fn sample(&mut self, sample: &Sample<'a>) {
        if self.last.0 != sample.name {
            self.last = (sample.name, self.dialect.find(sample.name));
        }
        let Some((family, rank, part)) = self.last.1 else { return };
        let signal = self.dialect.families[family].signal;
        match self.ranks[family] {
            Some(best) if rank > best => return,
            Some(best) if rank < best => self.forget(signal),
            _ => {}
        }
        self.ranks[family] = Some(rank);
        self.core |= self.dialect.families[family].core;
        if self.page.model.is_none() {
            let named = sample.labels.get(self.dialect.model_label);
            self.page.model = named.and_then(|name| ModelName::parse(&name.text()).ok());
        }
        self.take(signal, part, sample);
    }

    fn take(&mut self, signal: Signal, part: Part, sample: &Sample<'a>) {
        let labels = sample.labels;
        match signal {
            Signal::Running => add_gauge(&mut self.running, sample.value),
            Signal::Waiting => add_gauge(&mut self.waiting, sample.value),
            Signal::KvUsage if sample.value.is_finite() => {
                self.kv_usage.insert(self.engine_of(labels), sample.value);
            }
            Signal::KvUsage => {}
            Signal::KvCapacity(capacity) => {
                if let Some(tokens) = capacity(labels) {
                    self.kv_capacity.insert(self.engine_of(labels), tokens);
                }
            }
            Signal::Counter(counter) => self.count(counter, sample),
            Signal::Finished { label, counter } => {
                for known in Counter::FINISHED {
                    self.page.counters.entry(known).or_default();
                }
                let reason = labels.get(label);
                let counter = counter(reason.map(|reason| reason.text()).as_deref().unwrap_or_default());
                self.count(counter, sample);
            }
            Signal::HttpEnded(counts) => {
                self.page.counters.entry(Counter::HttpEnded).or_default();
                if counts(labels) {
                    self.count(Counter::HttpEnded, sample);
                }
            }
            Signal::Histogram(kind) => self.histogram(kind, part, sample),
            Signal::ProcessStart => {
                self.page.process_start = Some(sample.value).filter(|start| start.is_finite())
            }
        }
    }

    /// Forgets what stood under a less preferred name of the signal.
    fn forget(&mut self, signal: Signal) {
        match signal {
            Signal::Running => self.running = None,
            Signal::Waiting => self.waiting = None,
            Signal::KvUsage => self.kv_usage.clear(),
            Signal::KvCapacity(_) => self.kv_capacity.clear(),
            Signal::Counter(_) | Signal::Finished { .. } | Signal::HttpEnded(_) => {
                for counter in counters_of(signal) {
                    self.page.counters.remove(counter);
                }
            }
            Signal::Histogram(kind) => drop(self.histograms.remove(&kind)),
            Signal::ProcessStart => self.page.process_start = None,
        }
    }

    fn engine_of(&self, labels: Labels<'_>) -> Box<str> {
        labels
            .get(self.dialect.engine_label)
            .map_or_else(|| Box::from("0"), |engine| Box::from(engine.text()))
    }

    /// Whether there is room for one series more.
    const fn room(&mut self) -> bool {
        if self.series == MAX_SERIES {
            self.page.quality.dropped_samples += 1;
            return false;
        }
        self.series += 1;
        true
    }

    fn count(&mut self, counter: Counter, sample: &Sample<'_>) {
        let Some(value) = whole(sample.value) else {
            self.page.quality.dropped_samples += 1;
            return;
        };
        if !self.room() {
            return;
        }
        let total =
            self.page.counters.entry(counter).or_default().entry(sample.labels.raw().into()).or_default();
        *total = total.saturating_add(value);
    }

    fn histogram(&mut self, kind: DistributionKind, part: Part, sample: &Sample<'_>) {
        let (before, after) = sample.labels.around("le");
        self.labels.clear();
        self.labels.push_str(before);
        self.labels.push_str(after);
        let key = self.labels.trim_end_matches([',', ' ', '\t']);
        if self.histograms.get(&kind).is_none_or(|family| !family.contains_key(key)) {
            let key = Box::from(key);
            if !self.room() {
                return;
            }
            self.histograms.entry(kind).or_default().insert(key, Gathered::default());
        }
        let key = self.labels.trim_end_matches([',', ' ', '\t']);
        if let Some(series) = self.histograms.get_mut(&kind).and_then(|family| family.get_mut(key)) {
            series.take(part, sample);
        }
    }

    fn finish(mut self) -> EnginePage {
        self.page.gauges.running = self.running.and_then(whole);
        self.page.gauges.waiting = self.waiting.and_then(whole);
        self.page.gauges.kv_usage = weighted_usage(&self.kv_usage, &self.kv_capacity);
        if !self.kv_capacity.is_empty() {
            self.page.kv_capacity_tokens =
                Some(self.kv_capacity.values().fold(0, |sum: u64, tokens| sum.saturating_add(*tokens)));
        }
        for (kind, family) in self.histograms {
            let series: ByLabels<_> = family.into_iter().map(|(labels, of)| (labels, of.finish())).collect();
            self.page.quality.torn_series += series.values().filter(|of| of.counts.is_none()).count() as u64;
            self.page.histograms.insert(kind, series);
        }
        self.page
    }
}

impl Gathered {
    fn take(&mut self, part: Part, sample: &Sample<'_>) {
        match part {
            Part::Bucket => {
                let le = sample.labels.get("le").and_then(|le| parse_float(&le.text()));
                match (le, whole(sample.value)) {
                    (Some(le), Some(count)) if le == f64::INFINITY => self.infinite = Some(count),
                    (Some(le), Some(count)) if self.edges.len() < MAX_BUCKET_EDGES => {
                        self.edges.push(le);
                        self.cumulative.push(count);
                    }
                    _ => self.broken = true,
                }
            }
            Part::Count => self.count = whole(sample.value),
            Part::Sum => self.sum = Some(sample.value).filter(|sum| sum.is_finite()),
            Part::Whole => self.broken = true,
        }
    }

    /// Turns cumulative counts into counts a bucket, if they can be any: rising over the edges, and +Inf's the count.
    fn finish(mut self) -> HistogramSeries {
        let edges = std::mem::take(&mut self.edges);
        let counts = self.counts(&edges);
        HistogramSeries { edges, counts }
    }

    fn counts(mut self, edges: &[f64]) -> Option<HistogramCounts> {
        let (infinite, sum) = (self.infinite?, self.sum?);
        let layout =
            edges.is_sorted_by(|a, b| a < b) && edges.iter().all(|edge| edge.is_finite() && *edge >= 0.0);
        if self.broken || edges.is_empty() || !layout || self.count != Some(infinite) {
            return None;
        }
        let mut buckets = std::mem::take(&mut self.cumulative);
        buckets.push(infinite);
        let mut below = 0;
        for bucket in &mut buckets {
            let cumulative = *bucket;
            *bucket = cumulative.checked_sub(below)?;
            below = cumulative;
        }
        Some(HistogramCounts { buckets, sum })
    }
}

/// The counters that a signal feeds.
const fn counters_of(signal: Signal) -> &'static [Counter] {
    match signal {
        Signal::Finished { .. } => &Counter::FINISHED,
        Signal::HttpEnded(_) => &[Counter::HttpEnded],
        Signal::Counter(counter) => one(counter),
        _ => &[],
    }
}

const fn one(counter: Counter) -> &'static [Counter] {
    match counter {
        Counter::PromptTokens => &[Counter::PromptTokens],
        Counter::GenerationTokens => &[Counter::GenerationTokens],
        Counter::PrefixQueries => &[Counter::PrefixQueries],
        Counter::PrefixHits => &[Counter::PrefixHits],
        Counter::Preemptions => &[Counter::Preemptions],
        Counter::FinishedStop => &[Counter::FinishedStop],
        Counter::FinishedLength => &[Counter::FinishedLength],
        Counter::Aborted => &[Counter::Aborted],
        Counter::Errored => &[Counter::Errored],
        Counter::HttpEnded => &[Counter::HttpEnded],
    }
}

fn add_gauge(total: &mut Option<f64>, value: f64) {
    if value.is_finite() {
        *total = Some(total.unwrap_or_default() + value);
    }
}

/// A count as a whole number; `None` for what can be no count.
fn whole(value: f64) -> Option<u64> {
    // Beyond 2^53 a double no longer holds every whole number, so that differences would lie.
    (0.0..=9_007_199_254_740_992.0).contains(&value).then(|| value.round() as u64)
}

/// The mean over the engines, weighted by their capacity where all of them are known, else plain.
fn weighted_usage(usage: &BTreeMap<Box<str>, f64>, capacity: &BTreeMap<Box<str>, u64>) -> Option<Ratio> {
    if usage.is_empty() {
        return None;
    }
    let weigh = usage.keys().all(|engine| capacity.contains_key(engine));
    let (mut sum, mut weights) = (0.0, 0.0);
    for (engine, used) in usage {
        let weight = if weigh { capacity.get(engine).map_or(1.0, |tokens| *tokens as f64) } else { 1.0 };
        sum += used.clamp(0.0, 1.0) * weight;
        weights += weight;
    }
    Ratio::new((sum / weights).clamp(0.0, 1.0)).ok()
}
