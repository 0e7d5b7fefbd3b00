//! What is to be done about a target. Pure.

/// How an engine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its process runs, and it does not serve yet.
    Starting,
    /// It gets requests.
    Serving,
    /// It gets no new ones.
    Draining,
    /// It is gone.
    Stopped,
}

/// One thing to do; engines by their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Start another engine.
    Launch,
    /// Send no new requests.
    Drain(usize),
    /// Send new requests again, to one that was draining.
    Reopen(usize),
    /// End its process: nothing is in flight there.
    Stop(usize),
}

/// What brings the engines to a target, from their phases and requests in flight. A target counts what serves and what
/// starts. Nothing is ended that has requests in flight, and the last engine that serves stays.
pub(super) fn orders(target: usize, engines: &[(Phase, usize)]) -> Vec<Order> {
    let of = |wanted: Phase| {
        engines.iter().enumerate().filter(move |(_, (phase, _))| *phase == wanted).map(|(at, _)| at)
    };
    let mut serving: Vec<usize> = of(Phase::Serving).collect();
    let mut draining: Vec<usize> = of(Phase::Draining).collect();
    let coming = of(Phase::Starting).count() + serving.len();
    let mut orders = Vec::new();
    for _ in coming..target {
        orders.push(draining.pop().map_or(Order::Launch, Order::Reopen));
    }
    // Those with the fewest requests are empty first.
    serving.sort_by_key(|at| (engines[*at].1, usize::MAX - at));
    let surplus = coming.saturating_sub(target).min(serving.len().saturating_sub(1));
    orders.extend(serving.into_iter().take(surplus).map(Order::Drain));
    orders.extend(draining.into_iter().filter(|at| engines[*at].1 == 0).map(Order::Stop));
    orders
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVING: (Phase, usize) = (Phase::Serving, 3);

    #[test]
    fn what_starts_counts_and_what_is_missing_is_started() {
        assert_eq!(orders(3, &[SERVING, (Phase::Starting, 0)]), [Order::Launch]);
        assert_eq!(orders(2, &[SERVING, (Phase::Starting, 0)]), []);
    }

    #[test]
    fn what_drains_comes_back_before_another_is_started() {
        let engines = [SERVING, (Phase::Draining, 2), (Phase::Draining, 0)];
        assert_eq!(orders(4, &engines), [Order::Reopen(2), Order::Reopen(1), Order::Launch]);
        assert_eq!(orders(2, &engines), [Order::Reopen(2)]);
    }

    #[test]
    fn the_emptiest_drains_and_ends_when_it_is_empty() {
        let engines = [SERVING, (Phase::Serving, 1), (Phase::Draining, 0), (Phase::Draining, 4)];
        assert_eq!(orders(1, &engines), [Order::Drain(1), Order::Stop(2)]);
    }

    #[test]
    fn the_last_one_that_serves_stays() {
        assert_eq!(orders(0, &[SERVING]), []);
        assert_eq!(orders(1, &[SERVING, (Phase::Starting, 0)]), [], "what starts is not waited for in vain");
    }
}
