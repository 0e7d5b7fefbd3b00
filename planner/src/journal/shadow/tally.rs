//! One pool, step by step.

use plimsoll_common::{
    histogram::AttainmentInterval,
    ids::{ModelName, PoolName},
    units::Micros,
};
use plimsoll_core::{
    explain::PoolExplanation,
    observe::{Latency, Observation},
    score::{Marginals, Scorer, Slo},
    spec::PoolSpec,
};

use super::{PoolShadow, Shortage, Side, fleet::ShadowFleet};

/// A step that is followed by none for so many intervals is followed by a gap.
const GAP: u64 = 3;
/// Shortages that are told.
const TOLD: usize = 10;

/// What was added up of one pool.
#[derive(Debug, Default)]
pub(super) struct Tally {
    steps: u64,
    differed: u64,
    seconds: f64,
    judged_s: f64,
    advised: Fleet,
    had: Fleet,
    fleet: Option<ShadowFleet>,
    /// The step before, until it is known how long it lasted.
    open: Option<Moment>,
    ttft: Latency,
    scorer: Option<(Slo, Scorer)>,
    begun: Micros,
    short: Vec<Shortage>,
    had_target: Option<u32>,
    model: Option<ModelName>,
}

/// Sums of one of the two fleets.
#[derive(Clone, Copy, Debug, Default)]
struct Fleet {
    side: Side,
    /// Requests that miss by the model, and requests.
    missed: f64,
    requests: f64,
}

/// What held at one step.
#[derive(Clone, Debug)]
struct Moment {
    at: Micros,
    gpus: f64,
    /// Ready replicas, and all that hold GPUs.
    advised: (u32, u32),
    had: (u32, u32),
    needed: Option<u32>,
    rate: f64,
    /// The share of requests that misses, by the model: advised, had.
    misses: Option<(f64, f64)>,
}

impl Tally {
    pub(super) fn step<'a>(
        &mut self,
        at: Micros,
        interval: Micros,
        spec: &PoolSpec,
        explained: &PoolExplanation,
        seen: impl Iterator<Item = &'a Observation>,
    ) {
        self.close(at, Micros(interval.0.saturating_mul(GAP)));
        self.steps += 1;
        let (now, start_up) = (&explained.seen, explained.believed.start_up);
        let fleet =
            self.fleet.get_or_insert_with(|| ShadowFleet::begin(at, now.ready, now.starting, start_up));
        fleet.follow(at, explained.to, start_up);
        let advised = (fleet.ready(), fleet.all());
        let coming = now.ready + now.starting;
        let had = (now.ready, coming + now.draining);
        self.differed += u64::from(explained.to != coming);
        if self.had_target.replace(explained.from).is_some_and(|before| before != explained.from) {
            self.had.side.moves += 1;
        }
        self.advised.side.moves = fleet.moves;
        self.model = Some(spec.model.clone());
        self.measured(at, spec, seen);
        let load = &explained.load;
        let most = spec.bounds.1.max(spec.bounds.0);
        let known = !load.capacity.is_impossible() && load.now_rps.is_finite();
        let needed = known.then(|| load.capacity.replicas_for(load.now_rps, most).max(spec.bounds.0));
        let misses = explained.believed.capacity.zip(spec.slo).map(|(known, slo)| {
            let of = |ready: u32| {
                let engines = f64::from(ready) * f64::from(spec.engines_per_replica.max(1));
                (known.capacity.spent(engines, load.now_rps) * (1.0 - slo.goal.get())).min(1.0)
            };
            (of(advised.0), of(had.0))
        });
        let gpus = f64::from(spec.gpus);
        self.open = Some(Moment { at, gpus, advised, had, needed, rate: load.now_rps, misses });
    }

    /// Counts the step before for as long as it lasted.
    fn close(&mut self, end: Micros, gap: Micros) {
        let Some(moment) = self.open.take() else { return };
        let lasted = end.saturating_sub(moment.at);
        if lasted > gap {
            // Nobody knows what was in between: the shadow begins anew.
            self.fleet = None;
            return;
        }
        let seconds = lasted.as_secs_f64();
        self.seconds += seconds;
        self.judged_s += if moment.needed.is_some() { seconds } else { 0.0 };
        let misses = moment.misses;
        self.advised.add(seconds, &moment, moment.advised, misses.map(|(advised, _)| advised));
        self.had.add(seconds, &moment, moment.had, misses.map(|(_, had)| had));
        self.shortage(&moment, end);
    }

    fn shortage(&mut self, moment: &Moment, end: Micros) {
        let Some(needed) = moment.needed.filter(|needed| *needed > moment.advised.0) else { return };
        let missing = needed - moment.advised.0;
        match self.short.last_mut().filter(|last| last.to == moment.at) {
            Some(last) => {
                last.to = end;
                if missing > last.missing {
                    (last.missing, last.needed) = (missing, needed);
                }
            }
            None => self.short.push(Shortage { from: moment.at, to: end, missing, needed }),
        }
    }

    /// What the engines measured of requests.
    fn measured<'a>(&mut self, at: Micros, spec: &PoolSpec, seen: impl Iterator<Item = &'a Observation>) {
        let Some(slo) = spec.slo else { return };
        if self.scorer.is_none() {
            self.begun = at;
        }
        let (_, scorer) = self.scorer.get_or_insert_with(|| (slo, Scorer::new(slo)));
        let mut ttft = Latency::default();
        let mut finished: u64 = 0;
        for engine in seen.flat_map(|seen| seen.engines.values()) {
            ttft.add(&engine.ttft);
            finished = finished.saturating_add(engine.gained.finished.unwrap_or(engine.ttft.count));
        }
        let share = ttft
            .within
            .and_then(|(sure, possible)| AttainmentInterval::of_counts(sure, possible, ttft.count));
        if finished > 0 {
            // A gap between tokens is no request's mean: nothing is known of ITL.
            let at = at.saturating_sub(self.begun);
            scorer.marginals(&Marginals { at, finished, lost: 0, ttft: share, itl: None });
        }
        self.ttft.add(&ttft);
    }

    pub(super) fn finish(mut self, pool: PoolName, end: Micros) -> Option<PoolShadow> {
        self.close(end, Micros::MAX);
        self.short.sort_by(|a, b| weight(b).total_cmp(&weight(a)).then(a.from.cmp(&b.from)));
        self.short.truncate(TOLD);
        let within = self.ttft.within;
        let score = self.scorer.as_ref().map(|(_, scorer)| scorer.finish(end.saturating_sub(self.begun)));
        Some(PoolShadow {
            pool,
            model: self.model?,
            steps: self.steps,
            differed: self.differed,
            seconds: self.seconds,
            judged_s: self.judged_s,
            advised: self.advised.side(),
            had: self.had.side(),
            goal: self.scorer.as_ref().map(|(slo, _)| slo.goal.get()),
            ttft: within
                .and_then(|(sure, possible)| AttainmentInterval::of_counts(sure, possible, self.ttft.count)),
            attained: score.and_then(|score| score.attained),
            short: self.short,
        })
    }
}

impl Fleet {
    fn add(&mut self, seconds: f64, moment: &Moment, (ready, all): (u32, u32), misses: Option<f64>) {
        let (side, hours) = (&mut self.side, seconds / 3_600.0);
        side.gpu_hours += f64::from(all) * moment.gpus * hours;
        if let Some(needed) = moment.needed {
            side.short_s += if ready < needed { seconds } else { 0.0 };
            side.missing_replica_hours += f64::from(needed.saturating_sub(ready)) * hours;
            side.spare_replica_hours += f64::from(all.saturating_sub(needed)) * hours;
        }
        if let Some(misses) = misses.filter(|misses| misses.is_finite()) {
            let requests = moment.rate * seconds;
            self.requests += requests;
            self.missed += requests * misses;
        }
    }

    fn side(self) -> Side {
        let attained_by_model = (self.requests > 0.0).then(|| 1.0 - self.missed / self.requests);
        Side { attained_by_model, ..self.side }
    }
}

/// Replica-seconds that a shortage is about, at most.
fn weight(shortage: &Shortage) -> f64 {
    shortage.to.saturating_sub(shortage.from).as_secs_f64() * f64::from(shortage.missing)
}
