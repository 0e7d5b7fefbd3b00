//! What an engine has before it, in tokens.

use serde::{Deserialize, Serialize};

use crate::{engine::Engine, slots::State};

/// Work that an engine holds, in the terms that its iteration times depend on. What the iteration
/// under way computes counts as not computed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// Tokens that are known and not computed, of sequences in prefill and of waiting requests that bring no context.
    pub prefill_tokens: u64,
    /// Sequences that decode.
    pub decode_sequences: u32,
    /// The sum of their contexts, tokens.
    pub decode_context: u64,
    /// The sum of the contexts of waiting requests that were begun already: preempted here or prefilled elsewhere.
    pub queued_context: u64,
}

impl Engine {
    /// What the engine has before it. Costs time in proportion to what it holds.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        let mut together = 0;
        if self.is_together {
            together = self.cohort.members() as usize;
            backlog.decode_sequences = self.cohort.members();
            backlog.decode_context = self.cohort.context();
        }
        for place in self.scheduler.running.iter().skip(together) {
            let slot = self.slots.get(*place);
            if slot.decodes() {
                backlog.decode_sequences += 1;
                backlog.decode_context += u64::from(slot.computed) + 1;
            } else {
                backlog.prefill_tokens += u64::from(slot.remaining());
            }
        }
        for waiting in self.scheduler.queue().filter(|waiting| self.slots.is(*waiting, State::Waiting)) {
            let slot = self.slots.get(waiting.place);
            if slot.emitted > 0 {
                backlog.queued_context += u64::from(slot.known());
            } else {
                backlog.prefill_tokens += u64::from(slot.known() - slot.given());
            }
        }
        backlog
    }
}
