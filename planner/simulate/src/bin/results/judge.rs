//! What is asked of a policy in a cell, and which of it it gave.

use plimsoll_sim::Trial;

use crate::{cells::Cell, measure::Base};

/// The share of requests that are to attain.
pub(crate) const GOAL: f64 = 0.99;
/// GPU-hours at most, of the causal bound's.
pub(crate) const OVER_BOUND: f64 = 1.15;
/// GPU-hours at most on a stationary load, of the best static fleet's.
pub(crate) const OVER_STATIC: f64 = 1.02;
/// Up to this much more than a peer counts as the same GPU-hours: less than one replica's minute in an hour.
pub(crate) const SAME: f64 = 1.005;
/// Reversals an hour at most, on loads that have no shorter period than this.
pub(crate) const REVERSALS: f64 = 2.0;
pub(crate) const LONG_PERIOD_S: u64 = 1_800;

/// What a policy lost in a cell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Loss {
    /// It attained too little: how much.
    Attainment(f64),
    /// It took this many times the GPU-hours of the bound: of the causal one, or (false) of the oracle.
    Bound(f64, bool),
    /// It took this many times the GPU-hours of the best static fleet.
    Static(f64),
    /// A peer kept the promise with fewer GPU-hours: who, and how many times as many it took.
    Peer(String, f64),
    /// It went back and forth: reversals an hour.
    Reversals(f64),
    /// Requests were aborted.
    Aborted(u64),
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Attainment(share) => write!(f, "attained {:.2} %", share * 100.0),
            Self::Bound(times, true) => write!(f, "{times:.2} × the causal bound"),
            Self::Bound(times, false) => write!(f, "{times:.2} × the oracle"),
            Self::Static(times) => write!(f, "{times:.2} × the best static fleet"),
            Self::Peer(peer, times) => write!(f, "{times:.2} × {peer}"),
            Self::Reversals(rate) => write!(f, "{rate:.1} reversals an hour"),
            Self::Aborted(n) => write!(f, "{n} aborted"),
        }
    }
}

/// What GPU-hours are compared with: the causal bound's, or the oracle's where nothing of the grid keeps the promise
/// (then the second is false). None where the oracle doesn't either: such a cell is left out.
pub(crate) fn bound(base: &Base) -> Option<(f64, bool)> {
    if base.causal.kept {
        return Some((base.causal.trial.gpu_hours(), true));
    }
    base.oracle.chosen.kept.then(|| (base.oracle.chosen.trial.gpu_hours(), false))
}

/// Everything that a policy lost; none if the cell is left out.
pub(crate) fn losses(cell: &Cell, base: &Base, trial: &Trial) -> Option<Vec<Loss>> {
    let (bound, causal) = bound(base)?;
    let hours = trial.gpu_hours();
    let mut losses = Vec::new();
    if trial.attained() < GOAL - 1e-12 {
        losses.push(Loss::Attainment(trial.attained()));
    }
    if hours > bound * OVER_BOUND {
        losses.push(Loss::Bound(hours / bound, causal));
    }
    if let Some(fleet) = base.static_best.as_ref().filter(|_| cell.stationary)
        && hours > fleet.gpu_hours() * OVER_STATIC
    {
        losses.push(Loss::Static(hours / fleet.gpu_hours()));
    }
    for (name, peer) in base.peers.iter().filter(|(_, peer)| peer.kept) {
        let theirs = peer.trial.gpu_hours();
        if hours > theirs * SAME {
            losses.push(Loss::Peer(name.clone(), hours / theirs));
        }
    }
    let calm = cell.stationary || cell.period_s.is_some_and(|period| period >= LONG_PERIOD_S);
    if calm && trial.reversals_per_hour() > REVERSALS {
        losses.push(Loss::Reversals(trial.reversals_per_hour()));
    }
    if trial.aborted() > 0 {
        losses.push(Loss::Aborted(trial.aborted()));
    }
    Some(losses)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use plimsoll_sim::{Chosen, Clairvoyant, Figures};

    use super::*;

    pub(crate) fn trial(attained: f64, gpu_hours: f64) -> Trial {
        let draw = Figures { attained, gpu_hours, hours: 1.0, ..Figures::default() };
        Trial { policy: "p".to_owned(), draws: vec![draw; 2] }
    }

    pub(crate) fn chosen(attained: f64, gpu_hours: f64) -> Chosen {
        Chosen { trial: trial(attained, gpu_hours), kept: attained >= GOAL }
    }

    pub(crate) fn base() -> Base {
        Base {
            requests: 1,
            peak_rps: 1.0,
            initial: vec![1],
            oracle: Clairvoyant { headroom: 0.85, chosen: chosen(0.995, 8.0) },
            static_best: Some(trial(0.995, 12.0)),
            causal: chosen(0.99, 10.0),
            peers: BTreeMap::from([
                ("HPA".to_owned(), chosen(0.99, 11.0)),
                ("KPA".to_owned(), chosen(0.9, 2.0)),
            ]),
        }
    }

    pub(crate) fn cell() -> Cell {
        Cell {
            name: "cell".to_owned(),
            group: "group".to_owned(),
            flags: BTreeMap::from([(
                "workload".to_owned(),
                toml::Value::String("poisson:rate=1".to_owned()),
            )]),
            seeds: 2,
            period_s: None,
            season: false,
            stationary: false,
            quick: true,
        }
    }

    #[test]
    fn whoever_gives_everything_loses_nothing() {
        assert_eq!(losses(&cell(), &base(), &trial(0.99, 11.0)), Some(vec![]));
    }

    #[test]
    fn each_demand_is_held_against_it() {
        let lost = |trial| losses(&cell(), &base(), &trial).unwrap();
        assert_eq!(lost(trial(0.98, 9.0)), [Loss::Attainment(0.98)]);
        assert_eq!(lost(trial(1.0, 11.2)), [Loss::Peer("HPA".to_owned(), 11.2 / 11.0)]);
        assert_eq!(lost(trial(1.0, 11.6))[0], Loss::Bound(1.16, true));
        let mut aborting = trial(1.0, 9.0);
        aborting.draws[0].aborted = 3;
        assert_eq!(lost(aborting), [Loss::Aborted(3)]);
    }

    #[test]
    fn calm_is_asked_of_slow_loads_and_static_size_of_stationary_ones() {
        let mut nervous = trial(1.0, 9.0);
        nervous.draws.iter_mut().for_each(|draw| draw.reversals = 3);
        assert_eq!(losses(&cell(), &base(), &nervous), Some(vec![]));
        let slow = Cell { period_s: Some(3_600), ..cell() };
        assert_eq!(losses(&slow, &base(), &nervous), Some(vec![Loss::Reversals(3.0)]));
        let quick = Cell { period_s: Some(1_200), ..cell() };
        assert_eq!(losses(&quick, &base(), &nervous), Some(vec![]));
        let stationary = Cell { stationary: true, ..cell() };
        let base = Base { static_best: Some(trial(1.0, 10.0)), ..base() };
        assert_eq!(losses(&stationary, &base, &trial(1.0, 10.5)), Some(vec![Loss::Static(1.05)]));
    }

    #[test]
    fn without_a_causal_bound_the_oracle_is_compared_with_and_without_both_nobody_is_judged() {
        let base = Base { causal: chosen(0.9, 1.0), ..base() };
        assert_eq!(losses(&cell(), &base, &trial(1.0, 10.0)), Some(vec![Loss::Bound(1.25, false)]));
        let nothing = Base { oracle: Clairvoyant { headroom: 0.35, chosen: chosen(0.9, 1.0) }, ..base };
        assert_eq!(losses(&cell(), &nothing, &trial(1.0, 10.0)), None);
    }
}
