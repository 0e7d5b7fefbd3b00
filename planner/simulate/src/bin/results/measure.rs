//! One cell: the oracle, the best static fleet, the causal bound, peers, and the policies that are judged.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use plimsoll_sim::{
    Chosen, Clairvoyant, Experiment, Trial, Trials, WorldConfig,
    bounds::{Grid, Oracle, grid},
};
use plimsoll_simulate::Scenario;
use serde::{Deserialize, Serialize};

use crate::{
    cells::{Cell, Peer},
    crew::now,
};

/// How thoroughly to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Depth {
    /// One draw, the coarse grid, and peers as they come.
    pub(crate) quick: bool,
}

impl Depth {
    pub(crate) fn draws(self, cell: &Cell) -> u64 {
        if self.quick { 1 } else { cell.seeds }
    }

    pub(crate) fn tries(self, peer: &Peer) -> &[String] {
        if self.quick { peer.tries.get(..1).unwrap_or_default() } else { &peer.tries }
    }

    pub(crate) fn grid(self, cell: &Cell) -> Vec<Vec<String>> {
        let period_s = cell.period_s.filter(|_| cell.season);
        grid(Grid { period_s, disaggregated: cell.disaggregated(), coarse: self.quick })
    }
}

/// What does not depend on the policies that are judged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Base {
    /// Requests of the first draw.
    pub(crate) requests: usize,
    /// Peak of its rate, requests a second.
    pub(crate) peak_rps: f64,
    /// Replicas that everybody begins with in the first draw, by pool.
    pub(crate) initial: Vec<u32>,
    pub(crate) oracle: Clairvoyant,
    pub(crate) static_best: Option<Trial>,
    pub(crate) causal: Chosen,
    /// Peers by name.
    pub(crate) peers: BTreeMap<String, Chosen>,
}

/// What was measured of a cell before.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) base: Option<Base>,
    pub(crate) policies: BTreeMap<String, Trial>,
    /// How long that took, s.
    pub(crate) seconds: f64,
}

impl Known {
    /// Whether nothing is left to measure for these policies.
    pub(crate) fn covers(&self, policies: &[String]) -> bool {
        self.base.is_some() && policies.iter().all(|text| self.policies.contains_key(text))
    }
}

/// All of one cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) base: Base,
    /// Judged policies by their text.
    pub(crate) policies: BTreeMap<String, Trial>,
    /// How long it took, s, with what was measured before.
    pub(crate) seconds: f64,
    /// Whether anything of it was measured just now.
    #[serde(skip)]
    pub(crate) fresh: bool,
}

/// Measures a cell, as far as it is not known already.
pub(crate) fn measure(
    cell: &Cell,
    depth: Depth,
    data: Option<&Path>,
    peers: &[Peer],
    wanted: &[String],
    known: Known,
) -> anyhow::Result<Measured> {
    let began = now();
    let Known { base: known, mut policies, seconds } = known;
    let missing: Vec<&String> = wanted.iter().filter(|text| !policies.contains_key(*text)).collect();
    if let Some(base) = known.as_ref().filter(|_| missing.is_empty()) {
        policies.retain(|text, _| wanted.contains(text));
        return Ok(Measured { base: base.clone(), policies, seconds, fresh: false });
    }
    let scenarios = (1..=depth.draws(cell))
        .map(|seed| cell.arguments(seed, data)?.scenario(&mut |_| ()))
        .collect::<anyhow::Result<Vec<Scenario>>>()?;
    let draws: Vec<Experiment<'_>> = scenarios.iter().map(|draw| experiment(draw, &draw.config)).collect();
    let oracle = match &known {
        Some(base) => base.oracle.clone(),
        None => Trials::new(&draws).oracle()?.context("a cell without a draw")?,
    };
    // Everybody begins with what the oracle begins with.
    let begun: Vec<WorldConfig> = scenarios
        .iter()
        .map(|draw| {
            Oracle::with_headroom(&draw.config, &draw.workload, &draw.slo, oracle.headroom)
                .beginning(&draw.config)
        })
        .collect();
    let draws: Vec<Experiment<'_>> =
        scenarios.iter().zip(&begun).map(|(draw, config)| experiment(draw, config)).collect();
    let trials = Trials::new(&draws);
    let base = match known {
        Some(base) => base,
        None => {
            let summary = scenarios.first().context("a cell without a draw")?.workload.summary();
            Base {
                requests: summary.requests,
                peak_rps: summary.peak_rps,
                initial: begun.iter().take(1).flat_map(|c| c.pools.iter().map(|pool| pool.initial)).collect(),
                static_best: trials.static_best()?,
                causal: trials.causal(&depth.grid(cell))?.context("an empty grid")?,
                peers: of_peers(&trials, depth, peers)?,
                oracle,
            }
        }
    };
    for text in missing {
        policies.insert(text.clone(), trials.policy(text)?);
    }
    policies.retain(|text, _| wanted.contains(text));
    Ok(Measured { base, policies, seconds: seconds + began.elapsed().as_secs_f64(), fresh: true })
}

fn experiment<'a>(draw: &'a Scenario, config: &'a WorldConfig) -> Experiment<'a> {
    Experiment { config, workload: &draw.workload, slo: draw.slo }
}

fn of_peers(trials: &Trials<'_>, depth: Depth, peers: &[Peer]) -> anyhow::Result<BTreeMap<String, Chosen>> {
    let mut chosen = BTreeMap::new();
    for peer in peers {
        let of = || format!("peer {}", peer.name);
        let best = trials.cheapest(depth.tries(peer)).with_context(of)?.with_context(of)?;
        chosen.insert(peer.name.clone(), best);
    }
    Ok(chosen)
}
