//! What of a plan fits its budget once it is known what every pool keeps in any case.
//!
//! A budget is split by what pools want. What is silent, in flight or within its windows is kept all the same and so
//! takes room that the split gave to another. Growth is cut to the room that is really left, the more important model
//! first, instead of refusing a plan whole: one pool that cannot shrink yet stops nobody who needs nothing of it.

use std::collections::BTreeMap;

use plimsoll_common::ids::PoolName;

use super::split::{Asked, Limits, split};

/// A pool's part of a plan.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    /// What a replica takes, and the lower bound.
    pub asked: &'a Asked,
    /// Replicas before.
    pub from: u32,
    /// Replicas after.
    pub to: u32,
}

/// The replicas that each pool may have: who stays or shrinks does as planned, who grows gets at most what was planned
/// and keeps at least what it has. Within the limits, or without growth beyond lower bounds.
#[must_use]
pub fn settle(limits: &Limits, moves: &[Move<'_>]) -> BTreeMap<PoolName, u32> {
    if limits.allow(moves.iter().map(|one| (one.asked, one.to))) {
        return moves.iter().map(|one| (one.asked.pool.clone(), one.to)).collect();
    }
    let held = |one: &Move<'_>| {
        let grows = one.to > one.from;
        let least = if grows { one.from.max(one.asked.least.min(one.to)) } else { one.to };
        Asked { least, wanted: one.to, ..one.asked.clone() }
    };
    let asked: Vec<Asked> = moves.iter().map(held).collect();
    split(limits, &asked).into_iter().map(|(pool, share)| (pool, share.replicas)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(pool: &str, priority: i32, least: u32, gpus: u32) -> Asked {
        let pool = PoolName::parse(pool).unwrap();
        Asked { pool, priority, least, wanted: 0, gpus, watts: 0.0, cost_per_hour: 0.0 }
    }

    #[test]
    fn who_cannot_shrink_yet_takes_from_growth_alone() {
        let limits = Limits { gpus: Some(12), ..Limits::default() };
        let (a, b, c) = (asked("a", 5, 1, 1), asked("b", 0, 1, 1), asked("c", 0, 1, 1));
        let moves = [
            Move { asked: &a, from: 4, to: 9 },
            Move { asked: &b, from: 5, to: 5 },
            Move { asked: &c, from: 2, to: 1 },
        ];
        let settled = settle(&limits, &moves);
        // Nine would fit if b gave four back, which it does not yet: six are left.
        assert_eq!(settled.into_values().collect::<Vec<_>>(), [6, 5, 1]);
    }

    #[test]
    fn a_lower_bound_is_reached_whatever_the_budget_says() {
        let limits = Limits { gpus: Some(1), ..Limits::default() };
        let a = asked("a", 0, 3, 1);
        assert_eq!(settle(&limits, &[Move { asked: &a, from: 0, to: 7 }])[&a.pool], 3);
    }

    proptest! {
        // A clamp never reverses a proposal: every answer lies between what a pool has and what was planned for it, who
        // does not grow does exactly as planned, and nothing grows beyond its bound while the budget is exceeded. What
        // fits is not touched, and where growth was cut no further replica of it would fit.
        #[test]
        fn growth_is_cut_and_nothing_else(
            pools in prop::collection::vec((0..3_i32, 0..3_u32, 0..12_u32, 0..12_u32, 1..9_u32), 1..6),
            gpus in 0..120_u32,
        ) {
            let limits = Limits { gpus: Some(gpus), ..Limits::default() };
            let named = |(place, (priority, least, from, to, gpus)): (usize, &(i32, u32, u32, u32, u32))| {
                (asked(&format!("pool-{place}"), *priority, *least, *gpus), *from, *to)
            };
            let pools: Vec<(Asked, u32, u32)> = pools.iter().enumerate().map(named).collect();
            let moves: Vec<Move<'_>> =
                pools.iter().map(|(asked, from, to)| Move { asked, from: *from, to: *to }).collect();
            let settled = settle(&limits, &moves);
            let after = |change: Option<&PoolName>| {
                let more = |one: &Move<'_>| u32::from(change == Some(&one.asked.pool));
                let replicas = moves.iter().map(|one| (one.asked, settled[&one.asked.pool] + more(one)));
                limits.allow(replicas)
            };
            let fits = limits.allow(moves.iter().map(|one| (one.asked, one.to)));
            for one in &moves {
                let to = settled[&one.asked.pool];
                prop_assert!((one.from.min(one.to)..=one.from.max(one.to)).contains(&to));
                prop_assert!(one.to > one.from || to == one.to);
                prop_assert!(!fits || to == one.to);
                prop_assert!(after(None) || to <= one.from || to <= one.asked.least);
                prop_assert!(to == one.to || !after(Some(&one.asked.pool)));
            }
        }

        // Direction is kept: of pools that fit their budget, one that asks for no less than it has is cut below that only
        // if another of at least its priority gets more than it had, or one below its lower bound is brought there.
        #[test]
        fn nobody_is_cut_for_nothing(
            pools in prop::collection::vec((0..3_i32, 0..3_u32, 0..9_u32, 0..12_u32, 1..5_u32), 1..6),
            spare in 0..20_u32,
        ) {
            let pools: Vec<(Asked, u32)> = pools.iter().enumerate().map(|(place, one)| {
                let (priority, least, from, wanted, gpus) = *one;
                (Asked { wanted, ..asked(&format!("pool-{place}"), priority, least, gpus) }, from)
            }).collect();
            let used: u32 = pools.iter().map(|(asked, from)| asked.gpus * from).sum();
            let limits = Limits { gpus: Some(used + spare), ..Limits::default() };
            let asked: Vec<Asked> = pools.iter().map(|(asked, _)| asked.clone()).collect();
            let shares = split(&limits, &asked);
            let moves: Vec<Move<'_>> = pools.iter().map(|(asked, from)| {
                Move { asked, from: *from, to: shares[&asked.pool].replicas }
            }).collect();
            let settled = settle(&limits, &moves);
            for one in &moves {
                let cut = settled[&one.asked.pool] < one.from && one.asked.wanted >= one.from;
                let for_another = moves.iter().any(|other| {
                    let to = settled[&other.asked.pool];
                    let first = other.asked.priority >= one.asked.priority || other.from < other.asked.least;
                    to > other.from && first
                });
                prop_assert!(!cut || for_another, "{moves:?} {settled:?}");
            }
        }
    }
}
