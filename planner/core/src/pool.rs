//! One pool: what was learned of it, and what it needs.

mod adopt;
mod derived;
mod missed;
mod note;
mod pace;

use std::{collections::BTreeMap, sync::OnceLock};

use plimsoll_common::{ids::EngineId, units::Micros};
use plimsoll_engine::EngineConfig;
use serde::{Deserialize, Serialize};

use crate::{
    budget::ErrorBudget,
    demand::{BIN, Demand},
    explain::{Believed, Reason, Seen},
    forecast::{Ahead, Ensemble, Settings},
    observe::Observation,
    patience::Patience,
    perf::{Calibration, CapacityTable, Known},
    plan::{Load, Needs, by_thresholds, queue_within_slo, size},
    policy::{Behavior, History, Load as Thresholds},
    spec::PoolSpec,
    startup::StartUp,
    tuning::Tuning,
};
use derived::Derived;

/// A replica that starts for so many times its usual time is not expected any more.
const OVERDUE: u64 = 3;

/// A replica may hold so much of its KV cache with what is in flight when others are given back.
const DRAINED_KV: f64 = 0.85;

/// An engine that is slower than its pool by more than this, as a share, is counted for less than one.
const SLOW: f64 = 0.1;

/// For how long a pool's demand must have been known at least before replicas are given back.
const ACQUAINTANCE: Micros = Micros(300_000_000);

/// For how long at most a pool's demand is known before what is sized by it is no guess any more: lengths of few requests
/// and capacities that were never searched may be off by a factor.
const GUESS: Micros = Micros(30_000_000);

/// For how long a queue may last that the model says will be gone by then.
const STUCK: Micros = Micros(90_000_000);

/// For how long a pool may leave its demand unsaid before thresholds stand in.
const STRANGER: Micros = Micros(60_000_000);

/// See the [module](self). All that was learned is in a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pool {
    pub(crate) spec: PoolSpec,
    pub(crate) history: History,
    demand: Demand,
    forecast: Ensemble,
    calibration: Calibration,
    engines: BTreeMap<EngineId, Calibration>,
    table: CapacityTable,
    start_up: StartUp,
    budget: ErrorBudget,
    /// What was told last, and when.
    seen: Option<(Micros, Observation)>,
    /// When anything was first told of it.
    first_seen: Option<Micros>,
    /// When its demand was first known.
    known_since: Option<Micros>,
    /// Since when a queue misses the SLO that all replicas asked for serve, and how many waited at most.
    queued_since: Option<(Micros, u64)>,
    /// The target in force.
    pub(crate) target: Option<u32>,
    /// How long each of its replicas is kept that is not wanted any more.
    pub(crate) patience: Patience,
    #[serde(skip)]
    derived: OnceLock<Derived>,
}

/// What a pool asks for.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) seen: Seen,
    pub(crate) believed: Believed,
    pub(crate) load: Load,
    pub(crate) needs: Needs,
    /// The target in force.
    pub(crate) current: u32,
    /// What it should be.
    pub(crate) wanted: u32,
    pub(crate) reasons: Vec<Reason>,
    /// The replicas that what is in flight needs.
    pub(crate) in_flight: u32,
}

impl Pool {
    pub(crate) fn new(spec: PoolSpec) -> Self {
        Self {
            history: History::default(),
            demand: Demand::expecting(spec.lengths)
                .serving(spec.role, spec.engine.as_ref().map(EngineConfig::kv_tokens)),
            forecast: Ensemble::new(Settings::requests()),
            calibration: Calibration::default(),
            engines: BTreeMap::new(),
            table: CapacityTable::default(),
            start_up: StartUp::new(spec.start_up),
            budget: ErrorBudget::default(),
            seen: None,
            first_seen: None,
            known_since: None,
            queued_since: None,
            target: None,
            patience: Patience::default(),
            derived: OnceLock::new(),
            spec,
        }
    }

    /// Lets the forecast know past arrival rates.
    pub(crate) fn warm(&mut self, history: impl IntoIterator<Item = (Micros, f64)>) {
        self.forecast.warm(history);
    }

    /// Learns from what was seen of it, and of the pool that hands requests over to it if there is one.
    pub(crate) fn learn(&mut self, now: Micros, seen: Observation, before: Option<&Observation>) {
        let (engine, factor) = (self.spec.engine.as_ref(), self.calibration.factor());
        let most_computed = || pace::most_computed(engine?, factor, before.unwrap_or(&seen));
        if let Some(rate) = self.demand.observe(&seen, before, most_computed) {
            self.forecast.observe(now, rate);
        }
        self.start_up.observe(&seen.replicas.started_in, seen.replicas.failed_starts);
        self.engines.retain(|id, _| seen.engines.contains_key(id));
        let mix = self.demand.mix(self.spec.role);
        if let Some(mix) = &mix {
            self.calibrate(&seen, mix);
        }
        self.derived = OnceLock::from(self.derive(mix));
        self.book(now, &seen);
        self.first_seen.get_or_insert(now);
        self.seen = Some((now, seen));
    }

    /// The mean length of its requests' prompts for the pool that computes them, tokens, as far as that is known.
    pub(crate) fn prompt_to_compute(&self) -> Option<f64> {
        self.demand.prompt_to_compute()
    }

    /// Engines of one replica; a policy's 0 counts as one.
    fn engines_per_replica(&self) -> f64 {
        f64::from(self.spec.engines_per_replica.max(1))
    }

    /// The most replicas, bounds that contradict each other included.
    fn most(&self) -> u32 {
        self.spec.bounds.1.max(self.spec.bounds.0)
    }

    /// Which of its capacities needs a search, and how much; see [`CapacityTable::stalest`].
    pub(crate) fn stalest(&self) -> Option<(usize, f64)> {
        let ready = self.seen.as_ref().map_or(1, |(_, seen)| seen.replicas.ready);
        self.table.stalest(self.question()?, ready)
    }

    /// Whether some of its capacities were not searched yet.
    pub(crate) fn is_unsearched(&self) -> bool {
        self.table.is_unsearched()
    }

    /// Searches one of its capacities.
    pub(crate) fn search(&mut self, now: Micros, place: usize) {
        if let Some(posed) = self.derived().posed.clone() {
            self.table.search(now, place, &posed);
        }
    }

    /// What it asks for; none if nothing was ever seen of it.
    pub(crate) fn wish(&mut self, now: Micros, interval: Micros, tuning: &Tuning) -> Option<Wish> {
        let (at, seen) = self.seen.take()?;
        let age = now.saturating_sub(at);
        let is_news = age < interval.max(Micros(1));
        let wish = self.wish_of(now, interval, tuning, &seen);
        let mut wish = Wish { seen: Seen { age, ..wish.seen }, ..wish };
        if !is_news {
            wish.wanted = wish.wanted.max(wish.current);
            wish.reasons.insert(0, Reason::NoNews);
        }
        self.seen = Some((at, seen));
        Some(wish)
    }

    fn wish_of(&mut self, now: Micros, interval: Micros, tuning: &Tuning, seen: &Observation) -> Wish {
        let start_up = self.start_up.quantile(0.9);
        let overdue = Micros(self.start_up.quantile(1.0).0.saturating_mul(OVERDUE));
        let late = seen.replicas.starting.iter().filter(|age| **age > overdue).count() as u32;
        let current = seen.replicas.target.or(self.target).unwrap_or_else(|| seen.replicas.coming());
        let known = self.derived().posed.as_ref().map(|posed| self.table.known(now, posed));
        let ahead =
            self.forecast.ahead(start_up.saturating_add(interval)).with_quantum(self.demand.quantum());
        let load = self.load(tuning, seen, start_up, overdue, (&ahead, known.as_ref()));
        let mut wish = Wish {
            seen: self.seen_now(seen, late),
            believed: self.believed(known, start_up, &ahead),
            load,
            needs: Needs::just(current),
            current,
            wanted: current,
            reasons: Vec::new(),
            in_flight: in_flight(seen, load.kv_utilization),
        };
        match self.spec.thresholds.or_else(|| self.spec.engine.is_none().then(Thresholds::latency)) {
            Some(thresholds) => self.by_thresholds(&thresholds, seen, &mut wish),
            None if known.is_some() && self.forecast.level().is_some() => {
                self.by_sla(now, tuning, seen, late, &mut wish)
            }
            None => self.without_demand(now, seen, &mut wish),
        }
        wish
    }

    /// What comes is not known, or not how long it is: once it was long enough to have been told, what engines hold tells
    /// how many replicas are needed.
    fn without_demand(&self, now: Micros, seen: &Observation, wish: &mut Wish) {
        wish.reasons.push(Reason::NoDemand);
        let known_for = self.first_seen.map_or(Micros::ZERO, |first| now.saturating_sub(first));
        let sequences = self.spec.engine.as_ref().map_or(256.0, |engine| f64::from(engine.max_num_seqs));
        let asked = by_thresholds(&Thresholds::latency(), seen, sequences * self.engines_per_replica());
        let Some(asked) = asked.filter(|_| known_for >= STRANGER) else { return };
        let wanted = asked.clamp(self.spec.bounds.0, self.most());
        if wanted > wish.current || (wanted < wish.current && known_for >= ACQUAINTANCE) {
            wish.wanted = wanted;
            wish.needs = Needs::just(wanted);
            wish.reasons.push(Reason::Thresholds);
        }
    }

    fn by_thresholds(&self, thresholds: &Thresholds, seen: &Observation, wish: &mut Wish) {
        let sequences = self.spec.engine.as_ref().map_or(256.0, |engine| f64::from(engine.max_num_seqs));
        wish.reasons.push(if self.spec.thresholds.is_some() {
            Reason::Thresholds
        } else {
            Reason::NoProfile
        });
        match by_thresholds(thresholds, seen, sequences * self.engines_per_replica()) {
            Some(wanted) => wish.wanted = wanted.clamp(self.spec.bounds.0, self.most()),
            None => wish.reasons.push(Reason::NoDemand),
        }
        wish.needs = Needs::just(wish.wanted);
    }

    fn by_sla(&mut self, now: Micros, tuning: &Tuning, seen: &Observation, late: u32, wish: &mut Wish) {
        wish.load.is_stuck = self.is_stuck(now, &wish.load);
        let (load, current) = (&wish.load, wish.current);
        let mut needs = size(load);
        let is_waiting = load.waiting > queue_within_slo(load);
        let hot_spot = is_waiting && is_hot_spot(seen);
        if hot_spot {
            needs.backlog = load.bounds.0;
        }
        // Slow engines are counted for what they do, overdue ones not at all: others must stand in.
        let slow = self.slow().ceil() as u32;
        let missing = late + slow;
        let wanted = needs.wanted();
        let instead = (wanted + missing).min(self.most());
        wish.needs = needs;
        wish.reasons = reasons(load, &needs, hot_spot);
        // Told as long as it is so, and first where it made the pool grow.
        let place = if instead > wanted && instead > current { 0 } else { wish.reasons.len() };
        let stood_in_for = [(late, Reason::Overdue), (slow, Reason::SlowEngines)];
        wish.reasons
            .splice(place..place, stood_in_for.iter().filter(|(n, _)| *n > 0).map(|(_, reason)| *reason));
        let kept = (needs.kept() + missing).min(self.most());
        wish.wanted = if instead > current { instead } else { kept.min(current) };
        if wish.wanted >= current && instead < current {
            wish.reasons.insert(0, Reason::Keep);
        }
        let since = *self.known_since.get_or_insert(now);
        let seconds = |s: u32| Micros(u64::from(s) * 1_000_000);
        let hasty = self.hasty_window_s();
        let window = hasty.map_or_else(|| seconds(self.down_window_s(tuning)).max(ACQUAINTANCE), seconds);
        let known_for = now.saturating_sub(since);
        let is_guess = known_for < GUESS || (self.is_unsearched() && known_for < STRANGER);
        let is_early = (is_guess && !is_waiting) || (wish.wanted < current && known_for < window);
        if is_early && wish.wanted != current {
            wish.wanted = current;
            wish.reasons.insert(0, Reason::Learning);
        }
    }

    /// Whether a queue that misses the SLO does not fall though nothing starts any more that could shorten it.
    fn is_stuck(&mut self, now: Micros, load: &Load) -> bool {
        if load.waiting <= queue_within_slo(load) || load.coming > load.ready {
            self.queued_since = None;
            return false;
        }
        let waiting = load.waiting as u64;
        let (since, most) = self.queued_since.unwrap_or((now, waiting));
        if waiting < most / 2 {
            // It falls: whether it goes on falling counts from here.
            self.queued_since = Some((now, waiting));
            return false;
        }
        self.queued_since = Some((since, most.max(waiting)));
        now.saturating_sub(since) >= STUCK
    }

    /// How long what was wanted is kept, s: the policy's word, or as long as a replica takes to start, since one that is
    /// asked for again within that time costs more than it saved.
    pub(crate) fn down_window_s(&self, tuning: &Tuning) -> u32 {
        let start_up = self.start_up.quantile(0.9).as_secs_f64();
        let of_policy = self.spec.behavior.scale_down.stabilization_window_seconds;
        of_policy.unwrap_or_else(|| start_up.max(tuning.hold_s).min(3_600.0) as u32)
    }

    /// The fewest replicas that are kept of `current`, where `to` are wanted: each is given back when it was not wanted for
    /// as long as its patience lasts. Where the policy says how long, its word alone counts.
    pub(crate) fn kept(&self, now: Micros, tuning: &Tuning, current: u32, to: u32) -> u32 {
        if self.spec.behavior.scale_down.stabilization_window_seconds.is_some() {
            return to;
        }
        let usual = self.down_window_s(tuning);
        let wanted_of_late = |place: u32| {
            let seconds = self.patience.keeps_s(place, usual);
            self.history.wanted_within(now, seconds).any(|wanted| wanted >= place)
        };
        let kept = (to.saturating_add(1)..=current).rev().find(|place| wanted_of_late(*place)).unwrap_or(to);
        if self.patience.is_wary(now, current, kept) { current } else { kept }
    }

    /// The window of a policy that asks for a shorter one than the default, s: who does takes back and forth for early
    /// savings, so nothing else is waited for either.
    fn hasty_window_s(&self) -> Option<u32> {
        let of_policy = self.spec.behavior.scale_down.stabilization_window_seconds;
        of_policy.filter(|window| *window < Behavior::DOWN_WINDOW_S)
    }

    /// How many replicas are lost to engines that are slower than their pool.
    fn slow(&self) -> f64 {
        let pool = self.calibration.factor();
        let lost = |engine: &Calibration| {
            let known = engine.windows() >= 3.0;
            let lost = 1.0 - pool / engine.factor();
            if known && lost > SLOW { lost } else { 0.0 }
        };
        let lost: f64 = self.engines.values().map(lost).sum();
        // One slow engine of many drags the pool's own factor hardly; less than half a replica is noise.
        let lost = lost / self.engines_per_replica();
        if lost > 0.5 { lost } else { 0.0 }
    }

    fn load(
        &self,
        tuning: &Tuning,
        seen: &Observation,
        start_up: Micros,
        overdue: Micros,
        (ahead, known): (&Ahead<'_>, Option<&Known>),
    ) -> Load {
        // What is spent on the tightest moment is also spent on rates above the forecast's quantile.
        let spend = tuning.spend * self.budget.spend();
        // What came for two bins is no outlier, whatever a forecast that knows little yet says; of bursts, that is what
        // is left when one of the usual size is taken off.
        let sustained = self.demand.sustained().unwrap_or(0.0);
        let noise = (self.demand.dispersion() * sustained / BIN.as_secs_f64()).sqrt();
        let sustained = (sustained - noise).max(0.0);
        let upper = |level: f64| {
            let forecast = ahead.upper(1.0 - (1.0 - level) * spend);
            forecast.unwrap_or(0.0).max(sustained)
        };
        let now_rps = self.demand.rate().unwrap_or(0.0);
        let expected: Vec<Micros> =
            seen.replicas.starting.iter().copied().filter(|age| *age <= overdue).collect();
        let eta = expected.iter().map(|age| start_up.saturating_sub(*age)).max().unwrap_or_default();
        let kv: Vec<f64> = seen
            .engines
            .values()
            .filter(|engine| !engine.draining)
            .filter_map(|engine| engine.kv_utilization.filter(|share| (0.0..=1.0).contains(share)))
            .collect();
        let engines = self.engines_per_replica();
        Load {
            now_rps,
            ahead_rps: upper(tuning.ahead),
            keep_rps: upper(tuning.keep),
            panic: self.forecast.surprise(now_rps).is_some_and(|surprise| surprise > tuning.panic),
            capacity: known.map(|known| known.capacity.at(spend).scaled(engines)).unwrap_or_default(),
            throughput_rps: self.derived().posed.as_ref().map_or(0.0, |posed| posed.throughput() * engines),
            waiting: self.demand.waiting().unwrap_or(0) as f64,
            is_stuck: false,
            patience_s: self.spec.slo.and_then(|slo| slo.ttft).map_or(10.0, Micros::as_secs_f64),
            ready: seen.replicas.ready,
            coming: seen.replicas.ready + expected.len() as u32,
            eta_s: eta.as_secs_f64(),
            start_up_s: start_up.as_secs_f64(),
            kv_utilization: if kv.is_empty() { 0.0 } else { kv.iter().sum::<f64>() / kv.len() as f64 },
            bounds: self.spec.bounds,
        }
    }

    fn seen_now(&self, seen: &Observation, overdue: u32) -> Seen {
        let replicas = &seen.replicas;
        Seen {
            ready: replicas.ready,
            starting: replicas.starting.len() as u32,
            overdue,
            unschedulable: replicas.unschedulable,
            draining: replicas.draining,
            silent: replicas.silent,
            waiting: self.demand.waiting(),
            running: self.demand.running(),
            age: Micros::ZERO,
        }
    }

    fn believed(&self, capacity: Option<Known>, start_up: Micros, ahead: &Ahead<'_>) -> Believed {
        let mut members: Vec<_> = ahead.shares().into_iter().filter(|(_, weight)| *weight > 0.0).collect();
        members.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        Believed {
            mix: self.derived().mix,
            dispersion: self.demand.dispersion(),
            factor: self.calibration.factor(),
            spend: self.budget.spend(),
            budget_used: self.budget.used_share(),
            capacity,
            start_up,
            forecast: members,
        }
    }
}

/// The replicas over which what is held now fits when the others are gone.
fn in_flight(seen: &Observation, kv_utilization: f64) -> u32 {
    (f64::from(seen.replicas.ready) * kv_utilization / DRAINED_KV).ceil() as u32
}

/// Whether what waits, waits at a few engines while most have nothing to wait for.
fn is_hot_spot(seen: &Observation) -> bool {
    let mut waiting: Vec<u64> =
        seen.engines.values().filter(|engine| !engine.draining).filter_map(|engine| engine.waiting).collect();
    waiting.sort_unstable();
    let (total, half) = (waiting.iter().sum::<u64>(), waiting.len().div_ceil(2));
    let lower: u64 = waiting.iter().take(half).sum();
    waiting.len() >= 2
        && total > 0
        && lower * 20 <= total
        && seen.door.is_none_or(|door| door.waiting.unwrap_or(0) == 0)
}

/// What a wish is made of, the weightiest first.
fn reasons(load: &Load, needs: &Needs, hot_spot: bool) -> Vec<Reason> {
    let wanted = needs.wanted();
    let (least, most) = load.bounds;
    let mut reasons = Vec::new();
    let by = [
        (needs.now, Reason::Panic),
        (needs.backlog, Reason::Backlog),
        (needs.kv, Reason::KvCache),
        (needs.ahead, Reason::Forecast),
    ];
    if wanted <= least {
        reasons.push(Reason::Minimum);
    } else {
        reasons.extend(by.into_iter().filter(|(need, _)| *need == wanted).map(|(_, reason)| reason));
    }
    if wanted >= most {
        reasons.push(Reason::Maximum);
    }
    if hot_spot {
        reasons.push(Reason::HotSpot);
    }
    if load.capacity.is_impossible() {
        reasons.push(Reason::ImpossibleSlo);
    }
    reasons
}
