//! A replica's prefix cache.

use std::collections::BTreeMap;

/// The block hashes whose keys and values a replica still has, the least recently used given up first.
///
/// A hit is counted when a request is routed and the blocks of a prompt are there from its first token on: close to an
/// engine, which looks up at the first scheduling.
#[derive(Debug, Default)]
pub(super) struct PrefixCache {
    used_at: BTreeMap<u64, u64>,
    by_use: BTreeMap<u64, u64>,
    uses: u64,
}

impl PrefixCache {
    /// How many leading blocks of a prompt are there.
    pub(super) fn leading(&self, hashes: &[u64]) -> u32 {
        hashes.iter().take_while(|hash| self.used_at.contains_key(hash)).count() as u32
    }

    /// Takes up a prompt's blocks, within `capacity` blocks.
    pub(super) fn insert(&mut self, hashes: &[u64], capacity: usize) {
        // From the end, so that of one prompt the later blocks, useless without the earlier ones, are given up first.
        for hash in hashes.iter().rev() {
            self.uses += 1;
            if let Some(before) = self.used_at.insert(*hash, self.uses) {
                self.by_use.remove(&before);
            }
            self.by_use.insert(self.uses, *hash);
        }
        while self.used_at.len() > capacity {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.used_at.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leading_blocks_hit_and_the_oldest_leave_first() {
        let mut cache = PrefixCache::default();
        cache.insert(&[1, 2, 3], 4);
        assert_eq!(cache.leading(&[1, 2, 9, 3]), 2);
        assert_eq!(cache.leading(&[2, 3]), 2);
        cache.insert(&[7, 8], 4);
        // Five blocks, room for four: the last of the older prompt is gone.
        assert_eq!((cache.leading(&[1, 2, 3]), cache.leading(&[7, 8])), (2, 2));
        cache.insert(&[5], 0);
        assert_eq!(cache.leading(&[5]), 0);
    }
}
