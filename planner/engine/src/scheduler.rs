//! Which sequences advance, and by how much.
//!
//! One rule covers chunked prefill, decode and recompute: a sequence advances from what is computed of it towards what
//! is known of it, by as many tokens as the iteration's budget still allows. Running sequences come first, in the
//! order in which they were admitted; then the queue, first come first served. A running sequence that finds no free
//! block takes those of the youngest; after such a preemption nobody is admitted in that iteration.

use std::collections::VecDeque;

use plimsoll_common::units::Micros;

use crate::{
    blocks::BlockPool,
    config::EngineConfig,
    slots::{SlotRef, Slots, State},
    step::{Admission, Preemption, StepStats},
};

/// One sequence's part in an iteration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scheduled {
    pub(crate) slot: SlotRef,
    pub(crate) new_tokens: u32,
    pub(crate) prefills: bool,
}

/// Who runs, who waits, and who has which blocks.
#[derive(Debug)]
pub(crate) struct Scheduler {
    pub(crate) blocks: BlockPool,
    /// By admission, the oldest first.
    pub(crate) running: Vec<u32>,
    /// In order of service; aborted ones stay as stale references until they are passed or swept out.
    waiting: VecDeque<SlotRef>,
    waiting_live: u32,
    max_num_seqs: usize,
    max_num_batched_tokens: u32,
    reserve_full_prompt: bool,
    /// The iteration under way; the three lists are reused.
    pub(crate) batch: Vec<Scheduled>,
    pub(crate) admitted: Vec<Admission>,
    pub(crate) preempted: Vec<Preemption>,
}

impl Scheduler {
    pub(crate) fn new(config: &EngineConfig) -> Self {
        Self {
            blocks: BlockPool::new(config.block_size, config.kv_blocks),
            running: Vec::new(),
            waiting: VecDeque::new(),
            waiting_live: 0,
            max_num_seqs: config.max_num_seqs as usize,
            max_num_batched_tokens: config.max_num_batched_tokens,
            reserve_full_prompt: config.reserve_full_prompt,
            batch: Vec::new(),
            admitted: Vec::new(),
            preempted: Vec::new(),
        }
    }

    pub(crate) const fn waiting(&self) -> u32 {
        self.waiting_live
    }

    /// The queue in order of service, stale references included.
    pub(crate) fn queue(&self) -> impl Iterator<Item = SlotRef> + '_ {
        self.waiting.iter().copied()
    }

    pub(crate) fn enqueue(&mut self, slot: SlotRef) {
        self.waiting.push_back(slot);
        self.waiting_live += 1;
    }

    /// A waiting request left from wherever it stood. Its reference is swept out later, at a constant cost per abort.
    pub(crate) fn forget_waiting(&mut self, slots: &Slots) {
        self.waiting_live -= 1;
        if self.waiting.len() > 64 + 2 * self.waiting_live as usize {
            self.waiting.retain(|slot| slots.is(*slot, State::Waiting));
        }
    }

    /// Chooses the next batch; empty only if nobody runs and nobody waits.
    pub(crate) fn schedule(&mut self, slots: &mut Slots, now: Micros) -> StepStats {
        let mut stats = StepStats::default();
        self.schedule_after(0, slots, now, &mut stats);
        stats
    }

    /// The same where the first `members` of those that run are in the batch already, as `stats` says.
    pub(crate) fn schedule_after(
        &mut self,
        members: usize,
        slots: &mut Slots,
        now: Micros,
        stats: &mut StepStats,
    ) {
        self.batch.clear();
        self.admitted.clear();
        self.preempted.clear();
        self.schedule_running(members, slots, stats);
        if self.preempted.is_empty() {
            self.schedule_waiting(slots, now, stats);
        }
        stats.preempted = self.preempted.len() as u32;
    }

    fn schedule_running(&mut self, first: usize, slots: &mut Slots, stats: &mut StepStats) {
        let mut next = first;
        while next < self.running.len() && stats.batched_tokens < self.max_num_batched_tokens {
            let place = self.running[next];
            let slot = slots.get(place);
            let new_tokens = slot.remaining().min(self.max_num_batched_tokens - stats.batched_tokens);
            let missing = self.blocks.blocks_for(slot.computed + new_tokens).saturating_sub(slot.blocks);
            if missing > 0 {
                if !self.take_from_youngest(slots, place, missing) {
                    break;
                }
                slots.get_mut(place).blocks += missing;
            }
            self.add(slots, place, new_tokens, stats);
            next += 1;
        }
    }

    /// Takes `missing` blocks for `place`, preempting the youngest sequences as long as too few are free; false if
    /// `place` itself was the youngest.
    fn take_from_youngest(&mut self, slots: &mut Slots, place: u32, missing: u32) -> bool {
        while !self.blocks.take(missing) {
            let Some(youngest) = self.running.pop() else { return false };
            self.preempt(slots, youngest);
            if youngest == place {
                return false;
            }
        }
        true
    }

    fn preempt(&mut self, slots: &mut Slots, place: u32) {
        let slot = slots.get_mut(place);
        self.preempted.push(Preemption { id: slot.request.id, lost_tokens: slot.computed });
        self.blocks.give_back(slot.blocks);
        slot.blocks = 0;
        slot.computed = 0;
        slot.preemptions += 1;
        slot.state = State::Waiting;
        self.waiting.push_front(SlotRef { place, serial: slot.serial });
        self.waiting_live += 1;
    }

    fn schedule_waiting(&mut self, slots: &mut Slots, now: Micros, stats: &mut StepStats) {
        while stats.batched_tokens < self.max_num_batched_tokens && self.running.len() < self.max_num_seqs {
            let Some(&head) = self.waiting.front() else { break };
            if !slots.is(head, State::Waiting) {
                self.waiting.pop_front();
                continue;
            }
            let slot = slots.get_mut(head.place);
            let cached = slot.given();
            let new_tokens = (slot.known() - cached).min(self.max_num_batched_tokens - stats.batched_tokens);
            let needed = self.blocks.blocks_for(cached + new_tokens);
            let must_fit =
                if self.reserve_full_prompt { self.blocks.blocks_for(slot.known()) } else { needed };
            if must_fit > self.blocks.free() || !self.blocks.take(needed) {
                break;
            }
            slot.blocks = needed;
            slot.computed = cached;
            slot.state = State::Running;
            if slot.first_scheduled.is_none() {
                slot.first_scheduled = Some(now);
                self.admitted.push(Admission {
                    id: slot.request.id,
                    prompt_tokens: slot.request.prompt_tokens,
                    cached_tokens: slot.request.cached_tokens,
                    prefilled: slot.request.prefilled,
                    queue_time: now.saturating_sub(slot.arrival),
                });
            }
            self.waiting.pop_front();
            self.waiting_live -= 1;
            self.running.push(head.place);
            stats.admitted += 1;
            self.add(slots, head.place, new_tokens, stats);
        }
    }

    fn add(&mut self, slots: &Slots, place: u32, new_tokens: u32, stats: &mut StepStats) {
        let slot = slots.get(place);
        let prefills = !slot.decodes();
        let shape = &mut stats.shape;
        if prefills {
            let new = f64::from(new_tokens);
            shape.prefill_tokens += u64::from(new_tokens);
            shape.prefill_attention += new * (f64::from(slot.computed) + new / 2.0);
        } else {
            shape.decode_sequences += 1;
            shape.decode_context += u64::from(slot.computed) + 1;
        }
        stats.sequences += 1;
        stats.batched_tokens += new_tokens;
        self.batch.push(Scheduled { slot: SlotRef { place, serial: slot.serial }, new_tokens, prefills });
    }
}
