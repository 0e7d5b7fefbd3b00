//! Spans that were counted: an exporter that missed our answer sends its batch again.

use std::collections::{BTreeSet, VecDeque};

/// How many spans are remembered: some batches of exporters, which send 512 at a time by default.
const REMEMBERED: usize = 8_192;

/// The newest span ids.
#[derive(Debug, Default)]
pub(super) struct Seen {
    order: VecDeque<u64>,
    ids: BTreeSet<u64>,
}

impl Seen {
    /// Whether the span is new; from now on it is not.
    pub(super) fn is_new(&mut self, id: u64) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::default();
        let count = REMEMBERED as u64 + 5;
        assert!((0..count).all(|id| seen.is_new(id)));
        assert!(!seen.is_new(count - 1));
        assert!(seen.is_new(0), "the oldest are forgotten");
        assert_eq!((seen.order.len(), seen.ids.len()), (REMEMBERED, REMEMBERED));
    }
}
