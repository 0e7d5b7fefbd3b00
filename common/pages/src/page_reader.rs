//! From a page's bytes to an [`EnginePage`], by an engine's dialect.

use std::collections::BTreeMap;

use plimsoll_common::{
    engine::{DistributionKind, EngineKind},
    ids::ModelName,
};

use super::{
    detect,
    dialect::{self, Dialect, Found, Part, Signal},
    iterations,
    page::{ByLabels, Counter, EnginePage, PageError},
    page_histogram::Gathered,
    quantity::{Quantities, Quantity, Ranks, whole},
};
use crate::exposition::{Entry, Labels, Limits, Sample, read};

/// The most label sets that are kept of one page.
const MAX_SERIES: usize = 8192;

/// Reads an engine's page; without a kind, the kind is what the page shows.
///
/// # Errors
/// When the page is too long, is no metrics page at all, or has none of the engine's core metrics.
pub fn read_page(kind: Option<EngineKind>, bytes: &[u8], limits: Limits) -> Result<EnginePage, PageError> {
    read_page_of(kind, None, bytes, limits)
}

/// Reads an engine's page. Of a front-end's page, which speaks of several models, only what it says of this model.
///
/// # Errors
/// As [`read_page`].
pub fn read_page_of(
    kind: Option<EngineKind>,
    model: Option<&ModelName>,
    bytes: &[u8],
    limits: Limits,
) -> Result<EnginePage, PageError> {
    if matches!(kind, None | Some(EngineKind::TensorRtLlm)) && iterations::looks_like(bytes) {
        return iterations::read_alone(bytes, limits.page_bytes);
    }
    let mut lines = read(bytes, limits)?;
    let shown = detect::kinds(bytes);
    let (kind_of_page, dialects) = dialects(kind, &shown);
    let mut reader = PageReader::new(dialects, model.filter(|_| kind_of_page.is_front_end()));
    for entry in lines.by_ref() {
        match entry {
            Entry::Sample(sample) => reader.sample(&sample),
            Entry::Type { name, .. } => reader.announced(name),
            Entry::Help { .. } | Entry::Unit { .. } => {}
        }
    }
    // TensorRT-LLM shows a family with its first sample: before a request there is little on its page, or nothing.
    let fresh = kind_of_page == EngineKind::TensorRtLlm
        && (shown.contains(&kind_of_page) || (lines.samples() == 0 && lines.skipped().first.is_none()));
    if !reader.core && !fresh {
        return Err(match lines.skipped().first {
            Some(first) if lines.samples() == 0 => PageError::Unparsable(first),
            _ => PageError::Unrecognised { kind, shown: shown.first().copied(), samples: lines.samples() },
        });
    }
    let mut page = reader.finish(kind_of_page);
    page.quality.malformed_lines = lines.skipped().malformed;
    page.quality.first_malformed = lines.skipped().first;
    page.quality.dropped_samples += lines.skipped().over_limit;
    Ok(page)
}

/// Whose page it is, and the dialects to read it by. An engine within a Dynamo worker wins over the worker, whose own
/// families come on top.
fn dialects(told: Option<EngineKind>, shown: &[EngineKind]) -> (EngineKind, Vec<&'static Dialect>) {
    let kind = match told {
        None | Some(EngineKind::DynamoWorker) => shown.first().copied().or(told).unwrap_or(EngineKind::Vllm),
        Some(kind) => kind,
    };
    let mut dialects = vec![dialect::of(kind)];
    if kind != EngineKind::DynamoWorker && shown.contains(&EngineKind::DynamoWorker) {
        dialects.push(dialect::of(EngineKind::DynamoWorker));
    }
    (kind, dialects)
}

struct PageReader<'a> {
    dialects: Vec<&'static Dialect>,
    /// The only model that counts.
    wanted: Option<&'a ModelName>,
    /// Whether a core family was seen.
    core: bool,
    /// By family: the lowest rank seen of its names.
    ranks: BTreeMap<usize, usize>,
    /// The name of the last line and what it is: buckets of one family follow each other.
    last: (&'a str, Option<Found>),
    quantities: Quantities,
    /// By counter and family.
    counters: BTreeMap<(Counter, usize), ByLabels<(Ranks, u64)>>,
    histograms: BTreeMap<DistributionKind, ByLabels<Gathered>>,
    series: usize,
    /// Whether the page speaks of several models.
    several_models: bool,
    page: EnginePage,
    /// Scratch space for a label set.
    labels: String,
}

impl<'a> PageReader<'a> {
    fn new(dialects: Vec<&'static Dialect>, wanted: Option<&'a ModelName>) -> Self {
        Self {
            dialects,
            wanted,
            core: false,
            ranks: BTreeMap::new(),
            last: ("", None),
            quantities: Quantities::default(),
            counters: BTreeMap::new(),
            histograms: BTreeMap::new(),
            series: 0,
            several_models: false,
            page: EnginePage::default(),
            labels: String::new(),
        }
    }

    /// A `TYPE` line: the engine knows the family, even if it has no series yet.
    fn announced(&mut self, name: &'a str) {
        let Some(found) = dialect::find(&self.dialects, name) else { return };
        if found.part != Part::Whole {
            return;
        }
        self.core |= found.family.core;
        self.known(&found);
    }

    /// The counters that a family feeds are known, even before they count anything.
    fn known(&mut self, found: &Found) {
        match found.family.signal {
            Signal::Counter(counter) => {
                self.counters.entry((counter, found.number)).or_default();
            }
            Signal::CounterBy(counters, _) => {
                for counter in counters {
                    self.counters.entry((*counter, found.number)).or_default();
                }
            }
            _ => {}
        }
    }

    fn sample(&mut self, sample: &Sample<'a>) {
        if self.last.0 != sample.name {
            self.last = (sample.name, dialect::find(&self.dialects, sample.name));
        }
        let Some(found) = self.last.1 else { return };
        match self.ranks.get(&found.number) {
            Some(best) if found.rank > *best => return,
            Some(best) if found.rank < *best => self.forget(&found),
            _ => {}
        }
        self.ranks.insert(found.number, found.rank);
        self.core |= found.family.core;
        self.page.live |= found.family.live;
        if !self.identify(found.dialect, sample.labels) {
            return;
        }
        let gauge =
            matches!(found.family.signal, Signal::Gauge(_) | Signal::GaugeOf(..) | Signal::GaugeBy(..));
        if (found.dialect.counts)(sample.labels, gauge) {
            self.take(&found, sample);
        }
    }

    /// Learns model and role from a sample's labels. Answers whether the sample is of the model that counts.
    fn identify(&mut self, dialect: &Dialect, labels: Labels<'_>) -> bool {
        let needed = self.page.model.is_none() || self.wanted.is_some() || dialect.engine_label == "model";
        if needed && let Some(named) = dialect.model_labels.iter().find_map(|label| labels.get(label)) {
            let named = named.text();
            if self.wanted.is_some_and(|wanted| wanted.as_str() != named) {
                return false;
            }
            match &self.page.model {
                Some(known) => self.several_models |= known.as_str() != named,
                None => self.page.model = ModelName::parse(&named).ok(),
            }
        }
        if self.page.role.is_none()
            && let Some((label, role)) = dialect.role
        {
            self.page.role = labels.get(label).and_then(|value| role(&value.text()));
        }
        true
    }

    fn take(&mut self, found: &Found, sample: &Sample<'_>) {
        match found.family.signal {
            Signal::Gauge(quantity) => self.gauge(quantity, found, sample, sample.value),
            Signal::GaugeOf(quantity, value) => {
                if let Some(value) = value(sample) {
                    self.gauge(quantity, found, sample, value);
                }
            }
            Signal::GaugeBy(label, quantity) => {
                let value = sample.labels.get(label);
                if let Some(quantity) = value.and_then(|value| quantity(&value.text())) {
                    self.gauge(quantity, found, sample, sample.value);
                }
            }
            Signal::Counter(counter) => self.count(counter, found, sample),
            Signal::CounterBy(_, counter) => {
                self.known(found);
                if let Some(counter) = counter(sample.labels) {
                    self.count(counter, found, sample);
                }
            }
            Signal::Histogram(kind) => self.histogram(kind, found, sample),
            Signal::Pulse if sample.value.is_finite() => {
                self.page.pulse = Some(self.page.pulse.unwrap_or_default() + sample.value);
            }
            Signal::Pulse => {}
        }
    }

    /// Forgets what stood under a less preferred name of the family.
    fn forget(&mut self, found: &Found) {
        self.counters.retain(|(_, family), _| *family != found.number);
        self.quantities.forget(found.number);
        if let Signal::Histogram(kind) = found.family.signal {
            self.histograms.remove(&kind);
        }
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

    fn gauge(&mut self, quantity: Quantity, found: &Found, sample: &Sample<'_>, value: f64) {
        if !self.room() {
            return;
        }
        let engine = sample.labels.get(found.dialect.engine_label);
        let engine = engine.map_or_else(|| Box::from("0"), |engine| Box::from(engine.text()));
        let ranks = self.key(found.dialect, sample.labels, Some("pid"));
        let labels = Box::from(self.labels.as_str());
        self.quantities.take(quantity, (found.number, labels), engine, ranks, value);
    }

    fn count(&mut self, counter: Counter, found: &Found, sample: &Sample<'_>) {
        let Some(value) = whole(sample.value) else {
            self.page.quality.dropped_samples += 1;
            return;
        };
        if !self.room() {
            return;
        }
        let ranks = self.key(found.dialect, sample.labels, None);
        let series = self.counters.entry((counter, found.number)).or_default();
        match series.get_mut(self.labels.as_str()) {
            None => {
                series.insert(Box::from(self.labels.as_str()), (ranks, value));
            }
            Some(held) if ranks < held.0 => *held = (ranks, value),
            Some(held) if ranks == held.0 => held.1 = held.1.saturating_add(value),
            Some(_) => {}
        }
    }

    fn histogram(&mut self, kind: DistributionKind, found: &Found, sample: &Sample<'_>) {
        let ranks = self.key(found.dialect, sample.labels, Some("le"));
        if self.histograms.get(&kind).is_none_or(|family| !family.contains_key(self.labels.as_str())) {
            if !self.room() {
                return;
            }
            let key = Box::from(self.labels.as_str());
            self.histograms.entry(kind).or_default().insert(key, Gathered::of(ranks));
        }
        let series = self.histograms.get_mut(&kind).and_then(|family| family.get_mut(self.labels.as_str()));
        if let Some(series) = series {
            series.take(ranks, found.part, sample);
        }
    }

    /// Writes a series' labels into the scratch space, without one label and without those that tell copies apart; gives
    /// the values of these. A label set must be told the same way on every line of a page, nothing more.
    fn key(&mut self, dialect: &Dialect, labels: Labels<'_>, without: Option<&str>) -> Ranks {
        let mut ranks = Ranks::default();
        self.labels.clear();
        if dialect.ranks.is_empty() {
            let (before, after) = match without {
                Some(without) => labels.around(without),
                None => (labels.raw(), ""),
            };
            self.labels.push_str(before);
            self.labels.push_str(after);
            let trimmed = self.labels.trim_end_matches([',', ' ', '\t']).len();
            self.labels.truncate(trimmed);
            return ranks;
        }
        for label in labels.iter().filter(|label| without != Some(label.name)) {
            match dialect.ranks.iter().position(|rank| *rank == label.name) {
                Some(at) => {
                    if let Some(rank) = ranks.get_mut(at) {
                        *rank = label.value.raw().parse().unwrap_or(u32::MAX);
                    }
                }
                None => {
                    self.labels.push_str(label.name);
                    self.labels.push_str("=\"");
                    self.labels.push_str(label.value.raw());
                    self.labels.push_str("\",");
                }
            }
        }
        ranks
    }

    fn finish(mut self, kind: EngineKind) -> EnginePage {
        let page = &mut self.page;
        page.kind = Some(kind);
        if self.several_models && kind.is_front_end() {
            page.model = None;
        }
        page.gauges = self.quantities.gauges();
        page.kv_capacity_tokens = self.quantities.kv_capacity_tokens();
        page.process_start = self.quantities.max(Quantity::ProcessStart);
        page.uptime = self.quantities.max(Quantity::Uptime);
        for ((counter, _), family) in self.counters {
            let total = page.counters.entry(counter).or_default();
            for (labels, (_, value)) in family {
                let series = total.entry(labels).or_default();
                *series = series.saturating_add(value);
            }
        }
        // A family that was announced but counted nothing says nothing against those that did.
        let live = [Counter::LivePrefill, Counter::LiveCached, Counter::LiveDecoded];
        if live.iter().all(|counter| page.counters.get(counter).is_none_or(BTreeMap::is_empty)) {
            live.iter().for_each(|counter| drop(page.counters.remove(counter)));
        }
        for (kind, family) in self.histograms {
            let series: ByLabels<_> = family.into_iter().map(|(labels, of)| (labels, of.finish())).collect();
            page.quality.torn_series += series.values().filter(|of| of.counts.is_none()).count() as u64;
            page.histograms.insert(kind, series);
        }
        self.page
    }
}
