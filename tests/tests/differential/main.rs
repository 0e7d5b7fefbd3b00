//! Random lives of engines, shown as pages of real text, read by the agent's real reader and tracker, and held against a
//! slow and obvious reference (`reference.rs`) and against what truly happened (`engine.rs`); then through the agent's
//! windows, the wire, and the planner's fold into its fleet.

mod chain;
mod engine;
mod page;
mod reference;

use std::collections::BTreeMap;

use plimsoll_agent::{
    engines::{EngineTracker, EngineUpdate, read_page},
    exposition::Limits,
};
use plimsoll_common::engine::EngineKind;
use proptest::prelude::*;

use self::{
    chain::Chain,
    engine::{Engine, Step, steps},
    page::{Family, Total},
    reference::Reference,
};

/// What was told of an engine in all.
#[derive(Debug, Default, PartialEq)]
struct Told {
    totals: BTreeMap<Total, u64>,
    /// Samples and their sum in microseconds.
    families: BTreeMap<Family, (u64, u64)>,
}

impl Told {
    fn add(&mut self, update: &EngineUpdate) {
        let delta = &update.delta;
        for (total, gained) in [
            (Total::PromptTokens, delta.prompt_tokens),
            (Total::GenerationTokens, delta.generation_tokens),
            (Total::Finished, delta.finished_stop.or(delta.ended)),
        ] {
            *self.totals.entry(total).or_default() += gained.unwrap_or(0);
        }
        for histogram in &delta.histograms {
            let family = Family::of(histogram.kind).expect("a family that the page has");
            let told = self.families.entry(family).or_default();
            told.0 += histogram.buckets.iter().map(|(_, n)| n).sum::<u64>();
            told.1 += histogram.sum;
        }
    }
}

/// Lives through the steps; every page is compared at once.
fn live(kind: EngineKind, steps: &[Step]) -> (Told, Engine, Chain) {
    let mut engine = Engine::new(kind);
    let mut tracker = EngineTracker::new();
    let mut reference = Reference::default();
    let mut chain = Chain::new(kind);
    let (mut told, mut expected) = (Told::default(), reference::Expected::default());
    for step in steps {
        match engine.apply(step) {
            engine::Seen::Nothing => chain.pass(),
            engine::Seen::Gone => {
                tracker.absent();
                reference.absent();
                chain.pass();
            }
            engine::Seen::Page(shown) => {
                let text = page::render(kind, &shown);
                let read =
                    read_page(Some(kind), text.as_bytes(), Limits::default()).expect("a page of the engine");
                let update = tracker.observe(&read);
                told.add(&update);
                expected.add(reference.observe(&shown));
                for total in Total::ALL {
                    let said = told.totals.get(&total).copied().unwrap_or(0);
                    assert_eq!(said, expected.total(total), "{total:?} after {step:?}\n{text}");
                }
                for family in Family::ALL {
                    let (count, sum) = told.families.get(&family).copied().unwrap_or((0, 0));
                    let (count_expected, sum_expected) = expected.family(family);
                    assert_eq!(count, count_expected, "samples of {family:?} after {step:?}\n{text}");
                    // Each telling of a sum leaves less than a microsecond untold.
                    let slack = 1.0 + expected.sums_begun as f64;
                    assert!(
                        (sum as f64 - sum_expected * 1e6).abs() <= slack,
                        "{family:?}: {sum} {sum_expected}"
                    );
                }
                chain.observe(update);
            }
        }
        let truth = engine.truth();
        for (total, said) in &told.totals {
            assert!(*said <= truth.total(*total), "{total:?}: {said} told, {truth:?}");
        }
        for (family, (said, _)) in &told.families {
            assert!(*said <= truth.samples(*family), "{family:?}: {said} told, {truth:?}");
        }
    }
    (told, engine, chain)
}

proptest! {
    /// Invariants: after every page the reader and the tracker have told what the reference tells; and never more than
    /// truly happened since the first look, whatever was torn, hidden, renamed, missed or restarted.
    #[test]
    fn every_page_is_told_as_the_reference_tells_it(
        kind in prop::sample::select(vec![EngineKind::Vllm, EngineKind::Sglang]),
        steps in steps(),
    ) {
        live(kind, &steps);
    }

    /// Invariant: where nothing happened unseen, everything is told by the first page that is whole again.
    #[test]
    fn nothing_is_lost_that_can_be_seen(
        kind in prop::sample::select(vec![EngineKind::Vllm, EngineKind::Sglang]),
        steps in steps(),
    ) {
        let mut seen = vec![Step::whole_page()];
        for step in steps.into_iter().filter(|step| !step.hides()) {
            // What happens between the last page and the end of a process is on no page.
            if matches!(step, Step::Restart { .. }) {
                seen.push(Step::whole_page());
            }
            seen.push(step);
        }
        seen.push(Step::whole_page());
        let steps = seen;
        let (told, engine, _) = live(kind, &steps);
        let truth = engine.truth();
        for total in Total::ALL {
            prop_assert_eq!(told.totals.get(&total).copied().unwrap_or(0), truth.total(total));
        }
        for family in Family::ALL {
            prop_assert_eq!(told.families.get(&family).map_or(0, |told| told.0), truth.samples(family));
        }
    }

    /// Invariant: through windows, the wire and the fold, the fleet holds what the tracker told, to the last sample and
    /// the last microsecond, in its totals and in a window that reaches back far enough.
    #[test]
    fn the_fleet_holds_what_was_told(
        kind in prop::sample::select(vec![EngineKind::Vllm, EngineKind::Sglang]),
        steps in steps(),
    ) {
        let (told, _, chain) = live(kind, &steps);
        let fleet = chain.finish();
        for family in Family::ALL {
            let expected = told.families.get(&family).copied().unwrap_or((0, 0));
            prop_assert_eq!(fleet.totals.families.get(&family).copied().unwrap_or((0, 0)), expected, "totals of {:?}", family);
            prop_assert_eq!(fleet.window.families.get(&family).copied().unwrap_or((0, 0)), expected, "window of {:?}", family);
        }
        for total in Total::ALL {
            let expected = told.totals.get(&total).copied().unwrap_or(0);
            prop_assert_eq!(fleet.totals.totals.get(&total).copied().unwrap_or(0), expected, "{:?}", total);
            prop_assert_eq!(fleet.window.totals.get(&total).copied().unwrap_or(0), expected, "{:?}", total);
        }
    }
}
