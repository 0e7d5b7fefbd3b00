//! From what single counters gained to what we tell: engines count the same thing in different places.

use std::collections::BTreeMap;

use super::{page::Counter, update::EngineDelta};

/// What the counters of a page gained; a counter that the page does not have is not there.
pub(super) type Gains = BTreeMap<Counter, u64>;

impl EngineDelta {
    /// Fills in what the counters tell. `first_tokens`: how many requests got their first token.
    pub(super) fn tell(&mut self, gains: &Gains, first_tokens: u64) {
        let of = |counter| gains.get(&counter).copied();
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
        };
        let live_prompt = of(Counter::LivePrefill)
            .map(|tokens| tokens.saturating_add(of(Counter::LiveCached).unwrap_or(0)));
        // The first token of a request comes from its prefill, so that it is not among the decoded ones.
        let live_generated = of(Counter::LiveDecoded).map(|tokens| tokens.saturating_add(first_tokens));
        let counted_hits = sum(of(Counter::PrefixHits), of(Counter::CachedBelow));
        self.prompt_tokens = live_prompt.or_else(|| of(Counter::PromptTokens));
        self.generation_tokens = live_generated.or_else(|| of(Counter::GenerationTokens));
        self.prefix_hits = of(Counter::LiveCached).or(counted_hits);
        // An engine that counts the hits alone looks up every prompt token.
        self.prefix_queries = of(Counter::PrefixQueries)
            .or_else(|| if self.prefix_hits.is_some() { self.prompt_tokens } else { None });
        self.offload_hits = of(Counter::OffloadHits).or_else(|| of(Counter::CachedBelow));
        self.preemptions = of(Counter::Preemptions);
        self.finished_stop = of(Counter::FinishedStop);
        self.finished_length = of(Counter::FinishedLength);
        self.aborted = of(Counter::Aborted);
        self.errored = of(Counter::Errored);
        self.ended = of(Counter::Ended);
        self.rejected = of(Counter::Rejected);
        self.draft_tokens = of(Counter::DraftTokens);
        self.accepted_tokens = of(Counter::AcceptedTokens);
    }
}

/// Whether a token was counted anywhere.
pub(super) fn tokens_moved(gains: &Gains) -> bool {
    const TOKENS: [Counter; 5] = [
        Counter::PromptTokens,
        Counter::GenerationTokens,
        Counter::LivePrefill,
        Counter::LiveCached,
        Counter::LiveDecoded,
    ];
    TOKENS.iter().any(|counter| gains.get(counter).is_some_and(|gained| *gained > 0))
}

/// What the counters tell of requests that came and went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flow {
    /// HTTP requests that ended.
    pub(super) http_ended: u64,
    /// Requests that the engine was done with.
    pub(super) finished: u64,
    /// Requests that came; `None` where nobody counts.
    pub(super) started: Option<u64>,
    /// Of these, those that were refused before they reached the engine.
    pub(super) refused: u64,
}

impl Flow {
    /// What an engine's counters tell; `None` where it counts neither what comes nor what ends.
    pub(super) fn of_engine(gains: &Gains) -> Option<Self> {
        let of = |counter: &Counter| gains.get(counter).copied();
        let told: u64 = Counter::FINISHED.iter().filter_map(of).fold(0, u64::saturating_add);
        let knows = Counter::FINISHED[..2]
            .iter()
            .chain(&[Counter::Ended, Counter::HttpEnded, Counter::Started])
            .any(|counter| gains.contains_key(counter));
        knows.then(|| Self {
            http_ended: of(&Counter::HttpEnded).unwrap_or(0),
            // Where requests end for untold reasons, the aborted ones are among them.
            finished: of(&Counter::Ended).unwrap_or(told),
            started: of(&Counter::Started),
            refused: of(&Counter::Refused).unwrap_or(0),
        })
    }

    /// What a front-end's counters tell.
    pub(super) fn of_front_end(gains: &Gains) -> Option<Self> {
        let of = |counter: Counter| gains.get(&counter).copied();
        let (started, ended) = (of(Counter::FrontendStarted), of(Counter::FrontendEnded));
        (started.is_some() || ended.is_some()).then(|| Self {
            finished: ended.unwrap_or(0),
            started,
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(gains: &[(Counter, u64)], first_tokens: u64) -> EngineDelta {
        let mut delta = EngineDelta::default();
        delta.tell(&gains.iter().copied().collect(), first_tokens);
        delta
    }

    #[test]
    fn tokens_counted_as_they_run_are_preferred_and_never_added_to_those_counted_at_the_end() {
        let delta = told(
            &[
                (Counter::PromptTokens, 100),
                (Counter::GenerationTokens, 50),
                (Counter::LivePrefill, 30),
                (Counter::LiveCached, 10),
                (Counter::LiveDecoded, 7),
                (Counter::PrefixHits, 25),
            ],
            2,
        );
        assert_eq!((delta.prompt_tokens, delta.generation_tokens), (Some(40), Some(9)));
        assert_eq!((delta.prefix_queries, delta.prefix_hits), (Some(40), Some(10)));
    }

    #[test]
    fn an_engine_that_counts_hits_alone_looks_up_every_token() {
        let delta =
            told(&[(Counter::PromptTokens, 100), (Counter::PrefixHits, 25), (Counter::CachedBelow, 5)], 0);
        assert_eq!((delta.prefix_queries, delta.prefix_hits), (Some(100), Some(30)));
        assert_eq!(delta.offload_hits, Some(5));
        let delta = told(&[(Counter::PromptTokens, 100)], 0);
        assert_eq!((delta.prefix_queries, delta.prefix_hits, delta.offload_hits), (None, None, None));
    }

    #[test]
    fn aborted_requests_that_also_end_count_once() {
        let gains = [(Counter::Ended, 5), (Counter::Aborted, 2)].into_iter().collect();
        assert_eq!(Flow::of_engine(&gains).map(|flow| flow.finished), Some(5));
        let gains = [(Counter::FinishedStop, 5), (Counter::Aborted, 2)].into_iter().collect();
        assert_eq!(Flow::of_engine(&gains).map(|flow| flow.finished), Some(7));
        let gains = [(Counter::PromptTokens, 5)].into_iter().collect();
        assert_eq!(Flow::of_engine(&gains), None);
    }
}
