//! How long to wait before the next try.

use std::time::Duration;

/// Exponential back-off with full jitter: who lost the same peer does not come back in step.
#[derive(Debug)]
pub(crate) struct Backoff {
    shortest: Duration,
    longest: Duration,
    ceiling: Duration,
}

impl Backoff {
    pub(crate) const fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, ceiling: shortest }
    }

    /// The next wait, for a random number between 0 and 1: that share of a ceiling which doubles with every call.
    pub(crate) fn next_wait(&mut self, random: f64) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(self.longest);
        self.shortest / 2 + ceiling.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Begins again with short waits.
    pub(crate) const fn reset(&mut self) {
        self.ceiling = self.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_ceiling_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<_> = (0..6).map(|_| backoff.next_wait(1.0).as_millis()).collect();
        assert_eq!(waits, [150, 250, 450, 850, 1050, 1050]);
        assert_eq!(backoff.next_wait(0.0).as_millis(), 50);
        backoff.reset();
        assert_eq!(backoff.next_wait(1.0).as_millis(), 150);
    }
}
