//! What goes out: one object a line.

use std::collections::BTreeMap;

use plimsoll_common::{ids::PoolName, units::Micros};
use plimsoll_core::{
    controller::Step,
    explain::{PoolExplanation, Reason, Seen},
    plan::{Load, Needs, RoleSwitch},
    policy::HeldBack,
};
use serde::Serialize;

use super::header::Header;

/// The answer to a first line.
#[derive(Debug, Serialize)]
pub(super) struct Ready {
    ready: bool,
    pools: Vec<PoolName>,
    interval_s: f64,
    warnings: Vec<String>,
}

impl Ready {
    pub(super) fn new(header: &Header) -> Self {
        Self {
            ready: true,
            pools: header.spec.pools.iter().map(|pool| pool.name.clone()).collect(),
            interval_s: header.spec.interval.as_secs_f64(),
            warnings: header.warnings.clone(),
        }
    }
}

/// The answer to a line that is not taken.
#[derive(Debug, Serialize)]
pub(super) struct Refused<'a> {
    error: Problem<'a>,
}

#[derive(Debug, Serialize)]
struct Problem<'a> {
    line: u64,
    message: &'a str,
}

impl<'a> Refused<'a> {
    pub(super) const fn new(line: u64, message: &'a str) -> Self {
        Self { error: Problem { line, message } }
    }
}

/// The answer to an observation.
#[derive(Debug, Serialize)]
pub(super) struct Answer<'a> {
    time_s: f64,
    targets: &'a BTreeMap<PoolName, u32>,
    reasons: BTreeMap<&'a PoolName, &'a [Reason]>,
    explanation: BTreeMap<&'a PoolName, String>,
    #[serde(skip_serializing_if = "<[RoleSwitch]>::is_empty")]
    switches: &'a [RoleSwitch],
    next_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<BTreeMap<&'a PoolName, Details<'a>>>,
}

impl<'a> Answer<'a> {
    pub(super) fn new(time_s: f64, origin_s: f64, step: &'a Step, explain: bool) -> Self {
        let pools = &step.explanation.pools;
        let details = || pools.iter().map(|(name, pool)| (name, Details::of(pool))).collect();
        Self {
            time_s,
            targets: &step.plan.targets,
            reasons: pools.iter().map(|(name, pool)| (name, &pool.reasons[..])).collect(),
            explanation: pools.iter().map(|(name, pool)| (name, pool.to_string())).collect(),
            switches: &step.plan.switches,
            // A microsecond is the core's finest time; what is finer is the subtraction's.
            next_s: ((step.next.as_secs_f64() + origin_s) * 1e6).round() / 1e6,
            details: explain.then(details),
        }
    }
}

/// Everything about one pool's decision, times in seconds.
#[derive(Debug, Serialize)]
struct Details<'a> {
    from: u32,
    to: u32,
    in_flight: u32,
    held_back: Option<HeldBack>,
    seen: SeenOf,
    believed: BelievedOf,
    load: &'a Load,
    needs: &'a Needs,
}

#[derive(Debug, Serialize)]
struct SeenOf {
    ready: u32,
    starting: u32,
    overdue: u32,
    unschedulable: u32,
    draining: u32,
    silent: u32,
    waiting: Option<u64>,
    running: Option<u64>,
    age_s: f64,
}

#[derive(Debug, Serialize)]
struct BelievedOf {
    isl: Option<f64>,
    osl: Option<f64>,
    prefix_hit_rate: Option<f64>,
    tokens_per_step: Option<f64>,
    dispersion: f64,
    factor: f64,
    spend: f64,
    budget_used: f64,
    start_up_s: f64,
    capacity_searched: Option<u32>,
    capacity_age_s: Option<f64>,
    forecast: BTreeMap<String, f64>,
}

impl<'a> Details<'a> {
    fn of(pool: &'a PoolExplanation) -> Self {
        Self {
            from: pool.from,
            to: pool.to,
            in_flight: pool.in_flight,
            held_back: pool.held_back,
            seen: SeenOf::of(&pool.seen),
            believed: BelievedOf::of(pool),
            load: &pool.load,
            needs: &pool.needs,
        }
    }
}

impl SeenOf {
    fn of(seen: &Seen) -> Self {
        let Seen { ready, starting, overdue, unschedulable, draining, silent, waiting, running, age } = *seen;
        let age_s = age.as_secs_f64();
        Self { ready, starting, overdue, unschedulable, draining, silent, waiting, running, age_s }
    }
}

impl BelievedOf {
    fn of(pool: &PoolExplanation) -> Self {
        let believed = &pool.believed;
        let (mix, capacity) = (believed.mix.as_ref(), believed.capacity.as_ref());
        let member = |(name, weight): &(plimsoll_core::forecast::MemberName, f64)| {
            let name = serde_json::to_value(name).ok();
            let name = name.as_ref().and_then(serde_json::Value::as_str).unwrap_or("other").to_owned();
            (name, *weight)
        };
        Self {
            isl: mix.map(|mix| mix.isl.mean),
            osl: mix.map(|mix| mix.osl.mean),
            prefix_hit_rate: mix.map(|mix| mix.hit),
            tokens_per_step: mix.map(|mix| mix.tokens_per_step),
            dispersion: believed.dispersion,
            factor: believed.factor,
            spend: believed.spend,
            budget_used: believed.budget_used,
            start_up_s: believed.start_up.as_secs_f64(),
            capacity_searched: capacity.map(|known| known.searched),
            capacity_age_s: capacity.map(|known| Micros::as_secs_f64(known.age)),
            forecast: believed.forecast.iter().map(member).collect(),
        }
    }
}
