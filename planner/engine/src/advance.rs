//! Running ahead: many iterations in one call.
//!
//! A batch in which everybody decodes changes nothing but counts from one iteration to the next until somebody
//! finishes, somebody is admitted or a block is short. Such a *run* costs constant time an iteration instead of time
//! in proportion to its batch; requests are brought up to date when it ends or when somebody looks. The result equals
//! iteration by iteration exactly: durations are summed as they would have been, rounding included.

use plimsoll_common::units::Micros;

use crate::{
    engine::Engine,
    request::RequestFacts,
    slots::State,
    step::{Admission, Iteration, Preemption, StepStats, Token},
    timing::StepShape,
};

/// Runs shorter than this are not worth bringing every request up to date twice.
const SHORTEST_RUN: u32 = 2;

/// Who is told what [`Engine::advance`] brings, in the order of time. Every method does nothing by default.
pub trait Sink {
    /// A request left the queue for the first time, in the iteration that ended at `at`.
    fn admitted(&mut self, at: Micros, admission: &Admission) {
        let _ = (at, admission);
    }

    /// A request lost its blocks to the iteration that ended at `at`.
    fn preempted(&mut self, at: Micros, preemption: &Preemption) {
        let _ = (at, preemption);
    }

    /// A request's first token came out.
    fn first_token(&mut self, at: Micros, token: &Token) {
        let _ = (at, token);
    }

    /// `count` requests got a later token each, `latency` (ITL) after the one before.
    fn later_tokens(&mut self, at: Micros, latency: Micros, count: u32) {
        let _ = (at, latency, count);
    }

    /// A request finished, at `facts.ended`.
    fn finished(&mut self, facts: &RequestFacts) {
        let _ = facts;
    }
}

/// Nobody wants to know.
impl Sink for () {}

/// A stretch of iterations in which the same sequences decode, and how far it has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    sequences: u32,
    /// Of the iteration under way.
    context: u64,
    started_at: Micros,
    ends_at: Micros,
    /// Iterations finished, which the slots do not know of yet.
    done: u32,
    /// Iterations that may start after the one under way.
    left: u32,
}

impl Run {
    const fn shape(&self) -> StepShape {
        StepShape {
            prefill_tokens: 0,
            prefill_attention: 0.0,
            decode_sequences: self.sequences as u64,
            decode_context: self.context,
        }
    }

    pub(crate) const fn iteration(&self) -> Iteration {
        let stats = StepStats {
            shape: self.shape(),
            sequences: self.sequences,
            batched_tokens: self.sequences,
            admitted: 0,
            preempted: 0,
        };
        Iteration { started_at: self.started_at, ends_at: self.ends_at, stats }
    }

    /// Tokens that each sequence has got or is about to get and its slot does not know of.
    pub(crate) const fn ahead(&self) -> u32 {
        self.done + 1
    }
}

impl Engine {
    /// Runs iterations one after the other: finishes every one that ends at `until` or before, and starts every one
    /// that can start before `until`. Whoever submits or aborts at a time should have advanced the engine to it.
    ///
    /// The result is exactly that of [`Engine::start_iteration`] and [`Engine::finish_iteration`] in turn.
    pub fn advance<S: Sink>(&mut self, until: Micros, sink: &mut S) {
        loop {
            if self.run.is_some() {
                if !self.run_on(until, sink) {
                    return;
                }
            } else if let Some(iteration) = self.in_flight {
                if iteration.ends_at > until {
                    return;
                }
                self.finish_into(iteration.ends_at, sink);
            } else {
                let startable = !self.is_empty() && self.clock < until;
                if !startable || !(self.begin_run() || self.start_iteration(self.clock).is_some()) {
                    return;
                }
            }
        }
    }

    /// When the iteration under way ends.
    #[must_use]
    pub fn busy_until(&self) -> Option<Micros> {
        match &self.run {
            Some(run) => Some(run.ends_at),
            None => self.in_flight.map(|iteration| iteration.ends_at),
        }
    }

    fn finish_into<S: Sink>(&mut self, now: Micros, sink: &mut S) {
        let Some(step) = self.finish_iteration(now) else { return };
        for admission in step.admitted {
            sink.admitted(step.ended_at, admission);
        }
        for preemption in step.preempted {
            sink.preempted(step.ended_at, preemption);
        }
        for token in step.tokens {
            if token.is_first() {
                sink.first_token(step.ended_at, token);
            } else {
                sink.later_tokens(step.ended_at, token.latency, 1);
            }
        }
        for facts in step.finished {
            sink.finished(facts);
        }
    }

    /// Begins a run if nothing can happen for a while but decodes, with its first iteration under way.
    fn begin_run(&mut self) -> bool {
        let Some((left, context)) = self.steady() else { return false };
        let sequences = self.scheduler.running.len() as u32;
        let mut run =
            Run { sequences, context, started_at: self.clock, ends_at: self.clock, done: 0, left: left - 1 };
        run.ends_at = self.clock.saturating_add(self.duration(&run.shape()));
        self.run = Some(run);
        true
    }

    /// For how many iterations the batch stays as it is, and the sum of its contexts in the first of them.
    fn steady(&mut self) -> Option<(u32, u64)> {
        let mut left = u32::MAX;
        let mut context = 0_u64;
        // The youngest are the likeliest to be still in prefill.
        for place in self.scheduler.running.iter().rev() {
            let slot = self.slots.get(*place);
            if !slot.decodes() || slot.last_token != Some(self.clock) {
                return None;
            }
            left = left.min(slot.request.output_tokens - slot.emitted - 1);
            context += u64::from(slot.computed) + 1;
        }
        if left < SHORTEST_RUN || left == u32::MAX || !self.scheduler.admits_nobody(&self.slots) {
            return None;
        }
        while self.blocks_missing(left) > u64::from(self.scheduler.blocks.free()) {
            left /= 2;
            if left < SHORTEST_RUN {
                return None;
            }
        }
        Some((left, context))
    }

    /// Blocks that the running sequences lack for `tokens` more tokens each.
    fn blocks_missing(&self, tokens: u32) -> u64 {
        let blocks = &self.scheduler.blocks;
        let missing = self.scheduler.running.iter().map(|place| {
            let slot = self.slots.get(*place);
            u64::from(blocks.blocks_for(slot.computed + tokens).saturating_sub(slot.blocks))
        });
        missing.sum()
    }

    /// Goes on with the run; false if its iteration under way ends after `until`, true if the run is over.
    fn run_on<S: Sink>(&mut self, until: Micros, sink: &mut S) -> bool {
        let Some(mut run) = self.run else { return true };
        while run.ends_at <= until {
            self.clock = run.ends_at;
            self.last = Some(run.iteration());
            self.totals.iterations += 1;
            self.totals.generated_tokens += u64::from(run.sequences);
            sink.later_tokens(run.ends_at, run.ends_at.saturating_sub(run.started_at), run.sequences);
            run.done += 1;
            if run.left == 0 || self.clock >= until {
                self.run = None;
                self.catch_up(run.done, run.ends_at);
                return true;
            }
            run.left -= 1;
            run.context += u64::from(run.sequences);
            run.started_at = run.ends_at;
            run.ends_at = run.started_at.saturating_add(self.duration(&run.shape()));
        }
        self.run = Some(run);
        false
    }

    /// Brings every request up to date and makes of the run's iteration under way one like any other, so that requests
    /// may come and go.
    pub(crate) fn settle(&mut self) {
        let Some(run) = self.run.take() else { return };
        self.catch_up(run.done, run.started_at);
        let stats = self.scheduler.schedule(&mut self.slots, run.started_at);
        debug_assert_eq!(stats, run.iteration().stats, "a run's batch is the scheduler's");
        self.in_flight = Some(Iteration { stats, ..run.iteration() });
    }

    /// Gives every running sequence the tokens of `done` iterations, the last of which came out at `at`.
    fn catch_up(&mut self, done: u32, at: Micros) {
        if done == 0 {
            return;
        }
        for place in &self.scheduler.running {
            let slot = self.slots.get_mut(*place);
            debug_assert!(slot.state == State::Running, "only running sequences are listed as running");
            slot.computed += done;
            slot.emitted += done;
            slot.last_token = Some(at);
            let missing = self.scheduler.blocks.blocks_for(slot.computed).saturating_sub(slot.blocks);
            let taken = self.scheduler.blocks.take(missing);
            debug_assert!(taken, "a run is no longer than the free blocks allow");
            slot.blocks += missing;
        }
    }
}
