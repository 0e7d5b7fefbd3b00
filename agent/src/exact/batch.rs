//! What exact sources hand to the window.

use std::{collections::BTreeMap, time::Duration};

use plimsoll_common::{
    engine::DistributionKind,
    histogram::{SparseHistogram, layout},
};
use tokio::time::Instant;

/// Something exact about one engine.
#[derive(Debug, Clone, PartialEq)]
pub struct ExactReading {
    /// The engine's row in the list of endpoints.
    pub engine: usize,
    /// When it was learned.
    pub taken: Instant,
    /// What was learned.
    pub batch: ExactBatch,
}

/// Samples and forward passes since the batch before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExactBatch {
    /// Samples by distribution.
    pub samples: ExactSamples,
    /// What a stream of forward passes told, with the stream's number among those of its engine.
    pub passes: Option<(usize, PassUpdate)>,
}

/// Single samples, counted in cells of the fleet's layout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExactSamples(BTreeMap<DistributionKind, SparseHistogram>);

impl ExactSamples {
    /// Counts one sample, in microseconds or tokens.
    pub fn record(&mut self, kind: DistributionKind, value: u64) {
        let cells = self.0.entry(kind).or_default();
        cells.add_cell(layout::cell_of(value), 1);
        cells.add_sum(value);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        for (kind, theirs) in &other.0 {
            merge(self.0.entry(*kind).or_default(), theirs);
        }
    }

    /// Hands out everything and starts anew.
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// The samples by distribution.
    pub fn iter(&self) -> impl Iterator<Item = (DistributionKind, &SparseHistogram)> {
        self.0.iter().map(|(kind, samples)| (*kind, samples))
    }

    /// The samples of one distribution.
    #[must_use]
    pub fn get(&self, kind: DistributionKind) -> Option<&SparseHistogram> {
        self.0.get(&kind)
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn merge(into: &mut SparseHistogram, from: &SparseHistogram) {
    from.cells().for_each(|(cell, n)| into.add_cell(cell, n));
    into.add_sum(from.sum());
}

/// What the forward passes of one stream told since the update before. Their durations are among the samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassUpdate {
    /// Messages that were sent and never came.
    pub lost: u64,
    /// Time in forward passes, summed over ranks.
    pub busy: Duration,
    /// Time over which ranks were listened to, summed over ranks.
    pub watched: Duration,
    /// The newest of what is a level; `None`: no rank is heard any more.
    pub gauges: Option<PassGauges>,
}

/// What the schedulers' newest messages say of their queues, summed over ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassGauges {
    /// Ranks that are heard.
    pub ranks: u64,
    /// Requests that wait for their prompt to be processed.
    pub queued_prefill_requests: u64,
    /// Prompt tokens of those, prefix hits included.
    pub queued_prefill_tokens: u64,
    /// Requests that wait to generate on: preempted ones, and those whose KV cache is on its way.
    pub queued_decode_requests: u64,
}

impl PassGauges {
    /// Adds another rank or stream.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            ranks: self.ranks.saturating_add(other.ranks),
            queued_prefill_requests: self
                .queued_prefill_requests
                .saturating_add(other.queued_prefill_requests),
            queued_prefill_tokens: self.queued_prefill_tokens.saturating_add(other.queued_prefill_tokens),
            queued_decode_requests: self.queued_decode_requests.saturating_add(other.queued_decode_requests),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Invariant: however samples are cut into batches, merging them gives the same.
        #[test]
        fn batches_merge_to_the_whole(values in prop::collection::vec((0u64..9_000_000_000, 0usize..3), 0..80), at in 0usize..80) {
            let kinds = [DistributionKind::Ttft, DistributionKind::E2e, DistributionKind::Isl];
            let (mut whole, mut first, mut second) = (ExactSamples::default(), ExactSamples::default(), ExactSamples::default());
            for (i, (value, kind)) in values.iter().enumerate() {
                whole.record(kinds[*kind], *value);
                if i < at { &mut first } else { &mut second }.record(kinds[*kind], *value);
            }
            first.merge(&second);
            prop_assert_eq!(first, whole);
        }
    }
}
