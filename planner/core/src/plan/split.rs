//! Who gets what when a budget does not do for all.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use plimsoll_common::ids::PoolName;
use serde::{Deserialize, Serialize};

/// What all pools together may use; what is not given is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// GPUs.
    pub gpus: Option<u32>,
    /// Watts.
    pub watts: Option<f64>,
    /// Money an hour.
    pub cost_per_hour: Option<f64>,
}

/// What one pool asks for, and what a replica of it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Which pool.
    pub pool: PoolName,
    /// The higher gets its own first.
    pub priority: i32,
    /// What it must have in any case.
    pub least: u32,
    /// What it wants.
    pub wanted: u32,
    /// GPUs of a replica.
    pub gpus: u32,
    /// Watts of a replica.
    pub watts: f64,
    /// Money an hour and replica.
    pub cost_per_hour: f64,
}

/// What one pool gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// So many replicas.
    pub replicas: u32,
    /// Whether that is less than it wanted.
    pub cut: bool,
}

/// How finely a group's common share is searched.
const STEPS: u32 = 1 << 16;

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    gpus: u64,
    watts: f64,
    cost: f64,
}

impl Used {
    fn add(&mut self, asked: &Asked, replicas: u32) {
        self.gpus += u64::from(asked.gpus) * u64::from(replicas);
        self.watts += asked.watts * f64::from(replicas);
        self.cost += asked.cost_per_hour * f64::from(replicas);
    }
}

impl Limits {
    /// Whether so many replicas of each pool are within all limits.
    #[must_use]
    pub fn allow<'a>(&self, replicas: impl IntoIterator<Item = (&'a Asked, u32)>) -> bool {
        let mut used = Used::default();
        for (asked, replicas) in replicas {
            used.add(asked, replicas);
        }
        // Prices and watts are sums of decimal fractions: what differs by rounding is within.
        let within = |used: f64, limit: Option<f64>| limit.is_none_or(|limit| used <= limit * (1.0 + 1e-9));
        self.gpus.is_none_or(|gpus| used.gpus <= u64::from(gpus))
            && within(used.watts, self.watts)
            && within(used.cost, self.cost_per_hour)
    }
}

/// Splits a budget: everybody's least first, then priority by priority; pools of equal priority, and so prefill and
/// decode of one model, get the same share of what they want beyond that.
///
/// If not even the least of all fits, everybody gets the least: bounds are the operator's word, and the check of the
/// policy says that the budget contradicts them.
#[must_use]
pub fn split(limits: &Limits, asked: &[Asked]) -> BTreeMap<PoolName, Share> {
    let mut given: Vec<u32> = asked.iter().map(|asked| asked.least.min(asked.wanted)).collect();
    let allowed = |given: &[u32]| limits.allow(asked.iter().zip(given.iter().copied()));
    let mut priorities: Vec<i32> = asked.iter().map(|asked| asked.priority).collect();
    priorities.sort_unstable_by(|a, b| b.cmp(a));
    priorities.dedup();
    for priority in priorities {
        let at = |share: u32, given: &[u32]| -> Vec<u32> {
            let part = |(asked, given): (&Asked, &u32)| {
                let more = u64::from(asked.wanted.saturating_sub(*given));
                let part = (more * u64::from(share) / u64::from(STEPS)) as u32;
                if asked.priority == priority { given + part } else { *given }
            };
            asked.iter().zip(given).map(part).collect()
        };
        // Mostly all get what they want.
        let all = at(STEPS, &given);
        let (mut low, mut high) = if allowed(&all) { (STEPS, STEPS) } else { (0, STEPS - 1) };
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if allowed(&at(middle, &given)) { low = middle } else { high = middle - 1 }
        }
        given = at(low, &given);
        if low < STEPS {
            rest(asked, priority, &mut given, &allowed);
        }
    }
    let share = |(asked, given): (&Asked, u32)| {
        (asked.pool.clone(), Share { replicas: given, cut: given < asked.wanted })
    };
    asked.iter().zip(given).map(share).collect()
}

/// What rounding left over, one replica at a time, to whom most is missing of what it wants.
fn rest(asked: &[Asked], priority: i32, given: &mut [u32], allowed: &dyn Fn(&[u32]) -> bool) {
    let entry = |place: usize, given: u32| {
        let have = f64::from(given) / f64::from(asked[place].wanted.max(1));
        // No share is negative, so its bits are in its order.
        Reverse((have.to_bits(), &asked[place].pool, place))
    };
    let open = (0..asked.len())
        .filter(|place| asked[*place].priority == priority && given[*place] < asked[*place].wanted);
    let mut open: BinaryHeap<_> = open.map(|place| entry(place, given[place])).collect();
    while let Some(Reverse((_, _, place))) = open.pop() {
        given[place] += 1;
        if !allowed(given) {
            // What is used only grows, so it does not fit later either.
            given[place] -= 1;
        } else if given[place] < asked[place].wanted {
            open.push(entry(place, given[place]));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(pool: &str, priority: i32, least: u32, wanted: u32, gpus: u32) -> Asked {
        let pool = PoolName::parse(pool).unwrap();
        Asked { pool, priority, least, wanted, gpus, watts: 0.0, cost_per_hour: 0.0 }
    }

    fn replicas(shares: &BTreeMap<PoolName, Share>) -> Vec<u32> {
        shares.values().map(|share| share.replicas).collect()
    }

    #[test]
    fn the_more_important_model_gets_its_own_and_the_other_what_is_left() {
        let limits = Limits { gpus: Some(20), ..Limits::default() };
        let pools = [asked("a", 0, 1, 8, 2), asked("b", 10, 1, 8, 2)];
        assert_eq!(replicas(&split(&limits, &pools)), [2, 8]);
    }

    #[test]
    fn prefill_and_decode_are_cut_alike() {
        let limits = Limits { gpus: Some(16), ..Limits::default() };
        let pools = [asked("decode", 0, 1, 12, 2), asked("prefill", 0, 1, 4, 2)];
        assert_eq!(replicas(&split(&limits, &pools)), [6, 2]);
    }

    #[test]
    fn watts_and_money_are_budgets_too() {
        let pools = [Asked { watts: 700.0, cost_per_hour: 2.0, ..asked("a", 0, 1, 10, 1) }];
        let watts = Limits { watts: Some(2_100.0), ..Limits::default() };
        assert_eq!(replicas(&split(&watts, &pools)), [3]);
        let money = Limits { cost_per_hour: Some(9.0), ..Limits::default() };
        assert_eq!(replicas(&split(&money, &pools)), [4]);
    }

    fn pools() -> impl Strategy<Value = Vec<Asked>> {
        let pool = (0..3_i32, 0..3_u32, 0..12_u32, 1..9_u32);
        prop::collection::vec(pool, 1..6).prop_map(|pools| {
            let named = |(place, (priority, least, wanted, gpus)): (usize, (i32, u32, u32, u32))| {
                asked(&format!("pool-{place}"), priority, least, wanted, gpus)
            };
            pools.into_iter().enumerate().map(named).collect()
        })
    }

    proptest! {
        // Nobody gets more than it wants or less than its least; the budget is kept wherever the leasts fit; and if
        // anybody is cut, no further replica of its would fit.
        #[test]
        fn the_budget_is_kept_and_used(pools in pools(), gpus in 0..120_u32) {
            let limits = Limits { gpus: Some(gpus), ..Limits::default() };
            let shares = split(&limits, &pools);
            let given: Vec<u32> = pools.iter().map(|asked| shares[&asked.pool].replicas).collect();
            for (asked, given) in pools.iter().zip(&given) {
                prop_assert!(*given <= asked.wanted && *given >= asked.least.min(asked.wanted));
            }
            let leasts = pools.iter().map(|asked| (asked, asked.least.min(asked.wanted)));
            if limits.allow(leasts) {
                prop_assert!(limits.allow(pools.iter().zip(given.iter().copied())));
                for place in 0..pools.len() {
                    let mut more = given.clone();
                    more[place] += 1;
                    let cut = shares[&pools[place].pool].cut;
                    prop_assert!(!cut || !limits.allow(pools.iter().zip(more)));
                }
            }
        }

        // A model of lower priority takes nothing from one of higher, beyond its least.
        #[test]
        fn lower_priorities_do_not_matter(pools in pools(), gpus in 0..120_u32) {
            let limits = Limits { gpus: Some(gpus), ..Limits::default() };
            let highest = pools.iter().map(|asked| asked.priority).max().unwrap_or_default();
            let modest: Vec<Asked> = pools
                .iter()
                .map(|asked| {
                    let wanted = if asked.priority < highest { asked.least.min(asked.wanted) } else { asked.wanted };
                    Asked { wanted, ..asked.clone() }
                })
                .collect();
            let (with, without) = (split(&limits, &pools), split(&limits, &modest));
            for asked in pools.iter().filter(|asked| asked.priority == highest) {
                prop_assert_eq!(with[&asked.pool].replicas, without[&asked.pool].replicas);
            }
        }
    }
}
