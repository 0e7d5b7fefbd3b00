//! Running ahead: many iterations in one call.
//!
//! Sequences that decode are counted as one [`Cohort`](crate::cohort): an iteration costs constant time and what each
//! request that is in prefill, comes or goes with it takes, instead of time in proportion to its batch. Requests are brought
//! up to date when they leave, or when somebody looks. The result equals iteration by iteration exactly: durations are
//! summed as they would have been, rounding included.

use plimsoll_common::units::Micros;

use crate::{
    engine::Engine,
    request::RequestFacts,
    scheduler::Scheduled,
    slots::{SlotRef, State},
    step::{Admission, Preemption, StepStats, Token},
    timing::StepShape,
};

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

impl Engine {
    /// Runs iterations one after the other: finishes every one that ends at `until` or before, and starts every one
    /// that can start before `until`. Whoever submits or aborts at a time should have advanced the engine to it.
    ///
    /// The result is exactly that of [`Engine::start_iteration`] and [`Engine::finish_iteration`] in turn.
    pub fn advance<S: Sink>(&mut self, until: Micros, sink: &mut S) {
        loop {
            if let Some(iteration) = self.in_flight {
                if iteration.ends_at > until {
                    return;
                }
                self.finish_into(iteration.ends_at, sink);
            } else {
                let startable = !self.is_empty() && self.clock < until;
                if !startable || !(self.start_together() || self.start_iteration(self.clock).is_some()) {
                    return;
                }
            }
        }
    }

    /// When the iteration under way ends.
    #[must_use]
    pub fn busy_until(&self) -> Option<Micros> {
        self.in_flight.map(|iteration| iteration.ends_at)
    }

    fn finish_into<S: Sink>(&mut self, now: Micros, sink: &mut S) {
        let Some(iteration) = self.in_flight else { return };
        let ended_at = now.max(iteration.ends_at).max(self.clock);
        for admission in &self.scheduler.admitted {
            sink.admitted(ended_at, admission);
        }
        for preemption in &self.scheduler.preempted {
            sink.preempted(ended_at, preemption);
        }
        if self.is_together {
            let latency = ended_at.saturating_sub(self.cohort.last_token());
            if self.cohort.members() > 0 {
                sink.later_tokens(ended_at, latency, self.cohort.members());
            }
        }
        self.finish_each(now, |at, token| {
            if token.is_first() {
                sink.first_token(at, token);
            } else {
                sink.later_tokens(at, token.latency, 1);
            }
        });
        for facts in &self.finished {
            sink.finished(facts);
        }
    }

    /// Starts an iteration in which the cohort decodes, and whoever comes after it advances one by one; false where
    /// that can't be, since blocks are short or somebody in prefill stands before others.
    fn start_together(&mut self) -> bool {
        if !self.is_together && !self.gather() {
            return false;
        }
        let members = self.cohort.members();
        let mut stats = StepStats {
            shape: StepShape {
                decode_sequences: u64::from(members),
                decode_context: self.cohort.context(),
                ..StepShape::default()
            },
            sequences: members,
            batched_tokens: members,
            ..StepStats::default()
        };
        let Some(missing) = self.missing_together(members) else {
            self.settle();
            return false;
        };
        self.scheduler.blocks.take_all(missing);
        self.scheduler.schedule_after(members as usize, &mut self.slots, self.clock, &mut stats);
        self.begin(self.clock, stats).is_some()
    }

    /// The blocks that the cohort needs for the next iteration; none where these and those of who comes after it are not
    /// free, or where it is not certain that who comes after it gets a part.
    fn missing_together(&self, members: u32) -> Option<u32> {
        let missing = self.cohort.blocks_needed();
        let budget = self.config().max_num_batched_tokens;
        let after = match self.scheduler.running.get(members as usize..)? {
            [] if members <= budget => 0,
            [one] if members < budget => {
                let slot = self.slots.get(*one);
                let new_tokens = slot.remaining().min(budget - members);
                self.scheduler.blocks.blocks_for(slot.computed + new_tokens).saturating_sub(slot.blocks)
            }
            _ => return None,
        };
        (u64::from(missing) + u64::from(after) <= u64::from(self.scheduler.blocks.free())).then_some(missing)
    }

    /// Makes a cohort of all that run; false where somebody does not decode in step with the others, or blocks are short.
    fn gather(&mut self) -> bool {
        let Some(first) = self.scheduler.running.first() else { return false };
        let (blocks, last_token) = (&self.scheduler.blocks, self.slots.get(*first).last_token);
        let mut missing = 0;
        // The youngest are the likeliest to be still in prefill.
        let in_step = self.scheduler.running.iter().rev().all(|place| {
            let slot = self.slots.get(*place);
            missing += blocks.blocks_for(slot.computed + 1).saturating_sub(slot.blocks);
            slot.decodes() && slot.last_token == last_token && missing <= blocks.free()
        });
        let (true, Some(last_token)) = (in_step && self.can_gather, last_token) else { return false };
        for place in &self.scheduler.running {
            self.cohort.join(*place, self.slots.get_mut(*place), last_token);
        }
        self.is_together = true;
        true
    }

    /// Gives every member of the cohort its token of the iteration that ended, and lets go who finished.
    pub(crate) fn finish_together(&mut self, now: Micros) {
        self.totals.generated_tokens += u64::from(self.cohort.members());
        self.cohort.tick(now);
        let mut gone: Vec<usize> = Vec::new();
        while let Some(place) = self.cohort.next_finished() {
            gone.extend(self.scheduler.running.iter().position(|running| *running == place));
        }
        // In the order of the batch.
        gone.sort_unstable();
        for place in gone.iter().map(|at| self.scheduler.running[*at]) {
            let slot = self.slots.get_mut(place);
            self.cohort.leave(slot);
            slot.blocks = self.scheduler.blocks.blocks_for(slot.computed);
            slot.state = State::Done;
            self.scheduler.blocks.give_back(slot.blocks);
            self.finished.push(slot.facts(now));
        }
        for at in gone.into_iter().rev() {
            self.scheduler.running.remove(at);
        }
    }

    /// Takes into the cohort who got a token of the iteration that ended, as its members did.
    pub(crate) fn join_together(&mut self, now: Micros) {
        while let Some(place) = self.scheduler.running.get(self.cohort.members() as usize) {
            let slot = self.slots.get_mut(*place);
            // One that came back may have a single token left to compute again, and decodes with the next.
            if !slot.decodes() || slot.last_token != Some(now) {
                return;
            }
            self.cohort.join(*place, slot, now);
        }
    }

    /// Brings every request up to date and makes of the iteration under way one like any other.
    pub(crate) fn settle(&mut self) {
        if !std::mem::take(&mut self.is_together) {
            return;
        }
        let members = self.cohort.members() as usize;
        let under_way = u32::from(self.in_flight.is_some());
        let mut batch = Vec::with_capacity(members + self.scheduler.batch.len());
        for place in &self.scheduler.running[..members] {
            let slot = self.slots.get_mut(*place);
            self.cohort.update(slot);
            slot.blocks = self.scheduler.blocks.blocks_for(slot.computed + under_way);
            let slot = SlotRef { place: *place, serial: slot.serial };
            batch.push(Scheduled { slot, new_tokens: 1, prefills: false });
        }
        self.cohort.clear();
        if self.in_flight.is_some() {
            batch.append(&mut self.scheduler.batch);
            self.scheduler.batch = batch;
        }
    }
}
