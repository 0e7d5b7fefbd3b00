use proptest::prelude::*;

use super::*;

const TICK: Duration = Duration::from_secs(1);

fn uuids(count: usize) -> BTreeSet<GpuUuid> {
    (0..count).map(|at| GpuUuid::parse(&format!("GPU-{at}")).unwrap()).collect()
}

/// A driver whose calls take what the test says, in virtual time.
struct World {
    governor: Governor,
    now: Instant,
    interval: Duration,
    gpus: BTreeSet<GpuUuid>,
    /// Every question: when it was answered, and how long it took.
    asked: Vec<(Instant, Duration, Job)>,
    /// Of every question whether the budget did not hold it back: it was an essential value that had grown ten seconds old,
    /// or had waited too long.
    exempt: Vec<bool>,
}

impl World {
    fn new(gpus: usize, interval: Duration) -> Self {
        let now = Instant::now();
        Self {
            governor: Governor::new(interval),
            now,
            interval,
            gpus: uuids(gpus),
            asked: Vec::new(),
            exempt: Vec::new(),
        }
    }

    fn tick(&mut self, cost: impl Fn(&Job) -> Duration) {
        let tick = self.now;
        self.governor.begin(&self.gpus, self.now);
        loop {
            let forced = self.governor.forced.1;
            let Some(job) = self.governor.next(self.now) else { break };
            let task = self.governor.tasks[&job];
            let essential = matches!(job.ask, Ask::Metric(metric) if metric.is_essential());
            let overdue = essential && task.since + ESSENTIAL <= tick + self.interval / 2;
            self.exempt.push(overdue || self.governor.forced.1 > forced);
            let took = cost(&job);
            self.now += took;
            self.asked.push((self.now, took, job.clone()));
            let then = if matches!(job.ask, Ask::Fact(_)) { Then::Never } else { Then::Repeat };
            self.governor.done(&job, self.now, took, then);
        }
        self.now = (tick + self.interval).max(self.now);
    }

    fn run(&mut self, seconds: u64, cost: impl Fn(&Job) -> Duration) {
        let until = self.now + Duration::from_secs(seconds);
        while self.now < until {
            self.tick(&cost);
        }
    }

    /// The most time in calls in any window of this length that ends with a call after `from`, of all questions or of
    /// those that the budget holds back.
    fn busiest(&self, window: Duration, from: Instant, by_budget: bool) -> Duration {
        let counted = self.asked.iter().zip(&self.exempt).filter(|(_, exempt)| !by_budget || !**exempt);
        let (mut within, mut spent, mut most) = (VecDeque::new(), Duration::ZERO, Duration::ZERO);
        for ((at, took, _), _) in counted {
            within.push_back((*at, *took));
            spent += *took;
            while within.front().is_some_and(|(first, _)| *first + window <= *at) {
                spent -= within.pop_front().unwrap().1;
            }
            if *at > from {
                most = most.max(spent);
            }
        }
        most
    }

    /// The longest time between two answers to the same question, from `from` on; until the first answer and after the
    /// last count as well.
    fn longest_gap(&self, from: Instant, wanted: impl Fn(Metric) -> bool) -> Duration {
        let asks = Metric::ALL.iter().filter(|metric| wanted(**metric)).map(|metric| Ask::Metric(*metric));
        let jobs = asks.flat_map(|ask| self.gpus.iter().map(move |gpu| Job { ask, gpu: gpu.clone() }));
        let mut last: BTreeMap<Job, Instant> = jobs.map(|job| (job, from)).collect();
        let mut longest = Duration::ZERO;
        for (at, _, job) in self.asked.iter().filter(|(at, ..)| *at > from) {
            if let Some(last) = last.get_mut(job) {
                longest = longest.max(*at - *last);
                *last = *at;
            }
        }
        last.values().map(|last| self.now - *last).fold(longest, Duration::max)
    }

    fn count(&self, metric: Metric) -> usize {
        self.asked.iter().filter(|(.., job)| job.ask == Ask::Metric(metric)).count()
    }
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

#[test]
fn a_fast_driver_is_asked_everything_at_its_cadence() {
    let mut world = World::new(8, TICK);
    world.run(120, |_| micros(10));
    let state = world.governor.state(world.now);
    assert!(state.tiers.iter().all(|tier| tier.effective == tier.nominal), "{state:?}");
    assert_eq!((state.reason, state.dear, state.forced), (None, Vec::new(), 0));
    for metric in Metric::ALL {
        let asked = world.count(*metric) / 8;
        let expected = match metric.tier() {
            Tier::Fast => 119..=121,
            Tier::Slow => 12..=14,
            Tier::Rare => 2..=4,
        };
        assert!(expected.contains(&asked), "{}: {asked}", metric.as_str());
    }
}

#[test]
fn slow_tiers_are_spread_over_the_ticks() {
    let mut world = World::new(8, TICK);
    world.run(60, |_| micros(10));
    let from = world.asked.len();
    world.run(60, |_| micros(10));
    let mut ticks: BTreeMap<u64, usize> = BTreeMap::new();
    let start = world.asked[from].0;
    for (at, ..) in &world.asked[from..] {
        *ticks.entry((*at - start).as_secs()).or_insert(0) += 1;
    }
    let busiest = ticks.values().max().copied().unwrap();
    let mean = (world.asked.len() - from) / 60;
    assert!(busiest <= mean * 3 / 2, "a mean of {mean} and {busiest} in the busiest tick");
}

#[test]
fn one_process_query_a_tick_whatever_the_interval() {
    for interval in [Duration::from_millis(100), TICK] {
        let mut world = World::new(4, interval);
        world.run(60, |_| micros(5));
        let mut lists = world
            .asked
            .iter()
            .filter(|(.., job)| matches!(job.ask, Ask::Metric(metric) if metric.lists_processes()));
        let mut last = lists.next().unwrap().0;
        for (at, ..) in lists {
            assert!(*at - last > TICK / 2 - Duration::from_millis(60), "{:?} at {interval:?}", *at - last);
            last = *at;
        }
    }
}

#[test]
fn a_slow_driver_stretches_cadences_and_a_fast_one_lets_them_recover() {
    let mut world = World::new(8, TICK);
    world.run(30, |_| micros(20));
    world.run(120, |_| micros(800));
    let state = world.governor.state(world.now);
    assert!(state.tiers.iter().any(|tier| tier.stretch > 1.5), "{state:?}");
    assert!(state.reason.unwrap().contains("ms a second"));
    world.run(240, |_| micros(20));
    let state = world.governor.state(world.now);
    assert!(state.tiers.iter().all(|tier| tier.effective == tier.nominal), "{state:?}");
    assert_eq!(state.reason, None);
}

#[test]
fn a_question_that_is_too_dear_is_asked_seldom_and_alone() {
    let mut world = World::new(1, TICK);
    let cost = |job: &Job| match job.ask {
        Ask::Metric(Metric::ComputeProcesses) => micros(8_000),
        _ => micros(30),
    };
    world.run(1300, cost);
    let asked = world.count(Metric::ComputeProcesses);
    assert!((3..=6).contains(&asked), "{asked}");
    let dear = DearQuestion {
        group: "compute_processes",
        typical: micros(8_000),
        interval: Duration::from_mins(10),
        over_budget: false,
    };
    assert_eq!(world.governor.state(world.now).dear, [dear]);
    assert!(world.busiest(SECOND, world.asked[0].0 + WINDOW, false) <= PEAK);
    assert!(world.longest_gap(world.asked[0].0, Metric::is_essential) <= 3 * TICK);
}

#[test]
fn a_question_that_costs_more_than_a_second_may_is_asked_once_an_hour() {
    let mut world = World::new(1, TICK);
    let cost = |job: &Job| match job.ask {
        Ask::Metric(Metric::Ecc) => micros(30_000),
        _ => micros(30),
    };
    world.run(3 * 3600, cost);
    let asked = world.count(Metric::Ecc);
    // Three times to learn what it costs, then once an hour.
    assert!((5..=7).contains(&asked), "{asked}");
    let state = world.governor.state(world.now);
    assert_eq!(state.dear.len(), 1, "{state:?}");
    assert!(state.dear[0].over_budget && state.dear[0].interval == Duration::from_hours(1), "{state:?}");
    assert_eq!(state.forced, 0, "there were seconds of its own");
    // Nothing else was asked in its seconds.
    let ends = world.asked.iter().filter(|(.., job)| job.ask == Ask::Metric(Metric::Ecc)).map(|(at, ..)| *at);
    for end in ends.skip(3) {
        let others = world
            .asked
            .iter()
            .filter(|(at, _, job)| *at + SECOND > end && *at <= end && job.ask != Ask::Metric(Metric::Ecc));
        assert_eq!(others.count(), 0);
    }
}

#[test]
fn a_heavy_question_is_asked_six_times_as_seldom() {
    let mut world = World::new(8, TICK);
    let cost = |job: &Job| match job.ask {
        Ask::Metric(metric) if metric.lists_processes() => micros(4_491),
        _ => micros(30),
    };
    world.run(300, cost);
    let before = world.asked.len();
    world.run(3600, cost);
    let asked =
        |metric| world.asked[before..].iter().filter(|(.., job)| job.ask == Ask::Metric(metric)).count();
    // Of the slow tier once a minute, of the rare one every six; the second time comes early.
    let (compute, graphics) = (asked(Metric::ComputeProcesses), asked(Metric::GraphicsProcesses));
    assert!((8 * 58..=8 * 62).contains(&compute), "{compute}");
    assert!((8 * 9..=8 * 13).contains(&graphics), "{graphics}");
    assert!(world.governor.state(world.now).tiers.iter().all(|tier| tier.stretch <= 1.0));
}

#[test]
fn a_question_that_is_too_dear_holds_nothing_up_where_every_tick_looks_for_events() {
    let mut world = World::new(2, TICK);
    for _ in 0..300 {
        let now = world.now;
        world.governor.spend(now, micros(7));
        world.tick(|job| match job.ask {
            Ask::Metric(Metric::ComputeProcesses) => micros(8_000),
            _ => micros(30),
        });
    }
    assert!(world.longest_gap(world.asked[0].0, Metric::is_essential) <= 3 * TICK);
    assert!(world.count(Metric::Temperature) > 40, "slow values are read on");
}

#[test]
fn a_slow_first_call_holds_nothing_up_where_every_tick_looks_for_events() {
    // Ticks so close that looking for events is never over: 10 × 120 µs a second.
    let mut world = World::new(8, Duration::from_millis(100));
    let first = std::cell::Cell::new(true);
    for _ in 0..300 {
        let now = world.now;
        world.governor.spend(now, micros(120));
        world.tick(|job| match job.ask {
            Ask::Metric(Metric::Clocks) if first.take() => micros(47_000),
            _ => micros(20),
        });
    }
    assert!(Metric::ALL.iter().all(|metric| world.count(*metric) >= 8), "all was asked of all within 30 s");
    assert_eq!(world.governor.state(world.now).forced, 0);
}

#[test]
fn one_slow_call_bans_nothing() {
    let mut world = World::new(8, TICK);
    world.run(20, |_| micros(10));
    world.tick(|job| match job.ask {
        Ask::Metric(Metric::Utilization) if job.gpu.as_str() == "GPU-3" => micros(40_000),
        _ => micros(10),
    });
    world.run(60, |_| micros(10));
    let state = world.governor.state(world.now);
    assert!(state.tiers.iter().all(|tier| tier.effective == tier.nominal), "{state:?}");
    assert!(state.dear.is_empty());
}

#[test]
fn a_fact_whose_first_call_was_slow_is_asked_again_of_the_other_gpus() {
    for slow in [8_000, 20_000, 60_000] {
        let mut world = World::new(8, TICK);
        let mut first = true;
        let cost = std::cell::RefCell::new(&mut first);
        world.run(90, |job| {
            let mut first = cost.borrow_mut();
            match job.ask {
                Ask::Fact(Fact::PciBusId) | Ask::Metric(_) => micros(10),
                Ask::Fact(_) if **first => {
                    **first = false;
                    micros(slow)
                }
                Ask::Fact(_) => micros(10),
            }
        });
        let facts = world.asked.iter().filter(|(.., job)| matches!(job.ask, Ask::Fact(_))).count();
        assert_eq!(facts, 8 * Fact::LATER.len(), "after a first call of {slow} µs");
    }
}

#[test]
fn a_gpu_that_left_is_not_asked_and_one_that_is_hurried_is() {
    let mut world = World::new(2, TICK);
    world.run(30, |_| micros(10));
    let gone = GpuUuid::parse("GPU-1").unwrap();
    world.gpus.remove(&gone);
    let from = world.asked.len();
    world.run(30, |_| micros(10));
    assert!(world.asked[from..].iter().all(|(.., job)| job.gpu != gone));
    let stays = GpuUuid::parse("GPU-0").unwrap();
    world.governor.hurry(&stays, Ask::Metric(Metric::RemappedRows), world.now);
    let from = world.asked.len();
    world.tick(|_| micros(10));
    assert!(world.asked[from..].iter().any(|(.., job)| job.ask == Ask::Metric(Metric::RemappedRows)));
}

#[test]
fn a_gpu_that_comes_to_a_slow_driver_soon_has_its_essential_values() {
    for cost in [4_000, 12_000] {
        let mut world = World::new(7, TICK);
        // 7 × 3 × 4 ms in ten seconds are more than the budget, and each of them is asked however little is left.
        let cost = |job: &Job| match job.ask {
            Ask::Metric(metric) if metric.is_essential() => micros(cost),
            _ => micros(30),
        };
        world.run(60, cost);
        world.gpus = uuids(8);
        let came = world.now;
        world.run(60, cost);
        let mut answers: BTreeMap<&Job, Instant> = BTreeMap::new();
        for (at, _, job) in world.asked.iter().filter(|(.., job)| job.gpu.as_str() == "GPU-7") {
            answers.entry(job).or_insert(*at);
        }
        for metric in Metric::ALL.iter().filter(|metric| metric.is_essential()) {
            let job = Job { ask: Ask::Metric(*metric), gpu: GpuUuid::parse("GPU-7").unwrap() };
            let first = answers.get(&job).map(|at| *at - came);
            assert!(first.is_some_and(|after| after <= ESSENTIAL + 3 * TICK), "{metric:?}: {first:?}");
        }
    }
}

/// What a question to one GPU may wait where there are so many of them, as the module promises.
fn patience(world: &World) -> Duration {
    let questions = world.gpus.len() * (Metric::ALL.len() + Fact::LATER.len());
    AGED + PATIENCE + WINDOW + world.interval.max(SECOND) * questions as u32
}

#[test]
fn where_essential_values_take_all_of_the_budget_nothing_starves() {
    let mut world = World::new(8, TICK);
    let from = world.now;
    // 8 × 3 × 4 ms in ten seconds are twice the budget.
    let cost = |job: &Job| match job.ask {
        Ask::Metric(metric) if metric.is_essential() => micros(4_000),
        _ => micros(2_000),
    };
    world.run(2 * 3600, cost);
    assert!(world.longest_gap(from, |_| true) <= patience(&world));
    let facts = world.asked.iter().filter(|(.., job)| matches!(job.ask, Ask::Fact(_))).count();
    assert_eq!(facts, 8 * Fact::LATER.len());
    let state = world.governor.state(world.now);
    assert!(state.forced > 0, "{state:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Invariants, whatever each kind of call costs (up to 2.5 ms):
    /// * every question is asked at least as often as the module promises, from the first moment on, and essential values
    ///   every ten seconds and a few ticks;
    /// * once every question has been asked, calls take at most 10 ms in any second and 5 ms a second over ten, but for
    ///   what is asked beyond the budget: a round of essential values that had grown ten seconds old, and one question a
    ///   second that had waited too long;
    /// * where essential values leave half of the budget, less than one question in a hundred is asked beyond it.
    #[test]
    fn the_budget_holds_and_nothing_starves(
        gpus in 1usize..9,
        costs in prop::collection::vec(1u64..2_500, Metric::ALL.len()),
        fast in prop::bool::ANY,
    ) {
        let interval = if fast { Duration::from_millis(200) } else { TICK };
        let mut world = World::new(gpus, interval);
        let cost = |job: &Job| match job.ask {
            Ask::Metric(metric) => micros(costs[metric as usize]),
            Ask::Fact(_) => micros(50),
        };
        let begin = world.now;
        world.run(patience(&world).as_secs(), cost);
        let from = world.now;
        world.run(patience(&world).as_secs() + 120, cost);

        let waited = world.longest_gap(begin, |_| true);
        prop_assert!(waited <= patience(&world), "{waited:?} of {:?}", patience(&world));
        let oldest = world.longest_gap(from, Metric::is_essential);
        prop_assert!(oldest <= ESSENTIAL + 3 * TICK, "{oldest:?}");

        let of_essentials =
            Metric::ALL.iter().filter(|metric| metric.is_essential()).map(|metric| costs[*metric as usize]);
        let round = micros(of_essentials.sum::<u64>() * gpus as u64);
        let dearest = micros(costs.iter().copied().max().unwrap_or(0));
        let busiest = |window| (world.busiest(window, from, true), world.busiest(window, from, false));
        let ((second, second_all), (window, window_all)) = (busiest(SECOND), busiest(WINDOW));
        prop_assert!(second <= PEAK, "{second:?} in a second");
        prop_assert!(window <= WINDOW_BUDGET, "{window:?} in ten seconds");
        // At ticks of a second, a window may hold two rounds that lie ten seconds apart but for a part of a tick.
        prop_assert!(second_all <= PEAK + round + 2 * dearest, "{second_all:?} in a second, all in all");
        let all = WINDOW_BUDGET + 2 * round + 11 * dearest;
        prop_assert!(window_all <= all, "{window_all:?} in ten seconds, all in all");
        if round <= WINDOW_BUDGET / 2 {
            let (forced, all) = (world.governor.forced.1, world.asked.len() as u64);
            prop_assert!(forced * 100 < all, "{forced} of {all}");
        }
    }
}
