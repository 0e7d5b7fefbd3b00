//! The one clock.

use std::time::{SystemTime, UNIX_EPOCH};

use plimsoll_engine::Micros;
use tokio::time::Instant;

/// Time since the emulator began, and what that is on the wall.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    unix_origin_seconds: f64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { origin: Instant::now(), unix_origin_seconds: unix.as_secs_f64() }
    }

    pub(crate) fn now(&self) -> Micros {
        Micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Seconds since 1970 at `at`.
    pub(crate) fn unix_seconds(&self, at: Micros) -> f64 {
        self.unix_origin_seconds + at.as_secs_f64()
    }
}
