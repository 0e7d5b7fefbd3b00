//! The paged KV cache, as a count.

/// How many KV blocks are held and how many are free.
///
/// A block belongs to one sequence: sharing of prefix blocks between live sequences is not modelled, so a cache with
/// many live sharers is a little fuller here than in a real engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockPool {
    block_size: u32,
    /// The logarithm of the block size where that is a power of two, as in every real engine: each iteration counts
    /// the blocks of every sequence, and a shift takes a tenth of the time of a division.
    shift: Option<u32>,
    total: u32,
    used: u32,
}

impl BlockPool {
    pub(crate) const fn new(block_size: u32, total: u32) -> Self {
        let shift = if block_size.is_power_of_two() { Some(block_size.trailing_zeros()) } else { None };
        Self { block_size, shift, total, used: 0 }
    }

    /// Blocks that `tokens` tokens need.
    pub(crate) const fn blocks_for(&self, tokens: u32) -> u32 {
        match self.shift {
            Some(shift) => (tokens >> shift) + (tokens & (self.block_size - 1) != 0) as u32,
            None => tokens.div_ceil(self.block_size),
        }
    }

    /// The largest whole number of blocks within `tokens` tokens, in tokens.
    pub(crate) const fn whole_blocks(&self, tokens: u32) -> u32 {
        tokens / self.block_size * self.block_size
    }

    pub(crate) const fn free(&self) -> u32 {
        self.total - self.used
    }

    pub(crate) const fn used(&self) -> u32 {
        self.used
    }

    pub(crate) const fn total(&self) -> u32 {
        self.total
    }

    /// Takes `blocks` if as many are free; says whether it did.
    #[must_use]
    pub(crate) const fn take(&mut self, blocks: u32) -> bool {
        if blocks > self.free() {
            return false;
        }
        self.used += blocks;
        true
    }

    /// Takes blocks of which it is known that so many are free.
    pub(crate) const fn take_all(&mut self, blocks: u32) {
        debug_assert!(blocks <= self.free(), "more blocks are taken than are free");
        self.used += blocks;
    }

    /// Gives back what [`BlockPool::take`] took.
    pub(crate) const fn give_back(&mut self, blocks: u32) {
        debug_assert!(blocks <= self.used, "more blocks given back than taken");
        self.used = self.used.saturating_sub(blocks);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // Invariant: blocks are those of a division rounded up, whatever the block size.
        #[test]
        fn blocks_hold_all_tokens_and_none_is_empty(block_size in prop_oneof![1..100_u32, Just(16), Just(1 << 31)], tokens: u32) {
            prop_assert_eq!(BlockPool::new(block_size, 1).blocks_for(tokens), tokens.div_ceil(block_size));
        }
    }
}
