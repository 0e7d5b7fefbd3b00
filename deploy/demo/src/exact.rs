//! What really happened: the samples of the engines' own records.

use std::{collections::BTreeMap, ops::Range, path::PathBuf};

use plimsoll_tests::request_log::{Ended, Tail, percentile};

use crate::look::Ranks;

/// Samples older than this are forgotten, seconds: more than the longest of the planner's windows.
const KEPT_SECONDS: f64 = 420.0;
/// p50, p95 and p99, as shares.
const SHARES: [f64; 3] = [0.5, 0.95, 0.99];

/// The records of all engines of a model.
#[derive(Debug, Default)]
pub struct Records(BTreeMap<String, Record>);

/// The record of one engine.
#[derive(Debug)]
struct Record {
    log: Tail,
    ttft: Track,
    itl: Track,
    sums: Sums,
}

/// Samples in the order of the times at which they were taken.
#[derive(Debug, Default)]
struct Track {
    /// Time (seconds since 1970) and value (seconds).
    samples: Vec<(f64, f64)>,
    /// How many came before those.
    forgotten: u64,
}

/// Everything since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Requests that ended.
    pub requests: u64,
    /// Their prompt tokens.
    pub prompt_tokens: u64,
    /// Their output tokens.
    pub generation_tokens: u64,
}

/// Exact percentiles, seconds; `None` where there is no sample.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Exact {
    /// Time to first token.
    pub ttft: [Option<f64>; 3],
    /// Inter-token latency.
    pub itl: [Option<f64>; 3],
}

impl Records {
    /// Follows the request logs of these engines.
    #[must_use]
    pub fn new(logs: impl IntoIterator<Item = (String, PathBuf)>) -> Self {
        let record = |log| Record {
            log: Tail::new(log),
            ttft: Track::default(),
            itl: Track::default(),
            sums: Sums::default(),
        };
        Self(logs.into_iter().map(|(engine, log)| (engine, record(log))).collect())
    }

    /// Takes in what the logs have got since the last call.
    ///
    /// # Errors
    /// When a log can't be read.
    pub fn catch_up(&mut self) -> anyhow::Result<()> {
        self.0.values_mut().try_for_each(|record| {
            let news = record.log.news()?;
            news.iter().for_each(|request| record.take(request));
            record.ttft.settle();
            record.itl.settle();
            Ok(())
        })
    }

    /// Everything since the start.
    #[must_use]
    pub fn sums(&self) -> Sums {
        self.0.values().fold(Sums::default(), |sum, record| Sums {
            requests: sum.requests + record.sums.requests,
            prompt_tokens: sum.prompt_tokens + record.sums.prompt_tokens,
            generation_tokens: sum.generation_tokens + record.sums.generation_tokens,
        })
    }

    /// The percentiles of the samples with these ranks; `None` where one of them is not in the records (any more).
    #[must_use]
    pub fn percentiles(&self, ranks: &BTreeMap<String, Ranks>) -> Option<Exact> {
        let (mut ttft, mut itl) = (Vec::new(), Vec::new());
        for (engine, ranks) in ranks {
            let record = self.0.get(engine)?;
            ttft.extend(record.ttft.ranked(&ranks.ttft)?);
            itl.extend(record.itl.ranked(&ranks.itl)?);
        }
        let percentiles = |samples: &mut [f64]| SHARES.map(|share| percentile(samples, share));
        Some(Exact { ttft: percentiles(&mut ttft), itl: percentiles(&mut itl) })
    }
}

impl Record {
    fn take(&mut self, request: &Ended) {
        self.sums.requests += 1;
        self.sums.prompt_tokens += request.prompt_tokens;
        self.sums.generation_tokens += request.output_tokens;
        self.ttft.samples.extend(request.first_token_unix_s().zip(request.ttft_s));
        self.itl.samples.extend(request.timed_itl());
    }
}

impl Track {
    /// Brings new samples into their places and forgets old ones.
    fn settle(&mut self) {
        self.samples.sort_by(|one, two| one.0.total_cmp(&two.0));
        let newest = self.samples.last().map_or(0.0, |(at, _)| *at);
        let old = self.samples.partition_point(|(at, _)| *at < newest - KEPT_SECONDS);
        self.samples.drain(..old);
        self.forgotten += old as u64;
    }

    /// The values of the samples with these ranks, counted from 0 at the first of all.
    fn ranked(&self, ranks: &Range<u64>) -> Option<impl Iterator<Item = f64>> {
        let place = |rank: u64| usize::try_from(rank.checked_sub(self.forgotten)?).ok();
        let samples = self.samples.get(place(ranks.start)?..place(ranks.end)?)?;
        Some(samples.iter().map(|(_, value)| *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(samples: &[(f64, f64)]) -> Track {
        let mut track = Track { samples: samples.to_vec(), forgotten: 0 };
        track.settle();
        track
    }

    #[test]
    fn ranks_are_in_the_order_of_time_and_outlive_what_is_forgotten() {
        let mut track = track(&[(3.0, 0.3), (1.0, 0.1), (2.0, 0.2)]);
        let values = |track: &Track, ranks| track.ranked(&ranks).map(Iterator::collect::<Vec<_>>);
        assert_eq!(values(&track, 0..2), Some(vec![0.1, 0.2]));
        track.samples.push((KEPT_SECONDS + 2.5, 0.4));
        track.settle();
        assert_eq!(values(&track, 2..4), Some(vec![0.3, 0.4]));
        assert_eq!(values(&track, 1..4), None, "forgotten");
        assert_eq!(values(&track, 2..5), None, "not there yet");
    }

    #[test]
    fn percentiles_are_over_the_engines_together() {
        let record = |values: Range<u32>| {
            let samples: Vec<_> = values.map(|value| (f64::from(value), f64::from(value))).collect();
            Record {
                log: Tail::new(PathBuf::new()),
                ttft: track(&samples),
                itl: Track::default(),
                sums: Sums::default(),
            }
        };
        let records = Records([("a".to_owned(), record(1..51)), ("b".to_owned(), record(51..101))].into());
        let ranks = |ttft| Ranks { ttft, itl: 0..0 };
        let both = [("a".to_owned(), ranks(0..50)), ("b".to_owned(), ranks(0..50))].into();
        let exact = records.percentiles(&both).unwrap();
        assert_eq!(exact.ttft, [Some(50.0), Some(95.0), Some(99.0)]);
        assert_eq!(exact.itl, [None; 3]);
        assert_eq!(records.percentiles(&[("c".to_owned(), ranks(0..0))].into()), None);
    }
}
