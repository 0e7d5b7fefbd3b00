//! Event sets: what clients have registered for, and the waiting on it.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::lock;
use crate::abi::{Code, EventSet, Outcome};

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
    /// Registered event types by GPU index, by set.
    sets: BTreeMap<usize, BTreeMap<usize, u64>>,
    closed: bool,
}

impl EventSets {
    /// A new, empty set.
    pub(crate) fn create(&self) -> Result<EventSet, Code> {
        let inner = &mut *lock(&self.inner);
        if inner.sets.len() >= MAX_SETS {
            return Err(Code::INSUFFICIENT_RESOURCES);
        }
        inner.last += 1;
        inner.sets.insert(inner.last, BTreeMap::new());
        Ok(EventSet(inner.last << 4))
    }

    /// Adds event types of a GPU to a set.
    pub(crate) fn register(&self, set: EventSet, gpu: usize, types: u64) -> Outcome {
        let mut inner = lock(&self.inner);
        *inner.sets.get_mut(&(set.0 >> 4)).ok_or(Code::INVALID_ARGUMENT)?.entry(gpu).or_insert(0) |= types;
        Ok(())
    }

    /// Waits for an event. A scenario has none to tell, so this ends with the timeout, or as soon as the set is freed or
    /// the library is shut down.
    pub(crate) fn wait(&self, set: EventSet, timeout: Duration) -> Code {
        let id = set.0 >> 4;
        let (inner, _) = self
            .changed
            .wait_timeout_while(lock(&self.inner), timeout, |inner| {
                !inner.closed && inner.sets.contains_key(&id)
            })
            .unwrap_or_else(PoisonError::into_inner);
        if inner.closed {
            Code::UNINITIALIZED
        } else if inner.sets.contains_key(&id) {
            Code::TIMEOUT
        } else {
            Code::INVALID_ARGUMENT
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

    #[test]
    fn waiting_ends_by_timeout_free_and_close() {
        let sets = EventSets::default();
        let set = sets.create().unwrap();
        sets.register(set, 0, 8).unwrap();
        assert_eq!(sets.wait(set, Duration::from_millis(1)), Code::TIMEOUT);
        assert_eq!(sets.register(EventSet(0x990), 0, 8), Err(Code::INVALID_ARGUMENT));
        let long = Duration::from_secs(600);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| sets.wait(set, long));
            sets.free(set).unwrap();
            assert_eq!(waiter.join().unwrap(), Code::INVALID_ARGUMENT);
        });
        let set = sets.create().unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| sets.wait(set, long));
            sets.close();
            assert_eq!(waiter.join().unwrap(), Code::UNINITIALIZED);
        });
    }
}
