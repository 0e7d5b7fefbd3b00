//! What an outage means, and when to try again. Pure.

use std::time::Duration;

use plimsoll_common::wire::SourceState;
use tokio::time::Instant;

use super::{schedule::share, source::Outage};

/// The wait before the second attempt; it doubles with every further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait between two attempts: how late a driver that was installed or repaired is noticed.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A connection that held this long was good: the next outage starts with a short wait again. Shorter ones count as
/// failed attempts, since every `nvmlInit` takes the driver's lock.
const STABLE: Duration = Duration::from_secs(60);

/// Remembers what happened to the connection so far.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    seed: u64,
    attempts: u32,
    delivered: bool,
    up_since: Option<Instant>,
}

/// What to say of an outage and when to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) state: SourceState,
    pub(super) retry_in: Duration,
}

impl Connection {
    /// Nothing was tried yet. The seed spreads the attempts of a fleet.
    pub(super) const fn new(seed: u64) -> Self {
        Self { seed, attempts: 0, delivered: false, up_since: None }
    }

    /// GPUs were seen.
    pub(super) const fn up(&mut self, now: Instant) {
        self.delivered = true;
        self.up_since = Some(now);
    }

    /// There is an outage.
    pub(super) fn down(&mut self, outage: &Outage, now: Instant) -> Verdict {
        if self.up_since.take().is_some_and(|since| now.saturating_duration_since(since) >= STABLE) {
            self.attempts = 0;
        }
        // 2^6 s is already beyond the longest wait.
        let wait = FIRST_WAIT.saturating_mul(1 << self.attempts.min(6)).min(LONGEST_WAIT);
        self.attempts = self.attempts.saturating_add(1);
        // The upper half is spread, so that it never gets shorter than half of what it should be.
        let spread = share(wait / 2, self.seed.wrapping_add(u64::from(self.attempts)));
        Verdict { state: self.judge(outage), retry_in: wait / 2 + spread }
    }

    /// A machine that never had GPUs is no broken one; one whose GPUs vanished is.
    const fn judge(&self, outage: &Outage) -> SourceState {
        match outage {
            Outage::NoLibrary { .. } | Outage::NoDriver | Outage::NoGpu if !self.delivered => {
                SourceState::Unsupported
            }
            _ => SourceState::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_minute() {
        let now = Instant::now();
        let mut connection = Connection::new(9);
        for expected in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let wait = connection.down(&Outage::NoDriver, now).retry_in;
            let whole = Duration::from_secs(expected);
            assert!((whole / 2..whole).contains(&wait), "{wait:?} for {whole:?}");
        }
    }

    #[test]
    fn a_machine_without_gpus_is_not_broken_and_one_that_lost_its_driver_is() {
        let now = Instant::now();
        let missing = Outage::NoLibrary { reason: "no such file".to_owned() };
        let mut connection = Connection::new(0);
        for outage in [&missing, &Outage::NoDriver, &Outage::NoGpu] {
            assert_eq!(connection.down(outage, now).state, SourceState::Unsupported, "{outage}");
        }
        for outage in [&Outage::VersionMismatch, &Outage::Denied, &Outage::Other("?".to_owned())] {
            assert_eq!(connection.down(outage, now).state, SourceState::Failed, "{outage}");
        }
        connection.up(now);
        for outage in [&missing, &Outage::NoDriver, &Outage::NoGpu] {
            assert_eq!(connection.down(outage, now).state, SourceState::Failed, "{outage}");
        }
    }

    #[test]
    fn only_a_connection_that_held_resets_the_back_off() {
        let now = Instant::now();
        let mut connection = Connection::new(1);
        for _ in 0..6 {
            connection.down(&Outage::NoDriver, now);
        }
        connection.up(now);
        let flapping = connection.down(&Outage::NoDriver, now + Duration::from_secs(1));
        assert!(flapping.retry_in >= Duration::from_secs(30));
        connection.up(now);
        let stable = connection.down(&Outage::NoDriver, now + STABLE);
        assert!(stable.retry_in <= FIRST_WAIT);
    }

    proptest! {
        /// Invariant: whatever happens, the wait is positive and bounded.
        #[test]
        fn the_wait_is_bounded(seed: u64, ups in prop::collection::vec(any::<bool>(), 0..200)) {
            let now = Instant::now();
            let mut connection = Connection::new(seed);
            for up in ups {
                if up {
                    connection.up(now);
                }
                let wait = connection.down(&Outage::Denied, now).retry_in;
                prop_assert!(wait >= FIRST_WAIT / 2 && wait <= LONGEST_WAIT);
            }
        }
    }
}
