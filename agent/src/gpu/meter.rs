//! What the calls into the driver cost.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use plimsoll_common::{histogram::LatencyHistogram, units::Micros};
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

/// How long calls took since the agent started, and which one is being made. Shared with the thread that makes them; a
/// reader holds its lock for moments only.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// 27 KiB each, so only for kinds of calls that were made.
    by_call: Mutex<BTreeMap<Call, LatencyHistogram>>,
    /// The call in progress as its place in [`Call::ALL`] + 1; 0 when there is none.
    in_flight: AtomicUsize,
}

impl PartialEq for Latencies {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Latencies {
    /// The call that is being made now.
    #[must_use]
    pub fn in_flight(&self) -> Option<Call> {
        let place = self.0.in_flight.load(Ordering::Relaxed);
        place.checked_sub(1).and_then(|at| Call::ALL.get(at)).copied()
    }

    /// Shows the distribution of every kind of call that was made, in the order of [`Call::ALL`]. Microseconds; a call
    /// that took less than one counts as none.
    pub fn each(&self, mut show: impl FnMut(Call, &LatencyHistogram)) {
        self.lock().iter().for_each(|(call, histogram)| show(*call, histogram));
    }

    fn record(&self, call: Call, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.lock().entry(call).or_default().record(Micros(micros));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Call, LatencyHistogram>> {
        self.0.by_call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts and times calls.
#[derive(Debug)]
pub struct Meter {
    costs: Vec<CallCost>,
    latencies: Latencies,
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
        Self { costs: Call::ALL.iter().map(zero).collect(), latencies: Latencies::default(), clock }
    }

    /// Makes a call and counts it.
    ///
    /// # Errors
    /// What the call answered.
    pub fn time<T>(
        &mut self,
        call: Call,
        make: impl FnOnce() -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        self.begin(call);
        let begun = (self.clock)();
        let answer = make();
        self.count(call, (self.clock)().saturating_duration_since(begun), answer.is_ok());
        answer
    }

    /// Notes a call whose end [`Self::count`] will tell.
    pub(super) fn begin(&self, call: Call) {
        self.latencies.0.in_flight.store(call as usize + 1, Ordering::Relaxed);
    }

    /// Counts a call that was timed elsewhere.
    pub(super) fn count(&mut self, call: Call, took: Duration, answered: bool) {
        self.latencies.0.in_flight.store(0, Ordering::Relaxed);
        self.latencies.record(call, took);
        let cost = &mut self.costs[call as usize];
        cost.calls = cost.calls.saturating_add(1);
        cost.failures = cost.failures.saturating_add(u64::from(!answered));
        cost.busy = cost.busy.saturating_add(took);
        cost.slowest = cost.slowest.max(took);
    }

    /// The time that calls are measured by.
    pub(super) fn now(&self) -> Instant {
        (self.clock)()
    }

    /// The costs by kind, in the order of [`Call::ALL`].
    pub(super) fn costs(&self) -> &[CallCost] {
        &self.costs
    }

    /// The distributions behind the costs.
    pub(super) const fn latencies(&self) -> &Latencies {
        &self.latencies
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
        let mut seen = Vec::new();
        meter.latencies().each(|call, histogram| seen.push((call, histogram.count())));
        assert_eq!(seen, [(Call::Init, 1), (Call::PowerUsage, 2)]);
    }

    #[test]
    fn a_call_that_does_not_return_is_known_by_name() {
        let mut meter = Meter::new(Instant::now);
        let latencies = meter.latencies().clone();
        assert_eq!(latencies.in_flight(), None);
        let _: Result<(), _> = meter.time(Call::Temperature, || {
            assert_eq!(latencies.in_flight(), Some(Call::Temperature));
            Ok(())
        });
        assert_eq!(latencies.in_flight(), None);
    }
}
