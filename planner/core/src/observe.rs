//! What the core is told: one [`Observation`] a pool and step.
//!
//! Every number but the pool's name may be missing; absent is not zero. Counts and sums cover the window since the
//! observation before. A shell folds whatever it has into these: a fleet of agents, a simulated world, or one line of
//! another program's output.

mod plausible;

use std::collections::BTreeMap;

use plimsoll_common::{
    ids::{EngineId, PoolName},
    units::Micros,
};
use serde::{Deserialize, Serialize};

/// What was seen of one pool in one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// Which pool.
    pub pool: PoolName,
    /// How long the window was.
    pub window: Micros,
    /// How many replicas there are, and how they fare.
    #[serde(default)]
    pub replicas: Replicas,
    /// What a front door saw, where there is one.
    #[serde(default)]
    pub door: Option<Door>,
    /// Every engine that told anything.
    #[serde(default)]
    pub engines: BTreeMap<EngineId, Engine>,
    /// Mean lengths of the window's requests, where somebody tells these and no counters.
    #[serde(default)]
    pub lengths: MeanLengths,
}

impl Observation {
    /// An observation of a pool that tells nothing yet.
    #[must_use]
    pub fn new(pool: PoolName, window: Micros) -> Self {
        let (replicas, lengths) = (Replicas::default(), MeanLengths::default());
        Self { pool, window, replicas, door: None, engines: BTreeMap::new(), lengths }
    }

    /// Times to first token of all engines together.
    #[must_use]
    pub fn ttft(&self) -> Latency {
        self.engines.values().fold(Latency::default(), |mut all, engine| {
            all.add(&engine.ttft);
            all
        })
    }

    /// Whether anything tells how long prompts are.
    #[must_use]
    pub fn tells_prompts(&self) -> bool {
        let counted = |gained: &Gained| {
            let tokens = gained.arrived_prompt_tokens.or(gained.finished_prompt_tokens);
            tokens.or_else(|| gained.finished.and(gained.prefilled_tokens)).is_some()
        };
        let door = self.door.and_then(|door| door.arrived_prompt_tokens);
        self.lengths.prompt.is_some()
            || door.is_some()
            || self.engines.values().any(|engine| counted(&engine.gained))
    }

    /// Adds another observation of the same pool. The answer does not depend on the order: counts add up, of what is no
    /// count the greater stays.
    pub fn merge(&mut self, other: Self) {
        self.window = self.window.max(other.window);
        self.replicas.merge(other.replicas);
        self.door = match (self.door, other.door) {
            (Some(a), Some(b)) => Some(a.plus(&b)),
            (a, b) => a.or(b),
        };
        self.lengths = self.lengths.greater(other.lengths);
        for (id, engine) in other.engines {
            let merged = self.engines.get(&id).map_or_else(|| engine.clone(), |before| before.plus(&engine));
            self.engines.insert(id, merged);
        }
    }
}

/// Mean lengths of requests, tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeanLengths {
    /// Prompt tokens (ISL).
    pub prompt: Option<f64>,
    /// Output tokens (OSL).
    pub output: Option<f64>,
}

impl MeanLengths {
    fn greater(self, other: Self) -> Self {
        Self { prompt: greater(self.prompt, other.prompt), output: greater(self.output, other.output) }
    }
}

/// The greater of two numbers of which either may be missing.
fn greater(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, b) => a.or(b),
    }
}

/// Two histograms added up, edge by edge.
fn buckets(a: &[(u64, u64)], b: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut merged = BTreeMap::new();
    for (edge, count) in a.iter().chain(b) {
        let held: &mut u64 = merged.entry(*edge).or_default();
        *held = held.saturating_add(*count);
    }
    merged.into_iter().collect()
}

/// The sum of two counts of which either may be missing.
fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    }
}

/// The replicas of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replicas {
    /// The target in force, if it is known: another hand may have changed it.
    pub target: Option<u32>,
    /// Those that take requests, silent ones included.
    pub ready: u32,
    /// Those that were asked for and are not ready: for how long each has been starting.
    pub starting: Vec<Micros>,
    /// Those that were asked for and cannot be placed.
    pub unschedulable: u32,
    /// Those that finish what they have and take nothing new.
    pub draining: u32,
    /// Ready ones that tell nothing.
    pub silent: u32,
    /// Starts that failed in the window.
    pub failed_starts: u32,
    /// How long those took to start that became ready in the window.
    pub started_in: Vec<Micros>,
}

impl Replicas {
    /// Ready and starting ones: what a target is compared with.
    #[must_use]
    pub fn coming(&self) -> u32 {
        self.ready + self.starting.len() as u32 + self.unschedulable
    }

    fn merge(&mut self, mut other: Self) {
        self.target = self.target.max(other.target);
        self.ready = self.ready.max(other.ready);
        self.unschedulable = self.unschedulable.max(other.unschedulable);
        self.draining = self.draining.max(other.draining);
        self.silent = self.silent.max(other.silent);
        self.failed_starts = self.failed_starts.saturating_add(other.failed_starts);
        self.started_in.append(&mut other.started_in);
        self.started_in.sort_unstable();
        other.starting.sort_unstable();
        self.starting.sort_unstable();
        // Two views of the same replicas: the fuller one.
        let fuller = |a: &[Micros], b: &[Micros]| (a.len(), a) < (b.len(), b);
        if fuller(&self.starting, &other.starting) {
            self.starting = other.starting;
        }
    }
}

/// What a gateway or front-end in front of the engines saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Door {
    /// Requests that arrived in the window.
    pub arrived: Option<u64>,
    /// Their prompt tokens.
    pub arrived_prompt_tokens: Option<u64>,
    /// Requests that wait there.
    pub waiting: Option<u64>,
}

impl Door {
    fn plus(&self, other: &Self) -> Self {
        Self {
            arrived: sum(self.arrived, other.arrived),
            arrived_prompt_tokens: sum(self.arrived_prompt_tokens, other.arrived_prompt_tokens),
            waiting: self.waiting.max(other.waiting),
        }
    }
}

/// What one engine told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// Whether it drains.
    pub draining: bool,
    /// Requests in the running batch.
    pub running: Option<u64>,
    /// Requests in its queue.
    pub waiting: Option<u64>,
    /// KV-cache utilization, 0 to 1.
    pub kv_utilization: Option<f64>,
    /// Prompt tokens that are known and not computed.
    pub queued_prefill_tokens: Option<u64>,
    /// What its counters gained.
    pub gained: Gained,
    /// Time to first token.
    pub ttft: Latency,
    /// Time between tokens.
    pub itl: Latency,
    /// Time from arrival to first scheduling.
    pub queue_time: Latency,
    /// Prompt lengths of finished requests: `(upper edge, tokens; requests)` by rising edge.
    pub prompt_lengths: Vec<(u64, u64)>,
    /// Output lengths of finished requests, likewise.
    pub output_lengths: Vec<(u64, u64)>,
}

impl Engine {
    /// Takes mean latencies of which nobody tells how many requests or tokens they are the mean of: as many as finished
    /// or were generated, or as run at such a pace.
    pub fn take_means(&mut self, window: Micros, ttft: Option<f64>, itl: Option<f64>) {
        let of_mean = |mean: f64, count: f64| {
            // More than a billion samples in a window are none.
            let count = if count.is_finite() { count.round().clamp(1.0, 1e9) } else { 1.0 };
            let sum = Micros::from_secs_f64(mean * count)?;
            Some(Latency { count: count as u64, sum, within: None })
        };
        if let Some(mean) = ttft.filter(|mean| *mean >= 0.0) {
            let requests = self.gained.finished.or(self.gained.arrived).unwrap_or(1);
            self.ttft = of_mean(mean, requests as f64).unwrap_or_default();
        }
        if let Some(mean) = itl.filter(|mean| *mean > 0.0) {
            let paced = || self.running.map_or(1.0, |running| running as f64 * window.as_secs_f64() / mean);
            let tokens = self.gained.generated_tokens.map_or_else(paced, |tokens| tokens as f64);
            self.itl = of_mean(mean, tokens).unwrap_or_default();
        }
    }

    fn plus(&self, other: &Self) -> Self {
        let latency = |mut a: Latency, b: &Latency| {
            a.add(b);
            a
        };
        Self {
            draining: self.draining || other.draining,
            running: self.running.max(other.running),
            waiting: self.waiting.max(other.waiting),
            kv_utilization: greater(self.kv_utilization, other.kv_utilization),
            queued_prefill_tokens: self.queued_prefill_tokens.max(other.queued_prefill_tokens),
            gained: self.gained.plus(&other.gained),
            ttft: latency(self.ttft, &other.ttft),
            itl: latency(self.itl, &other.itl),
            queue_time: latency(self.queue_time, &other.queue_time),
            prompt_lengths: buckets(&self.prompt_lengths, &other.prompt_lengths),
            output_lengths: buckets(&self.output_lengths, &other.output_lengths),
        }
    }
}

/// What an engine's counters gained in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gained {
    /// Requests that arrived.
    pub arrived: Option<u64>,
    /// Their prompt tokens.
    pub arrived_prompt_tokens: Option<u64>,
    /// Requests that finished.
    pub finished: Option<u64>,
    /// Prompt tokens of those.
    pub finished_prompt_tokens: Option<u64>,
    /// Output tokens of those.
    pub finished_output_tokens: Option<u64>,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_query_tokens: Option<u64>,
    /// Prompt tokens found there.
    pub prefix_hit_tokens: Option<u64>,
    /// Prompt tokens computed.
    pub prefilled_tokens: Option<u64>,
    /// Tokens generated.
    pub generated_tokens: Option<u64>,
    /// Tokens drafted by speculative decoding and accepted.
    pub accepted_draft_tokens: Option<u64>,
    /// Iterations.
    pub iterations: Option<u64>,
    /// Requests that lost their KV blocks.
    pub preemptions: Option<u64>,
}

impl Gained {
    fn plus(&self, other: &Self) -> Self {
        Self {
            arrived: sum(self.arrived, other.arrived),
            arrived_prompt_tokens: sum(self.arrived_prompt_tokens, other.arrived_prompt_tokens),
            finished: sum(self.finished, other.finished),
            finished_prompt_tokens: sum(self.finished_prompt_tokens, other.finished_prompt_tokens),
            finished_output_tokens: sum(self.finished_output_tokens, other.finished_output_tokens),
            prefix_query_tokens: sum(self.prefix_query_tokens, other.prefix_query_tokens),
            prefix_hit_tokens: sum(self.prefix_hit_tokens, other.prefix_hit_tokens),
            prefilled_tokens: sum(self.prefilled_tokens, other.prefilled_tokens),
            generated_tokens: sum(self.generated_tokens, other.generated_tokens),
            accepted_draft_tokens: sum(self.accepted_draft_tokens, other.accepted_draft_tokens),
            iterations: sum(self.iterations, other.iterations),
            preemptions: sum(self.preemptions, other.preemptions),
        }
    }
}

/// A latency of one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Latency {
    /// Samples.
    pub count: u64,
    /// Their sum.
    pub sum: Micros,
    /// Samples within the SLO's limit: certainly, and possibly. They differ where the limit is no bucket's edge.
    pub within: Option<(u64, u64)>,
}

impl Latency {
    /// The mean, seconds; none without samples.
    #[must_use]
    pub fn mean_s(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum.as_secs_f64() / self.count as f64)
    }

    /// Adds the samples of another.
    pub fn add(&mut self, other: &Self) {
        let sum = |a: (u64, u64), b: (u64, u64)| (a.0.saturating_add(b.0), a.1.saturating_add(b.1));
        self.within = match (self.count, other.count) {
            (0, 0) => None,
            (_, 0) => self.within,
            (0, _) => other.within,
            _ => self.within.zip(other.within).map(|(a, b)| sum(a, b)),
        };
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
    }
}
