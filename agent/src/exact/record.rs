//! One finished request, as exact sources know it.

use plimsoll_common::engine::DistributionKind;

use super::batch::ExactSamples;

/// The longest latency that is believed: a day. What is longer is a clock that was set, not a request.
const LONGEST_SECONDS: f64 = 86_400.0;
/// The most tokens of one request that are believed.
const MOST_TOKENS: u64 = 100_000_000;

/// A finished request: seconds and tokens as the engine told them, unchecked. `None`: it did not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RequestRecord {
    /// Arrival to first token.
    pub ttft: Option<f64>,
    /// Arrival to last token.
    pub e2e: Option<f64>,
    /// Arrival (or entry into the queue) to first scheduled.
    pub queue: Option<f64>,
    /// First scheduled to first token.
    pub prefill: Option<f64>,
    /// First token to last token.
    pub decode: Option<f64>,
    /// First scheduled to last token.
    pub inference: Option<f64>,
    /// Prompt tokens.
    pub prompt_tokens: Option<u64>,
    /// Generated tokens.
    pub generated_tokens: Option<u64>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Values that were counted.
    pub values: u64,
    /// Values that can't be true, and were left out.
    pub impossible: u64,
}

impl RequestRecord {
    /// Adds the record to the samples. Values that are not finite, negative or beyond belief are left out one by one:
    /// the others are still true.
    ///
    /// Where the first token's and the generated tokens' number are known, the request's TPOT is
    /// `decode / (generated tokens − 1)`, as vLLM and SGLang define theirs; a request of one token has none.
    pub fn count_into(&self, samples: &mut ExactSamples) -> Counted {
        let mut counted = Counted::default();
        for (kind, seconds) in [
            (DistributionKind::Ttft, self.ttft),
            (DistributionKind::E2e, self.e2e),
            (DistributionKind::Queue, self.queue),
            (DistributionKind::Prefill, self.prefill),
            (DistributionKind::Decode, self.decode),
            (DistributionKind::Inference, self.inference),
            (DistributionKind::Tpot, self.tpot()),
        ] {
            let Some(seconds) = seconds else { continue };
            counted.take(samples, kind, micros(seconds));
        }
        for (kind, tokens) in
            [(DistributionKind::Isl, self.prompt_tokens), (DistributionKind::Osl, self.generated_tokens)]
        {
            let Some(tokens) = tokens else { continue };
            counted.take(samples, kind, (tokens <= MOST_TOKENS).then_some(tokens));
        }
        counted
    }

    fn tpot(&self) -> Option<f64> {
        let gaps = self.generated_tokens.filter(|tokens| *tokens <= MOST_TOKENS)?.checked_sub(1)?;
        // What is wrong with the decode time is counted once, there.
        let decode = self.decode.filter(|seconds| micros(*seconds).is_some())?;
        (gaps > 0).then(|| decode / gaps as f64)
    }
}

impl Counted {
    fn take(&mut self, samples: &mut ExactSamples, kind: DistributionKind, value: Option<u64>) {
        match value {
            Some(value) => {
                samples.record(kind, value);
                self.values += 1;
            }
            None => self.impossible += 1,
        }
    }
}

/// Seconds as whole microseconds; `None` for what is no latency. The difference of two times that are the same may come
/// out a hair below zero, so it is rounded before it is judged.
pub(super) fn micros(seconds: f64) -> Option<u64> {
    let whole = (seconds * 1e6).round();
    (0.0..=LONGEST_SECONDS * 1e6).contains(&whole).then_some(whole as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_counted_value_by_value() {
        let record = RequestRecord {
            ttft: Some(0.25),
            e2e: Some(1.25),
            decode: Some(1.0),
            prompt_tokens: Some(300),
            generated_tokens: Some(11),
            ..RequestRecord::default()
        };
        let mut samples = ExactSamples::default();
        assert_eq!(record.count_into(&mut samples), Counted { values: 6, impossible: 0 });
        let sum = |kind| samples.get(kind).map(|cells| (cells.count(), cells.sum()));
        assert_eq!(sum(DistributionKind::Ttft), Some((1, 250_000)));
        assert_eq!(sum(DistributionKind::Tpot), Some((1, 100_000)));
        assert_eq!(sum(DistributionKind::Isl), Some((1, 300)));
        assert_eq!(sum(DistributionKind::Queue), None, "what was not told is absent");
    }

    #[test]
    fn what_can_not_be_true_is_left_out_and_counted() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.001, 86_401.0, f64::MAX] {
            let record = RequestRecord {
                ttft: Some(bad),
                decode: Some(bad),
                generated_tokens: Some(5),
                ..RequestRecord::default()
            };
            let mut samples = ExactSamples::default();
            assert_eq!(record.count_into(&mut samples), Counted { values: 1, impossible: 2 }, "{bad}");
            assert!(
                samples.get(DistributionKind::Ttft).is_none()
                    && samples.get(DistributionKind::Tpot).is_none()
            );
        }
        let tokens = RequestRecord { prompt_tokens: Some(u64::MAX), ..RequestRecord::default() };
        assert_eq!(tokens.count_into(&mut ExactSamples::default()), Counted { values: 0, impossible: 1 });
    }

    #[test]
    fn a_rounding_error_below_zero_is_zero() {
        assert_eq!(micros(-1e-17), Some(0));
        assert_eq!(micros(-1e-6), None);
        assert_eq!(micros(86_400.0), Some(86_400_000_000));
    }

    #[test]
    fn one_token_has_no_tpot() {
        for generated_tokens in [0, 1] {
            let record = RequestRecord {
                decode: Some(0.0),
                generated_tokens: Some(generated_tokens),
                ..RequestRecord::default()
            };
            let mut samples = ExactSamples::default();
            record.count_into(&mut samples);
            assert!(samples.get(DistributionKind::Tpot).is_none());
        }
    }
}
