//! What an engine's counters gained.

use plimsoll_common::wire::EngineColumns;

use crate::engines::EngineDelta;

/// Counters gained; `None` until the page told of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gained {
    pub(crate) arrived: Option<u64>,
    pub(crate) prompt_tokens: Option<u64>,
    pub(crate) generation_tokens: Option<u64>,
    pub(crate) prefix_queries: Option<u64>,
    pub(crate) prefix_hits: Option<u64>,
    pub(crate) preemptions: Option<u64>,
    pub(crate) finished_stop: Option<u64>,
    pub(crate) finished_length: Option<u64>,
    pub(crate) aborted: Option<u64>,
    pub(crate) errored: Option<u64>,
    pub(crate) resets: Option<u64>,
}

impl Gained {
    pub(super) fn add(&mut self, delta: &EngineDelta) {
        let more = Self {
            arrived: delta.arrived,
            prompt_tokens: delta.prompt_tokens,
            generation_tokens: delta.generation_tokens,
            prefix_queries: delta.prefix_queries,
            prefix_hits: delta.prefix_hits,
            preemptions: delta.preemptions,
            finished_stop: delta.finished_stop,
            finished_length: delta.finished_length,
            aborted: delta.aborted,
            errored: delta.errored,
            resets: (delta.resets > 0).then_some(delta.resets),
        };
        for (sum, gain) in self.fields_mut().into_iter().zip(more.fields()) {
            if let Some(gain) = gain {
                *sum = Some(sum.unwrap_or(0).saturating_add(gain));
            }
        }
    }

    const fn fields(&self) -> [Option<u64>; 11] {
        [
            self.arrived,
            self.prompt_tokens,
            self.generation_tokens,
            self.prefix_queries,
            self.prefix_hits,
            self.preemptions,
            self.finished_stop,
            self.finished_length,
            self.aborted,
            self.errored,
            self.resets,
        ]
    }

    fn fields_mut(&mut self) -> [&mut Option<u64>; 11] {
        [
            &mut self.arrived,
            &mut self.prompt_tokens,
            &mut self.generation_tokens,
            &mut self.prefix_queries,
            &mut self.prefix_hits,
            &mut self.preemptions,
            &mut self.finished_stop,
            &mut self.finished_length,
            &mut self.aborted,
            &mut self.errored,
            &mut self.resets,
        ]
    }

    pub(super) fn push_to(&self, columns: &mut EngineColumns) {
        columns.arrived.push(self.arrived);
        columns.prompt_tokens.push(self.prompt_tokens);
        columns.generation_tokens.push(self.generation_tokens);
        columns.prefix_queries.push(self.prefix_queries);
        columns.prefix_hits.push(self.prefix_hits);
        columns.preemptions.push(self.preemptions);
        columns.finished_stop.push(self.finished_stop);
        columns.finished_length.push(self.finished_length);
        columns.aborted.push(self.aborted);
        columns.errored.push(self.errored);
        columns.resets.push(self.resets);
    }
}
