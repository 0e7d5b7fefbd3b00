//! The prefix cache: which leading blocks of a prompt were seen before.

use std::collections::BTreeMap;

use crate::words::mix;

/// Blocks of prompts by the hash of all that precedes them and themselves; the least recently used are forgotten.
///
/// A prompt's blocks count as cached from its submission on, as real engines know them from their scheduling on; and
/// the cache holds as many blocks as the engine has, whoever uses them. Both make it a little more generous than a real one.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    capacity: usize,
    last_use: BTreeMap<u64, u64>,
    by_use: BTreeMap<u64, u64>,
    uses: u64,
    forgotten: u64,
}

impl PrefixCache {
    pub(crate) fn new(capacity: u32) -> Self {
        Self {
            capacity: capacity as usize,
            last_use: BTreeMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            forgotten: 0,
        }
    }

    /// How many leading blocks of this chain are cached; all of it is from now on.
    pub(crate) fn look_up(&mut self, chain: &[u64]) -> u32 {
        let hits = chain.iter().take_while(|hash| self.last_use.contains_key(hash)).count();
        // The end of a prompt is forgotten before its beginning: a tail without its head is of no use.
        for hash in chain.iter().rev() {
            self.touch(*hash);
        }
        while self.last_use.len() > self.capacity {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.last_use.remove(&oldest);
            self.forgotten += 1;
        }
        hits as u32
    }

    /// Blocks forgotten since the last call.
    pub(crate) const fn take_forgotten(&mut self) -> u64 {
        std::mem::replace(&mut self.forgotten, 0)
    }

    /// Blocks remembered.
    pub(crate) fn blocks(&self) -> u64 {
        self.last_use.len() as u64
    }

    fn touch(&mut self, hash: u64) {
        self.uses += 1;
        if let Some(before) = self.last_use.insert(hash, self.uses) {
            self.by_use.remove(&before);
        }
        self.by_use.insert(self.uses, hash);
    }
}

/// The chain of block hashes of a prompt: one for each whole block of its tokens.
pub(crate) fn chain(tokens: impl Iterator<Item = u32>, block_size: u32) -> Vec<u64> {
    let mut hashes = Vec::new();
    let mut hash = u64::from(block_size);
    let mut filled = 0;
    for token in tokens {
        hash = mix(hash ^ u64::from(token));
        filled += 1;
        if filled == block_size {
            hashes.push(hash);
            filled = 0;
        }
    }
    hashes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_beginning_hits_and_a_shared_end_does_not() {
        let mut cache = PrefixCache::new(100);
        assert_eq!(cache.look_up(&chain(0..40, 16)), 0); // two whole blocks, eight tokens over
        assert_eq!(cache.look_up(&chain(0..40, 16)), 2);
        assert_eq!(cache.look_up(&chain((0..16).chain(900..932), 16)), 1);
        assert_eq!(cache.look_up(&chain((500..516).chain(16..32), 16)), 0);
    }

    #[test]
    fn the_least_recently_used_prompt_is_forgotten() {
        let mut cache = PrefixCache::new(4);
        let (one, two, three) = (chain(0..32, 16), chain(100..132, 16), chain(200..232, 16));
        cache.look_up(&one);
        cache.look_up(&two);
        assert_eq!(cache.look_up(&one), 2);
        cache.look_up(&three);
        assert_eq!(cache.look_up(&one), 2);
        assert_eq!(cache.look_up(&two), 0);
        assert!(cache.last_use.len() <= 4 && cache.by_use.len() == cache.last_use.len());
    }
}
