//! The budget of driver calls, and how it is kept. Pure.
//!
//! Calls into NVML serialise with the work of the engines, so the time in them is what telemetry costs. Each kind of
//! question has a running estimate of its cost. From the estimates follows what all cadences together would cost a second;
//! where that is more than the budget, the cadences are stretched, the less frequent ones first. A question that is due
//! and does not fit into what is left of the second waits for a later tick. So the budget holds however slow calls become,
//! but for a question's first time, whose cost nobody knows, and for the essential values, which are asked at least every
//! ten seconds whatever they cost: who wants not even that switches the source off.

mod estimate;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use plimsoll_common::ids::GpuUuid;
use tokio::time::Instant;

use self::estimate::Estimate;
use super::{
    plan::{Fact, Metric, Tier},
    schedule::share,
};

/// The most time in driver calls a second, averaged over [`WINDOW`].
const AVERAGE: Duration = Duration::from_millis(5);
/// The most time in driver calls in any one second.
const PEAK: Duration = Duration::from_millis(10);
/// Over which the average is taken.
const WINDOW: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);
/// A second with less than this in driver calls counts as one without.
const IDLE: Duration = Duration::from_micros(500);
/// The part of the average that cadences are planned to use; the rest is for enumerations and surprises.
const PLANNED: f64 = 0.8;
/// How often essential values are asked at least.
const ESSENTIAL: Duration = Duration::from_secs(10);
/// How often a question is asked whose cost alone is over half of [`PEAK`].
const TOO_DEAR: Duration = Duration::from_mins(10);
/// How far slow and rare cadences are stretched before the fast one is.
const FIRST_STRETCH: f64 = 6.0;
/// No cadence is stretched further.
const LONGEST_STRETCH: f64 = 60.0;

/// A question to one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Ask {
    /// What changes.
    Metric(Metric),
    /// What does not.
    Fact(Fact),
}

/// What is to be asked of whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Job {
    pub(super) ask: Ask,
    pub(super) gpu: GpuUuid,
}

/// What becomes of a question after it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// It is asked again at its cadence.
    Repeat,
    /// It is asked again at once: there is more to tell.
    More,
    /// It is not asked again.
    Never,
}

/// How the budget of driver calls is kept, at one tick.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GovernorState {
    /// The most time in driver calls a second, averaged over ten.
    pub budget_average: Duration,
    /// The most time in driver calls in any one second.
    pub budget_peak: Duration,
    /// Time in driver calls in the last second.
    pub busy_last_second: Duration,
    /// Time in driver calls in the last ten seconds.
    pub busy_last_ten_seconds: Duration,
    /// The tiers, the most frequent first.
    pub tiers: Vec<TierState>,
    /// How often something that was due had to wait for a later tick, since the agent started.
    pub deferred: u64,
    /// Groups of values whose calls alone would break the budget: they are asked every ten minutes at most.
    pub too_dear: Vec<&'static str>,
    /// Why cadences are stretched; absent while none is.
    pub reason: Option<String>,
}

/// How often one tier is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TierState {
    /// Which one.
    pub tier: Tier,
    /// As configured.
    pub nominal: Duration,
    /// As it is: the nominal cadence times the stretch.
    pub effective: Duration,
    /// 1 while nothing is stretched.
    pub stretch: f64,
}

/// Decides what is asked when.
#[derive(Debug)]
pub(super) struct Governor {
    interval: Duration,
    tasks: BTreeMap<Job, Task>,
    gpus: BTreeSet<GpuUuid>,
    costs: BTreeMap<Ask, Estimate>,
    /// When driver calls ended and how long they took, of the last [`WINDOW`].
    spent: VecDeque<(Instant, Duration)>,
    stretch: [f64; Tier::ALL.len()],
    /// What is due in this tick, the most urgent last.
    queue: Vec<(Urgency, Instant, Job)>,
    tick: Option<Instant>,
    listed_processes: Option<Instant>,
    deferred: u64,
}

#[derive(Debug, Clone, Copy)]
struct Task {
    due: Instant,
    /// When it was asked last.
    asked: Option<Instant>,
    never: bool,
}

/// In which order what is due is asked; the order of the variants is the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// An essential value that is ten seconds old: asked whatever is left of the budget.
    Overdue,
    /// Too dear to fit beside others: it gets a second of its own.
    Dear,
    Essential,
    Fast,
    Slow,
    Rare,
    Fact,
}

impl Governor {
    /// Nothing is known yet. `interval` is the time between two ticks.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            tasks: BTreeMap::new(),
            gpus: BTreeSet::new(),
            costs: BTreeMap::new(),
            spent: VecDeque::new(),
            stretch: [1.0; Tier::ALL.len()],
            queue: Vec::new(),
            tick: None,
            listed_processes: None,
            deferred: 0,
        }
    }

    /// Begins a tick in which these GPUs are asked.
    pub(super) fn begin(&mut self, gpus: &BTreeSet<GpuUuid>, now: Instant) {
        if *gpus != self.gpus {
            self.tasks.retain(|job, _| gpus.contains(&job.gpu));
            for gpu in gpus.difference(&self.gpus.clone()) {
                self.add(gpu, now);
            }
            self.gpus.clone_from(gpus);
        }
        while self.spent.front().is_some_and(|(at, _)| *at + WINDOW <= now) {
            self.spent.pop_front();
        }
        self.tick = Some(now);
        self.plan_stretch();
        let mut queue: Vec<_> = self
            .tasks
            .iter()
            .filter(|(_, task)| !task.never && task.due <= now)
            .map(|(job, task)| (self.urgency(job.ask, task, now), task.due, job.clone()))
            .collect();
        queue.sort_unstable_by(|a, b| b.cmp(a));
        self.queue = queue;
    }

    /// The next question of this tick; `None` when nothing more is due, or nothing that fits into the budget.
    pub(super) fn next(&mut self, now: Instant) -> Option<Job> {
        while let Some((urgency, _, job)) = self.queue.pop() {
            if let Ask::Metric(metric) = job.ask
                && metric.lists_processes()
            {
                // One a tick, and where ticks are closer than a second, one a second.
                let pause = self.interval.max(SECOND) - self.interval / 2;
                if self.listed_processes.is_some_and(|at| now < at + pause) {
                    continue;
                }
                self.listed_processes = self.tick;
            }
            let cost = self.predict(job.ask);
            let (second, window) = (self.spent_since(now, SECOND), self.spent_since(now, WINDOW));
            let fits = match urgency {
                Urgency::Overdue => true,
                // It gets a second in which nothing else is asked; what every tick spends on events does not count.
                Urgency::Dear => second <= IDLE && (cost > AVERAGE * 5 || window + cost <= AVERAGE * 10),
                _ => second + cost <= PEAK && window + cost <= AVERAGE * 10,
            };
            if fits {
                return Some(job);
            }
            self.deferred += 1;
            if urgency == Urgency::Dear {
                self.queue.clear();
            }
        }
        None
    }

    /// A question was asked, and took this long.
    pub(super) fn done(&mut self, job: &Job, now: Instant, took: Duration, then: Then) {
        self.costs.entry(job.ask).or_default().add(took);
        self.spend(now, took);
        let (cadence, first) = (self.cadence(job.ask), self.tick.unwrap_or(now));
        let seed = super::GpuOptions::seed_of(job.gpu.as_str()) ^ seed_of(job.ask);
        let Some(task) = self.tasks.get_mut(job) else { return };
        // Rounded to the grid of ticks.
        let half = self.interval / 2;
        task.due = match (then, task.asked) {
            (Then::More, _) => {
                self.queue.push((Urgency::Fact, now, job.clone()));
                now
            }
            // The second time comes early, by a share that differs between questions, so that they do not stay together.
            (_, None) if cadence > self.interval => first + cadence - share(cadence, seed),
            _ => first + cadence - half,
        };
        task.asked = Some(first);
        task.never = then == Then::Never;
    }

    /// Driver calls beside the questions took this long.
    pub(super) fn spend(&mut self, now: Instant, took: Duration) {
        if !took.is_zero() {
            self.spent.push_back((now, took));
        }
    }

    /// Asks a question in the next tick.
    pub(super) fn hurry(&mut self, gpu: &GpuUuid, ask: Ask, now: Instant) {
        if let Some(task) = self.tasks.get_mut(&Job { ask, gpu: gpu.clone() }) {
            task.due = now;
        }
    }

    /// Forgets what was learned of a GPU: everything is asked of it anew.
    pub(super) fn restart(&mut self, gpu: &GpuUuid) {
        self.tasks.retain(|job, _| job.gpu != *gpu);
        self.gpus.remove(gpu);
    }

    /// Forgets all GPUs and what was spent, but not what questions cost: the driver was given up.
    pub(super) fn disconnect(&mut self) {
        self.tasks.clear();
        self.gpus.clear();
        self.spent.clear();
        self.queue.clear();
    }

    /// How long the values of a metric are believed: until the question failed to be asked three times.
    pub(super) fn lifetime(&self, metric: Metric) -> Duration {
        self.cadence(Ask::Metric(metric)) * 3 + Duration::from_secs(2)
    }

    /// What the pages show.
    pub(super) fn state(&self, now: Instant) -> GovernorState {
        let tiers: Vec<TierState> = Tier::ALL
            .into_iter()
            .map(|tier| {
                let (nominal, stretch) = (self.nominal(tier), self.stretch[tier as usize]);
                TierState { tier, nominal, effective: nominal.mul_f64(stretch), stretch }
            })
            .collect();
        let too_dear: BTreeSet<Metric> = self
            .costs
            .keys()
            .filter(|ask| self.is_too_dear(**ask))
            .filter_map(|ask| if let Ask::Metric(metric) = ask { Some(*metric) } else { None })
            .collect();
        let stretched = tiers.iter().any(|tier| tier.stretch > 1.0);
        let reason = stretched.then(|| {
            let wanted = self.demand(Tier::Fast) + self.demand(Tier::Slow) + self.demand(Tier::Rare);
            let all = too_dear.is_empty();
            format!(
                "the driver is slow: at their cadences the calls would take {:.1} ms a second{}, and {} are planned",
                wanted * 1e3,
                if all { "" } else { " without those that are too dear" },
                format_args!("{:.1}", AVERAGE.as_secs_f64() * PLANNED * 1e3)
            )
        });
        GovernorState {
            budget_average: AVERAGE,
            budget_peak: PEAK,
            busy_last_second: self.spent_since(now, SECOND),
            busy_last_ten_seconds: self.spent_since(now, WINDOW),
            tiers,
            deferred: self.deferred,
            too_dear: too_dear.into_iter().map(Metric::as_str).collect(),
            reason,
        }
    }

    fn add(&mut self, gpu: &GpuUuid, now: Instant) {
        let metrics = Metric::ALL.iter().map(|metric| Ask::Metric(*metric));
        let facts = Fact::LATER.iter().map(|fact| Ask::Fact(*fact));
        for ask in metrics.chain(facts) {
            self.tasks.insert(Job { ask, gpu: gpu.clone() }, Task { due: now, asked: None, never: false });
        }
    }

    fn urgency(&self, ask: Ask, task: &Task, now: Instant) -> Urgency {
        let Ask::Metric(metric) = ask else {
            return if self.is_too_dear(ask) { Urgency::Dear } else { Urgency::Fact };
        };
        let is_old = task.asked.is_some_and(|at| at + ESSENTIAL <= now + self.interval / 2);
        match metric.tier() {
            Tier::Fast if metric.is_essential() && is_old => Urgency::Overdue,
            _ if self.is_too_dear(ask) => Urgency::Dear,
            Tier::Fast if metric.is_essential() => Urgency::Essential,
            Tier::Fast => Urgency::Fast,
            Tier::Slow => Urgency::Slow,
            Tier::Rare => Urgency::Rare,
        }
    }

    /// What a question may take. One that is not too dear on average fits beside others: a single slow call raises the
    /// upper estimate beyond any second, and only asking again can lower it.
    fn predict(&self, ask: Ask) -> Duration {
        let upper = self.costs.get(&ask).map_or(Estimate::UNKNOWN, Estimate::upper);
        if self.is_too_dear(ask) { upper } else { upper.min(PEAK / 2) }
    }

    fn is_too_dear(&self, ask: Ask) -> bool {
        let essential = matches!(ask, Ask::Metric(metric) if metric.is_essential());
        !essential && self.costs.get(&ask).is_some_and(|cost| cost.mean() > PEAK / 2)
    }

    /// Whether an estimate is more than one slow call.
    fn is_proven(&self, ask: Ask) -> bool {
        self.costs.get(&ask).is_some_and(|cost| cost.samples() >= 3)
    }

    fn spent_since(&self, now: Instant, window: Duration) -> Duration {
        self.spent.iter().rev().take_while(|(at, _)| *at + window > now).map(|(_, took)| *took).sum()
    }

    fn nominal(&self, tier: Tier) -> Duration {
        match tier {
            Tier::Fast => self.interval,
            Tier::Slow => Duration::from_secs(10).max(self.interval),
            Tier::Rare => Duration::from_secs(60).max(self.interval),
        }
    }

    fn cadence(&self, ask: Ask) -> Duration {
        match ask {
            Ask::Metric(_) if self.is_too_dear(ask) && self.is_proven(ask) => TOO_DEAR,
            Ask::Metric(metric) => {
                let tier = metric.tier();
                self.nominal(tier).mul_f64(self.stretch[tier as usize])
            }
            // A fact is asked once; where it was refused, it is asked again after a while.
            Ask::Fact(_) => TOO_DEAR,
        }
    }

    /// What the questions of a tier would cost at their nominal cadence, seconds a second.
    fn demand(&self, tier: Tier) -> f64 {
        let cost = self.tasks.iter().filter(|(_, task)| !task.never).filter_map(|(job, _)| match job.ask {
            Ask::Metric(metric) if metric.tier() == tier && !self.is_too_dear(job.ask) => {
                Some(self.costs.get(&job.ask)?.mean().as_secs_f64())
            }
            _ => None,
        });
        cost.sum::<f64>() / self.nominal(tier).as_secs_f64()
    }

    /// Stretches cadences so that what they cost fits: slow and rare ones up to [`FIRST_STRETCH`], then the fast one, then
    /// slow and rare ones further.
    fn plan_stretch(&mut self) {
        let budget = AVERAGE.as_secs_f64() * PLANNED;
        let fast = self.demand(Tier::Fast);
        let others = self.demand(Tier::Slow) + self.demand(Tier::Rare);
        // They are due before they are overdue, so that they still go by the budget.
        let longest_fast = (ESSENTIAL.as_secs_f64() * 0.8 / self.interval.as_secs_f64()).max(1.0);
        let (fast_stretch, other_stretch) = if fast + others <= budget {
            (1.0, 1.0)
        } else if fast + others / FIRST_STRETCH <= budget {
            (1.0, others / (budget - fast))
        } else {
            let left = (budget - others / FIRST_STRETCH).max(budget / 2.0);
            let fast_stretch = (fast / left).clamp(1.0, longest_fast);
            let left = budget - fast / fast_stretch;
            let other_stretch = if left > 0.0 { others / left } else { LONGEST_STRETCH };
            (fast_stretch, other_stretch.clamp(FIRST_STRETCH, LONGEST_STRETCH))
        };
        self.stretch = [fast_stretch, other_stretch, other_stretch];
    }
}

const fn seed_of(ask: Ask) -> u64 {
    match ask {
        Ask::Metric(metric) => metric as u64,
        Ask::Fact(fact) => 1000 + fact as u64,
    }
}

#[cfg(test)]
mod tests;
