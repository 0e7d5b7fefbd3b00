//! From page to page: resets, deltas, arrivals. Pure.

use std::collections::BTreeMap;

use plimsoll_common::engine::DistributionKind;

use super::{
    arrivals::Arrivals,
    gains::{Flow, Gains, tokens_moved},
    page::{ByLabels, Counter, EnginePage, HistogramSeries},
    series::{Follow, Gained, Known, Series},
    update::{EngineDelta, EngineGauges, EngineIdentity, EngineUpdate, HistogramDelta},
};
use crate::exact::ExactSamples;

/// The most label sets of one family that are remembered; beyond it those that the newest page lacks are forgotten.
const MAX_REMEMBERED: usize = 16_384;

/// Follows one engine from page to page.
///
/// What counts on a first page depends on what was seen before it:
///
/// * nothing: the engine may have run for days, the page is a *baseline* and nothing on it is new;
/// * [`EngineTracker::absent`], the endpoint had no engine: everything on the page happened since, and all of it counts;
/// * an older process (its start time moved, its port refused, a counter or cumulative bucket fell from one page to the
///   next): a *reset*, all of it counts.
///
/// Where the start time shows that the process is the same, a series that fell began anew alone, and the others go on.
/// So it does where the page before lacked the series: the restart may be older, and the others may have been told since.
/// A series that appears later counts from zero, unless the page before was incomplete and may have hidden it. One that
/// vanishes is remembered until the next reset.
///
/// Where it can't be known whether something happened, it does not count: a restart that is seen nowhere, and whose
/// counters have overtaken their old values by the next page, is told short.
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
    uptime: Option<f64>,
    pulse: Option<f64>,
    gauges: EngineGauges,
    /// The number of the last page.
    page: u64,
    counters: BTreeMap<Counter, ByLabels<Held<u64>>>,
    histograms: BTreeMap<DistributionKind, ByLabels<Held<Known>>>,
    arrivals: Arrivals,
    front_end_arrivals: Arrivals,
    /// Whether the last page may have hidden series: lines of it could not be read, or were beyond a limit.
    incomplete: bool,
    /// Whether series were forgotten for want of room.
    forgot: bool,
}

/// What is remembered of a series.
#[derive(Debug)]
struct Held<T> {
    value: T,
    /// The number of the last page that told of it.
    page: u64,
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
            requests: ExactSamples::default(),
        }
    }
}

impl Process {
    /// The process as it is found running.
    fn baseline(page: &EnginePage, delta: &mut EngineDelta) -> Self {
        let zeros: Gains =
            page.counters.keys().chain(page.gained.keys()).map(|counter| (*counter, 0)).collect();
        delta.tell(&zeros, 0);
        delta.arrived = Flow::of_engine(&zeros).map(|_| 0);
        delta.frontend_arrived = Flow::of_front_end(&zeros).map(|_| 0);
        delta.moved = true;
        let known = |kind: DistributionKind, series: &HistogramSeries| match &series.counts {
            Some(now) => Series::baseline(kind, series, now).map_or(Known::Torn, Known::Series),
            None => Known::Torn,
        };
        let family = |(kind, family): (&DistributionKind, &ByLabels<HistogramSeries>)| {
            let held = family
                .iter()
                .map(|(labels, series)| (labels.clone(), Held { value: known(*kind, series), page: 0 }));
            (*kind, held.collect())
        };
        let counter = |(counter, series): (&Counter, &ByLabels<u64>)| {
            let held = series.iter().map(|(labels, value)| (labels.clone(), Held { value: *value, page: 0 }));
            (*counter, held.collect())
        };
        Self {
            start: page.process_start,
            uptime: page.uptime,
            pulse: page.pulse,
            gauges: page.gauges,
            page: 0,
            counters: page.counters.iter().map(counter).collect(),
            histograms: page.histograms.iter().map(family).collect(),
            arrivals: Arrivals::since(in_flight(page)),
            front_end_arrivals: Arrivals::since(page.gauges.frontend_inflight.unwrap_or(0)),
            incomplete: page.quality.is_incomplete(),
            forgot: false,
        }
    }

    /// Whether the page is another process's.
    fn ended(&self, page: &EnginePage, absent: bool) -> bool {
        let younger = matches!((self.uptime, page.uptime), (Some(before), Some(now)) if now < before);
        match (self.start, page.process_start) {
            (Some(before), Some(now)) => younger || before.to_bits() != now.to_bits(),
            // Without start times (several API servers) a counter that overtook its old value would hide the restart
            // of a process that was seen to be gone.
            _ => younger || absent || self.counter_fell(page) || self.histogram_restarted(page),
        }
    }

    fn counter_fell(&self, page: &EnginePage) -> bool {
        page.counters.iter().any(|(counter, series)| {
            let Some(known) = self.counters.get(counter) else { return false };
            let fell = |before: &Held<u64>, now: u64| before.page == self.page && now < before.value;
            series.iter().any(|(labels, now)| known.get(labels).is_some_and(|before| fell(before, *now)))
        })
    }

    fn histogram_restarted(&self, page: &EnginePage) -> bool {
        page.histograms.iter().any(|(kind, family)| {
            let Some(known) = self.histograms.get(kind) else { return false };
            family.iter().any(|(labels, series)| match (known.get(labels), &series.counts) {
                (Some(Held { value: Known::Series(before), page }), Some(now)) if *page == self.page => {
                    before.follow(series, now) == Follow::Restarted
                }
                // A torn series tells nothing, not even its buckets.
                _ => false,
            })
        })
    }

    /// Takes the process's next page, or a new process's first.
    fn follow(mut self, page: &EnginePage, delta: &mut EngineDelta) -> Self {
        self.start = page.process_start.or(self.start);
        self.uptime = page.uptime.or(self.uptime);
        let mut gains = page.gained.clone();
        let hidden = self.incomplete || self.forgot;
        self.page += 1;
        for (counter, series) in &page.counters {
            let known = self.counters.entry(*counter).or_default();
            let (gained, fell) = gain(known, series, self.page, hidden);
            self.forgot |= forget(known, series);
            let total = gains.entry(*counter).or_insert(0);
            *total = total.saturating_add(gained);
            delta.resets |= u64::from(fell);
        }
        for (kind, family) in &page.histograms {
            let known = self.histograms.entry(*kind).or_default();
            let fell = gain_samples(*kind, known, family, (self.page, hidden), &mut delta.histograms);
            self.forgot |= forget(known, family);
            delta.resets |= u64::from(fell);
        }
        self.incomplete = page.quality.is_incomplete();
        delta.tell(&gains, samples(delta, DistributionKind::Ttft));
        let front_end = page.gauges.frontend_inflight.unwrap_or(0);
        delta.arrived = Flow::of_engine(&gains).map(|flow| self.arrivals.observe(flow, in_flight(page)));
        delta.frontend_arrived =
            Flow::of_front_end(&gains).map(|flow| self.front_end_arrivals.observe(flow, front_end));
        delta.progress = self.progress(page, &gains, delta);
        delta.moved = page.gauges != self.gauges
            || page.pulse != self.pulse
            || !delta.histograms.is_empty()
            || gains.values().any(|gained| *gained > 0);
        self.pulse = page.pulse;
        self.gauges = page.gauges;
        self
    }

    /// Whether the engine got on. Samples of TTFT and ITL come with tokens, so that they show as much as a counter.
    fn progress(&self, page: &EnginePage, gains: &Gains, delta: &EngineDelta) -> Option<bool> {
        const WITH_TOKENS: [DistributionKind; 5] = [
            DistributionKind::Ttft,
            DistributionKind::ItlStep,
            DistributionKind::ItlToken,
            DistributionKind::FrontendTtft,
            DistributionKind::FrontendItl,
        ];
        let sampled = WITH_TOKENS.iter().any(|kind| samples(delta, *kind) > 0);
        let pulsed = matches!((self.pulse, page.pulse), (Some(before), Some(now)) if before < now);
        let written = page.gauges.snapshot_time > self.gauges.snapshot_time;
        if sampled || pulsed || written || tokens_moved(gains) {
            return Some(true);
        }
        page.live.then_some(false)
    }
}

/// How many samples a distribution gained.
fn samples(delta: &EngineDelta, kind: DistributionKind) -> u64 {
    let of_kind = delta.histograms.iter().filter(|histogram| histogram.kind == kind);
    of_kind.flat_map(|histogram| &histogram.buckets).map(|(_, n)| n).sum()
}

fn in_flight(page: &EnginePage) -> u64 {
    page.gauges.running.unwrap_or_default().saturating_add(page.gauges.waiting.unwrap_or_default())
}

/// What the series of a counter gained on a page, and whether any fell. `hidden`: a series that is not known may be old.
fn gain(known: &mut ByLabels<Held<u64>>, series: &ByLabels<u64>, page: u64, hidden: bool) -> (u64, bool) {
    let (mut gained, mut any_fell) = (0u64, false);
    for (labels, now) in series {
        let before = match known.get_mut(labels) {
            Some(before) => {
                let before = std::mem::replace(before, Held { value: *now, page }).value;
                any_fell |= *now < before;
                if *now < before { 0 } else { before }
            }
            None => {
                known.insert(labels.clone(), Held { value: *now, page });
                if hidden { *now } else { 0 }
            }
        };
        gained = gained.saturating_add(*now - before);
    }
    (gained, any_fell)
}

/// What the series of one kind gained; they are merged only after each was compared with its own past. Answers whether
/// any of them restarted. `hidden`: a series that is not known may be old.
fn gain_samples(
    kind: DistributionKind,
    known: &mut ByLabels<Held<Known>>,
    family: &ByLabels<HistogramSeries>,
    (page, hidden): (u64, bool),
    into: &mut Vec<HistogramDelta>,
) -> bool {
    let (mut gained, mut restarted) = (Gained::default(), false);
    for (labels, series) in family {
        let Some(now) = &series.counts else { continue };
        let old = || Series::baseline(kind, series, now).map(Known::Series);
        let mut new = || {
            let mut fresh = Series::empty(kind, series)?;
            fresh.advance(now, &mut gained);
            Some(Known::Series(fresh))
        };
        let replaced = match known.get_mut(labels) {
            None if hidden => old(),
            None => new(),
            Some(Held { value: Known::Torn, .. }) => old(),
            Some(Held { value: Known::Series(before), page: last }) => match before.follow(series, now) {
                Follow::On => {
                    *last = page;
                    before.advance(now, &mut gained);
                    None
                }
                Follow::Restarted => {
                    restarted = true;
                    new()
                }
                Follow::Relaid if before.relaid() => old(),
                Follow::Relaid => None,
            },
        };
        if let Some(value) = replaced {
            known.insert(labels.clone(), Held { value, page });
        }
    }
    into.extend(gained.into_deltas(kind));
    restarted
}

/// Forgets series that the newest page lacks where there are too many; whether any were.
fn forget<T, U>(known: &mut ByLabels<T>, newest: &ByLabels<U>) -> bool {
    let before = known.len();
    if before > MAX_REMEMBERED {
        known.retain(|labels, _| newest.contains_key(labels));
    }
    known.len() < before
}
