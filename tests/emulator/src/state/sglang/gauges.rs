//! The scheduler's gauges, and its snapshot for `/v1/loads`.

use plimsoll_engine::{Micros, Step};

use crate::{
    config::Config,
    state::sglang::{DECODE_LOG_INTERVAL, PUBLISH_INTERVAL},
};

/// Gauges as they were last set.
#[derive(Clone, Debug)]
pub(crate) struct Gauges {
    pub(crate) running: u64,
    pub(crate) queue: u64,
    pub(crate) used_tokens: u64,
    pub(crate) evictable_tokens: u64,
    /// Tokens per second since the setting before.
    pub(crate) gen_throughput: f64,
    /// Of the last prefill batch.
    pub(crate) cache_hit_rate: f64,
    pub(crate) decode_sum_seq_lens: u64,
    pub(crate) capacity_tokens: u64,
    /// Tokens that the prefix cache remembers, whoever holds them; kept up to date, shown when gauges are set.
    pub(crate) remembered_tokens: u64,
    decode_steps: u32,
    decoded_since: u64,
    set_at: Micros,
}

impl Gauges {
    pub(crate) fn new(config: &Config) -> Self {
        let capacity_tokens = u64::from(config.engine.kv_blocks) * u64::from(config.engine.block_size);
        Self {
            running: 0,
            queue: 0,
            used_tokens: 0,
            evictable_tokens: 0,
            gen_throughput: 0.0,
            cache_hit_rate: 0.0,
            decode_sum_seq_lens: 0,
            capacity_tokens,
            remembered_tokens: 0,
            decode_steps: 0,
            decoded_since: 0,
            set_at: Micros::ZERO,
        }
    }

    /// At a prefill batch only what decodes already counts as running: with everything else in prefill that is nothing.
    pub(crate) fn prefill_batch(
        &mut self,
        step: &Step<'_>,
        used: u64,
        decoded: u64,
        computed: u64,
        hits: u64,
    ) {
        self.running = decoded;
        self.queue = u64::from(step.load.waiting);
        self.cache_hit_rate = hits as f64 / (hits + computed).max(1) as f64;
        self.decoded_since += decoded;
        self.set_pool(used);
    }

    pub(crate) fn decode_step(&mut self, step: &Step<'_>, used: u64, decoded: u64, context: u64) {
        self.decode_steps += 1;
        self.decoded_since += decoded;
        if self.decode_steps < DECODE_LOG_INTERVAL {
            return;
        }
        self.decode_steps = 0;
        let span = step.ended_at.saturating_sub(self.set_at).as_secs_f64();
        self.gen_throughput = if span > 0.0 { self.decoded_since as f64 / span } else { 0.0 };
        self.decoded_since = 0;
        self.set_at = step.ended_at;
        self.running = u64::from(step.load.running);
        self.queue = u64::from(step.load.waiting);
        self.decode_sum_seq_lens = context;
        self.set_pool(used);
    }

    pub(crate) fn set_idle(&mut self, now: Micros) {
        self.running = 0;
        self.queue = 0;
        self.gen_throughput = 0.0;
        self.decoded_since = 0;
        self.set_at = now;
        self.set_pool(0);
    }

    fn set_pool(&mut self, used: u64) {
        self.used_tokens = used;
        self.evictable_tokens =
            self.remembered_tokens.saturating_sub(used).min(self.capacity_tokens.saturating_sub(used));
    }

    /// Share of the pool that live requests hold, 0 to 1.
    pub(crate) fn usage(&self) -> f64 {
        self.used_tokens as f64 / self.capacity_tokens.max(1) as f64
    }

    pub(crate) const fn available_tokens(&self) -> u64 {
        self.capacity_tokens.saturating_sub(self.used_tokens).saturating_sub(self.evictable_tokens)
    }
}

/// The scheduler's last word for `/v1/loads`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loads {
    /// When it was said.
    pub(crate) at: Micros,
    pub(crate) running: u64,
    pub(crate) waiting: u64,
    pub(crate) waiting_tokens: u64,
    pub(crate) used_tokens: u64,
    pub(crate) gen_throughput: f64,
    pub(crate) cache_hit_rate: f64,
    decode_steps: u32,
}

impl Loads {
    /// Whether a step is one after which the scheduler publishes; to be asked once a step.
    pub(crate) const fn is_due(&mut self, prefill: bool) -> bool {
        self.decode_steps += 1;
        let due = prefill || self.decode_steps >= PUBLISH_INTERVAL;
        if due {
            self.decode_steps = 0;
        }
        due
    }

    /// `waiting` is requests and their prompt tokens.
    pub(crate) const fn publish(
        &mut self,
        at: Micros,
        running: u64,
        waiting: (u64, u64),
        used_tokens: u64,
        gauges: &Gauges,
    ) {
        self.at = at;
        self.running = running;
        (self.waiting, self.waiting_tokens) = waiting;
        self.used_tokens = used_tokens;
        self.gen_throughput = gauges.gen_throughput;
        self.cache_hit_rate = gauges.cache_hit_rate;
    }

    pub(crate) const fn publish_idle(&mut self, at: Micros, gauges: &Gauges) {
        self.at = at;
        self.running = 0;
        self.waiting = 0;
        self.waiting_tokens = 0;
        self.used_tokens = 0;
        self.gen_throughput = 0.0;
        self.cache_hit_rate = gauges.cache_hit_rate;
    }
}
