//! What every plan must pass, whoever made it: written without the code that makes plans.

use plimsoll_common::ids::PoolName;
use serde::{Deserialize, Serialize};

use super::split::{Asked, Limits};

/// One pool of a plan, and the facts that it is held against.
#[derive(Clone, Debug)]
pub struct Planned<'a> {
    /// What a replica takes; its `least` is the lower bound.
    pub asked: &'a Asked,
    /// The upper bound.
    pub most: u32,
    /// Replicas before.
    pub from: u32,
    /// Replicas after.
    pub to: u32,
    /// Whether some of its ready replicas tell nothing.
    pub silent: bool,
    /// The replicas that hold what is in flight.
    pub in_flight: u32,
}

/// Why a plan is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "rule")]
pub enum Refused {
    /// More or fewer replicas than the policy allows.
    #[error("{pool}: {replicas} replicas are outside {least} to {most}")]
    Bounds {
        /// The pool.
        pool: PoolName,
        /// What was planned.
        replicas: u32,
        /// The lower bound.
        least: u32,
        /// The upper bound.
        most: u32,
    },
    /// It grows beyond a budget.
    #[error("the plan grows beyond the budget of GPUs, watts or money")]
    Budget,
    /// It takes away replicas while some tell nothing.
    #[error("{pool}: {from} → {to} would shrink a pool that does not tell all")]
    Silence {
        /// The pool.
        pool: PoolName,
        /// Replicas before.
        from: u32,
        /// Replicas after.
        to: u32,
    },
    /// It takes away replicas that what is in flight needs.
    #[error("{pool}: {to} replicas cannot hold what is in flight, which takes {least}")]
    InFlight {
        /// The pool.
        pool: PoolName,
        /// Replicas after.
        to: u32,
        /// What is needed.
        least: u32,
    },
}

/// Checks a plan.
///
/// # Errors
/// Every rule that it breaks.
pub fn check(limits: &Limits, plan: &[Planned<'_>]) -> Result<(), Vec<Refused>> {
    let mut refused = Vec::new();
    let grows = |planned: &Planned<'_>| planned.to > planned.from;
    let fits = limits.allow(plan.iter().map(|planned| (planned.asked, planned.to)));
    // The policy's own bounds may not fit its budget: that is for the policy's check to say.
    let growing_beyond_least = plan.iter().any(|planned| grows(planned) && planned.to > planned.asked.least);
    if !fits && growing_beyond_least {
        refused.push(Refused::Budget);
    }
    for planned in plan {
        let (pool, from, to) = (planned.asked.pool.clone(), planned.from, planned.to);
        let (least, most) = (planned.asked.least, planned.most);
        if to != from && !(least..=most).contains(&to) {
            refused.push(Refused::Bounds { pool, replicas: to, least, most });
        } else if to < from && planned.silent && from <= most {
            refused.push(Refused::Silence { pool, from, to });
        } else if to < from && to < planned.in_flight.min(most) {
            refused.push(Refused::InFlight { pool, to, least: planned.in_flight });
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked {
            pool: PoolName::parse("a").unwrap(),
            priority: 0,
            least: 1,
            wanted: 5,
            gpus: 2,
            watts: 0.0,
            cost_per_hour: 0.0,
        }
    }

    #[test]
    fn each_rule_refuses_what_breaks_it() {
        let asked = asked();
        let limits = Limits { gpus: Some(10), ..Limits::default() };
        let of = |from, to| Planned { asked: &asked, most: 6, from, to, silent: false, in_flight: 0 };
        let rule = |planned: Planned<'_>| check(&limits, &[planned]).unwrap_err();
        assert_eq!(check(&limits, &[of(1, 5)]), Ok(()));
        assert_eq!(rule(of(1, 6)), [Refused::Budget]);
        assert!(matches!(rule(of(1, 0))[..], [Refused::Bounds { replicas: 0, .. }]));
        assert!(matches!(rule(Planned { silent: true, ..of(3, 2) })[..], [Refused::Silence { .. }]));
        assert!(matches!(rule(Planned { in_flight: 3, ..of(4, 2) })[..], [Refused::InFlight { .. }]));
        // What is above a bound or a budget may come down in any case.
        assert_eq!(check(&limits, &[Planned { silent: true, ..of(9, 6) }]), Ok(()));
        assert_eq!(check(&limits, &[of(7, 5)]), Ok(()));
    }
}
