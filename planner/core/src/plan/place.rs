//! Where further replicas could run: a seam for topology.
//!
//! A share says how many replicas a pool may have, a place says where. What is known here is all a placement depends on
//! and nothing of who carries it out: [`Topology`] is NVLink domains with their free GPUs, [`Placer`] answers how many of
//! the replicas asked for have a place, and which. The default, [`LeftToScheduler`], gives every replica a place and names
//! none: then the cluster's scheduler chooses, as it does without a planner.

use std::{collections::BTreeMap, fmt};

use plimsoll_common::ids::{NodeName, PoolName};
use serde::{Deserialize, Serialize};

use super::split::{Asked, Share};

/// The name of an NVLink domain in the whole fleet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainId {
    /// The node that its name is unique on; none where the domain spans nodes and its name is unique in the fleet.
    pub node: Option<NodeName>,
    /// Its name, as the GPUs tell it.
    pub name: String,
}

/// One NVLink domain: GPUs that reach each other at NVLink's speed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// Its GPUs.
    pub gpus: u32,
    /// Those of them that nobody has.
    pub free: u32,
    /// Whether something keeps it from working as wired.
    pub degraded: bool,
}

/// What is known of where GPUs are; empty where nobody told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// By name.
    pub domains: BTreeMap<DomainId, Domain>,
}

/// Replicas that a pool is to get beyond those that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Which pool.
    pub pool: PoolName,
    /// The higher is placed first.
    pub priority: i32,
    /// GPUs of one replica: they must be in one domain.
    pub gpus: u32,
    /// How many replicas.
    pub replicas: u32,
}

/// So many replicas in a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Where.
    pub domain: DomainId,
    /// How many.
    pub replicas: u32,
}

/// What became of one pool's growth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Replicas that have a place, at most those asked for.
    pub replicas: u32,
    /// Where, the best first; fewer than `replicas` where the scheduler is to choose for the others.
    pub places: Vec<Place>,
}

/// Finds places for replicas.
///
/// An answer must depend on its arguments alone, and every ordering end in a name: plans are replayed. A pool that is not
/// in the answer has no place for any.
pub trait Placer: fmt::Debug + Send + Sync {
    /// Places for what pools are to grow by; at most what was asked of each counts.
    fn place(&self, topology: &Topology, growth: &[Growth]) -> BTreeMap<PoolName, Placement>;
}

/// Every replica has a place, and the cluster's scheduler chooses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftToScheduler;

impl Placer for LeftToScheduler {
    fn place(&self, _topology: &Topology, growth: &[Growth]) -> BTreeMap<PoolName, Placement> {
        let all = |one: &Growth| (one.pool.clone(), Placement { replicas: one.replicas, places: Vec::new() });
        growth.iter().map(all).collect()
    }
}

/// Places what pools are to grow by, and takes back from shares what has no place. `has` is what each pool has.
#[must_use]
pub fn place(
    placer: &dyn Placer,
    topology: &Topology,
    asked: &[Asked],
    shares: &mut BTreeMap<PoolName, Share>,
    has: &BTreeMap<PoolName, u32>,
) -> BTreeMap<PoolName, Placement> {
    let growth = |asked: &Asked| {
        let (share, has) = (shares.get(&asked.pool)?, has.get(&asked.pool)?);
        let replicas = share.replicas.checked_sub(*has).filter(|more| *more > 0)?;
        Some(Growth { pool: asked.pool.clone(), priority: asked.priority, gpus: asked.gpus, replicas })
    };
    let growth: Vec<Growth> = asked.iter().filter_map(growth).collect();
    if growth.is_empty() {
        return BTreeMap::new();
    }
    let mut placed = placer.place(topology, &growth);
    for one in &growth {
        let placement = placed.entry(one.pool.clone()).or_default();
        placement.trim(one.replicas);
        if let Some(share) = shares.get_mut(&one.pool) {
            share.replicas -= one.replicas - placement.replicas;
        }
    }
    placed.retain(|pool, _| growth.iter().any(|one| one.pool == *pool));
    placed
}

impl Placement {
    /// Leaves at most so many replicas, the last places given up first.
    pub(crate) fn trim(&mut self, most: u32) {
        self.replicas = self.replicas.min(most);
        let mut left = self.replicas;
        for place in &mut self.places {
            place.replicas = place.replicas.min(left);
            left -= place.replicas;
        }
        self.places.retain(|place| place.replicas > 0);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The first domain by name that has room: what a test needs, and no more.
    #[derive(Debug)]
    pub(crate) struct FirstFit;

    impl Placer for FirstFit {
        fn place(&self, topology: &Topology, growth: &[Growth]) -> BTreeMap<PoolName, Placement> {
            let mut free: BTreeMap<&DomainId, u32> =
                topology.domains.iter().map(|(id, domain)| (id, domain.free)).collect();
            let mut placed = BTreeMap::new();
            for one in growth {
                let mut placement = Placement::default();
                for (id, free) in &mut free {
                    let replicas = (*free / one.gpus.max(1)).min(one.replicas - placement.replicas);
                    if replicas > 0 {
                        *free -= replicas * one.gpus;
                        placement.replicas += replicas;
                        placement.places.push(Place { domain: DomainId::clone(id), replicas });
                    }
                }
                placed.insert(one.pool.clone(), placement);
            }
            placed
        }
    }

    pub(crate) fn domains(free: &[u32]) -> Topology {
        let domain = |(place, free): (usize, &u32)| {
            let id = DomainId { node: None, name: format!("rack-{place}") };
            (id, Domain { gpus: 8, free: *free, degraded: false })
        };
        Topology { domains: free.iter().enumerate().map(domain).collect() }
    }

    fn asked(pool: &str, gpus: u32) -> Asked {
        let pool = PoolName::parse(pool).unwrap();
        Asked { pool, priority: 0, least: 1, wanted: 9, gpus, watts: 0.0, cost_per_hour: 0.0 }
    }

    fn run(placer: &dyn Placer, topology: &Topology, gpus: u32) -> (u32, Placement) {
        let asked = [asked("a", gpus)];
        let pool = asked[0].pool.clone();
        let mut shares = [(pool.clone(), Share { replicas: 5, cut: false })].into();
        let has = [(pool.clone(), 2)].into();
        let placed = place(placer, topology, &asked, &mut shares, &has);
        (shares[&pool].replicas, placed[&pool].clone())
    }

    #[test]
    fn by_default_everything_has_a_place_that_nobody_names() {
        let (replicas, placement) = run(&LeftToScheduler, &Topology::default(), 8);
        assert_eq!((replicas, placement), (5, Placement { replicas: 3, places: vec![] }));
    }

    #[test]
    fn six_and_two_free_are_not_eight() {
        let (replicas, placement) = run(&FirstFit, &domains(&[6, 2]), 8);
        assert_eq!((replicas, placement), (2, Placement::default()));
        let (replicas, placement) = run(&FirstFit, &domains(&[6, 2]), 4);
        assert_eq!((replicas, placement.places.len()), (3, 1));
        let (replicas, mut placement) = run(&FirstFit, &domains(&[6, 2]), 2);
        assert_eq!((replicas, placement.replicas), (5, 3));
        placement.trim(1);
        assert_eq!((placement.replicas, placement.places[0].replicas), (1, 1));
    }

    #[test]
    fn a_placer_that_gives_more_than_asked_or_forgets_a_pool_changes_nothing_for_the_worse() {
        #[derive(Debug)]
        struct Odd(u32);
        impl Placer for Odd {
            fn place(&self, _: &Topology, growth: &[Growth]) -> BTreeMap<PoolName, Placement> {
                let give = |one: &Growth| (one.pool.clone(), Placement { replicas: self.0, places: vec![] });
                if self.0 == 0 { BTreeMap::new() } else { growth.iter().map(give).collect() }
            }
        }
        assert_eq!(run(&Odd(1_000), &Topology::default(), 1).0, 5);
        assert_eq!(run(&Odd(0), &Topology::default(), 1).0, 2);
    }
}
