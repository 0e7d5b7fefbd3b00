//! From page to page: resets, deltas, arrivals. Pure.

use std::collections::BTreeMap;

use plimsoll_common::engine::DistributionKind;

use super::{
    arrivals::Arrivals,
    page::{ByLabels, Counter, EnginePage, HistogramSeries},
    series::{Gained, Known, Series},
    update::{EngineDelta, EngineIdentity, EngineUpdate, HistogramDelta},
};

/// The most label sets of one family that are remembered; beyond it those that the newest page lacks are forgotten.
const MAX_REMEMBERED: usize = 16_384;

/// Follows one engine from page to page.
///
/// What counts on a first page depends on what was seen before it:
///
/// * nothing: the engine may have run for days, the page is a *baseline* and nothing on it is new;
/// * [`EngineTracker::absent`], the endpoint had no engine: everything on the page happened since, and all of it counts;
/// * an older process (its start time moved, a counter or bucket fell, buckets changed): a *reset*, all of it counts.
///
/// A series that appears later counts from zero. One that vanishes is remembered until the next reset.
#[derive(Debug, Default)]
pub struct EngineTracker {
    /// What was last seen of the process; `None` before the first page.
    process: Option<Process>,
    /// Whether nothing was there at the last look.
    absent: bool,
}

#[derive(Debug, Default)]
struct Process {
    start: Option<f64>,
    counters: BTreeMap<Counter, ByLabels<u64>>,
    histograms: BTreeMap<DistributionKind, ByLabels<Known>>,
    arrivals: Arrivals,
}

impl EngineTracker {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that no engine counts anything at the endpoint: its port refused, or its page had no engine's metrics.
    ///
    /// A scrape that merely failed (a time-out, an answer cut off) shows no such thing and must not be noted: the
    /// process may go on, and its next page is compared with its last.
    pub const fn absent(&mut self) {
        self.absent = true;
    }

    /// Takes the next page.
    pub fn observe(&mut self, page: &EnginePage) -> EngineUpdate {
        let absent = std::mem::take(&mut self.absent);
        let mut delta = EngineDelta::default();
        let process = match self.process.take() {
            Some(process) if !process.ended(page, absent) => process.follow(page, &mut delta),
            Some(_) => {
                delta.resets = 1;
                Process::default().follow(page, &mut delta)
            }
            None if absent => Process::default().follow(page, &mut delta),
            None => Process::baseline(page, &mut delta),
        };
        self.process = Some(process);
        EngineUpdate {
            identity: EngineIdentity {
                kind: page.kind,
                role: page.role,
                model: page.model.clone(),
                version: None,
                kv_capacity_tokens: page.kv_capacity_tokens,
            },
            gauges: page.gauges,
            delta,
            quality: page.quality,
        }
    }
}

impl Process {
    /// The process as it is found running.
    fn baseline(page: &EnginePage, delta: &mut EngineDelta) -> Self {
        for counter in page.counters.keys() {
            delta.set(*counter, 0);
        }
        delta.arrived = knows_ended(page).then_some(0);
        let known = |kind: DistributionKind, series: &HistogramSeries| match &series.counts {
            Some(now) => Series::baseline(kind, series, now).map_or(Known::Torn, Known::Series),
            None => Known::Torn,
        };
        let family = |(kind, family): (&DistributionKind, &ByLabels<HistogramSeries>)| {
            (*kind, family.iter().map(|(labels, series)| (labels.clone(), known(*kind, series))).collect())
        };
        Self {
            start: page.process_start,
            counters: page.counters.clone(),
            histograms: page.histograms.iter().map(family).collect(),
            arrivals: Arrivals::since(in_flight(page)),
        }
    }

    /// Whether the page is another process's.
    fn ended(&self, page: &EnginePage, absent: bool) -> bool {
        let other_start = match (self.start, page.process_start) {
            (Some(before), Some(now)) => before.to_bits() != now.to_bits(),
            // Without start times (several API servers) a counter that overtook its old value would hide the restart
            // of a process that was seen to be gone.
            _ => absent,
        };
        other_start || self.counter_fell(page) || self.histogram_restarted(page)
    }

    fn counter_fell(&self, page: &EnginePage) -> bool {
        page.counters.iter().any(|(counter, series)| {
            let Some(known) = self.counters.get(counter) else { return false };
            series.iter().any(|(labels, now)| known.get(labels).is_some_and(|before| now < before))
        })
    }

    fn histogram_restarted(&self, page: &EnginePage) -> bool {
        page.histograms.iter().any(|(kind, family)| {
            let Some(known) = self.histograms.get(kind) else { return false };
            family.iter().any(|(labels, now)| match known.get(labels) {
                // A torn series tells nothing, not even its buckets.
                Some(Known::Series(before)) if now.counts.is_some() => before.restarted(now),
                _ => false,
            })
        })
    }

    /// Takes the process's next page, or a new process's first.
    fn follow(mut self, page: &EnginePage, delta: &mut EngineDelta) -> Self {
        self.start = page.process_start.or(self.start);
        let (mut http_ended, mut finished) = (0, 0);
        for (counter, series) in &page.counters {
            let gained = gain(self.counters.entry(*counter).or_default(), series);
            delta.set(*counter, gained);
            if *counter == Counter::HttpEnded {
                http_ended = gained;
            } else if Counter::FINISHED.contains(counter) {
                finished += gained;
            }
        }
        let arrived = self.arrivals.observe(http_ended, finished, in_flight(page));
        delta.arrived = knows_ended(page).then_some(arrived);
        for (kind, family) in &page.histograms {
            let known = self.histograms.entry(*kind).or_default();
            delta.histograms.extend(gain_samples(*kind, known, family));
        }
        self
    }
}

/// Whether the page counts requests that ended in any way.
fn knows_ended(page: &EnginePage) -> bool {
    page.counters.contains_key(&Counter::HttpEnded)
        || Counter::FINISHED.iter().any(|counter| page.counters.contains_key(counter))
}

fn in_flight(page: &EnginePage) -> u64 {
    page.gauges.running.unwrap_or_default().saturating_add(page.gauges.waiting.unwrap_or_default())
}

fn gain(known: &mut ByLabels<u64>, series: &ByLabels<u64>) -> u64 {
    let mut gained = 0u64;
    for (labels, now) in series {
        match known.get_mut(labels) {
            Some(before) => {
                gained = gained.saturating_add(now.saturating_sub(*before));
                *before = *now;
            }
            None => {
                gained = gained.saturating_add(*now);
                known.insert(labels.clone(), *now);
            }
        }
    }
    if known.len() > MAX_REMEMBERED {
        known.retain(|labels, _| series.contains_key(labels));
    }
    gained
}

/// What the series of one kind gained; they are merged only after each was compared with its own past.
fn gain_samples(
    kind: DistributionKind,
    known: &mut ByLabels<Known>,
    family: &ByLabels<HistogramSeries>,
) -> impl Iterator<Item = HistogramDelta> + use<> {
    let mut gained = Gained::default();
    for (labels, series) in family {
        let Some(now) = &series.counts else { continue };
        match known.get_mut(labels) {
            Some(Known::Series(before)) => before.advance(now, &mut gained),
            Some(torn) => {
                if let Some(series) = Series::baseline(kind, series, now) {
                    *torn = Known::Series(series);
                }
            }
            None => {
                let Some(mut fresh) = Series::empty(kind, series) else { continue };
                fresh.advance(now, &mut gained);
                known.insert(labels.clone(), Known::Series(fresh));
            }
        }
    }
    if known.len() > MAX_REMEMBERED {
        known.retain(|labels, _| family.contains_key(labels));
    }
    gained.into_deltas(kind)
}
