//! When an engine is read next.

use std::time::Duration;

use super::{scrape::ScrapeOptions, scrape_error::ScrapeError};

/// How long to wait between scrapes.
///
/// The page is served by the event loop that serves the engine's users, so a scrape may take no more than a twentieth
/// of that loop's time: interval = max(configured, 20 × the moving average of the scrape's duration).
#[derive(Debug)]
pub(super) struct Cadence {
    options: ScrapeOptions,
    average: Option<Duration>,
    /// Time-outs in a row.
    timeouts: u32,
}

impl Cadence {
    const TIMES: u32 = 20;
    /// Of the newest duration in the moving average.
    const WEIGHT: f64 = 0.2;

    pub(super) const fn new(options: ScrapeOptions) -> Self {
        Self { options, average: None, timeouts: 0 }
    }

    /// The time from the start of a scrape that took this long to the next one.
    ///
    /// `suspects`: the engine may be freezing, and a few pages at the configured pace tell. A loop whose engine gives
    /// nothing has nothing better to do.
    pub(super) fn after(&mut self, took: Duration, error: Option<&ScrapeError>, suspects: bool) -> Duration {
        let shortest = self.options.interval;
        self.timeouts = match error {
            Some(ScrapeError::Timeout { .. }) => self.timeouts.saturating_add(1),
            _ => 0,
        };
        match error {
            // Whoever does not answer may be drowning in requests: each one that was given up for lost makes the next
            // wait longer, counted from its end.
            Some(ScrapeError::Timeout { .. }) => {
                let factor = 1u32.checked_shl(self.timeouts - 1).unwrap_or(u32::MAX);
                return took + shortest.saturating_mul(factor).min(self.options.longest_interval);
            }
            // Where no server answered there was nothing to spare.
            Some(ScrapeError::Refused(_) | ScrapeError::Connect { .. } | ScrapeError::Url { .. }) => {}
            _ => {
                let average = self
                    .average
                    .map_or(took, |average| average.mul_f64(1.0 - Self::WEIGHT) + took.mul_f64(Self::WEIGHT));
                self.average = Some(average);
            }
        }
        if suspects {
            return shortest;
        }
        let polite = self.average.unwrap_or_default().saturating_mul(Self::TIMES);
        shortest.max(polite.min(self.options.longest_interval))
    }
}

/// Shares of an interval by which scrapes come late: they differ from scrape to scrape and from engine to engine, so
/// that scrapes keep in step neither with each other nor with what the engine does once a second, while the mean
/// interval stays what it is.
#[derive(Debug)]
pub(super) struct Jitter {
    seed: u64,
    n: u64,
}

impl Jitter {
    const MOST: f64 = 0.05;

    /// The jitter of the engine with this name.
    pub(super) fn of(name: &str) -> Self {
        // FNV-1a.
        let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { seed, n: 0 }
    }

    /// A share between a half and one, always the same one for the engine: the first interval is shorter by it, so that
    /// the engines of a node are not all read at the same instant.
    pub(super) fn phase(&self) -> f64 {
        0.5 + self.share(0) / 2.0
    }

    /// By which share of its interval the next scrape is late, 0 to 5 %.
    pub(super) fn late(&mut self) -> f64 {
        self.n = self.n.wrapping_add(1);
        self.share(self.n) * Self::MOST
    }

    /// The n-th number of the engine, 0 to 1: a multiplication and shifts spread the last byte of a name, in which the
    /// engines of a node often differ alone, over all bits.
    fn share(&self, n: u64) -> f64 {
        let mut hash = self.seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for _ in 0..2 {
            hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        }
        (hash >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn slow_pages_are_read_less_often() {
        let mut cadence = Cadence::new(ScrapeOptions::default());
        assert_eq!(cadence.after(ms(10), None, false), ms(1000));
        let mut cadence = Cadence::new(ScrapeOptions::default());
        assert_eq!(cadence.after(ms(200), None, false), ms(4000));
        // The moving average follows, it does not jump.
        assert_eq!(cadence.after(ms(100), None, false), ms(3600));
        assert_eq!(cadence.after(ms(100), None, true), ms(1000), "a suspicion is looked into at once");
        assert_eq!(cadence.after(ms(5000), None, false), ms(15_000));
    }

    #[test]
    fn a_port_that_refuses_is_tried_at_the_configured_pace() {
        let mut cadence = Cadence::new(ScrapeOptions::default());
        let refused = ScrapeError::Refused("x".to_owned());
        assert_eq!(cadence.after(ms(900), Some(&refused), false), ms(1000));
    }

    #[test]
    fn whoever_does_not_answer_is_asked_ever_less_often() {
        let mut cadence = Cadence::new(ScrapeOptions::default());
        let timeout = ScrapeError::Timeout { address: "x".to_owned(), after: ms(5000) };
        let waits: Vec<_> = (0..40).map(|_| cadence.after(ms(5000), Some(&timeout), false)).collect();
        assert_eq!(waits[..5], [ms(6000), ms(7000), ms(9000), ms(13_000), ms(20_000)]);
        assert_eq!(waits[39], ms(20_000));
        assert_eq!(cadence.after(ms(10), None, false), ms(1000), "and as before once it answers");
    }

    #[test]
    fn phases_and_delays_spread() {
        let spread = |shares: Vec<f64>, low: f64, high: f64| {
            assert!(shares.iter().all(|share| (low..high).contains(share)), "{shares:?}");
            let eighths = shares.iter().map(|share| ((share - low) / (high - low) * 8.0) as u64);
            eighths.collect::<std::collections::BTreeSet<_>>().len()
        };
        let phases = (0..32).map(|port| Jitter::of(&format!("127.0.0.1:80{port:02}")).phase()).collect();
        assert!(spread(phases, 0.5, 1.0) >= 6);
        let mut jitter = Jitter::of("engine");
        assert!(spread((0..32).map(|_| jitter.late()).collect(), 0.0, 0.05) >= 6);
    }
}
