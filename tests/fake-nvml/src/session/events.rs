//! Event sets: what clients have registered for, and the waiting on it.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::lock;
use crate::abi::{Code, EventSet, Outcome};
use crate::clock;
use crate::machine::Event;

/// A client may hold this many sets.
const MAX_SETS: usize = 256;

/// All event sets of a session, by handle.
#[derive(Debug, Default)]
pub(crate) struct EventSets {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    last: usize,
    sets: BTreeMap<usize, Set>,
    closed: bool,
}

/// What a client has registered for.
#[derive(Debug, Clone, Default)]
struct Set {
    /// Event types by GPU, and the number of the first event that may be told.
    registered: BTreeMap<usize, (u64, u64)>,
    /// The number after that of the event told last.
    told: u64,
}

impl Set {
    fn wants(&self, event: &Event) -> bool {
        let registration = self.registered.get(&event.board);
        registration.is_some_and(|(types, from)| event.kind & types != 0 && event.number >= *from)
    }
}

impl EventSets {
    /// A new, empty set.
    pub(crate) fn create(&self) -> Result<EventSet, Code> {
        let inner = &mut *lock(&self.inner);
        if inner.sets.len() >= MAX_SETS {
            return Err(Code::INSUFFICIENT_RESOURCES);
        }
        inner.last += 1;
        inner.sets.insert(inner.last, Set::default());
        Ok(EventSet(inner.last << 4))
    }

    /// Adds event types of a GPU to a set. Events from the number `from` on are told.
    pub(crate) fn register(&self, set: EventSet, gpu: usize, types: u64, from: u64) -> Outcome {
        let mut inner = lock(&self.inner);
        let set = inner.sets.get_mut(&(set.0 >> 4)).ok_or(Code::INVALID_ARGUMENT)?;
        set.registered.entry(gpu).or_insert((0, from)).0 |= types;
        Ok(())
    }

    /// Waits for an event. `look` is called first and then every `period`, and gives the first event from a number on
    /// that the set wants, or the reason why none can come. Waiting also ends with the timeout, and as soon as the set is
    /// freed or the library is shut down.
    pub(crate) fn wait(
        &self,
        set: EventSet,
        timeout: Duration,
        period: Duration,
        mut look: impl FnMut(u64, &dyn Fn(&Event) -> bool) -> Result<Option<Event>, Code>,
    ) -> Result<Event, Code> {
        let id = set.0 >> 4;
        let mut left = timeout;
        let mut inner = lock(&self.inner);
        loop {
            if inner.closed {
                return Err(Code::UNINITIALIZED);
            }
            let set = inner.sets.get_mut(&id).ok_or(Code::INVALID_ARGUMENT)?;
            if let Some(event) = look(set.told, &|event| set.wants(event))? {
                set.told = event.number + 1;
                return Ok(event);
            }
            if left.is_zero() {
                return Err(Code::TIMEOUT);
            }
            let began_ns = clock::monotonic_ns();
            let waited = self.changed.wait_timeout(inner, left.min(period));
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
            left = left.saturating_sub(Duration::from_nanos(clock::monotonic_ns().saturating_sub(began_ns)));
        }
    }

    /// Gives a set back and wakes who waits on it.
    pub(crate) fn free(&self, set: EventSet) -> Outcome {
        let removed = lock(&self.inner).sets.remove(&(set.0 >> 4));
        self.changed.notify_all();
        removed.map(drop).ok_or(Code::INVALID_ARGUMENT)
    }

    /// Wakes everybody: the library is shut down.
    pub(crate) fn close(&self) {
        lock(&self.inner).closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::from_secs(600);

    fn nothing(_: u64, _: &dyn Fn(&Event) -> bool) -> Result<Option<Event>, Code> {
        Ok(None)
    }

    #[test]
    fn waiting_ends_by_timeout_free_and_close() {
        let sets = EventSets::default();
        let set = sets.create().unwrap();
        sets.register(set, 0, 8, 0).unwrap();
        assert_eq!(sets.wait(set, Duration::from_millis(1), NEVER, nothing), Err(Code::TIMEOUT));
        assert_eq!(sets.register(EventSet(0x990), 0, 8, 0), Err(Code::INVALID_ARGUMENT));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| sets.wait(set, NEVER, NEVER, nothing));
            sets.free(set).unwrap();
            assert_eq!(waiter.join().unwrap(), Err(Code::INVALID_ARGUMENT));
        });
        let set = sets.create().unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| sets.wait(set, NEVER, NEVER, nothing));
            sets.close();
            assert_eq!(waiter.join().unwrap(), Err(Code::UNINITIALIZED));
        });
    }

    #[test]
    fn a_set_tells_what_was_registered_once_and_in_order() {
        let sets = EventSets::default();
        let set = sets.create().unwrap();
        sets.register(set, 3, 0x8, 1).unwrap();
        let event = |number, board, kind| Event { number, board, kind, data: 79, instance: (0, 0) };
        let happened = [event(0, 3, 8), event(1, 2, 8), event(2, 3, 1), event(3, 3, 8), event(4, 3, 8)];
        let mut look = |from: u64, wanted: &dyn Fn(&Event) -> bool| {
            Ok(happened.iter().find(|event| event.number >= from && wanted(event)).copied())
        };
        assert_eq!(sets.wait(set, NEVER, NEVER, &mut look), Ok(happened[3]));
        assert_eq!(sets.wait(set, NEVER, NEVER, &mut look), Ok(happened[4]));
        assert_eq!(sets.wait(set, Duration::ZERO, NEVER, &mut look), Err(Code::TIMEOUT));
    }
}
