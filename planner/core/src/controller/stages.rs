//! The stages of a step between what pools ask for and what is planned.

use std::collections::BTreeMap;

use plimsoll_common::{ids::PoolName, units::Micros};

use super::{Controller, Plan, Step};
use crate::{
    explain::{Explanation, PoolExplanation, Reason},
    plan::{Asked, Move, Placement, Planned, Refused, Share, Turnable, check, place, settle, switches},
    policy::HeldBack,
    pool::{Pool, Wish},
    tuning::Tuning,
};

impl Controller {
    /// When time ran backwards: what was told belongs to no time that is known and is not taken, and nothing that was
    /// noted lies in the future any more.
    pub(super) fn turn_back(&mut self, now: Micros) -> bool {
        let latest = self.pools.values().filter_map(Pool::seen_at).max();
        let turns = latest.is_some_and(|latest| latest > now);
        if turns {
            self.pending.clear();
            self.pools.values_mut().for_each(|pool| pool.turn_back(now));
        }
        turns
    }

    /// Everything stays as it is.
    pub(super) fn hold(&mut self, now: Micros, wishes: BTreeMap<PoolName, Wish>, why: Reason) -> Step {
        let mut step = self.nothing(now);
        for (name, wish) in wishes {
            let to = wish.current;
            let wish = Wish { reasons: vec![why, Reason::Steady], ..wish };
            step.plan.targets.insert(name.clone(), to);
            step.explanation.pools.insert(name, explained(wish, to, None));
        }
        step
    }

    fn nothing(&self, now: Micros) -> Step {
        let (plan, explanation) = (Plan::default(), Explanation::default());
        Step { plan, explanation, next: now.saturating_add(self.interval) }
    }

    /// Places what is to grow, and takes back what has no place.
    pub(super) fn place(
        &self,
        asked: &[Asked],
        wishes: &BTreeMap<PoolName, Wish>,
        shares: &mut BTreeMap<PoolName, Share>,
    ) -> Placed {
        let has = wishes.iter().map(|(name, wish)| (name.clone(), wish.current)).collect();
        let before = shares.clone();
        let placements = place(&*self.placer, &self.topology, asked, shares, &has);
        let is_short = |name: &&PoolName| {
            shares.get(name).zip(before.get(name)).is_some_and(|(now, before)| now.replicas < before.replicas)
        };
        let short = placements.keys().filter(is_short).cloned().collect();
        Placed { placements, short }
    }

    /// Pairs what the plan gives back with what it asks for, where replicas can change their role.
    pub(super) fn propose_switches(&self, step: &mut Step) {
        if !self.pools.values().any(|pool| pool.spec.role_switch) {
            return;
        }
        let turnable = |(name, explained): (&PoolName, &PoolExplanation)| {
            Some(Turnable {
                spec: &self.pools.get(name)?.spec,
                ready: explained.seen.ready,
                coming: explained.load.coming,
                to: explained.to,
                is_known: explained.seen.silent == 0 && !explained.reasons.contains(&Reason::NoNews),
            })
        };
        let pools: Vec<Turnable<'_>> = step.explanation.pools.iter().filter_map(turnable).collect();
        let proposed = switches(&pools);
        for switch in &proposed {
            for side in [&switch.from, &switch.to] {
                let Some(explained) = step.explanation.pools.get_mut(side) else { continue };
                if explained.switches.is_empty() {
                    explained.reasons.push(Reason::RoleSwitch);
                }
                explained.switches.push(switch.clone());
            }
        }
        step.plan.switches = proposed;
    }

    /// What of the shares may come about now.
    pub(super) fn stabilize(
        &mut self,
        now: Micros,
        wishes: BTreeMap<PoolName, Wish>,
        shares: &BTreeMap<PoolName, Share>,
    ) -> Step {
        let mut step = self.nothing(now);
        let tuning = self.tuning;
        for (name, wish) in wishes {
            let (Some(pool), Some(share)) = (self.pools.get_mut(&name), shares.get(&name)) else { continue };
            let explained = stabilize(now, &tuning, pool, wish, *share);
            step.plan.targets.insert(name.clone(), explained.to);
            step.explanation.pools.insert(name, explained);
        }
        step
    }

    /// Cuts growth for which what others still hold leaves no room.
    pub(super) fn settle(&self, step: &mut Step, asked: &[Asked]) {
        let of = |asked| {
            let (from, to) = self.range(step, asked);
            Move { asked, from, to }
        };
        let settled = settle(&self.limits, &asked.iter().map(of).collect::<Vec<_>>());
        for (name, explained) in &mut step.explanation.pools {
            let Some(to) = settled.get(name).copied().filter(|to| *to != explained.to) else { continue };
            explained.to = to;
            if !explained.reasons.contains(&Reason::Budget) {
                explained.reasons.insert(0, Reason::Budget);
            }
            if to == explained.from {
                explained.reasons.push(Reason::Steady);
            }
            step.plan.targets.insert(name.clone(), to);
        }
    }

    /// What a pool has and is to have; one of which nothing was ever told keeps what is set aside for it.
    fn range(&self, step: &Step, asked: &Asked) -> (u32, u32) {
        let explained = step.explanation.pools.get(&asked.pool);
        explained.map_or((asked.wanted, asked.wanted), |explained| (explained.from, explained.to))
    }

    pub(super) fn check(&self, step: &Step, asked: &[Asked]) -> Result<(), Vec<Refused>> {
        let planned = |asked| self.planned(step, asked);
        check(&self.limits, &asked.iter().filter_map(planned).collect::<Vec<_>>())
    }

    fn planned<'a>(&self, step: &Step, asked: &'a Asked) -> Option<Planned<'a>> {
        let (from, to) = self.range(step, asked);
        let explained = step.explanation.pools.get(&asked.pool);
        Some(Planned {
            asked,
            most: self.pools.get(&asked.pool)?.spec.bounds.1,
            from,
            to,
            silent: explained.is_some_and(|explained| {
                explained.seen.silent > 0 || explained.reasons.contains(&Reason::NoNews)
            }),
            in_flight: explained.map_or(0, |explained| explained.in_flight),
        })
    }

    pub(super) fn refuse(&mut self, step: &mut Step, refused: Vec<Refused>) {
        self.refused += 1;
        for (name, explained) in &mut step.explanation.pools {
            explained.to = explained.from;
            explained.reasons.retain(|reason| *reason != Reason::RoleSwitch);
            explained.reasons.insert(0, Reason::Refused);
            explained.switches.clear();
            step.plan.targets.insert(name.clone(), explained.from);
        }
        step.plan.switches.clear();
        step.plan.places.clear();
        step.explanation.refused = refused;
    }
}

/// What became of growth in the place stage.
pub(super) struct Placed {
    placements: BTreeMap<PoolName, Placement>,
    /// Pools that were to grow by more than there is a place for.
    short: Vec<PoolName>,
}

impl Placed {
    /// Tells where what still grows shall run, and who found no place.
    pub(super) fn tell(self, step: &mut Step) {
        for name in &self.short {
            if let Some(explained) = step.explanation.pools.get_mut(name) {
                explained.reasons.insert(0, Reason::NoPlace);
            }
        }
        for (name, mut placement) in self.placements {
            let Some(explained) = step.explanation.pools.get(&name) else { continue };
            placement.trim(explained.to.saturating_sub(explained.from));
            if !placement.places.is_empty() {
                step.plan.places.insert(name, placement.places);
            }
        }
    }
}

/// What of one pool's share may come about now: what is silent, in flight or within the policy's windows holds.
fn stabilize(now: Micros, tuning: &Tuning, pool: &mut Pool, mut wish: Wish, share: Share) -> PoolExplanation {
    let (current, mut to) = (wish.current, share.replicas);
    let reasons = &mut wish.reasons;
    if share.cut {
        reasons.insert(0, Reason::Budget);
    }
    let (wanted, is_news) = (to, !reasons.contains(&Reason::NoNews));
    let (least, most) = pool.spec.bounds;
    // Beyond the upper bound nothing is held.
    let hold = current.min(most.max(least));
    if to < hold && wish.seen.silent > 0 {
        to = hold;
        reasons.insert(0, Reason::Silence);
    } else if to < hold && !is_news {
        // Nor for a budget that others need: nobody knows what it does.
        to = hold;
    }
    if to < hold.min(wish.in_flight) {
        to = hold.min(wish.in_flight);
        reasons.insert(0, Reason::InFlight);
    }
    let mut behavior = pool.spec.behavior.clone();
    let window = pool.down_window_s(tuning);
    behavior.scale_down.stabilization_window_seconds = Some(window);
    pool.history.begin(now, hold);
    let kept = pool.kept(now, tuning, current, to);
    // What is held for want of news is not wanted: one line that leaves a pool out would hold it for another window.
    if is_news && wish.seen.silent > 0 {
        pool.history.want(now, wanted.max(wish.in_flight));
    } else if is_news || pool.history.wanted_within(now, window).next().is_none() {
        pool.history.want(now, to);
    }
    if kept > to {
        to = kept;
        reasons.insert(0, Reason::Keep);
    }
    let allowed = behavior.allowed(&pool.history, now, current, to);
    let held_back: Option<HeldBack> = allowed.held_back.filter(|_| allowed.replicas != to);
    if held_back.is_some() {
        reasons.insert(0, Reason::Behavior);
    }
    let to = allowed.replicas.clamp(least.min(current), most.max(least));
    if to == current {
        reasons.push(Reason::Steady);
    }
    explained(wish, to, held_back)
}

fn explained(wish: Wish, to: u32, held_back: Option<HeldBack>) -> PoolExplanation {
    let Wish { seen, believed, load, needs, current: from, reasons, in_flight, .. } = wish;
    let switches = Vec::new();
    PoolExplanation { seen, believed, load, needs, from, to, reasons, held_back, in_flight, switches }
}
