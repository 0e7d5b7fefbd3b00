//! How an engine names what we want to know: a table for each engine, in a file of its own.

use plimsoll_common::engine::{DistributionKind, EngineKind};

use super::{page::Counter, vllm};
use crate::exposition::Labels;

/// What a family of an engine's page tells.
#[derive(Debug, Clone, Copy)]
pub(super) enum Signal {
    /// Requests in the running batch; series are added up.
    Running,
    /// Requests that wait; series are added up.
    Waiting,
    /// KV-cache utilization, 0 to 1, of the engine that the label `engine` names.
    KvUsage,
    /// Labels that tell the KV cache's capacity in tokens.
    KvCapacity(fn(Labels<'_>) -> Option<u64>),
    /// A counter.
    Counter(Counter),
    /// Finished requests, told apart by a label.
    Finished {
        /// The label.
        label: &'static str,
        /// Which counter a value of it means.
        counter: fn(&str) -> Counter,
    },
    /// Ended HTTP requests; the function says which series count as work of the engine.
    HttpEnded(fn(Labels<'_>) -> bool),
    /// A histogram.
    Histogram(DistributionKind),
    /// Start of the process, seconds since the Unix epoch.
    ProcessStart,
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
}

/// The families of one engine.
#[derive(Debug)]
pub(super) struct Dialect {
    pub(super) families: &'static [Family],
    /// The label that names the served model.
    pub(super) model_label: &'static str,
    /// The label that tells data-parallel engines apart.
    pub(super) engine_label: &'static str,
}

/// The dialect of an engine; `None` where this build has none.
pub(super) const fn of(kind: EngineKind) -> Option<&'static Dialect> {
    match kind {
        EngineKind::Vllm => Some(&vllm::DIALECT),
        _ => None,
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

impl Dialect {
    /// The family with this name, the rank of the name among its aliases, and the part that the name's suffix tells.
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
