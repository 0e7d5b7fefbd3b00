//! How many requests arrived, from counters that only know requests that ended.

use super::gains::Flow;

/// An estimate of the arrivals at one engine process. Its total never falls.
///
/// Where the requests that come are counted, these are the arrivals. Else `arrived = ended + in flight`, both against
/// the first look. Two counters know ended requests, and each misses some: the HTTP server's counts aborted requests,
/// but an answer's last bytes may lag behind the engine, and a request for several sequences is one for it; the engine's
/// own counts sequences the moment they finish, but on vLLM misses the aborted ones. Both are lower bounds, so the
/// larger one is taken. Where the total would fall (a gauge lags behind, a request of several sequences ends as one) the
/// deficit is kept and the next arrivals make it up first.
#[derive(Debug, Clone, Default)]
pub(super) struct Arrivals {
    http_ended: u64,
    finished: u64,
    started: u64,
    refused: u64,
    /// Requests that were in flight at the first look, when that was at a running engine.
    in_flight_before: u64,
    counted: u64,
}

impl Arrivals {
    /// Starts at an engine that was already running, with this many requests in flight.
    pub(super) fn since(in_flight: u64) -> Self {
        Self { in_flight_before: in_flight, ..Self::default() }
    }

    /// Takes what the counters gained and how many requests are in flight (0 where the page does not tell, which
    /// keeps the lower bound); gives the new arrivals.
    pub(super) fn observe(&mut self, flow: Flow, in_flight: u64) -> u64 {
        self.http_ended = self.http_ended.saturating_add(flow.http_ended);
        self.finished = self.finished.saturating_add(flow.finished);
        self.refused = self.refused.saturating_add(flow.refused);
        let ended = self.http_ended.max(self.finished);
        let total = match flow.started {
            Some(started) => {
                self.started = self.started.saturating_add(started);
                // A route that is not counted as one of the engine's still shows at its end. Requests in flight are
                // left out: the gauges of an engine that counts what comes may be seconds older than its counters.
                self.started.saturating_sub(self.refused).max(ended.saturating_sub(self.in_flight_before))
            }
            None => ended.saturating_add(in_flight).saturating_sub(self.in_flight_before),
        };
        let arrived = total.saturating_sub(self.counted);
        self.counted += arrived;
        arrived
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ended(http_ended: u64, finished: u64) -> Flow {
        Flow { http_ended, finished, started: None, refused: 0 }
    }

    #[test]
    fn requests_that_are_counted_when_they_come_need_no_gauge() {
        let mut arrivals = Arrivals::since(3);
        let flow = |finished, started| Flow { finished, started: Some(started), ..Flow::default() };
        assert_eq!(arrivals.observe(flow(0, 5), 99), 5);
        // Five end, which had come before; three of them before the first look.
        assert_eq!(arrivals.observe(flow(5, 0), 0), 0);
        // Nine end of which nobody saw the start: six at least are new.
        assert_eq!(arrivals.observe(flow(9, 0), 0), 6);
        assert_eq!(arrivals.observe(flow(0, 6), 0), 0);
        // Two that come are refused.
        assert_eq!(arrivals.observe(Flow { refused: 2, ..flow(0, 5) }, 0), 3);
    }

    #[test]
    fn requests_in_flight_have_arrived_once() {
        let mut arrivals = Arrivals::since(3);
        assert_eq!(arrivals.observe(ended(0, 0), 5), 2);
        // The five end, two new ones come.
        assert_eq!(arrivals.observe(ended(5, 5), 2), 2);
        assert_eq!(arrivals.observe(ended(2, 2), 0), 0);
    }

    #[test]
    fn aborted_requests_are_not_lost_and_do_not_return() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.observe(ended(0, 0), 33), 33);
        assert_eq!(arrivals.observe(ended(33, 0), 0), 0);
        assert_eq!(arrivals.observe(ended(1, 1), 0), 1);
    }

    #[test]
    fn an_answer_under_way_is_not_missed() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.observe(ended(0, 0), 10), 10);
        // Nine are finished in the engine, their HTTP answers are not, and eight new ones came.
        assert_eq!(arrivals.observe(ended(0, 9), 9), 8);
        assert_eq!(arrivals.observe(ended(9, 0), 9), 0);
    }

    #[test]
    fn a_deficit_is_made_up_before_new_arrivals_count() {
        let mut arrivals = Arrivals::default();
        // One HTTP request for four sequences, without the engine's own counter.
        assert_eq!(arrivals.observe(ended(0, 0), 4), 4);
        assert_eq!(arrivals.observe(ended(1, 0), 0), 0);
        assert_eq!(arrivals.observe(ended(3, 0), 0), 0);
        assert_eq!(arrivals.observe(ended(1, 0), 0), 1);
    }

    proptest! {
        /// Invariants: with exact counters the estimate is exact at every look, however requests come, finish and are
        /// aborted.
        #[test]
        fn exact_counters_give_exact_arrivals(
            before in 0u64..50,
            steps in prop::collection::vec((0u64..50, 0u64..50, 0u64..50), 0..50),
        ) {
            let mut arrivals = Arrivals::since(before);
            let mut in_flight = before;
            for (arrive, finish, abort) in steps {
                in_flight += arrive;
                let finish = finish.min(in_flight);
                let abort = abort.min(in_flight - finish);
                in_flight -= finish + abort;
                prop_assert_eq!(arrivals.observe(ended(finish + abort, finish), in_flight), arrive);
            }
        }
    }
}
