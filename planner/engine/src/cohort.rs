//! Sequences that decode together, counted once for all.
//!
//! From its first token on a sequence gets one token in every iteration until it finishes or loses its blocks. So what
//! changes of it can be told from how many iterations went by since it joined: an iteration costs as much as joins and
//! leaves with it, not as much as decodes in it. Nothing is estimated: counts, blocks and times are those of iteration by
//! iteration.

use std::{cmp::Reverse, collections::BinaryHeap};

use plimsoll_common::units::Micros;

use crate::slots::Slot;

/// The largest blocks, in tokens, that sequences are counted by: engines have 16 to 256.
const LARGEST_BLOCK: u32 = 4_096;

/// The oldest of an engine's running sequences, all of which decode.
#[derive(Debug, Default)]
pub(crate) struct Cohort {
    members: u32,
    /// Iterations that the cohort has finished.
    ticks: u64,
    /// `ticks` modulo the block size.
    phase: u32,
    /// Σ (computed + 1) over the members: the context of their next iteration, or of the one under way.
    context: u64,
    /// When the members got their last token.
    last_token: Micros,
    /// How many members begin a block in the iteration after so many, modulo the block size.
    beginning: Vec<u32>,
    /// The iteration with which each member finishes, and its place; the next first.
    finishing: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Cohort {
    /// An empty one; none for blocks that are too large to count by.
    pub(crate) fn new(block_size: u32) -> Option<Self> {
        let counted = (1..=LARGEST_BLOCK).contains(&block_size);
        counted.then(|| Self { beginning: vec![0; block_size as usize], ..Self::default() })
    }

    pub(crate) const fn members(&self) -> u32 {
        self.members
    }

    pub(crate) const fn context(&self) -> u64 {
        self.context
    }

    pub(crate) const fn last_token(&self) -> Micros {
        self.last_token
    }

    /// Blocks that the members begin in their next iteration.
    pub(crate) fn blocks_needed(&self) -> u32 {
        self.beginning[self.phase as usize]
    }

    /// Takes up a sequence that has just got a token, as all members have.
    pub(crate) fn join(&mut self, place: u32, slot: &mut Slot, last_token: Micros) {
        slot.joined = self.ticks;
        self.members += 1;
        self.context += u64::from(slot.computed) + 1;
        self.last_token = last_token;
        *self.beginning_of(slot) += 1;
        let left = u64::from(slot.request.output_tokens - slot.emitted);
        self.finishing.push(Reverse((self.ticks + left, place)));
    }

    /// Everybody got a token.
    pub(crate) fn tick(&mut self, now: Micros) {
        self.ticks += 1;
        self.phase += 1;
        if self.phase as usize == self.beginning.len() {
            self.phase = 0;
        }
        self.context += u64::from(self.members);
        self.last_token = now;
    }

    /// The place of a member that finished with the last iteration; it has to [`Cohort::leave`].
    pub(crate) fn next_finished(&mut self) -> Option<u32> {
        let Reverse((tick, place)) = *self.finishing.peek()?;
        if tick != self.ticks {
            return None;
        }
        self.finishing.pop();
        Some(place)
    }

    /// Lets a member go that finished, and brings it up to date.
    pub(crate) fn leave(&mut self, slot: &mut Slot) {
        *self.beginning_of(slot) -= 1;
        self.members -= 1;
        self.update(slot);
        self.context -= u64::from(slot.computed) + 1;
    }

    /// Brings a member up to date but for its blocks.
    pub(crate) fn update(&self, slot: &mut Slot) {
        let tokens = (self.ticks - slot.joined) as u32;
        slot.computed += tokens;
        slot.emitted += tokens;
        slot.joined = self.ticks;
        slot.last_token = Some(self.last_token);
    }

    /// Forgets all members.
    pub(crate) fn clear(&mut self) {
        self.beginning.fill(0);
        self.finishing.clear();
        (self.members, self.context) = (0, 0);
    }

    /// The members that begin a block together with one: after as many iterations as its blocks have room for.
    fn beginning_of(&mut self, slot: &Slot) -> &mut u32 {
        let size = self.beginning.len() as u64;
        let place = (slot.joined % size + size - u64::from(slot.computed) % size) % size;
        &mut self.beginning[place as usize]
    }
}
