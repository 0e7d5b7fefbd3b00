//! What was promised, and whether one request got it.

use plimsoll_common::units::{Micros, Ratio};
use serde::{Deserialize, Serialize};

/// A promise about a model's requests.
///
/// An SLO "TTFT ≤ 1 s at p99" asks that 99 % of all requests attain: its goal is 0.99. With two latencies a request
/// attains only if it meets both.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// The longest time to first token; none for no promise about it.
    pub ttft: Option<Micros>,
    /// The longest mean time between a request's tokens; none for no promise about it.
    pub itl: Option<Micros>,
    /// The share of requests that are to attain.
    pub goal: Ratio,
}

impl Slo {
    /// A promise about both latencies, in milliseconds, for 99 % of requests.
    #[must_use]
    pub fn of_millis(ttft_ms: u64, itl_ms: u64) -> Self {
        Self {
            ttft: Some(Micros::from_millis(ttft_ms)),
            itl: Some(Micros::from_millis(itl_ms)),
            goal: Ratio::from_ppm(990_000),
        }
    }

    /// Whether a request attains: it finished, its first token came in time, and the mean time between its tokens,
    /// (last − first) / (output tokens − 1), is within the limit. One that was aborted or has not finished misses; one of
    /// a single token has no time between tokens.
    #[must_use]
    pub fn attains(&self, request: &RequestTimes) -> bool {
        let (Some(first), Some(last)) = (request.first_token, request.last_token) else { return false };
        let in_time = self.ttft.is_none_or(|limit| first.saturating_sub(request.arrival) <= limit);
        // Multiplied rather than divided, so that nothing is rounded.
        let gaps = u64::from(request.output_tokens.saturating_sub(1));
        let span = last.saturating_sub(first);
        in_time && self.itl.is_none_or(|limit| span.0 <= limit.0.saturating_mul(gaps) || gaps == 0)
    }
}

/// When one request came, began and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTimes {
    /// When it arrived.
    pub arrival: Micros,
    /// When its first token came out.
    pub first_token: Option<Micros>,
    /// When its last token came out; none unless it finished.
    pub last_token: Option<Micros>,
    /// Tokens that it asked for.
    pub output_tokens: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(first: u64, last: u64, output_tokens: u32) -> RequestTimes {
        RequestTimes {
            arrival: Micros(1_000_000),
            first_token: Some(Micros(first)),
            last_token: Some(Micros(last)),
            output_tokens,
        }
    }

    #[test]
    fn both_limits_are_included_and_both_must_hold() {
        let slo = Slo::of_millis(1_000, 30);
        assert!(slo.attains(&request(2_000_000, 2_300_000, 11)));
        assert!(!slo.attains(&request(2_000_001, 2_300_000, 11)));
        assert!(!slo.attains(&request(2_000_000, 2_300_001, 11)));
    }

    #[test]
    fn what_did_not_finish_misses_and_a_single_token_has_no_itl() {
        let slo = Slo::of_millis(1_000, 30);
        assert!(!slo.attains(&RequestTimes { last_token: None, ..request(1_500_000, 0, 5) }));
        assert!(!slo.attains(&RequestTimes { first_token: None, ..request(0, 1_500_000, 5) }));
        assert!(slo.attains(&request(1_500_000, 1_500_000, 1)));
        let no_promise = Slo { ttft: None, itl: None, goal: Ratio::from_ppm(1) };
        assert!(no_promise.attains(&request(u64::MAX, u64::MAX, 2)));
    }
}
