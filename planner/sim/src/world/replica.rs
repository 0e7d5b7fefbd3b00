//! One replica: an engine, its life and its meters.

use plimsoll_common::{engine::Role, units::Micros};
use plimsoll_engine::{Admission, Engine, Preemption, RequestFacts, Sink, Token, Totals};

use super::prefix::PrefixCache;
use crate::{
    outcome::{Ending, ReplicaSpan, RequestRecord},
    policy::Gained,
    telemetry::{ITL_EDGES, LENGTH_EDGES, Published, QUEUE_EDGES, TTFT_EDGES},
};

/// Where a replica is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Starting,
    Ready,
    Draining,
    Gone,
}

#[derive(Debug)]
pub(super) struct Replica {
    pub(super) span: ReplicaSpan,
    pub(super) stage: Stage,
    pub(super) engine: Engine,
    pub(super) meter: Meter,
    pub(super) cache: Option<PrefixCache>,
    /// Requests whose keys and values are on their way to it.
    pub(super) inbound: u32,
    /// When the next event of its prefill is planned.
    pub(super) wake: Option<Micros>,
    /// Faults that make it slower, multiplied.
    pub(super) slow: f64,
    pub(super) silent: bool,
}

impl Replica {
    /// Requests that it holds or is about to.
    pub(super) fn held(&self) -> usize {
        self.engine.held() + self.inbound as usize
    }

    pub(super) fn is_idle(&self) -> bool {
        self.held() == 0
    }

    /// How many prefix blocks of `block_tokens` fit beside what running requests hold.
    pub(super) fn cache_capacity(&self, block_tokens: u32) -> usize {
        let load = self.engine.load();
        let free = u64::from(load.kv_blocks_total.saturating_sub(load.kv_blocks_used));
        (free * u64::from(self.engine.config().block_size) / u64::from(block_tokens.max(1))) as usize
    }
}

/// What a replica has published since the last tick.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) arrived: u64,
    pub(super) arrived_prompt_tokens: u64,
    pub(super) finished_prompt_tokens: u64,
    pub(super) finished_output_tokens: u64,
    pub(super) ttft: Published,
    pub(super) itl: Published,
    pub(super) queue_time: Published,
    pub(super) prompt_lengths: Published,
    pub(super) output_lengths: Published,
    /// The engine's totals at the last tick.
    pub(super) before: Totals,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            arrived: 0,
            arrived_prompt_tokens: 0,
            finished_prompt_tokens: 0,
            finished_output_tokens: 0,
            ttft: Published::new(TTFT_EDGES),
            itl: Published::new(ITL_EDGES),
            queue_time: Published::new(QUEUE_EDGES),
            prompt_lengths: Published::new(LENGTH_EDGES),
            output_lengths: Published::new(LENGTH_EDGES),
            before: Totals::default(),
        }
    }
}

impl Meter {
    /// What was gained since the last tick.
    pub(super) const fn gained(&self, now: &Totals) -> Gained {
        Gained {
            arrived: self.arrived,
            arrived_prompt_tokens: self.arrived_prompt_tokens,
            finished: now.finished - self.before.finished,
            finished_prompt_tokens: self.finished_prompt_tokens,
            finished_output_tokens: self.finished_output_tokens,
            cache_query_tokens: now.cache_query_tokens - self.before.cache_query_tokens,
            cache_hit_tokens: now.cache_hit_tokens - self.before.cache_hit_tokens,
            prefilled_tokens: now.prefilled_tokens - self.before.prefilled_tokens,
            generated_tokens: now.generated_tokens - self.before.generated_tokens,
            iterations: now.iterations - self.before.iterations,
            preemptions: now.preemptions - self.before.preemptions,
        }
    }

    /// Begins a new window.
    pub(super) fn begin(&mut self, now: &Totals) {
        self.arrived = 0;
        self.arrived_prompt_tokens = 0;
        self.finished_prompt_tokens = 0;
        self.finished_output_tokens = 0;
        self.ttft.clear();
        self.itl.clear();
        self.queue_time.clear();
        self.prompt_lengths.clear();
        self.output_lengths.clear();
        self.before = *now;
    }
}

/// Where what an engine tells goes to.
pub(super) struct Feed<'a> {
    pub(super) role: Role,
    pub(super) meter: &'a mut Meter,
    pub(super) requests: &'a mut [RequestRecord],
    /// Requests that are unfinished.
    pub(super) outstanding: &'a mut u64,
    /// Requests whose prefill is done, to be handed to a decode replica.
    pub(super) handoffs: &'a mut Vec<u32>,
    /// Requests whose first token came out, for the prefix cache.
    pub(super) prefixes: Option<&'a mut Vec<u32>>,
}

impl Sink for Feed<'_> {
    fn admitted(&mut self, _at: Micros, admission: &Admission) {
        self.meter.queue_time.add(admission.queue_time, 1);
    }

    fn preempted(&mut self, _at: Micros, _preemption: &Preemption) {}

    fn first_token(&mut self, at: Micros, token: &Token) {
        self.meter.ttft.add(token.latency, 1);
        let record = &mut self.requests[token.id.0 as usize];
        record.first_token = Some(at);
        record.cached_tokens = token.cached_tokens;
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.push(token.id.0 as u32);
        }
    }

    fn later_tokens(&mut self, _at: Micros, latency: Micros, count: u32) {
        self.meter.itl.add(latency, u64::from(count));
    }

    fn finished(&mut self, facts: &RequestFacts) {
        self.meter.finished_prompt_tokens += u64::from(facts.prompt_tokens);
        self.meter.finished_output_tokens += u64::from(facts.output_tokens);
        self.meter.prompt_lengths.add(Micros(u64::from(facts.prompt_tokens)), 1);
        self.meter.output_lengths.add(Micros(u64::from(facts.output_tokens)), 1);
        let record = &mut self.requests[facts.id.0 as usize];
        if self.role == Role::Prefill && record.output_tokens > 1 {
            self.handoffs.push(facts.id.0 as u32);
            return;
        }
        record.last_token = Some(facts.ended);
        record.ending = Ending::Finished;
        *self.outstanding -= 1;
    }
}
