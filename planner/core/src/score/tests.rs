use plimsoll_common::units::Ratio;
use proptest::prelude::*;

use super::*;

const S: u64 = 1_000_000;

fn request(arrival_s: u64, ttft_ms: u64, itl_ms: u64) -> RequestTimes {
    let arrival = Micros(arrival_s * S);
    let first = arrival.saturating_add(Micros::from_millis(ttft_ms));
    RequestTimes {
        arrival,
        first_token: Some(first),
        last_token: Some(first.saturating_add(Micros::from_millis(itl_ms * 10))),
        output_tokens: 11,
    }
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} is not {b}");
}

#[test]
fn attainment_is_counted_by_request_and_by_minute_of_arrival() {
    let mut scorer = Scorer::new(Slo::of_millis(1_000, 30));
    for second in 0..600 {
        // Minutes 2, 3 and 7 are slow.
        let slow = [2, 3, 7].contains(&(second / 60));
        scorer.request(&request(second, if slow { 1_500 } else { 500 }, 20));
    }
    scorer.request(&RequestTimes { last_token: None, ..request(599, 10, 10) });
    let score = scorer.finish(Micros(600 * S));
    assert_eq!((score.requests, score.finished), (601, 600));
    let attained = score.attained.unwrap();
    close(attained.low().get(), 420.0 / 601.0);
    close(attained.width(), 0.0);
    close(score.goodput_rps, 0.7);
    let violations = score.violations;
    // The unfinished one makes the last minute miss too: 60 of 61 are below 99 %.
    assert_eq!((violations.minutes, violations.certain, violations.possible), (10, 4, 4));
    assert_eq!((violations.episodes, violations.longest), (3, Micros(120 * S)));
    assert_eq!(violations.mean, Some(Micros(80 * S)));
    assert!(!score.kept());
}

#[test]
fn marginals_give_an_interval_that_holds_the_truth() {
    let slo = Slo::of_millis(1_000, 30);
    let share = |ppm| Some(AttainmentInterval::exactly(Ratio::from_ppm(ppm)));
    let mut scorer = Scorer::new(slo);
    scorer.marginals(&Marginals {
        at: Micros(0),
        finished: 90,
        lost: 10,
        ttft: share(900_000),
        itl: share(800_000),
    });
    let attained = scorer.finish(Micros(60 * S)).attained.unwrap();
    close(attained.low().get(), 0.7 * 0.9);
    close(attained.high().get(), 0.8 * 0.9);
    let mut scorer = Scorer::new(Slo { itl: None, ..slo });
    scorer.marginals(&Marginals { at: Micros(0), finished: 100, lost: 0, ttft: share(900_000), itl: None });
    close(scorer.finish(Micros(60 * S)).attained.unwrap().width(), 0.0);
    let mut scorer = Scorer::new(slo);
    scorer.marginals(&Marginals { at: Micros(0), finished: 100, lost: 0, ttft: share(900_000), itl: None });
    let score = scorer.finish(Micros(60 * S));
    let attained = score.attained.unwrap();
    close(attained.low().get(), 0.0);
    close(attained.high().get(), 0.9);
    assert_eq!((score.violations.certain, score.violations.possible), (1, 1));
}

#[test]
fn start_up_and_drain_are_billed() {
    let mut scorer = Scorer::new(Slo::of_millis(1, 1));
    let replica = ReplicaTimes {
        pool: 0,
        gpus: 2,
        requested: Micros(0),
        ready: Some(Micros(600 * S)),
        draining: Some(Micros(1_800 * S)),
        gone: Some(Micros(2_400 * S)),
    };
    scorer.replica(replica);
    // A start that failed, and one that is still there.
    scorer.replica(ReplicaTimes { ready: None, draining: None, gone: Some(Micros(1_800 * S)), ..replica });
    scorer.replica(ReplicaTimes {
        requested: Micros(3_000 * S),
        ready: None,
        draining: None,
        gone: None,
        ..replica
    });
    let hours = scorer.finish(Micros(3_600 * S)).gpu_hours;
    close(hours.total, 2.0 * (2_400.0 + 1_800.0 + 600.0) / 3_600.0);
    close(hours.starting, 2.0 * (600.0 + 1_800.0 + 600.0) / 3_600.0);
    close(hours.draining, 2.0 * 600.0 / 3_600.0);
}

#[test]
fn a_reversal_is_an_opposite_move_within_ten_minutes_in_its_pool() {
    let mut scorer = Scorer::new(Slo::of_millis(1, 1));
    for (pool, at, from, to) in [
        (0, 0, 1, 4),
        (1, 100, 5, 3),
        (0, 300, 4, 2), // reversal
        (0, 400, 2, 1),
        (0, 500, 1, 1),   // nothing
        (1, 650, 3, 4),   // reversal
        (0, 1_001, 1, 2), // 601 s later
    ] {
        scorer.action(pool, Micros(at * S), from, to);
    }
    let score = scorer.finish(Micros(1_800 * S));
    assert_eq!((score.actions, score.actions_up, score.reversals), (6, 3, 2));
    close(score.reversals_per_hour, 4.0);
}

#[test]
fn need_is_compared_with_what_is_ready() {
    let mut scorer = Scorer::new(Slo::of_millis(1, 1));
    scorer.need(3, Micros(0), 1);
    scorer.need(3, Micros(1_800 * S), 3);
    for (ready, draining) in [(0, None), (0, Some(900)), (2_700, None)] {
        scorer.replica(ReplicaTimes {
            pool: 3,
            gpus: 4,
            requested: Micros(0),
            ready: Some(Micros(ready * S)),
            draining: draining.map(|at| Micros(at * S)),
            gone: None,
        });
    }
    // One too many for 900 s; two too few for 900 s, then one for 900 s.
    let provision = scorer.finish(Micros(3_600 * S)).provision.unwrap();
    close(provision.over, 4.0 * 0.25);
    close(provision.under, 4.0 * (2.0 * 0.25 + 0.25));
    assert_eq!(Scorer::new(Slo::of_millis(1, 1)).finish(Micros(5)).provision, None);
}

proptest! {
    /// Whatever the requests were, the marginals of each minute allow the share that truly attained.
    #[test]
    fn marginals_never_exclude_the_truth(
        requests in prop::collection::vec((0..300_u64, 0..2_000_u64, 0..60_u64), 1..200),
    ) {
        let slo = Slo::of_millis(1_000, 30);
        let (mut exact, mut live) = (Scorer::new(slo), Scorer::new(slo));
        let mut minutes: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
        for (at, ttft, itl) in requests {
            exact.request(&request(at, ttft, itl));
            let minute = minutes.entry(at / 60).or_default();
            minute.0 += 1;
            minute.1 += u64::from(ttft <= 1_000);
            minute.2 += u64::from(itl <= 30);
        }
        for (minute, (n, ttft, itl)) in minutes {
            let share = |met| AttainmentInterval::of_counts(met, met, n);
            let at = Micros(minute * 60 * S);
            live.marginals(&Marginals { at, finished: n, lost: 0, ttft: share(ttft), itl: share(itl) });
        }
        let truth = exact.finish(Micros(300 * S)).attained.unwrap().low().get();
        let interval = live.finish(Micros(300 * S)).attained.unwrap();
        prop_assert!(interval.low().get() <= truth + 1e-9 && truth <= interval.high().get() + 1e-9);
    }
}
