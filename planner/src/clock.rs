//! The planner's one clock: Unix time that never goes backwards.

use std::time::SystemTime;

use plimsoll_common::units::Micros;
use tokio::time::Instant;

/// Reads the wall clock once and the monotonic clock from then on, so that ages are never negative and a step of the
/// wall clock moves no window.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    unix_at_start: Micros,
    start: Instant,
}

impl Clock {
    /// Starts from the wall clock; from zero where that is before 1970.
    #[must_use]
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { unix_at_start: Micros(unix.as_micros() as u64), start: Instant::now() }
    }

    /// Unix microseconds.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.unix_at_start.saturating_add(Micros(self.start.elapsed().as_micros() as u64))
    }

    /// Since the start.
    #[must_use]
    pub fn uptime(&self) -> Micros {
        self.now().saturating_sub(self.unix_at_start)
    }
}
