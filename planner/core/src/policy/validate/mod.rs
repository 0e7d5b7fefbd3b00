//! Whether a policy makes sense: contradictions, and promises that the engines' profiles can't keep.

mod model;
mod pool;

use std::collections::{BTreeMap, btree_map::Entry};

use super::{
    Policy, PoolPolicy,
    finding::{Finding, Findings, Place},
    quantity::Cost,
    span::Span,
};

/// The most models and the most pools that a policy may have.
const MOST_MODELS: usize = 1_000;
const MOST_POOLS: usize = 5_000;

/// All that is wrong with a policy whose profiles were looked up, in the order of the document. Without an
/// [`Error`](super::Severity::Error) among them the policy can be used.
#[must_use]
pub fn validate(policy: &Policy) -> Vec<Finding> {
    let mut findings = Findings::default();
    let root = Place::root();
    if policy.interval < Span::from_secs(1) || policy.interval > Span::from_secs(3_600) {
        findings.error(
            &root.key("interval"),
            format!("{} is out of range: give 1s to 1h, 10s is usual", policy.interval),
        );
    }
    let models = root.key("models");
    if policy.models.is_empty() {
        findings.error(&models, "there is no model to serve: give at least one");
    }
    if policy.models.len() > MOST_MODELS || policy.pools().count() > MOST_POOLS {
        findings.error(&models, format!("a policy has at most {MOST_MODELS} models and {MOST_POOLS} pools"));
        return findings.0;
    }
    duplicate_names(policy, &mut findings);
    for (m, model) in policy.models.iter().enumerate() {
        model::check(model, &models.index(m), &mut findings);
    }
    budget(policy, &mut findings);
    findings.0
}

fn duplicate_names(policy: &Policy, findings: &mut Findings) {
    let models = Place::root().key("models");
    let (mut model_names, mut pool_names) = (BTreeMap::new(), BTreeMap::new());
    for (m, model) in policy.models.iter().enumerate() {
        let place = models.index(m);
        match model_names.entry(&model.name) {
            Entry::Vacant(free) => _ = free.insert(place.clone()),
            Entry::Occupied(taken) => findings.error(
                &place.key("name"),
                format!("{} is described by {} already: put its pools there", model.name, taken.get()),
            ),
        }
        for (p, pool) in model.pools.iter().enumerate() {
            let place = place.key("pools").index(p);
            match pool_names.entry(&pool.name) {
                Entry::Vacant(free) => _ = free.insert(place),
                Entry::Occupied(taken) => findings.error(
                    &place.key("name"),
                    format!(
                        "{} names a pool too: give each pool of the fleet a name of its own",
                        taken.get()
                    ),
                ),
            }
        }
    }
}

/// One kind of budget: what a replica takes of it.
struct Kind {
    key: &'static str,
    unit: &'static str,
    limit: f64,
    of_replica: fn(&PoolPolicy) -> Option<f64>,
    /// The pool's key without which it can't be counted.
    needs: &'static str,
}

fn budget(policy: &Policy, findings: &mut Findings) {
    let budget = &policy.budget;
    let kinds = [
        budget.gpus.map(|gpus| Kind {
            key: "gpus",
            unit: "GPUs",
            limit: f64::from(gpus),
            of_replica: |pool| Some(f64::from(pool.gpus_per_replica())),
            needs: "",
        }),
        budget.watts.map(|watts| Kind {
            key: "watts",
            unit: "W",
            limit: watts.get(),
            of_replica: PoolPolicy::watts_per_replica,
            needs: "wattsPerGpu",
        }),
        budget.cost_per_hour.map(|cost: Cost| Kind {
            key: "costPerHour",
            unit: "an hour",
            limit: cost.get(),
            of_replica: PoolPolicy::cost_per_replica_hour,
            needs: "pricePerGpuHour",
        }),
    ];
    for kind in kinds.into_iter().flatten() {
        one_budget(policy, &kind, findings);
    }
}

fn one_budget(policy: &Policy, kind: &Kind, findings: &mut Findings) {
    let Kind { key, unit, limit, .. } = kind;
    let place = Place::root().key("budget").key(key);
    let mut least = 0.0;
    for (m, model) in policy.models.iter().enumerate() {
        for (p, pool) in model.pools.iter().enumerate() {
            let pool_place = Place::root().key("models").index(m).key("pools").index(p);
            let Some(of_replica) = (kind.of_replica)(pool) else {
                findings.error(
                    &pool_place,
                    format!("budget.{key} can't be held without knowing {}: give it", kind.needs),
                );
                continue;
            };
            least += of_replica * f64::from(pool.min);
            let most = of_replica * f64::from(pool.max);
            if most > *limit && pool.min <= pool.max {
                let fit = (limit / of_replica).floor();
                findings.warning(
                    &pool_place.key("max"),
                    format!(
                        "{} replicas take {most} {unit}, budget.{key} is {limit}: at most {fit} can ever run",
                        pool.max
                    ),
                );
            }
        }
    }
    if least > *limit {
        findings.error(
            &place,
            format!(
                "the pools' min together take {least} {unit}, more than {limit}: raise it, or lower a min"
            ),
        );
    }
}
