//! What the calls into the driver cost.

use std::time::Duration;

use tokio::time::Instant;

use super::{plan::Call, source::CallError};

/// What all calls of one kind cost since the agent started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallCost {
    /// The kind.
    pub call: Call,
    /// How many were made.
    pub calls: u64,
    /// How many of them gave no value (not supported, lost, failed).
    pub failures: u64,
    /// Wall time spent in them.
    pub busy: Duration,
    /// The slowest of them.
    pub slowest: Duration,
}

/// Counts and times calls.
#[derive(Debug)]
pub(super) struct Meter {
    costs: Vec<CallCost>,
    clock: fn() -> Instant,
}

impl Meter {
    /// Nothing was called yet. `clock` is read before and after every call.
    pub(super) fn new(clock: fn() -> Instant) -> Self {
        let zero = |call: &Call| CallCost {
            call: *call,
            calls: 0,
            failures: 0,
            busy: Duration::ZERO,
            slowest: Duration::ZERO,
        };
        Self { costs: Call::ALL.iter().map(zero).collect(), clock }
    }

    /// Makes a call and counts it.
    pub(super) fn time<T>(
        &mut self,
        call: Call,
        make: impl FnOnce() -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let begun = (self.clock)();
        let answer = make();
        self.count(call, (self.clock)().saturating_duration_since(begun), answer.is_ok());
        answer
    }

    /// Counts a call that was timed elsewhere.
    pub(super) fn count(&mut self, call: Call, took: Duration, answered: bool) {
        let cost = &mut self.costs[call as usize];
        cost.calls = cost.calls.saturating_add(1);
        cost.failures = cost.failures.saturating_add(u64::from(!answered));
        cost.busy = cost.busy.saturating_add(took);
        cost.slowest = cost.slowest.max(took);
    }

    /// The costs by kind, in the order of [`Call::ALL`].
    pub(super) fn costs(&self) -> &[CallCost] {
        &self.costs
    }

    /// Wall time spent in all calls.
    pub(super) fn busy(&self) -> Duration {
        self.costs.iter().map(|cost| cost.busy).fold(Duration::ZERO, Duration::saturating_add)
    }

    /// How many calls were made.
    pub(super) fn calls(&self) -> u64 {
        self.costs.iter().fold(0, |sum, cost| sum.saturating_add(cost.calls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_counted_by_kind() {
        let mut meter = Meter::new(Instant::now);
        assert_eq!(meter.time(Call::PowerUsage, || Ok(7)), Ok(7));
        assert_eq!(meter.time(Call::PowerUsage, || Err::<(), _>(CallError::Lost)), Err(CallError::Lost));
        meter.count(Call::Init, Duration::from_millis(3), true);
        let power = meter.costs()[Call::PowerUsage as usize];
        assert_eq!((power.call, power.calls, power.failures), (Call::PowerUsage, 2, 1));
        assert!(power.busy >= power.slowest);
        let init = meter.costs()[Call::Init as usize];
        assert_eq!((init.busy, init.slowest), (Duration::from_millis(3), Duration::from_millis(3)));
        assert_eq!(meter.calls(), 3);
        assert_eq!(meter.busy(), power.busy + init.busy);
    }
}
