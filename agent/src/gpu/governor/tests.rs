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
    /// Of every question whether it was an essential value that had grown ten seconds old.
    overdue: Vec<bool>,
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
            overdue: Vec::new(),
        }
    }

    fn tick(&mut self, cost: impl Fn(&Job) -> Duration) {
        let tick = self.now;
        self.governor.begin(&self.gpus, self.now);
        while let Some(job) = self.governor.next(self.now) {
            let old = |at: Instant| at + ESSENTIAL <= tick + self.interval / 2;
            let essential = matches!(job.ask, Ask::Metric(metric) if metric.is_essential());
            self.overdue.push(essential && self.governor.tasks[&job].asked.is_some_and(old));
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

    /// The most time in calls in any window of this length that ends with a call after `from`.
    fn busiest(&self, window: Duration, from: Instant) -> Duration {
        let spent = |end: Instant| {
            let within = self.asked.iter().filter(|(at, ..)| *at <= end && *at + window > end);
            within.map(|(_, took, _)| *took).sum()
        };
        self.asked.iter().filter(|(at, ..)| *at > from).map(|(at, ..)| spent(*at)).max().unwrap_or_default()
    }

    /// The same without the essential values that had grown ten seconds old, which no budget holds back.
    fn busiest_by_budget(&self, window: Duration, from: Instant) -> Duration {
        let all =
            self.asked.iter().zip(&self.overdue).filter(|(_, overdue)| !**overdue).map(|(asked, _)| asked);
        let by_budget: Vec<_> = all.cloned().collect();
        let spent = |end: Instant| {
            let within = by_budget.iter().filter(|(at, ..)| *at <= end && *at + window > end);
            within.map(|(_, took, _)| *took).sum()
        };
        by_budget.iter().filter(|(at, ..)| *at > from).map(|(at, ..)| spent(*at)).max().unwrap_or_default()
    }

    /// The longest time between two answers to the same question, from `from` on.
    fn longest_gap(&self, from: Instant, wanted: impl Fn(Metric) -> bool) -> Duration {
        let mut longest = Duration::ZERO;
        for gpu in &self.gpus {
            for metric in Metric::ALL.iter().filter(|metric| wanted(**metric)) {
                let job = Job { ask: Ask::Metric(*metric), gpu: gpu.clone() };
                let mut last = from;
                let times = self.asked.iter().filter(|(at, _, asked)| *at > from && *asked == job);
                for at in times.map(|(at, ..)| *at).chain([self.now]) {
                    longest = longest.max(at - last);
                    last = at;
                }
            }
        }
        longest
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
    assert_eq!((state.reason, state.too_dear.len()), (None, 0));
    for metric in Metric::ALL {
        let asked = world.count(*metric) / 8;
        let expected = match metric.tier() {
            Tier::Fast => 119..=121,
            // One process query a tick for eight GPUs and two kinds: every 16 s.
            Tier::Slow if metric.lists_processes() => 7..=9,
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
    assert_eq!(world.governor.state(world.now).too_dear, ["compute_processes"]);
    assert!(world.busiest(SECOND, world.asked[0].0 + WINDOW) <= PEAK);
    assert!(world.longest_gap(world.asked[0].0, Metric::is_essential) <= 3 * TICK);
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
    assert!(state.too_dear.is_empty());
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Invariant: once every question has been asked, calls take at most 10 ms in any second and 5 ms a second over ten,
    /// whatever each kind of call costs (up to 2.5 ms), but for essential values that had grown ten seconds old; these add
    /// at most what one round of them takes, and none is ever older than ten seconds and a few ticks.
    #[test]
    fn the_budget_holds_and_nothing_essential_starves(
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
        // The first time of a question is outside the budget: nobody knows what it costs.
        let unasked = |world: &World| Metric::ALL.iter().any(|metric| world.count(*metric) == 0);
        for _ in 0..20 {
            world.run(60, cost);
            if !unasked(&world) {
                break;
            }
        }
        // A premise, not yet a promise: where the essential values alone take most of the budget, a rare question can wait
        // for longer than this.
        prop_assume!(!unasked(&world));
        world.run(60, cost);
        let from = world.now;
        world.run(120, cost);
        let essential: u64 = Metric::ALL
            .iter()
            .filter(|metric| metric.is_essential())
            .map(|metric| costs[*metric as usize] * gpus as u64)
            .sum();
        let oldest = world.longest_gap(from, Metric::is_essential);
        prop_assert!(oldest <= ESSENTIAL + 3 * TICK, "{oldest:?}");
        // The minimum itself costs this much in ten seconds.
        if micros(essential) <= AVERAGE * 5 {
            let busiest = |window| (world.busiest_by_budget(window, from), world.busiest(window, from));
            let ((second, second_all), (window, window_all)) = (busiest(SECOND), busiest(WINDOW));
            prop_assert!(second <= PEAK, "{second:?} in a second");
            prop_assert!(window <= AVERAGE * 10, "{window:?} in ten seconds");
            let round = micros(essential);
            prop_assert!(second_all <= PEAK + round, "{second_all:?} in a second with overdue values");
            prop_assert!(window_all <= AVERAGE * 10 + round, "{window_all:?} in ten seconds with overdue values");
        }
    }
}
