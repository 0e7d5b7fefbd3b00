//! How much one agent may send: a token bucket. Pure.

use std::time::Duration;

use plimsoll_common::units::Micros;

/// A frame costs one token, and one more for so many bytes.
const BYTES_PER_TOKEN: f64 = 2048.0;

/// Tokens that come back with time. It may run into debt: what was read was read, and the next frame waits longer.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    tokens: f64,
    burst: f64,
    per_second: f64,
    at: Micros,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub const fn new(burst: u32, per_second: u32, now: Micros) -> Self {
        let burst = burst as f64;
        Self { tokens: burst, burst, per_second: per_second as f64, at: now }
    }

    /// Pays for a frame of so many bytes.
    pub fn pay(&mut self, now: Micros, bytes: usize) {
        self.fill(now);
        self.tokens -= 1.0 + bytes as f64 / BYTES_PER_TOKEN;
    }

    /// How long to wait before the next frame is read; `None` where it may be read now.
    #[must_use]
    pub fn wait(&mut self, now: Micros) -> Option<Duration> {
        self.fill(now);
        let missing = 1.0 - self.tokens;
        (missing > 0.0).then(|| Duration::from_secs_f64(missing / self.per_second))
    }

    fn fill(&mut self, now: Micros) {
        let gained = now.saturating_sub(self.at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_time_pays() {
        let mut bucket = Bucket::new(10, 2, Micros(0));
        for _ in 0..10 {
            assert_eq!(bucket.wait(Micros(0)), None);
            bucket.pay(Micros(0), 0);
        }
        assert_eq!(bucket.wait(Micros(0)), Some(Duration::from_millis(500)));
        assert_eq!(bucket.wait(Micros(500_000)), None);
        // A large frame is paid for afterwards.
        bucket.pay(Micros(500_000), 2048 * 20);
        assert_eq!(bucket.wait(Micros(500_000)), Some(Duration::from_millis(10_500)));
        // Time that was not used fills it once, not forever.
        assert_eq!(bucket.wait(Micros(3_600_000_000)), None);
        bucket.pay(Micros(3_600_000_000), 2048 * 10);
        assert!(bucket.wait(Micros(3_600_000_000)).is_some());
        assert!(bucket.wait(Micros(0)).is_some(), "a clock that steps back gives nothing");
    }
}
