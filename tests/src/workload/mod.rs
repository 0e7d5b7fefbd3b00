//! What is asked of the engines, and when.

mod arrivals;
mod lengths;
mod trace;

use std::time::Duration;

pub use arrivals::{Poisson, Swing};
pub use lengths::Lengths;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
pub use trace::{TraceError, parse_trace, read_trace};

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// When, since the begin.
    pub at: Duration,
    /// ISL, tokens.
    pub input_tokens: u32,
    /// OSL, tokens.
    pub output_tokens: u32,
}

/// An endless open-loop workload: it does not wait for answers. The same seed gives the same requests.
#[derive(Debug, Clone)]
pub struct Synthetic {
    arrivals: Poisson,
    input: Lengths,
    output: Lengths,
    lengths_rng: ChaCha8Rng,
}

impl Synthetic {
    /// Arrivals at `rate`, with lengths drawn independently of each other.
    #[must_use]
    pub fn new(rate: f64, swing: Option<Swing>, input: Lengths, output: Lengths, seed: u64) -> Self {
        // Streams of their own, so that another rate leaves the lengths as they are.
        let mut lengths_rng = ChaCha8Rng::seed_from_u64(seed);
        lengths_rng.set_stream(1);
        Self { arrivals: Poisson::new(rate, swing, seed), input, output, lengths_rng }
    }
}

impl Iterator for Synthetic {
    type Item = Request;
    fn next(&mut self) -> Option<Request> {
        Some(Request {
            at: self.arrivals.next()?,
            input_tokens: self.input.draw(&mut self.lengths_rng),
            output_tokens: self.output.draw(&mut self.lengths_rng),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_requests_and_another_rate_the_same_lengths() {
        let workload = |rate, seed| {
            let lengths = Lengths { median: 100.0, sigma: 1.0, least: 1, most: 4096 };
            Synthetic::new(rate, None, lengths, lengths, seed).take(50).collect::<Vec<_>>()
        };
        assert_eq!(workload(5.0, 1), workload(5.0, 1));
        assert_ne!(workload(5.0, 1), workload(5.0, 2));
        let lengths = |requests: Vec<Request>| {
            requests.iter().map(|request| (request.input_tokens, request.output_tokens)).collect::<Vec<_>>()
        };
        assert_eq!(lengths(workload(5.0, 1)), lengths(workload(50.0, 1)));
    }
}
