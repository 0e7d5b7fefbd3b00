//! What engines count, as one table for totals, windows, JSON and metrics.

use serde::{Serialize, Serializer, ser::SerializeMap};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $rate:literal;)*) => {
        /// A counter that engines publish. What travels is what it gained in a window.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Counter {
            $($(#[$doc])* $name,)*
        }

        impl Counter {
            /// All counters, in the order of their indexes.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name in JSON, with its unit.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The name of its rate in JSON.
            #[must_use]
            pub const fn rate_name(self) -> &'static str {
                match self {
                    $(Self::$name => $rate,)*
                }
            }
        }
    };
}

counters! {
    /// Requests that arrived.
    Arrived = "requests_arrived", "requests_arrived_per_second";
    /// Prompt tokens processed.
    PromptTokens = "prompt_tokens", "prompt_tokens_per_second";
    /// Tokens generated.
    GenerationTokens = "generation_tokens", "generation_tokens_per_second";
    /// Prompt tokens looked up in the prefix cache.
    PrefixQueries = "prefix_cache_queried_tokens", "prefix_cache_queried_tokens_per_second";
    /// Prompt tokens found in the prefix cache.
    PrefixHits = "prefix_cache_hit_tokens", "prefix_cache_hit_tokens_per_second";
    /// Preemptions.
    Preemptions = "preemptions", "preemptions_per_second";
    /// Requests finished by a stop token or string.
    FinishedStop = "requests_finished_stop", "requests_finished_stop_per_second";
    /// Requests finished by their length limit.
    FinishedLength = "requests_finished_length", "requests_finished_length_per_second";
    /// Requests aborted by their client, as far as the engine counts them.
    Aborted = "requests_aborted", "requests_aborted_per_second";
    /// Requests that ended any other way.
    Errored = "requests_errored", "requests_errored_per_second";
    /// How often an engine's counters were seen to start again.
    Resets = "counter_resets", "counter_resets_per_second";
    /// Requests that ended for a reason that the engine does not tell; aborted ones are among them.
    Ended = "requests_ended_untold", "requests_ended_untold_per_second";
    /// Requests that engines turned away for want of room.
    Rejected = "requests_rejected", "requests_rejected_per_second";
    /// Prompt tokens found in a tier below the KV cache or in another engine's cache.
    OffloadHits = "kv_offload_hit_tokens", "kv_offload_hit_tokens_per_second";
    /// Tokens that speculative decoding proposed.
    DraftTokens = "spec_draft_tokens", "spec_draft_tokens_per_second";
    /// Of these, those that were accepted.
    AcceptedTokens = "spec_accepted_tokens", "spec_accepted_tokens_per_second";
    /// Requests that arrived at a front-end: the engines' requests, seen once more on their way.
    FrontendArrived = "frontend_requests_arrived", "frontend_requests_arrived_per_second";
    /// Forward-pass messages that were sent and never came: of passes, time and queues are so many too few.
    PassesLost = "forward_pass_messages_lost", "forward_pass_messages_lost_per_second";
}

const N: usize = Counter::ALL.len();
const _: () = assert!(N <= u32::BITS as usize, "every counter has a bit");

/// A value for each counter, or its absence: an engine that does not publish a counter has none, not zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    values: [u64; N],
    seen: u32,
}

impl Counts {
    /// No counter is present.
    #[must_use]
    pub const fn none() -> Self {
        Self { values: [0; N], seen: 0 }
    }

    /// The value of a counter; `None` where it was never published.
    #[must_use]
    pub const fn get(&self, counter: Counter) -> Option<u64> {
        if self.has(counter) { Some(self.values[counter as usize]) } else { None }
    }

    /// Sets a counter, or makes it absent.
    pub const fn set(&mut self, counter: Counter, value: Option<u64>) {
        let bit = 1 << counter as u32;
        match value {
            Some(value) => {
                self.values[counter as usize] = value;
                self.seen |= bit;
            }
            None => {
                self.values[counter as usize] = 0;
                self.seen &= !bit;
            }
        }
    }

    /// Adds to a counter, saturating; from then on it is present.
    pub const fn gain(&mut self, counter: Counter, gained: u64) {
        let value = self.values[counter as usize].saturating_add(gained);
        self.set(counter, Some(value));
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Self) {
        for (counter, gained) in other.iter() {
            self.gain(counter, gained);
        }
    }

    /// Makes present, as zero, every counter that is present in another.
    pub fn presence_of(&mut self, other: &Self) {
        self.seen |= other.seen;
    }

    /// The present counters with their values.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::ALL.iter().filter_map(|counter| Some((*counter, self.get(*counter)?)))
    }

    const fn has(&self, counter: Counter) -> bool {
        self.seen & (1 << counter as u32) != 0
    }
}

/// As a map from counter name to value, absent counters as null.
impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(N))?;
        for counter in Counter::ALL {
            map.serialize_entry(counter.as_str(), &self.get(*counter))?;
        }
        map.end()
    }
}

/// Counts divided by the seconds in which they were gained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// What was gained.
    pub gained: Counts,
    /// In how many seconds; rates are absent where this is not positive.
    pub seconds: f64,
}

impl Rates {
    /// The rate of one counter, per second.
    #[must_use]
    pub fn get(&self, counter: Counter) -> Option<f64> {
        (self.seconds > 0.0).then_some(())?;
        self.gained.get(counter).map(|gained| gained as f64 / self.seconds)
    }
}

/// As a map from rate name to value, absent rates as null.
impl Serialize for Rates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(N))?;
        for counter in Counter::ALL {
            map.serialize_entry(counter.rate_name(), &self.get(*counter))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_is_not_zero_and_adding_keeps_it_so() {
        let mut counts = Counts::default();
        counts.gain(Counter::Arrived, 0);
        assert_eq!(counts.get(Counter::Arrived), Some(0));
        assert_eq!(counts.get(Counter::PrefixHits), None);
        let mut sum = Counts::default();
        sum.add(&counts);
        assert_eq!(sum, counts);
        sum.gain(Counter::Arrived, u64::MAX);
        sum.gain(Counter::Arrived, 1);
        assert_eq!(sum.get(Counter::Arrived), Some(u64::MAX));
    }

    #[test]
    fn no_time_has_no_rate() {
        let mut gained = Counts::default();
        gained.gain(Counter::Arrived, 5);
        assert_eq!(Rates { gained, seconds: 0.0 }.get(Counter::Arrived), None);
        assert_eq!(Rates { gained, seconds: 2.0 }.get(Counter::Arrived), Some(2.5));
    }
}
