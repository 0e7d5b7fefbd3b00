//! The paged KV cache, as a count.

/// How many KV blocks are held and how many are free.
///
/// A block belongs to one sequence: sharing of prefix blocks between live sequences is not modelled, so a cache with
/// many live sharers is a little fuller here than in a real engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockPool {
    block_size: u32,
    total: u32,
    used: u32,
}

impl BlockPool {
    pub(crate) const fn new(block_size: u32, total: u32) -> Self {
        Self { block_size, total, used: 0 }
    }

    /// Blocks that `tokens` tokens need.
    pub(crate) const fn blocks_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.block_size)
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

    /// Gives back what [`BlockPool::take`] took.
    pub(crate) const fn give_back(&mut self, blocks: u32) {
        debug_assert!(blocks <= self.used, "more blocks given back than taken");
        self.used = self.used.saturating_sub(blocks);
    }
}
