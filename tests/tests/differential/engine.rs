//! An engine's life: what truly happens, and what its page shows of it.

use std::collections::BTreeMap;

use plimsoll_common::engine::EngineKind;
use proptest::prelude::*;

use crate::page::{Family, Histogram, Names, Shown, Total};

/// Finite edges, seconds: each life of a process has one of these.
const LAYOUTS: [&[f64]; 3] = [&[0.1, 1.0], &[0.05, 0.5, 1.0, 2.5], &[0.1, 0.25, 1.0]];
/// Label sets: engines (data-parallel ranks) of one page.
pub(crate) const ENGINES: u8 = 3;

/// One step of a life.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Requests are worked on: samples as (family, engine, microseconds), tokens, finished requests.
    Work { samples: Vec<(Family, u8, u32)>, tokens: u64, finished: u64, engine: u8 },
    /// The page is read.
    Page(Damage),
    /// A scrape fails and shows nothing.
    Missed,
    /// The process ends and another one starts.
    Restart {
        /// Whether the agent looked in between and was refused.
        seen: bool,
        /// Whether the new process tells its start.
        tells_start: bool,
        names: Names,
        layout: usize,
    },
    /// The series of one engine are no longer shown, or are shown again.
    Toggle(u8),
    /// The wall clock is set back by so many milliseconds while a request waits for its first token.
    ClockBack(u32),
}

/// What is wrong with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    None,
    /// The count was read after a sample that the buckets do not have.
    CountAhead(Family, u8),
    /// A sample of the lowest bucket shows in the cumulative counts above it, but not yet in its own.
    BucketBehind(Family, u8),
    /// The sum has a sample that the buckets do not have.
    SumAhead(Family, u8),
    /// The line of an engine's generated tokens can't be read.
    Malformed(u8),
}

impl Step {
    pub(crate) const fn whole_page() -> Self {
        Self::Page(Damage::None)
    }

    /// Whether something may happen that no page shows.
    pub(crate) const fn hides(&self) -> bool {
        matches!(
            self,
            Self::Restart { seen: false, .. }
                | Self::Toggle(_)
                | Self::Page(Damage::Malformed(_) | Damage::CountAhead(..))
        )
    }
}

fn family() -> impl Strategy<Value = Family> {
    prop::sample::select(Family::ALL.to_vec())
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let engine = || 0..ENGINES;
    let sample = (family(), engine(), 1u32..4_000_000);
    let work = (prop::collection::vec(sample, 0..12), 0u64..200, 0u64..5, engine())
        .prop_map(|(samples, tokens, finished, engine)| Step::Work { samples, tokens, finished, engine });
    let damage = prop_oneof![
        6 => Just(Damage::None),
        1 => (family(), engine()).prop_map(|(family, engine)| Damage::CountAhead(family, engine)),
        1 => (family(), engine()).prop_map(|(family, engine)| Damage::BucketBehind(family, engine)),
        1 => (family(), engine()).prop_map(|(family, engine)| Damage::SumAhead(family, engine)),
        1 => engine().prop_map(Damage::Malformed),
    ];
    let names = prop::sample::select(vec![Names::New, Names::Old, Names::Both]);
    let restart = (any::<bool>(), any::<bool>(), names, 0..LAYOUTS.len())
        .prop_map(|(seen, tells_start, names, layout)| Step::Restart { seen, tells_start, names, layout });
    let step = prop_oneof![
        8 => work,
        8 => damage.prop_map(Step::Page),
        1 => Just(Step::Missed),
        1 => restart,
        1 => engine().prop_map(Step::Toggle),
        1 => (1u32..5000).prop_map(Step::ClockBack),
    ];
    prop::collection::vec(step, 1..40)
}

/// What happened in all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truth {
    totals: BTreeMap<Total, u64>,
    samples: BTreeMap<Family, u64>,
}

impl Truth {
    pub(crate) fn total(&self, total: Total) -> u64 {
        self.totals.get(&total).copied().unwrap_or(0)
    }

    pub(crate) fn samples(&self, family: Family) -> u64 {
        self.samples.get(&family).copied().unwrap_or(0)
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            totals: self.totals.iter().map(|(total, n)| (*total, n - before.total(*total))).collect(),
            samples: self.samples.iter().map(|(family, n)| (*family, n - before.samples(*family))).collect(),
        }
    }
}

/// What a look at the engine gives.
pub(crate) enum Seen {
    Nothing,
    Gone,
    Page(Shown),
}

/// An engine and all that ever happened in it.
pub(crate) struct Engine {
    kind: EngineKind,
    process: Shown,
    /// Engines whose series are not shown, although they were.
    hidden: [bool; ENGINES as usize],
    shown: [bool; ENGINES as usize],
    starts: u32,
    truth: Truth,
    /// What had happened when the agent first looked.
    before: Option<Truth>,
}

impl Engine {
    /// An engine that already runs when the first look comes.
    pub(crate) fn new(kind: EngineKind) -> Self {
        let process = Shown { start: Some(1000.0), edges: LAYOUTS[0].to_vec(), ..Shown::default() };
        let flags = [false; ENGINES as usize];
        Self { kind, process, hidden: flags, shown: flags, starts: 1, truth: Truth::default(), before: None }
    }

    /// What happened since the first look.
    pub(crate) fn truth(&self) -> Truth {
        self.truth.since(self.before.as_ref().unwrap_or(&self.truth))
    }

    pub(crate) fn apply(&mut self, step: &Step) -> Seen {
        match step {
            Step::Work { samples, tokens, finished, engine } => {
                for (family, engine, micros) in samples {
                    self.sample(*family, *engine, f64::from(*micros) / 1e6);
                }
                for (total, n) in [
                    (Total::PromptTokens, *tokens),
                    (Total::GenerationTokens, tokens / 3),
                    (Total::Finished, *finished),
                ] {
                    // Series appear with what they first count.
                    if n > 0 {
                        *self.process.totals.entry((total, *engine)).or_default() += n;
                        *self.truth.totals.entry(total).or_default() += n;
                    }
                }
            }
            Step::Page(damage) => {
                self.before.get_or_insert_with(|| self.truth.clone());
                return Seen::Page(self.show(*damage));
            }
            Step::Missed => {}
            Step::Restart { seen, tells_start, names, layout } => {
                self.starts += 1;
                self.process = Shown {
                    // SGLang's pages never tell.
                    start: (*tells_start && self.kind == EngineKind::Vllm)
                        .then(|| 1000.0 + f64::from(self.starts)),
                    edges: LAYOUTS[*layout].to_vec(),
                    names: *names,
                    ..Shown::default()
                };
                self.hidden = [false; ENGINES as usize];
                self.shown = self.hidden;
                if *seen {
                    self.before.get_or_insert_with(|| self.truth.clone());
                    return Seen::Gone;
                }
            }
            Step::Toggle(engine) => {
                let at = usize::from(*engine);
                self.hidden[at] = self.shown[at] && !self.hidden[at];
            }
            Step::ClockBack(millis) => {
                // The sample is as much too small as the clock was set back: it is negative, and the lowest bucket's.
                self.sample(Family::Ttft, 0, -f64::from(*millis) / 1e3);
            }
        }
        Seen::Nothing
    }

    fn sample(&mut self, family: Family, engine: u8, seconds: f64) {
        let bucket = self.process.edges.partition_point(|edge| *edge < seconds);
        let histogram = self.process.histograms.entry((family, engine)).or_insert_with(|| Histogram {
            cumulative: vec![0; self.process.edges.len() + 1],
            ..Histogram::default()
        });
        histogram.cumulative[bucket..].iter_mut().for_each(|count| *count += 1);
        histogram.count += 1;
        histogram.sum += seconds;
        *self.truth.samples.entry(family).or_default() += 1;
    }

    fn show(&mut self, damage: Damage) -> Shown {
        let mut shown = self.process.clone();
        shown.totals.retain(|(_, engine), _| !self.hidden[usize::from(*engine)]);
        shown.histograms.retain(|(_, engine), _| !self.hidden[usize::from(*engine)]);
        let engines = shown.totals.keys().map(|key| key.1).chain(shown.histograms.keys().map(|key| key.1));
        engines.for_each(|engine| self.shown[usize::from(engine)] = true);
        match damage {
            Damage::None => {}
            Damage::CountAhead(family, engine) => {
                if let Some(histogram) = shown.histograms.get_mut(&(family, engine)) {
                    histogram.count += 1;
                }
            }
            Damage::SumAhead(family, engine) => {
                // The sample comes, and the page has only its sum.
                if let Some(histogram) = shown.histograms.get_mut(&(family, engine)) {
                    histogram.sum += 0.25;
                    self.sample(family, engine, 0.25);
                }
            }
            Damage::BucketBehind(family, engine) => {
                // The sample comes while the page is written: its own cumulative count was written before.
                if shown.histograms.contains_key(&(family, engine)) {
                    self.sample(family, engine, 0.001);
                    let whole = self.process.histograms[&(family, engine)].clone();
                    let before = std::mem::replace(
                        shown.histograms.get_mut(&(family, engine)).expect("it is shown"),
                        whole,
                    );
                    let now = shown.histograms.get_mut(&(family, engine)).expect("it is shown");
                    now.cumulative[0] = before.cumulative[0];
                }
            }
            Damage::Malformed(engine) => {
                if shown.totals.remove(&(Total::GenerationTokens, engine)).is_some() {
                    shown.malformed = Some(engine);
                }
            }
        }
        shown
    }
}
