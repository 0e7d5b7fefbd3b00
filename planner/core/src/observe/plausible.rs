//! What cannot be is left out, as if nobody had told it.
//!
//! A counter that wrapped, a gauge of garbage or a clock that jumped must neither scale a fleet nor be learned from. The
//! bounds are far beyond what any engine does, and stated here, so that everything within them is taken as it is.

use plimsoll_common::units::Micros;

use super::{Door, Engine, Gained, Latency, MeanLengths, Observation, Replicas};

/// Replicas of one pool.
const MOST_REPLICAS: u32 = 1_000_000;
/// A window, µs: what was gained in a shorter or longer one is no rate.
const WINDOW: std::ops::RangeInclusive<u64> = 1_000..=86_400_000_000;
/// Requests a second of one engine or door.
const MOST_REQUESTS_PER_S: f64 = 1e6;
/// Tokens a second of one engine or door.
const MOST_TOKENS_PER_S: f64 = 1e9;
/// Requests that one engine or door holds.
const MOST_HELD: u64 = 10_000_000;
/// Prompt tokens that are known and not computed.
const MOST_QUEUED_TOKENS: u64 = 1 << 40;
/// Tokens of one request.
const LONGEST_REQUEST: f64 = 16_777_216.0;
/// The mean of a latency, and what a start took.
const LONGEST: Micros = Micros(86_400_000_000);
/// How long a replica may have been starting.
const OLDEST_START: Micros = Micros(31_536_000_000_000);

impl Observation {
    /// Leaves out every number that cannot be. False where the replicas themselves cannot be: then nothing of it can be
    /// believed.
    pub(crate) fn leave_out_the_impossible(&mut self) -> bool {
        let is_rate = WINDOW.contains(&self.window.0);
        let window = if is_rate { self.window.as_secs_f64() } else { 0.0 };
        if let Some(door) = &mut self.door {
            door.leave_out(window);
        }
        self.lengths.leave_out();
        for engine in self.engines.values_mut() {
            engine.leave_out(window);
        }
        if !is_rate {
            self.window = Micros::ZERO;
        }
        self.replicas.leave_out()
    }
}

/// Leaves a number out that is above what can be.
fn at_most(value: &mut Option<u64>, most: f64) {
    *value = value.filter(|value| *value as f64 <= most);
}

impl Replicas {
    fn leave_out(&mut self) -> bool {
        let counts = [self.ready, self.unschedulable, self.draining, self.silent];
        let possible = counts.iter().all(|count| *count <= MOST_REPLICAS)
            && self.target.is_none_or(|target| target <= MOST_REPLICAS)
            && self.starting.len() <= MOST_REPLICAS as usize;
        self.silent = self.silent.min(self.ready);
        self.failed_starts = self.failed_starts.min(MOST_REPLICAS);
        self.starting.retain(|age| *age <= OLDEST_START);
        self.started_in.retain(|time| *time <= LONGEST);
        possible
    }
}

impl Door {
    fn leave_out(&mut self, window: f64) {
        let Self { arrived, arrived_prompt_tokens, waiting } = self;
        at_most(arrived, MOST_REQUESTS_PER_S * window);
        tokens_of(arrived_prompt_tokens, *arrived, window);
        at_most(waiting, MOST_HELD as f64);
        if window <= 0.0 {
            *arrived = None;
        }
    }
}

/// Leaves tokens out that so many requests, or so short a time, cannot have.
fn tokens_of(tokens: &mut Option<u64>, requests: Option<u64>, window: f64) {
    let of_requests = requests.map_or(f64::INFINITY, |requests| requests as f64 * LONGEST_REQUEST);
    at_most(tokens, of_requests.min(MOST_TOKENS_PER_S * window.max(0.0)));
    if window <= 0.0 {
        *tokens = None;
    }
}

impl MeanLengths {
    fn leave_out(&mut self) {
        for length in [&mut self.prompt, &mut self.output] {
            *length = length.filter(|length| (0.0..=LONGEST_REQUEST).contains(length));
        }
    }
}

impl Engine {
    fn leave_out(&mut self, window: f64) {
        at_most(&mut self.running, MOST_HELD as f64);
        at_most(&mut self.waiting, MOST_HELD as f64);
        at_most(&mut self.queued_prefill_tokens, MOST_QUEUED_TOKENS as f64);
        self.kv_utilization = self.kv_utilization.filter(|share| (0.0..=1.0).contains(share));
        self.gained.leave_out(window);
        for latency in [&mut self.ttft, &mut self.queue_time] {
            latency.leave_out(MOST_REQUESTS_PER_S * window);
        }
        self.itl.leave_out(MOST_TOKENS_PER_S * window);
        for lengths in [&mut self.prompt_lengths, &mut self.output_lengths] {
            let requests: u128 = lengths.iter().map(|(_, count)| u128::from(*count)).sum();
            if requests as f64 > MOST_REQUESTS_PER_S * window {
                lengths.clear();
            }
        }
    }
}

impl Gained {
    fn leave_out(&mut self, window: f64) {
        if window <= 0.0 {
            *self = Self::default();
            return;
        }
        let requests = MOST_REQUESTS_PER_S * window;
        for count in [&mut self.arrived, &mut self.finished, &mut self.preemptions, &mut self.iterations] {
            at_most(count, requests);
        }
        tokens_of(&mut self.arrived_prompt_tokens, self.arrived, window);
        tokens_of(&mut self.finished_prompt_tokens, self.finished, window);
        tokens_of(&mut self.finished_output_tokens, self.finished, window);
        for tokens in
            [&mut self.prefilled_tokens, &mut self.generated_tokens, &mut self.accepted_draft_tokens]
        {
            tokens_of(tokens, None, window);
        }
        tokens_of(&mut self.prefix_query_tokens, None, window);
        // More cannot be found than was looked up.
        if self.prefix_hit_tokens > self.prefix_query_tokens {
            (self.prefix_hit_tokens, self.prefix_query_tokens) = (None, None);
        }
        if self.accepted_draft_tokens > self.generated_tokens {
            self.accepted_draft_tokens = None;
        }
    }
}

impl Latency {
    fn leave_out(&mut self, most: f64) {
        let count = self.count as f64;
        let longest = count * LONGEST.0 as f64;
        if count > most || self.sum.0 as f64 > longest {
            *self = Self::default();
        }
        self.within =
            self.within.filter(|(certain, possible)| certain <= possible && *possible <= self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(engine: Engine) -> Observation {
        let mut seen = Observation::new("p".parse().unwrap(), Micros(10_000_000));
        seen.replicas.ready = 1;
        seen.engines = [("e".parse().unwrap(), engine)].into();
        seen
    }

    fn usual() -> Engine {
        Engine {
            running: Some(20),
            waiting: Some(3),
            kv_utilization: Some(1.0),
            gained: Gained {
                arrived: Some(50),
                arrived_prompt_tokens: Some(50_000),
                finished: Some(50),
                finished_prompt_tokens: Some(50_000),
                finished_output_tokens: Some(10_000),
                prefix_query_tokens: Some(50_000),
                prefix_hit_tokens: Some(50_000),
                prefilled_tokens: Some(0),
                generated_tokens: Some(10_000),
                accepted_draft_tokens: Some(5_000),
                iterations: Some(900),
                preemptions: Some(1),
            },
            ttft: Latency { count: 50, sum: Micros(5_000_000), within: Some((40, 50)) },
            prompt_lengths: vec![(1_000, 50)],
            ..Engine::default()
        }
    }

    #[test]
    fn what_can_be_stays_as_it_is() {
        let mut taken = seen(usual());
        taken.replicas.starting = vec![Micros(3_600_000_000 * 24 * 7)];
        let before = taken.clone();
        assert!(taken.leave_out_the_impossible());
        assert_eq!(taken, before);
    }

    #[test]
    fn what_cannot_be_is_left_out_and_nothing_else() {
        let mut engine = usual();
        engine.kv_utilization = Some(f64::NAN);
        engine.waiting = Some(u64::MAX);
        engine.gained.finished = Some(u64::MAX);
        engine.gained.arrived_prompt_tokens = Some(50 * 17_000_000);
        engine.gained.prefix_hit_tokens = Some(50_001);
        engine.ttft.sum = Micros(u64::MAX);
        let mut taken = seen(engine);
        taken.lengths.prompt = Some(f64::INFINITY);
        taken.replicas.started_in = vec![Micros(u64::MAX), Micros(1_000)];
        assert!(taken.leave_out_the_impossible());
        let left = taken.engines.values().next().unwrap();
        assert_eq!((left.kv_utilization, left.waiting, left.gained.finished), (None, None, None));
        assert_eq!((left.gained.arrived, left.gained.arrived_prompt_tokens), (Some(50), None));
        assert_eq!((left.gained.prefix_hit_tokens, left.gained.prefix_query_tokens), (None, None));
        assert_eq!((left.ttft, left.running), (Latency::default(), Some(20)));
        assert_eq!((taken.lengths.prompt, taken.replicas.started_in), (None, vec![Micros(1_000)]));
    }

    #[test]
    fn without_a_possible_window_nothing_was_gained_and_replicas_that_cannot_be_are_nothing() {
        for window in [0, 999, u64::MAX] {
            let mut taken = seen(usual());
            taken.window = Micros(window);
            assert!(taken.leave_out_the_impossible());
            let left = taken.engines.values().next().unwrap();
            assert_eq!(
                (taken.window, left.gained, left.ttft),
                (Micros(0), Gained::default(), Latency::default())
            );
            assert_eq!(left.running, Some(20));
        }
        let mut taken = seen(usual());
        taken.replicas.ready = u32::MAX;
        assert!(!taken.leave_out_the_impossible());
    }
}
