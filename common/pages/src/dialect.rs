//! How an engine names what we want to know: a table for each engine, in a file of its own.

use plimsoll_common::engine::{DistributionKind, EngineKind, Role};

use super::{dynamo, page::Counter, quantity::Quantity, sglang, triton, trtllm, vllm};
use crate::exposition::{Labels, Sample};

/// What a family of an engine's page tells.
#[derive(Debug, Clone, Copy)]
pub(super) enum Signal {
    /// A gauge. What becomes of several series is told where [`Quantities`](super::quantity::Quantities) are read.
    Gauge(Quantity),
    /// A gauge, or a label, that needs a look at the whole sample; `None` where the sample does not tell.
    GaugeOf(Quantity, fn(&Sample<'_>) -> Option<f64>),
    /// Several gauges, told apart by a label.
    GaugeBy(&'static str, fn(&str) -> Option<Quantity>),
    /// A counter.
    Counter(Counter),
    /// A family that feeds these counters, or none of them, as its labels say.
    CounterBy(&'static [Counter], fn(Labels<'_>) -> Option<Counter>),
    /// A histogram.
    Histogram(DistributionKind),
    /// A number that moves with every few steps of the engine and stands still when it hangs.
    Pulse,
}

/// One signal and the names it had in the engine's releases.
#[derive(Debug)]
pub(super) struct Family {
    /// What it tells.
    pub(super) signal: Signal,
    /// Names on the wire, the preferred one first. Where a page has several, only the first counts: they are the same
    /// family under an old and a new name, never two parts of a whole.
    pub(super) names: &'static [&'static str],
    /// Whether a page with this family is recognised as the engine's.
    pub(super) core: bool,
    /// Whether it moves while requests run, so that a running engine on whose page it rests is stuck.
    pub(super) live: bool,
}

/// A family by which an engine's page is known.
pub(super) const fn core(signal: Signal, names: &'static [&'static str]) -> Family {
    Family { signal, names, core: true, live: false }
}

/// A family that other pages may have, too.
pub(super) const fn other(signal: Signal, names: &'static [&'static str]) -> Family {
    Family { signal, names, core: false, live: false }
}

/// A family that moves while requests run.
pub(super) const fn live(signal: Signal, names: &'static [&'static str]) -> Family {
    Family { signal, names, core: true, live: true }
}

/// A histogram.
pub(super) const fn histogram(kind: DistributionKind, names: &'static [&'static str]) -> Family {
    core(Signal::Histogram(kind), names)
}

/// The families of one engine.
#[derive(Debug)]
pub(super) struct Dialect {
    pub(super) families: &'static [Family],
    /// The labels that may name the served model, the preferred one first.
    pub(super) model_labels: &'static [&'static str],
    /// The label that tells data-parallel engines apart.
    pub(super) engine_label: &'static str,
    /// Labels that tell copies of one thing apart (the ranks of one tensor-parallel group): of series that differ in
    /// nothing else, the one with the lowest values counts.
    pub(super) ranks: &'static [&'static str],
    /// The label that tells the role, and how.
    pub(super) role: Option<RoleLabel>,
    /// Whether a sample is a part of the whole, and not a breakdown next to its own sum or a pseudo-endpoint. The second
    /// argument tells gauges.
    pub(super) counts: fn(Labels<'_>, bool) -> bool,
}

/// A label that tells the role, and what its values mean.
pub(super) type RoleLabel = (&'static str, fn(&str) -> Option<Role>);

/// Every sample is a part of the whole.
pub(super) const fn all(_: Labels<'_>, _: bool) -> bool {
    true
}

/// The dialect of a kind of page.
pub(super) const fn of(kind: EngineKind) -> &'static Dialect {
    match kind {
        EngineKind::Vllm => &vllm::DIALECT,
        EngineKind::Sglang => &sglang::DIALECT,
        EngineKind::TensorRtLlm => &trtllm::DIALECT,
        EngineKind::Triton => &triton::DIALECT,
        EngineKind::DynamoFrontend => &dynamo::FRONTEND,
        EngineKind::DynamoWorker => &dynamo::WORKER,
    }
}

/// Which part of a family a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The family's only kind of sample, or its `TYPE` line.
    Whole,
    /// A cumulative bucket.
    Bucket,
    /// The sum of a histogram.
    Sum,
    /// The count of a histogram.
    Count,
}

/// A family of one of the dialects of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Whose it is.
    pub(super) dialect: &'static Dialect,
    /// The family.
    pub(super) family: &'static Family,
    /// Its number among the families of all dialects of the page.
    pub(super) number: usize,
    /// The rank of the name among its aliases.
    pub(super) rank: usize,
    /// What the name's suffix tells.
    pub(super) part: Part,
}

impl Dialect {
    /// The family with this name, by its place in the table, the rank of the name among its aliases, and the part that
    /// the name's suffix tells.
    pub(super) fn find(&self, name: &str) -> Option<(usize, usize, Part)> {
        const SUFFIXES: [(&str, Part); 3] =
            [("_bucket", Part::Bucket), ("_sum", Part::Sum), ("_count", Part::Count)];
        // A suffix alone proves nothing: histograms exist whose own name ends in `_total`, counters whose name ends
        // in `_count`. Only a whole family name of the table counts.
        if let Some((family, rank)) = self.position(name) {
            return Some((family, rank, Part::Whole));
        }
        SUFFIXES.iter().find_map(|(suffix, part)| {
            let (family, rank) = self.position(name.strip_suffix(suffix)?)?;
            matches!(self.families[family].signal, Signal::Histogram(_)).then_some((family, rank, *part))
        })
    }

    fn position(&self, name: &str) -> Option<(usize, usize)> {
        self.families.iter().enumerate().find_map(|(at, family)| {
            let rank = family.names.iter().position(|alias| *alias == name)?;
            Some((at, rank))
        })
    }
}

/// Finds a name in the dialects of a page, the first one first.
pub(super) fn find(dialects: &[&'static Dialect], name: &str) -> Option<Found> {
    let mut before = 0;
    for dialect in dialects.iter().copied() {
        if let Some((at, rank, part)) = dialect.find(name) {
            return Some(Found { dialect, family: &dialect.families[at], number: before + at, rank, part });
        }
        before += dialect.families.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_twice_in_a_table() {
        for kind in EngineKind::ALL {
            let names: Vec<_> = of(*kind).families.iter().flat_map(|family| family.names).collect();
            for (at, name) in names.iter().enumerate() {
                assert!(!names[..at].contains(name), "{kind}: {name}");
            }
        }
    }

    #[test]
    fn the_number_of_a_family_is_its_own_among_all_dialects() {
        let dialects = [of(EngineKind::Vllm), of(EngineKind::DynamoWorker)];
        let mut numbers = std::collections::BTreeSet::new();
        for dialect in dialects {
            for family in dialect.families {
                let found = find(&dialects, family.names[0]).unwrap();
                assert!(numbers.insert(found.number), "{:?}", family.names);
                assert!(std::ptr::eq(found.family, family));
            }
        }
    }
}
