//! The budget of driver calls, and how it is kept. Pure.
//!
//! Calls into NVML serialise with the work of the engines, so the time in them is what telemetry costs. Each kind of
//! question has a running estimate of its cost. From the estimates follows what all cadences together would cost a second;
//! where that is more than the budget, the cadences are stretched, the less frequent ones first. A question that is due
//! and does not fit into what is left of the second waits for a later tick. So the budget holds however slow calls become,
//! but for three things:
//! * a question's first three times, until which nobody knows what it costs;
//! * essential values, which are asked at least every ten seconds whatever they cost: who wants not even that switches
//!   the source off;
//! * a question that waited too long. None is put off for ever: once it has waited two minutes longer than it should, and
//!   ten at least, it goes before all but overdue essential values and nothing else is asked until there is room for it;
//!   where essential values leave no room within ten seconds, it is asked all the same, one such question a second. With
//!   `Q` questions in all, one whose calls fit into the budget is therefore asked at least every `12 min + 10 s + Q` ticks
//!   (of a second at least), and one whose calls do not, fifty minutes later.

mod cadence;
mod estimate;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use plimsoll_common::ids::GpuUuid;
use tokio::time::Instant;

use self::{
    cadence::{Price, Stretch},
    estimate::Estimate,
};
use super::{
    plan::{Fact, Metric, Tier},
    schedule::share,
};

pub use self::state::{DearQuestion, GovernorState, TierState};

/// The most time in driver calls a second, averaged over [`WINDOW`].
const AVERAGE: Duration = Duration::from_millis(5);
/// The most time in driver calls in any one second.
const PEAK: Duration = Duration::from_millis(10);
/// Over which the average is taken.
const WINDOW: Duration = Duration::from_secs(10);
/// The most time in driver calls in any [`WINDOW`].
const WINDOW_BUDGET: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);
/// How often essential values are asked at least.
const ESSENTIAL: Duration = Duration::from_secs(10);
/// How much longer than its cadence a question waits before it goes first.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long a question waits at least before it goes first.
const AGED: Duration = Duration::from_mins(10);

/// A question to one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Ask {
    /// What changes.
    Metric(Metric),
    /// What does not.
    Fact(Fact),
}

impl Ask {
    const COUNT: usize = Metric::ALL.len() + Fact::FIRST.len() + Fact::LATER.len();

    /// Its place among all questions.
    const fn place(self) -> usize {
        match self {
            Self::Metric(metric) => metric as usize,
            Self::Fact(fact) => Metric::ALL.len() + fact as usize,
        }
    }
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

/// Decides what is asked when.
#[derive(Debug)]
pub(super) struct Governor {
    interval: Duration,
    tasks: BTreeMap<Job, Task>,
    gpus: BTreeSet<GpuUuid>,
    /// What each question takes, at [`Ask::place`].
    costs: Vec<Estimate>,
    /// The driver calls of the last [`WINDOW`], in the order of their ends, and their sum.
    spent: VecDeque<Spent>,
    in_window: Duration,
    stretch: Stretch,
    /// What is due in this tick, the most urgent last.
    queue: Vec<Due>,
    tick: Option<Instant>,
    listed_processes: Option<Instant>,
    deferred: u64,
    /// When a question was last asked beyond the budget because it had waited too long, and how often that was.
    forced: (Option<Instant>, u64),
}

/// Time in driver calls.
#[derive(Debug, Clone, Copy)]
struct Spent {
    ended: Instant,
    took: Duration,
    /// Whether it answered a question; what looks for events and GPUs does not.
    asked: bool,
}

#[derive(Debug, Clone, Copy)]
struct Task {
    due: Instant,
    /// Since when it waits: when it was asked last, or first could have been.
    since: Instant,
    asked: bool,
    never: bool,
}

/// A question that is due; the order of the fields is the order in which questions are asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    urgency: Urgency,
    since: Instant,
    job: Job,
    /// Whether it waited so long that it is asked beyond the budget.
    forced: bool,
}

/// In which order what is due is asked; the order of the variants is the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// An essential value that is ten seconds old, or that was not asked for ten seconds of a GPU that came: asked whatever is
    /// left of the budget. Otherwise those of the GPUs that were here before would leave a new one no room.
    Overdue,
    /// It waited too long: nothing else is asked until there is room for it.
    Aged,
    /// Too dear to fit beside others easily: nothing less urgent is asked until there is room for it.
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
            costs: vec![Estimate::default(); Ask::COUNT],
            spent: VecDeque::new(),
            in_window: Duration::ZERO,
            stretch: Stretch::default(),
            queue: Vec::new(),
            tick: None,
            listed_processes: None,
            deferred: 0,
            forced: (None, 0),
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
        while let Some(old) = self.spent.pop_front_if(|spent| spent.ended + WINDOW <= now) {
            self.in_window = self.in_window.saturating_sub(old.took);
        }
        self.tick = Some(now);
        self.plan_stretch();
        let due = self.tasks.iter().filter(|(job, task)| self.is_due(job, task, now));
        let mut queue: Vec<Due> = due.map(|(job, task)| self.due(job, task, now)).collect();
        queue.sort_unstable_by(|a, b| b.cmp(a));
        self.queue = queue;
    }

    /// The next question of this tick; `None` when nothing more is due, or nothing that fits into the budget.
    pub(super) fn next(&mut self, now: Instant) -> Option<Job> {
        while let Some(due) = self.queue.pop() {
            let lists_processes = matches!(due.job.ask, Ask::Metric(metric) if metric.lists_processes());
            // One a tick, and where ticks are closer than a second, one a second.
            let pause = self.interval.max(SECOND) - self.interval / 2;
            if lists_processes && self.listed_processes.is_some_and(|at| now < at + pause) {
                continue;
            }
            if self.admits(&due, now) {
                if lists_processes {
                    self.listed_processes = self.tick;
                }
                return Some(due.job);
            }
            self.deferred += 1;
            if matches!(due.urgency, Urgency::Aged | Urgency::Dear) {
                // What is left of the budget is kept for it.
                self.queue.clear();
            }
        }
        None
    }

    /// A question was asked, and took this long.
    pub(super) fn done(&mut self, job: &Job, now: Instant, took: Duration, then: Then) {
        self.costs[job.ask.place()].add(took);
        self.note(now, took, true);
        let (cadence, first) = (self.cadence(job.ask), self.tick.unwrap_or(now));
        let Some(task) = self.tasks.get_mut(job) else { return };
        // Rounded to the grid of ticks.
        let half = self.interval / 2;
        task.due = match (then, task.asked) {
            (Then::More, _) => {
                let job = job.clone();
                self.queue.push(Due { urgency: Urgency::Fact, since: first, job, forced: false });
                now
            }
            // The second time comes early, by a share that differs between questions, so that they do not stay together.
            (_, false) if cadence > self.interval => first + cadence - share(cadence, seed_of(job)),
            _ => first + cadence - half,
        };
        (task.asked, task.since) = (true, first);
        task.never = then == Then::Never;
    }

    /// Driver calls beside the questions took this long.
    pub(super) fn spend(&mut self, now: Instant, took: Duration) {
        self.note(now, took, false);
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
        self.in_window = Duration::ZERO;
        self.queue.clear();
    }

    /// How long the values of a metric that is asked now are believed: until the question failed to be asked three times.
    pub(super) fn lifetime(&self, metric: Metric) -> Duration {
        self.cadence(Ask::Metric(metric)) * 3 + Duration::from_secs(2)
    }

    fn add(&mut self, gpu: &GpuUuid, now: Instant) {
        let metrics = Metric::ALL.iter().map(|metric| Ask::Metric(*metric));
        let facts = Fact::LATER.iter().map(|fact| Ask::Fact(*fact));
        for ask in metrics.chain(facts) {
            let task = Task { due: now, since: now, asked: false, never: false };
            self.tasks.insert(Job { ask, gpu: gpu.clone() }, task);
        }
    }

    /// A cadence that has become shorter since the question was asked counts as it is now. One that other GPUs have shown to
    /// be heavy waits for its turn within the cadence, so that not all are asked in a row.
    fn is_due(&self, job: &Job, task: &Task, now: Instant) -> bool {
        if task.never {
            return false;
        }
        let heavy = matches!(job.ask, Ask::Metric(_)) && self.price(job.ask) >= Price::Heavy;
        if !task.asked && heavy && task.due == task.since {
            return task.since + share(self.cadence(job.ask), seed_of(job)) <= now;
        }
        task.due <= now || task.asked && task.since + self.cadence(job.ask) <= now + self.interval / 2
    }

    fn due(&self, job: &Job, task: &Task, now: Instant) -> Due {
        let aged_at = task.since + (self.cadence(job.ask) + PATIENCE).max(AGED);
        let waited = task.since + ESSENTIAL <= now + self.interval / 2;
        let is_dear = self.price(job.ask) >= Price::Dear;
        let urgency = match job.ask {
            Ask::Metric(metric) if metric.is_essential() && waited => Urgency::Overdue,
            _ if aged_at <= now => Urgency::Aged,
            _ if is_dear => Urgency::Dear,
            Ask::Metric(metric) if metric.is_essential() => Urgency::Essential,
            Ask::Metric(metric) => match metric.tier() {
                Tier::Fast => Urgency::Fast,
                Tier::Slow => Urgency::Slow,
                Tier::Rare => Urgency::Rare,
            },
            Ask::Fact(_) => Urgency::Fact,
        };
        Due { urgency, since: task.since, job: job.clone(), forced: aged_at + WINDOW <= now }
    }

    /// Whether a question is asked now: it fits into what is left of the budget, or the budget does not hold it back.
    fn admits(&mut self, due: &Due, now: Instant) -> bool {
        let cost = self.predict(due.job.ask);
        // What left the window since the tick began still counts: it was spent.
        let (second, window) = (self.spent_since(now, SECOND), self.in_window);
        let idle = || !self.since(now, SECOND).any(|spent| spent.asked);
        let in_window = window + cost <= WINDOW_BUDGET;
        let fits = match due.urgency {
            Urgency::Overdue => true,
            // It gets a second in which nothing else is asked.
            _ if cost > PEAK => idle(),
            // What every tick spends on events must not keep it from ever fitting into a second.
            Urgency::Dear | Urgency::Aged => in_window && (second + cost <= PEAK || idle()),
            _ => in_window && second + cost <= PEAK,
        };
        let free = self.forced.0.is_none_or(|last| last + SECOND <= now && self.tick != Some(last));
        if !fits && due.forced && free {
            self.forced = (self.tick, self.forced.1 + 1);
            return true;
        }
        fits
    }

    /// What a question may take. One that is not dear fits beside others: a single slow call raises the upper estimate
    /// beyond any second, and only asking again can lower it.
    fn predict(&self, ask: Ask) -> Duration {
        let cost = &self.costs[ask.place()];
        match self.price(ask) {
            _ if cost.samples() == 0 => Estimate::UNKNOWN,
            Price::Dear | Price::OverBudget => cost.typical(),
            Price::Fair | Price::Heavy => cost.upper().min(PEAK / 2),
        }
    }

    fn note(&mut self, ended: Instant, took: Duration, asked: bool) {
        if !took.is_zero() {
            self.spent.push_back(Spent { ended, took, asked });
            self.in_window += took;
        }
    }

    fn spent_since(&self, now: Instant, window: Duration) -> Duration {
        self.since(now, window).map(|spent| spent.took).sum()
    }

    fn since(&self, now: Instant, window: Duration) -> impl Iterator<Item = &Spent> {
        self.spent.iter().rev().take_while(move |spent| spent.ended + window > now)
    }
}

/// What places a question within its cadence.
fn seed_of(job: &Job) -> u64 {
    super::GpuOptions::seed_of(job.gpu.as_str()) ^ job.ask.place() as u64
}

#[cfg(test)]
mod tests;
