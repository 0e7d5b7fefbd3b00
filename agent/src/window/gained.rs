//! What an engine's counters gained.

use plimsoll_common::wire::EngineColumns;

use crate::engines::EngineDelta;

/// Makes [`Gained`] of the names that a delta and the wire's columns have in common.
macro_rules! gained {
    ($($name:ident),* $(,)?) => {
        /// Counters gained; `None` until the page told of them.
        #[derive(Debug, Clone, Copy, Default)]
        pub(crate) struct Gained {
            $(pub(crate) $name: Option<u64>,)*
            pub(crate) resets: Option<u64>,
        }

        impl Gained {
            pub(super) const fn add(&mut self, delta: &EngineDelta) {
                $(add(&mut self.$name, delta.$name);)*
                if delta.resets > 0 {
                    add(&mut self.resets, Some(delta.resets));
                }
            }

            pub(super) fn push_to(&self, columns: &mut EngineColumns) {
                $(columns.$name.push(self.$name);)*
                columns.resets.push(self.resets);
            }
        }
    };
}

gained! {
    arrived,
    prompt_tokens,
    generation_tokens,
    prefix_queries,
    prefix_hits,
    preemptions,
    finished_stop,
    finished_length,
    aborted,
    errored,
    ended,
    rejected,
    offload_hits,
    draft_tokens,
    accepted_tokens,
    frontend_arrived,
}

const fn add(sum: &mut Option<u64>, gain: Option<u64>) {
    if let Some(gain) = gain {
        let before = match *sum {
            Some(before) => before,
            None => 0,
        };
        *sum = Some(before.saturating_add(gain));
    }
}
