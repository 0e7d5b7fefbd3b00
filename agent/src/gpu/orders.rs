//! What the thread that owns NVML is told.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Shut NVML down and end.
    Stop,
    /// Give the driver free for so long.
    Release(Duration),
    /// Take it back.
    Resume,
}

/// A mailbox of one letter: the newest order counts, and a stop is never replaced. So nobody waits to give one, and
/// nothing piles up while a call hangs.
#[derive(Debug, Clone, Default)]
pub(super) struct Orders(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    newest: Mutex<Option<Order>>,
    given: Condvar,
}

impl Orders {
    /// Leaves an order.
    pub(super) fn give(&self, order: Order) {
        let mut newest = self.lock();
        if *newest != Some(Order::Stop) {
            *newest = Some(order);
            self.0.given.notify_all();
        }
    }

    /// Waits for an order until `then`. A stop stays in the box, so that everybody who looks sees it.
    pub(super) fn wait_until(&self, then: Instant) -> Option<Order> {
        let wait = then.saturating_duration_since(Instant::now());
        let newest = self.lock();
        let waited = self.0.given.wait_timeout_while(newest, wait, |newest| newest.is_none());
        let (mut newest, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *newest == Some(Order::Stop) { Some(Order::Stop) } else { newest.take() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Order>> {
        self.0.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_order_counts_and_a_stop_is_final() {
        let orders = Orders::default();
        assert_eq!(orders.wait_until(Instant::now()), None);
        orders.give(Order::Release(Duration::from_secs(1)));
        orders.give(Order::Resume);
        assert_eq!(orders.wait_until(Instant::now()), Some(Order::Resume));
        assert_eq!(orders.wait_until(Instant::now()), None);
        orders.give(Order::Stop);
        orders.give(Order::Resume);
        for _ in 0..2 {
            assert_eq!(orders.wait_until(Instant::now() + Duration::from_secs(600)), Some(Order::Stop));
        }
    }
}
