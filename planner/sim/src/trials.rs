//! The same world drawn several times, and how policies and bounds do on average over the draws.
//!
//! One draw is one seed: its arrivals (where they are generated), start-up times, failed starts and noise. What a
//! policy promises it promises on average over the draws, so bounds are chosen by that average too.

use plimsoll_core::score::Slo;
use serde::{Deserialize, Serialize};

use crate::{
    bounds::{CausalError, HEADROOM, Oracle},
    experiment::{Experiment, Run, Watcher},
    outcome::Ending,
    policies::{from_text, static_sizes},
    report::share,
    search::Search,
    world::ConfigError,
};

/// By how much a policy may miss the goal in the first draw and still be tried in the others.
const NEAR: f64 = 0.02;

/// How much more GPU-hours than the best so far a policy may take in the first draw and still be tried in the others.
const DEARER: f64 = 1.05;

/// How much more GPU-hours than the best so far the lowest rung of a ladder that keeps the promise in the first draw
/// may take, and the rungs around it still be tried.
const FAR: f64 = 1.1;

/// One draw of one policy, in the numbers that are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The share of requests that attained.
    pub attained: f64,
    /// GPU-hours, those of starting and draining replicas included.
    pub gpu_hours: f64,
    /// Changes of targets.
    pub actions: u64,
    /// Of them, reversals.
    pub reversals: u64,
    /// From the start to the end of the last request, hours.
    pub hours: f64,
    /// Requests that were aborted.
    pub aborted: u64,
    /// Requests that had not finished when patience ended.
    pub unfinished: u64,
}

impl Figures {
    /// Those of a run.
    #[must_use]
    pub fn of(run: &Run) -> Self {
        Self {
            attained: share(&run.score),
            gpu_hours: run.score.gpu_hours.total,
            actions: run.score.actions,
            reversals: run.score.reversals,
            hours: run.score.span.as_secs_f64() / 3_600.0,
            aborted: run.outcome.count(Ending::Aborted) as u64,
            unfinished: run.outcome.count(Ending::Unfinished) as u64,
        }
    }
}

/// How one policy did, draw by draw; at least one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The policy as it is written.
    pub policy: String,
    /// The draws, in their order.
    pub draws: Vec<Figures>,
}

impl Trial {
    /// The mean share of requests that attained.
    #[must_use]
    pub fn attained(&self) -> f64 {
        self.mean(|draw| draw.attained)
    }

    /// The least and the greatest share that attained in a draw.
    #[must_use]
    pub fn range(&self) -> (f64, f64) {
        let each = || self.draws.iter().map(|draw| draw.attained);
        (each().fold(1.0, f64::min), each().fold(0.0, f64::max))
    }

    /// Mean GPU-hours.
    #[must_use]
    pub fn gpu_hours(&self) -> f64 {
        self.mean(|draw| draw.gpu_hours)
    }

    /// Mean number of changed targets.
    #[must_use]
    pub fn actions(&self) -> f64 {
        self.mean(|draw| draw.actions as f64)
    }

    /// Reversals an hour, over all draws.
    #[must_use]
    pub fn reversals_per_hour(&self) -> f64 {
        let hours = self.mean(|draw| draw.hours);
        if hours > 0.0 { self.mean(|draw| draw.reversals as f64) / hours } else { 0.0 }
    }

    /// Aborted requests of all draws.
    #[must_use]
    pub fn aborted(&self) -> u64 {
        self.draws.iter().map(|draw| draw.aborted).sum()
    }

    /// Requests of all draws that had not finished when patience ended.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        self.draws.iter().map(|draw| draw.unfinished).sum()
    }

    /// Whether the promise was kept on average.
    #[must_use]
    pub fn keeps(&self, slo: &Slo) -> bool {
        self.attained() >= slo.goal.get() - 1e-12
    }

    fn mean(&self, of: impl Fn(&Figures) -> f64) -> f64 {
        self.draws.iter().map(of).sum::<f64>() / self.draws.len().max(1) as f64
    }
}

/// One of several that were tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// The cheapest that keeps the promise; if none does, the one that attained most in the first draw.
    pub trial: Trial,
    /// Whether it keeps the promise.
    pub kept: bool,
}

/// What the oracle did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clairvoyant {
    /// Its [`HEADROOM`].
    pub headroom: f64,
    /// Its replay.
    pub chosen: Chosen,
}

/// The draws of one world. They differ in their seeds and workloads only.
#[derive(Clone, Copy, Debug)]
pub struct Trials<'a> {
    draws: &'a [Experiment<'a>],
}

impl<'a> Trials<'a> {
    /// Takes the draws; without any, every trial is empty.
    #[must_use]
    pub const fn new(draws: &'a [Experiment<'a>]) -> Self {
        Self { draws }
    }

    /// Tries one policy in every draw.
    ///
    /// # Errors
    /// If the text names no policy, or there cannot be such a world.
    pub fn policy(&self, text: &str) -> Result<Trial, CausalError> {
        let mut trial = Trial { policy: text.to_owned(), draws: Vec::new() };
        for draw in self.draws {
            trial.draws.push(one(draw, text)?);
        }
        Ok(trial)
    }

    /// Chooses the cheapest of several policies that keeps the promise on average, the first among equals. Those that
    /// miss it by more than two points in the first draw, or take more than 5 % above the best so far, are not tried
    /// in the others.
    ///
    /// # Errors
    /// If a text names no policy, or there cannot be such a world.
    pub fn cheapest(&self, texts: &[String]) -> Result<Option<Chosen>, CausalError> {
        let Some(first) = self.draws.first() else { return Ok(None) };
        let mut tried = Vec::with_capacity(texts.len());
        for text in texts {
            tried.push((text, one(first, text)?));
        }
        let Some(most) = tried.iter().max_by(|a, b| a.1.attained.total_cmp(&b.1.attained)).cloned() else {
            return Ok(None);
        };
        tried.sort_by(|a, b| a.1.gpu_hours.total_cmp(&b.1.gpu_hours));
        let mut best: Option<Trial> = None;
        for (text, figures) in tried.iter().filter(|(_, first)| first.attained >= self.goal() - NEAR) {
            let limit = best.as_ref().map_or(f64::INFINITY, Trial::gpu_hours);
            if figures.gpu_hours > limit * DEARER {
                break;
            }
            let trial = self.complete(text, *figures)?;
            if self.keeps(&trial) && trial.gpu_hours() < limit {
                best = Some(trial);
            }
        }
        Ok(Some(match best {
            Some(trial) => Chosen { trial, kept: true },
            None => Chosen { trial: self.complete(most.0, most.1)?, kept: false },
        }))
    }

    /// The causal bound: the cheapest policy of a grid that keeps the promise on average. In each of the grid's ladders,
    /// which go from the most replicas to the fewest, fewer are taken to attain no more: the lowest rung that keeps
    /// the promise is found by bisection in the first draw, and from there rung by rung on average.
    ///
    /// # Errors
    /// If a text names no policy, or there cannot be such a world.
    pub fn causal(&self, ladders: &[Vec<String>]) -> Result<Option<Chosen>, CausalError> {
        let mut best: Option<Chosen> = None;
        for ladder in ladders {
            let limit = best.as_ref().filter(|best| best.kept).map_or(f64::INFINITY, |b| b.trial.gpu_hours());
            let Some(found) = self.lowest(ladder, limit)? else { continue };
            let better = best.as_ref().is_none_or(|best| match (found.kept, best.kept) {
                (true, true) => found.trial.gpu_hours() < best.trial.gpu_hours(),
                (false, false) => found.trial.draws[0].attained > best.trial.draws[0].attained,
                (kept, _) => kept,
            });
            if better {
                best = Some(found);
            }
        }
        Ok(best)
    }

    /// The lowest rung of a ladder that keeps the promise, unless all that keep it take more GPU-hours than the limit;
    /// its top if none does.
    fn lowest(&self, ladder: &[String], limit: f64) -> Result<Option<Chosen>, CausalError> {
        let (Some(first), Some(top)) = (self.draws.first(), ladder.first()) else { return Ok(None) };
        // The top is taken to keep it until it is tried.
        let (mut keeps, mut misses) = (0, ladder.len());
        while misses - keeps > 1 {
            let middle = keeps + (misses - keeps) / 2;
            if one(first, &ladder[middle])?.attained >= self.goal() - 1e-12 {
                keeps = middle
            } else {
                misses = middle
            }
        }
        let figures = one(first, &ladder[keeps])?;
        if figures.gpu_hours > limit * FAR {
            return Ok(None);
        }
        let mut trial = self.complete(&ladder[keeps], figures)?;
        while self.keeps(&trial) {
            let Some(next) = ladder.get(keeps + 1) else { break };
            let lower = self.near(next)?;
            let Some(lower) = lower.filter(|lower| self.keeps(lower)) else { break };
            (keeps, trial) = (keeps + 1, lower);
        }
        while !self.keeps(&trial) && keeps > 0 {
            keeps -= 1;
            trial = self.policy(&ladder[keeps])?;
        }
        let kept = self.keeps(&trial);
        let trial = if kept { trial } else { self.policy(top)? };
        Ok(Some(Chosen { trial, kept }))
    }

    /// Tries a policy in the first draw, and in the others if it is not far from keeping the promise there.
    fn near(&self, text: &str) -> Result<Option<Trial>, CausalError> {
        let Some(first) = self.draws.first() else { return Ok(None) };
        let figures = one(first, text)?;
        if figures.attained < self.goal() - NEAR {
            return Ok(None);
        }
        self.complete(text, figures).map(Some)
    }

    /// Tries a policy in all draws but the first, of which the figures are known.
    fn complete(&self, text: &str, first: Figures) -> Result<Trial, CausalError> {
        let mut trial = Trial { policy: text.to_owned(), draws: vec![first] };
        for draw in self.draws.iter().skip(1) {
            trial.draws.push(one(draw, text)?);
        }
        Ok(trial)
    }

    fn keeps(&self, trial: &Trial) -> bool {
        trial.attained() >= self.goal() - 1e-12
    }

    /// The clairvoyant oracle, replayed in every draw: with the tightest [`HEADROOM`] at which it keeps the promise. If
    /// it does at none, the one that attained most in the first draw.
    ///
    /// # Errors
    /// If there cannot be such a world.
    pub fn oracle(&self) -> Result<Option<Clairvoyant>, ConfigError> {
        let Some(first) = self.draws.first() else { return Ok(None) };
        let run = |draw: &Experiment<'_>, headroom: f64| -> Result<Figures, ConfigError> {
            let oracle = Oracle::with_headroom(draw.config, draw.workload, &draw.slo, headroom);
            Ok(Figures::of(&oracle.replay(draw, &mut |_, _| ())?))
        };
        let complete = |headroom: f64, figures: Figures| -> Result<Trial, ConfigError> {
            let mut trial = Trial { policy: format!("oracle at {headroom}"), draws: vec![figures] };
            for draw in &self.draws[1..] {
                trial.draws.push(run(draw, headroom)?);
            }
            Ok(trial)
        };
        let mut most: Option<(f64, Figures)> = None;
        for headroom in HEADROOM {
            let figures = run(first, headroom)?;
            if figures.attained >= self.goal() - NEAR {
                let trial = complete(headroom, figures)?;
                if trial.keeps(&first.slo) {
                    return Ok(Some(Clairvoyant { headroom, chosen: Chosen { trial, kept: true } }));
                }
            }
            if most.is_none_or(|(_, most)| figures.attained > most.attained) {
                most = Some((headroom, figures));
            }
        }
        let Some((headroom, figures)) = most else { return Ok(None) };
        let trial = complete(headroom, figures)?;
        Ok(Some(Clairvoyant { headroom, chosen: Chosen { trial, kept: false } }))
    }

    /// The cheapest static fleet that keeps the promise on average, chosen in hindsight; none if no fleet does.
    ///
    /// # Errors
    /// If there cannot be such a world.
    pub fn static_best(&self) -> Result<Option<Trial>, ConfigError> {
        let Some(first) = self.draws.first() else { return Ok(None) };
        let mut run = |fleet: &[u32]| {
            let sizes: Vec<String> = fleet.iter().map(ToString::to_string).collect();
            let mut trial = Trial { policy: format!("static:{}", sizes.join("+")), draws: Vec::new() };
            for draw in self.draws {
                trial.draws.push(Figures::of(&draw.run_static(fleet, &mut |_, _| ())?));
            }
            let attained = trial.attained();
            Ok((trial, attained))
        };
        let mut search = Search::new(self.goal(), &mut run);
        let best = search.best(&first.config.pools)?;
        let tried = search.tried.into_iter();
        Ok(tried.filter(|(fleet, _, _)| best.as_ref() == Some(fleet)).map(|(_, trial, _)| trial).next())
    }

    fn goal(&self) -> f64 {
        self.draws.first().map_or(1.0, |draw| draw.slo.goal.get())
    }
}

fn one(draw: &Experiment<'_>, text: &str) -> Result<Figures, CausalError> {
    let watcher: Watcher<'_> = &mut |_, _| ();
    let run = match static_sizes(text) {
        Some(sizes) => draw.run_static(&sizes, watcher)?,
        None => draw.run(&mut *from_text(text, &draw.config.briefing(), &draw.slo)?, watcher)?,
    };
    Ok(Figures::of(&run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{policies::testing::burst_world, workload::Workload, world::WorldConfig};

    fn draws() -> Vec<(WorldConfig, Workload)> {
        let (mut config, workload) = burst_world();
        config.pools[0].initial = 4;
        config.pools[0].start_up.spread = 0.3;
        (1..=2).map(|seed| (WorldConfig { seed, ..config.clone() }, workload.clone())).collect()
    }

    fn experiments(draws: &[(WorldConfig, Workload)]) -> Vec<Experiment<'_>> {
        let slo = Slo::of_millis(3_000, 60);
        draws.iter().map(|(config, workload)| Experiment { config, workload, slo }).collect()
    }

    #[test]
    fn the_cheapest_that_keeps_the_promise_is_chosen_as_if_all_had_been_tried() {
        let draws = draws();
        let experiments = experiments(&draws);
        let trials = Trials::new(&experiments);
        let texts: Vec<String> =
            [0.02, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9].iter().map(|u| format!("demand:utilisation={u}")).collect();
        let chosen = trials.cheapest(&texts).unwrap().unwrap();
        assert!(chosen.kept);
        let all: Vec<Trial> = texts.iter().map(|text| trials.policy(text).unwrap()).collect();
        let slo = experiments[0].slo;
        let kept = all.iter().filter(|trial| trial.keeps(&slo));
        let best = kept.min_by(|a, b| a.gpu_hours().total_cmp(&b.gpu_hours())).unwrap();
        assert_eq!(*best, chosen.trial);
        // A ladder goes the same way, from the most replicas to the fewest.
        assert_eq!(trials.causal(&[texts]).unwrap().unwrap(), chosen);
        assert!(best.draws.len() == 2 && best.range().0 <= best.attained());
    }

    #[test]
    fn bounds_keep_the_promise_on_average() {
        let draws = draws();
        let experiments = experiments(&draws);
        let trials = Trials::new(&experiments);
        let fleet = trials.static_best().unwrap().unwrap();
        assert!(fleet.keeps(&experiments[0].slo) && fleet.actions() == 0.0);
        let oracle = trials.oracle().unwrap().unwrap();
        assert!(
            oracle.chosen.kept && oracle.chosen.trial.gpu_hours() < fleet.gpu_hours(),
            "{oracle:?} {fleet:?}"
        );
    }

    #[test]
    fn if_nothing_keeps_the_promise_the_nearest_is_told() {
        let draws = draws();
        let mut experiments = experiments(&draws);
        for experiment in &mut experiments {
            experiment.slo = Slo::of_millis(1, 1);
        }
        let trials = Trials::new(&experiments);
        assert!(trials.static_best().unwrap().is_none());
        assert!(!trials.oracle().unwrap().unwrap().chosen.kept);
        let texts = ["demand:utilisation=0.9".to_owned(), "static:1".to_owned()];
        assert!(!trials.cheapest(&texts).unwrap().unwrap().kept);
        assert!(trials.policy("nobody").is_err());
        let causal = trials.causal(&[texts.to_vec()]).unwrap().unwrap();
        assert!(!causal.kept && causal.trial.policy == texts[0]);
        assert!(Trials::new(&[]).cheapest(&texts).unwrap().is_none());
    }
}
