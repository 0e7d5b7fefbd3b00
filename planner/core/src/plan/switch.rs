//! Role switches: replicas that a model's prefill pool gives back while its decode pool asks for more, or the reverse.
//!
//! Prefill and decode are sized and split jointly, so one may shrink in the plan that the other grows in. Where replicas of
//! both are alike and can change their role, turning one over is quicker than stopping it and starting another. A switch is
//! a proposal that pairs what the plan already says: targets are what they are without it, nothing remembers that it was
//! proposed, and a replica counts where it is observed. So it is proposed as long as it would help, and never counted as
//! done.

use std::collections::BTreeMap;

use plimsoll_common::{engine::Role, ids::PoolName};
use serde::{Deserialize, Serialize};

use crate::spec::PoolSpec;

/// Replicas that could change their role instead of being stopped, while as many are started elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleSwitch {
    /// The pool that gives replicas back.
    pub from: PoolName,
    /// The pool that asks for more.
    pub to: PoolName,
    /// How many, at least 1.
    pub replicas: u32,
}

/// A pool of a plan, as far as role switches go.
#[derive(Clone, Copy, Debug)]
pub struct Turnable<'a> {
    /// What does not change about it.
    pub spec: &'a PoolSpec,
    /// Replicas that take requests.
    pub ready: u32,
    /// Ready replicas, and starting ones that are still expected.
    pub coming: u32,
    /// Replicas after the plan.
    pub to: u32,
    /// Whether all of it is known now: none of its replicas is silent, and something was told since the step before.
    pub is_known: bool,
}

impl Turnable<'_> {
    /// Ready replicas that the plan gives back.
    const fn given_back(&self) -> u32 {
        if self.is_known { self.ready.saturating_sub(self.to) } else { 0 }
    }

    /// Replicas that the plan asks for and that are not on their way.
    const fn missing(&self) -> u32 {
        if self.is_known { self.to.saturating_sub(self.coming) } else { 0 }
    }
}

/// Whether a replica of one pool can become one of the other: the policy says so, they serve the two parts of one model, and
/// are the same engines on as many GPUs.
#[must_use]
pub fn can_turn(one: &PoolSpec, other: &PoolSpec) -> bool {
    let roles =
        matches!((one.role, other.role), (Role::Prefill, Role::Decode) | (Role::Decode, Role::Prefill));
    one.role_switch
        && other.role_switch
        && roles
        && one.model == other.model
        && one.gpus == other.gpus
        && one.engines_per_replica == other.engines_per_replica
        && one.engine.is_some()
        && one.engine == other.engine
}

/// The role switches that a plan allows, each replica in one at most; in the order of the pools given.
#[must_use]
pub fn switches(pools: &[Turnable<'_>]) -> Vec<RoleSwitch> {
    let mut missing: BTreeMap<&PoolName, u32> =
        pools.iter().map(|pool| (&pool.spec.name, pool.missing())).collect();
    let mut proposed = Vec::new();
    for from in pools {
        let mut left = from.given_back();
        if left == 0 {
            continue;
        }
        for to in pools.iter().filter(|to| can_turn(from.spec, to.spec)) {
            let Some(open) = missing.get_mut(&to.spec.name) else { continue };
            let replicas = left.min(*open);
            if replicas > 0 {
                (left, *open) = (left - replicas, *open - replicas);
                let (from, to) = (from.spec.name.clone(), to.spec.name.clone());
                proposed.push(RoleSwitch { from, to, replicas });
            }
        }
    }
    proposed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::controller::tests::spec;

    fn pool(name: &str, role: Role) -> PoolSpec {
        PoolSpec { role, role_switch: true, ..spec(name) }
    }

    fn turnable(spec: &PoolSpec, ready: u32, coming: u32, to: u32) -> Turnable<'_> {
        Turnable { spec, ready, coming, to, is_known: true }
    }

    #[test]
    fn what_one_gives_back_and_the_other_misses_is_paired() {
        let (prefill, decode) = (pool("p", Role::Prefill), pool("d", Role::Decode));
        let propose = |p: (u32, u32, u32), d: (u32, u32, u32)| {
            let pools = [turnable(&decode, d.0, d.1, d.2), turnable(&prefill, p.0, p.1, p.2)];
            switches(&pools).into_iter().map(|one| (one.from.to_string(), one.replicas)).collect::<Vec<_>>()
        };
        assert_eq!(propose((6, 6, 4), (2, 2, 5)), [("p".to_owned(), 2)]);
        assert_eq!(propose((2, 2, 5), (6, 6, 4)), [("d".to_owned(), 2)]);
        // What is on its way already is not missing, and what has gone is not given back: an observed switch ends it.
        assert_eq!(propose((6, 6, 4), (2, 5, 5)), []);
        assert_eq!(propose((4, 4, 4), (4, 4, 5)), []);
        assert_eq!(propose((6, 6, 6), (2, 2, 5)), []);
    }

    #[test]
    fn only_alike_replicas_of_one_model_turn_and_only_where_the_policy_says_so() {
        let (prefill, decode) = (pool("p", Role::Prefill), pool("d", Role::Decode));
        assert!(can_turn(&prefill, &decode) && can_turn(&decode, &prefill));
        let other = "other".parse().unwrap();
        for unlike in [
            PoolSpec { role_switch: false, ..decode.clone() },
            PoolSpec { model: other, ..decode.clone() },
            PoolSpec { gpus: 2, ..decode.clone() },
            PoolSpec { engine: None, ..decode.clone() },
            PoolSpec { role: Role::Aggregated, ..decode.clone() },
            PoolSpec { role: Role::Prefill, ..decode.clone() },
        ] {
            assert!(!can_turn(&prefill, &unlike) && !can_turn(&unlike, &prefill), "{unlike:?}");
        }
        let unknown = Turnable { is_known: false, ..turnable(&prefill, 6, 6, 2) };
        assert_eq!(switches(&[unknown, turnable(&decode, 2, 2, 5)]), []);
    }

    proptest! {
        // No replica is given twice, and none that the plan keeps or the other side does not miss; whatever could be
        // paired is.
        #[test]
        fn every_switch_is_a_part_of_the_plan(
            pools in prop::collection::vec((any::<bool>(), 0..9_u32, 0..4_u32, 0..12_u32), 1..6),
        ) {
            let specs: Vec<PoolSpec> = pools.iter().enumerate().map(|(place, (is_prefill, ..))| {
                pool(&format!("pool-{place}"), if *is_prefill { Role::Prefill } else { Role::Decode })
            }).collect();
            let pools: Vec<Turnable<'_>> = specs.iter().zip(&pools).map(|(spec, (_, ready, more, to))| {
                turnable(spec, *ready, ready + more, *to)
            }).collect();
            let proposed = switches(&pools);
            let sum = |of: &dyn Fn(&RoleSwitch) -> bool| -> u32 {
                proposed.iter().filter(|one| of(one)).map(|one| one.replicas).sum()
            };
            for one in &pools {
                let out = sum(&|switch| switch.from == one.spec.name);
                let into = sum(&|switch| switch.to == one.spec.name);
                prop_assert!(out <= one.given_back() && into <= one.missing());
            }
            for role in [Role::Prefill, Role::Decode] {
                let given: u32 = pools.iter().filter(|p| p.spec.role == role).map(Turnable::given_back).sum();
                let missing: u32 = pools.iter().filter(|p| p.spec.role != role).map(Turnable::missing).sum();
                let turned: u32 = sum(&|switch| specs.iter().any(|s| s.name == switch.from && s.role == role));
                prop_assert_eq!(turned, given.min(missing));
            }
        }
    }
}
