//! Gauges: what each of them is, and what several series of one mean together.

use std::collections::BTreeMap;

use plimsoll_common::{engine::SleepState, units::Ratio};

use super::gauges::EngineGauges;

/// What a gauge tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Quantity {
    /// Requests in the running batch.
    Running,
    /// Requests that wait, where the engine tells no reason.
    Waiting,
    /// Requests that wait for room, as a part of `Waiting`.
    WaitingCapacity,
    /// Requests that wait for something else, as a part of `Waiting`.
    WaitingDeferred,
    /// Requests that wait for something else, in a queue that `Waiting` does not have.
    AlsoDeferred,
    /// Requests that wait for room, in a queue that `Waiting` does not have.
    AlsoCapacity,
    /// Requests that keep their place while the engine is paused.
    Paused,
    /// Utilization of the KV cache, 0 to 1.
    KvUsage,
    /// Utilization of another pool of the same engine, as of a sliding window: the fullest pool is the engine's.
    OtherPool,
    /// What the KV cache holds, tokens.
    KvTokens,
    /// What the KV cache holds, blocks.
    KvBlocks,
    /// Blocks of the KV cache in use.
    KvUsedBlocks,
    /// Tokens in a block.
    KvBlockTokens,
    /// Utilization of the tier below the KV cache, 0 to 1.
    OffloadUsage,
    /// Tokens in the tier below.
    OffloadUsed,
    /// Tokens that the tier below holds.
    OffloadTokens,
    /// Share of the prompt tokens found in the prefix cache, as the engine averages it.
    PrefixHitRatio,
    /// Share of the drafted tokens that were accepted, as the engine averages it.
    SpecAcceptance,
    /// Tokens accepted a step of speculative decoding; 0 where the engine does not speculate.
    SpecAcceptLength,
    /// Requests within a front-end.
    FrontendInflight,
    /// Requests within a front-end without a first token.
    FrontendQueued,
    /// Whether a front-end has workers for its model.
    ModelReady,
    /// The engine sleeps thus: 1 for the state that holds.
    Sleep(SleepState),
    /// Start of the process, seconds since the Unix epoch.
    ProcessStart,
    /// Seconds since the start of the process.
    Uptime,
    /// Requests that a worker was given and has not answered, running or not.
    Inflight,
    /// A queue in front of the engine within its own process, as a part of the requests that wait.
    InFront,
}

/// Which copy of a thing a series is, by the labels that tell copies apart: the lowest counts.
pub(super) type Ranks = [u32; 3];

/// One series of a gauge.
#[derive(Debug, Clone)]
struct Held {
    /// Which data-parallel engine of the page it is of.
    engine: Box<str>,
    ranks: Ranks,
    value: f64,
}

/// The gauges of a page while it is read.
#[derive(Debug, Default)]
pub(super) struct Quantities {
    held: BTreeMap<Quantity, BTreeMap<(usize, Box<str>), Held>>,
}

impl Quantities {
    /// Takes a series: its family, its labels without those that tell copies apart, its engine and its ranks.
    pub(super) fn take(
        &mut self,
        quantity: Quantity,
        (family, labels): (usize, Box<str>),
        engine: Box<str>,
        ranks: Ranks,
        value: f64,
    ) {
        if !value.is_finite() {
            return;
        }
        let series = self.held.entry(quantity).or_default();
        match series.get_mut(&(family, labels.clone())) {
            None => {
                series.insert((family, labels), Held { engine, ranks, value });
            }
            Some(held) if ranks < held.ranks => *held = Held { engine, ranks, value },
            // The same thing, told by two processes: the one that knows of more was asked later.
            Some(held) if ranks == held.ranks => held.value = held.value.max(value),
            Some(_) => {}
        }
    }

    /// Forgets a family.
    pub(super) fn forget(&mut self, family: usize) {
        for series in self.held.values_mut() {
            series.retain(|(of, _), _| *of != family);
        }
    }

    fn series(&self, quantity: Quantity) -> impl Iterator<Item = &Held> {
        self.held.get(&quantity).into_iter().flat_map(BTreeMap::values)
    }

    /// The sum over all series.
    fn sum(&self, quantity: Quantity) -> Option<f64> {
        self.series(quantity).map(|held| held.value).reduce(|a, b| a + b)
    }

    /// The highest of all series.
    pub(super) fn max(&self, quantity: Quantity) -> Option<f64> {
        self.series(quantity).map(|held| held.value).reduce(f64::max)
    }

    /// By engine; of several families the first of the table that tells, of several series of one the highest.
    fn by_engine(&self, quantity: Quantity) -> BTreeMap<&str, f64> {
        let mut found: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
        for ((family, _), held) in self.held.get(&quantity).into_iter().flatten() {
            let known = found.entry(&held.engine).or_insert((*family, held.value));
            if *family < known.0 {
                *known = (*family, held.value);
            } else if *family == known.0 {
                known.1 = known.1.max(held.value);
            }
        }
        found.into_iter().map(|(engine, (_, value))| (engine, value)).collect()
    }

    fn product(&self, a: Quantity, b: Quantity) -> BTreeMap<&str, f64> {
        let b = self.by_engine(b);
        let product = |(engine, value): (_, f64)| Some((engine, value * b.get(engine)?));
        self.by_engine(a).into_iter().filter_map(product).collect()
    }

    fn quotient(&self, a: Quantity, b: Quantity) -> BTreeMap<&str, f64> {
        let b = self.by_engine(b);
        let quotient = |(engine, value): (_, f64)| {
            let whole = b.get(engine).copied().filter(|whole| *whole > 0.0)?;
            Some((engine, value / whole))
        };
        self.by_engine(a).into_iter().filter_map(quotient).collect()
    }

    /// Tokens that each engine's KV cache holds.
    fn capacity(&self) -> BTreeMap<&str, f64> {
        let mut capacity = self.product(Quantity::KvBlocks, Quantity::KvBlockTokens);
        capacity.append(&mut self.by_engine(Quantity::KvTokens));
        capacity.retain(|_, tokens| *tokens > 0.0);
        capacity
    }

    /// Tokens that the KV caches of all engines hold.
    pub(super) fn kv_capacity_tokens(&self) -> Option<u64> {
        self.capacity().into_values().reduce(|a, b| a + b).and_then(whole)
    }

    /// What the page tells of the engine as a whole.
    pub(super) fn gauges(&self) -> EngineGauges {
        let capacity = self.capacity();
        let mut usage = self.quotient(Quantity::KvUsedBlocks, Quantity::KvBlocks);
        usage.append(&mut self.by_engine(Quantity::KvUsage));
        for (engine, pool) in self.by_engine(Quantity::OtherPool) {
            if let Some(usage) = usage.get_mut(engine) {
                *usage = usage.max(pool);
            }
        }
        let mut offload = self.quotient(Quantity::OffloadUsed, Quantity::OffloadTokens);
        offload.append(&mut self.by_engine(Quantity::OffloadUsage));
        let none = BTreeMap::new();
        let speculates = self.max(Quantity::SpecAcceptLength).is_some_and(|length| length > 0.0);
        let acceptance = self.by_engine(Quantity::SpecAcceptance);
        EngineGauges {
            running: self.count(&[Quantity::Running]).or_else(|| self.count(&[Quantity::Inflight])),
            waiting: self.waiting(),
            waiting_capacity: self.waiting_capacity(),
            waiting_deferred: self.count(&[Quantity::WaitingDeferred, Quantity::AlsoDeferred]),
            paused: self.count(&[Quantity::Paused]),
            kv_usage: weighted(&usage, &capacity),
            kv_usage_max: usage.values().copied().reduce(f64::max).and_then(ratio),
            kv_offload_usage: weighted(&offload, &none),
            prefix_hit_ratio: weighted(&self.by_engine(Quantity::PrefixHitRatio), &none),
            spec_acceptance: if speculates { weighted(&acceptance, &none) } else { None },
            sleep: SleepState::ALL
                .iter()
                .copied()
                .rev()
                .find(|state| self.max(Quantity::Sleep(*state)).is_some_and(|held| held > 0.0)),
            frontend_inflight: self.count(&[Quantity::FrontendInflight]),
            frontend_queued: self.count(&[Quantity::FrontendQueued]),
            snapshot_time: None,
        }
    }

    /// Requests that wait in any queue. Queues that only some engines have count where the main one is told.
    fn waiting(&self) -> Option<u64> {
        self.sum(Quantity::Waiting)?;
        self.count(&[Quantity::Waiting, Quantity::AlsoDeferred, Quantity::AlsoCapacity, Quantity::InFront])
    }

    /// Requests that wait for room. Where an engine tells the others apart but not these, they are the rest.
    fn waiting_capacity(&self) -> Option<u64> {
        if let Some(told) = self.count(&[Quantity::WaitingCapacity]) {
            return Some(told);
        }
        self.count(&[Quantity::AlsoDeferred])?;
        self.sum(Quantity::Waiting)?;
        self.count(&[Quantity::Waiting, Quantity::AlsoCapacity])
    }

    /// The sum over all series of these quantities; `None` where there is none.
    fn count(&self, quantities: &[Quantity]) -> Option<u64> {
        let told = quantities.iter().filter_map(|quantity| self.sum(*quantity));
        told.reduce(|a, b| a + b).and_then(whole)
    }
}

/// A count as a whole number; `None` for what can be no count.
#[must_use]
pub fn whole(value: f64) -> Option<u64> {
    // Beyond 2^53 a double no longer holds every whole number, so that differences would lie.
    (0.0..=9_007_199_254_740_992.0).contains(&value).then(|| value.round() as u64)
}

/// A ratio, brought between 0 and 1: engines overshoot by a rounding error.
#[must_use]
pub fn ratio(value: f64) -> Option<Ratio> {
    if value.is_finite() { Ratio::new(value.clamp(0.0, 1.0)).ok() } else { None }
}

/// The mean over the engines, weighted by their capacity where all of them are known, else plain.
#[must_use]
pub fn weighted(usage: &BTreeMap<&str, f64>, capacity: &BTreeMap<&str, f64>) -> Option<Ratio> {
    if let (1, Some(only)) = (usage.len(), usage.values().next()) {
        // Multiplied and divided it would be another by a rounding error.
        return ratio(*only);
    }
    let weigh = usage.keys().all(|engine| capacity.contains_key(engine));
    let (mut sum, mut weights) = (0.0, 0.0);
    for (engine, used) in usage {
        let weight = if weigh { capacity.get(engine).copied().unwrap_or(1.0) } else { 1.0 };
        sum += used.clamp(0.0, 1.0) * weight;
        weights += weight;
    }
    if weights > 0.0 { ratio(sum / weights) } else { None }
}
