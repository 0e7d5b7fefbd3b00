//! The clairvoyant oracle: it knows every request to come and every replica's true speed.
//!
//! In every slot of ten seconds it needs the fewest replicas that can do the slot's work: prompts at 85 % utilisation
//! (or less, by [`HEADROOM`]), outputs by Little's law with every sequence staying for its tokens at five sixths of the ITL limit. What covers that
//! need at least cost, with every start billed, is known exactly, level by level. It is a strong reference and no strict
//! bound: a request may wait for as long as its TTFT limit allows, which smooths what happens within a slot. So its
//! schedule is replayed in the world like any policy, and its attainment is what it then is.

use plimsoll_common::{engine::Role, units::Micros};
use plimsoll_core::score::Slo;
use plimsoll_engine::{EngineConfig, StepShape};

use super::levels::{cost, kept};
use crate::{
    experiment::{Experiment, Run, Watcher},
    policies::Schedule,
    policy::PoolId,
    workload::Workload,
    world::{ConfigError, PoolConfig, Serving, WorldConfig},
};

/// How finely the oracle looks at time.
pub const SLOT: Micros = Micros(10_000_000);

/// Shares of a replica's time that prompts may take, the tightest first. The first is the usual one; where a schedule
/// made with it misses in the world, since bursts within a slot wait, the next leaves more room.
pub const HEADROOM: [f64; 6] = [0.85, 0.75, 0.65, 0.55, 0.45, 0.35];

/// The pace at which outputs are taken to come, as a share of the ITL limit: 25 ms of 30 ms.
const PACE: f64 = 5.0 / 6.0;

/// The time between tokens where nothing is promised about it.
const USUAL_ITL: Micros = Micros(50_000);

/// What a clairvoyant would do.
#[derive(Clone, Debug)]
pub struct Oracle {
    pools: Vec<PoolPlan>,
}

#[derive(Clone, Debug)]
struct PoolPlan {
    /// Replicas needed, by slot.
    need: Vec<u32>,
    /// Slots that a start takes, the longest that the world may draw.
    start_up: usize,
    gpus_per_replica: u32,
}

impl Oracle {
    /// Looks at all that is to come, and lets prompts take 85 % of a replica's time.
    #[must_use]
    pub fn new(config: &WorldConfig, workload: &Workload, slo: &Slo) -> Self {
        Self::with_headroom(config, workload, slo, HEADROOM[0])
    }

    /// Looks at all that is to come, and lets prompts take so much of a replica's time, above 0 and at most 1; sequences
    /// that may decode together are reduced alike.
    #[must_use]
    pub fn with_headroom(config: &WorldConfig, workload: &Workload, slo: &Slo, utilisation: f64) -> Self {
        let pace = slo.itl.map_or(USUAL_ITL, |limit| Micros((limit.0 as f64 * PACE) as u64));
        let pools = config.pools.iter().enumerate().map(|(index, pool)| {
            let work = Work::of(config, PoolId(index as u32), workload, pace);
            let longest = pool.start_up.mean.0 as f64 * (1.0 + pool.start_up.spread);
            let bounded = |need: u32| need.clamp(pool.min, pool.max);
            PoolPlan {
                need: work.need(pool, pace, utilisation).into_iter().map(bounded).collect(),
                start_up: (longest / SLOT.0 as f64).ceil() as usize,
                gpus_per_replica: pool.gpus_per_replica,
            }
        });
        Self { pools: pools.collect() }
    }

    /// Replicas of a pool needed in each [`SLOT`].
    #[must_use]
    pub fn need(&self, pool: PoolId) -> &[u32] {
        self.pools.get(pool.0 as usize).map_or(&[], |plan| &plan.need)
    }

    /// What covers the need at least cost: GPU-hours with every start billed, those before time zero too.
    #[must_use]
    pub fn gpu_hours(&self) -> f64 {
        let slots = |plan: &PoolPlan| cost(&plan.need, plan.start_up) * u64::from(plan.gpus_per_replica);
        self.pools.iter().map(slots).sum::<u64>() as f64 * SLOT.as_secs_f64() / 3_600.0
    }

    /// Replicas that have to be ready when the world starts, by pool.
    #[must_use]
    pub fn initial(&self) -> Vec<u32> {
        self.pools.iter().map(|plan| plan.targets().first().copied().unwrap_or(1)).collect()
    }

    /// What it would do, as a policy for a world that begins with [`initial`](Self::initial) replicas.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        let mut entries = Vec::new();
        for (pool, plan) in self.pools.iter().enumerate() {
            let targets = plan.targets();
            for (slot, pair) in targets.windows(2).enumerate().filter(|(_, pair)| pair[0] != pair[1]) {
                entries.push((Micros(SLOT.0 * (slot as u64 + 1)), PoolId(pool as u32), pair[1]));
            }
        }
        Schedule::new("oracle", SLOT, entries)
    }

    /// The same world with the fleet that the oracle begins with: what every policy begins with that is compared with
    /// it, so that nobody is judged by the size of a start that somebody else chose.
    #[must_use]
    pub fn beginning(&self, config: &WorldConfig) -> WorldConfig {
        let mut config = config.clone();
        for (pool, initial) in config.pools.iter_mut().zip(self.initial()) {
            pool.initial = initial;
        }
        config
    }

    /// Puts its schedule into the world of an experiment, as [`Experiment::run_oracle`] does.
    ///
    /// # Errors
    /// If there cannot be such a world.
    pub fn replay(&self, experiment: &Experiment<'_>, watcher: Watcher<'_>) -> Result<Run, ConfigError> {
        let config = self.beginning(experiment.config);
        Experiment { config: &config, ..*experiment }.run(&mut self.schedule(), watcher)
    }
}

impl Experiment<'_> {
    /// Replays what a clairvoyant would do. The starts before time zero are not billed here, unlike in
    /// [`Oracle::gpu_hours`]: the fleet that it begins with is ready, as a static one is.
    ///
    /// # Errors
    /// If there cannot be such a world.
    pub fn run_oracle(&self, watcher: Watcher<'_>) -> Result<Run, ConfigError> {
        Oracle::new(self.config, self.workload, &self.slo).replay(self, watcher)
    }
}

impl PoolPlan {
    /// Ready and starting replicas, by slot: every level is asked for a start-up before it is kept.
    fn targets(&self) -> Vec<u32> {
        let mut targets = vec![0; self.need.len()];
        for level in 1..=self.need.iter().copied().max().unwrap_or_default() {
            for kept in kept(&self.need, level, self.start_up) {
                targets[kept.from.saturating_sub(self.start_up)..kept.to].iter_mut().for_each(|n| *n += 1);
            }
        }
        targets
    }
}

/// What a pool has to do, by slot.
#[derive(Debug)]
struct Work {
    /// Seconds that one replica would compute prompts.
    prefill_s: Vec<f64>,
    /// Outputs under way, on average over the slot.
    sequences: Vec<f64>,
    /// Their contexts, tokens.
    context: Vec<f64>,
}

impl Work {
    fn of(config: &WorldConfig, pool: PoolId, workload: &Workload, pace: Micros) -> Self {
        let mut work = Self { prefill_s: Vec::new(), sequences: Vec::new(), context: Vec::new() };
        for arrival in workload.arrivals() {
            let (prefill, decode) = match config.models.get(usize::from(arrival.model)) {
                Some(Serving::Aggregated(id)) => (*id == pool, *id == pool),
                Some(Serving::Disaggregated { prefill, decode }) => (*prefill == pool, *decode == pool),
                None => (false, false),
            };
            let engine = &config.pools[pool.0 as usize].engine;
            if prefill {
                work.add_prefill(arrival.at, prefill_time(engine, arrival.prompt_tokens));
            }
            if decode {
                let stay = Micros(pace.0 * u64::from(arrival.output_tokens.saturating_sub(1)));
                let context = f64::from(arrival.prompt_tokens) + f64::from(arrival.output_tokens) / 2.0;
                work.add_decode(arrival.at, stay, context);
            }
        }
        let slots = work.prefill_s.len().max(work.sequences.len());
        work.reach(slots);
        work
    }

    fn reach(&mut self, slots: usize) {
        for list in [&mut self.prefill_s, &mut self.sequences, &mut self.context] {
            list.resize(slots.max(list.len()), 0.0);
        }
    }

    fn add_prefill(&mut self, at: Micros, takes: Micros) {
        let slot = (at.0 / SLOT.0) as usize;
        self.reach(slot + 1);
        self.prefill_s[slot] += takes.as_secs_f64();
    }

    fn add_decode(&mut self, from: Micros, stay: Micros, context: f64) {
        let to = from.saturating_add(stay);
        let last = (to.0 / SLOT.0) as usize;
        self.reach(last + 1);
        for slot in (from.0 / SLOT.0) as usize..=last {
            let begin = SLOT.0 * slot as u64;
            let within = to.0.min(begin + SLOT.0).saturating_sub(from.0.max(begin));
            let share = within as f64 / SLOT.0 as f64;
            self.sequences[slot] += share;
            self.context[slot] += share * context;
        }
    }

    fn need(&self, pool: &PoolConfig, pace: Micros, utilisation: f64) -> Vec<u32> {
        let mut need = Vec::with_capacity(self.prefill_s.len());
        for ((prefill_s, sequences), context) in self.prefill_s.iter().zip(&self.sequences).zip(&self.context)
        {
            let busy = prefill_s / SLOT.as_secs_f64();
            // What the usual room does not count is taken off the work that fits.
            let more = HEADROOM[0] / utilisation;
            let outputs = (*sequences * more, *context * more);
            let fits = |replicas: u32| suffices(pool, replicas, busy * more, outputs, pace);
            need.push(fewest(pool.max, fits));
        }
        need
    }
}

/// The fewest replicas that suffice; `most` if none do.
fn fewest(most: u32, suffices: impl Fn(u32) -> bool) -> u32 {
    let (mut too_few, mut enough) = (0, 1);
    while enough < most && !suffices(enough) {
        too_few = enough;
        enough = enough.saturating_mul(2).min(most);
    }
    while enough - too_few > 1 {
        let middle = too_few + (enough - too_few) / 2;
        if suffices(middle) {
            enough = middle;
        } else {
            too_few = middle;
        }
    }
    enough
}

/// Whether so many replicas can do a slot's work: `busy` seconds of prompts a second, and outputs under way. In an
/// aggregated pool an output's tokens wait while prompts are computed.
fn suffices(pool: &PoolConfig, replicas: u32, busy: f64, outputs: (f64, f64), pace: Micros) -> bool {
    let utilisation = busy / f64::from(replicas);
    if utilisation > HEADROOM[0] {
        return false;
    }
    if pool.role == Role::Prefill {
        return true;
    }
    let sequences = (outputs.0 / f64::from(replicas)).ceil();
    let context = outputs.1 / f64::from(replicas);
    let fits = sequences <= f64::from(pool.engine.max_num_seqs) && context <= pool.engine.kv_tokens() as f64;
    let shape = StepShape {
        decode_sequences: sequences as u64,
        decode_context: context as u64,
        ..StepShape::default()
    };
    let itl = pool.engine.timing.duration(&shape).0 as f64 / (1.0 - utilisation);
    fits && (sequences < 1.0 || itl <= pace.0 as f64)
}

/// How long a replica computes a prompt that has it for itself.
fn prefill_time(engine: &EngineConfig, tokens: u32) -> Micros {
    let tokens = u64::from(tokens);
    let mut done = 0;
    let mut takes = Micros::ZERO;
    while done < tokens {
        let new = (tokens - done).min(u64::from(engine.max_num_batched_tokens));
        let shape = StepShape {
            prefill_tokens: new,
            prefill_attention: new as f64 * (done as f64 + new as f64 / 2.0),
            ..StepShape::default()
        };
        takes = takes.saturating_add(engine.timing.duration(&shape));
        done += new;
    }
    takes
}

#[cfg(test)]
mod tests {
    use plimsoll_engine::{Curve, Profile, Roofline, Timing};

    use super::*;
    use crate::{workload::Arrival, world::StartUp};

    /// 1 ms a prompt token, 10 ms an iteration of decodes and 1 ms a sequence.
    fn pool() -> PoolConfig {
        let mut profile = Profile::built_in("llama-3.1-8b-h200-tp1").unwrap();
        profile.timing = Timing::new(Curve::Roofline(Roofline {
            a_ms: 10.0,
            w_ms: 0.0,
            b_ms_per_token: 1.0,
            c_ms_per_token_squared: 0.0,
            d_ms_per_sequence: 0.0,
            e_ms_per_kv_token: 0.0,
        }));
        let start_up = StartUp { mean: Micros(20_000_000), ..StartUp::default() };
        PoolConfig::new("pool", &profile).with_start_up(start_up)
    }

    fn slo() -> Slo {
        Slo::of_millis(2_000, 30)
    }

    /// `n` prompts of 990 tokens (a second each) in the slot.
    fn burst(slot: u64, n: u64) -> Vec<Arrival> {
        (0..n).map(|i| Arrival::new(Micros(SLOT.0 * slot + i * (SLOT.0 / n.max(1))), 990, 1)).collect()
    }

    #[test]
    fn prompts_are_computed_at_most_85_percent_of_the_time() {
        let workload = Workload::new([burst(0, 8), burst(1, 9), burst(2, 17), burst(3, 18)].concat());
        let config = WorldConfig::disaggregated(pool(), pool());
        let oracle = Oracle::new(&config, &workload, &slo());
        assert_eq!(oracle.need(PoolId(0)), [1, 2, 2, 3]);
    }

    #[test]
    fn outputs_are_counted_by_littles_law() {
        // 25 ms a token: 15 sequences fit. 60 outputs of 401 tokens stay 10 s each from the start of slot 1 on.
        let workload = Workload::new((0..60).map(|_| Arrival::new(SLOT, 10, 401)).collect());
        let config = WorldConfig::disaggregated(pool(), pool());
        let oracle = Oracle::new(&config, &workload, &slo());
        assert_eq!(oracle.need(PoolId(1))[..2], [1, 4]);
    }

    #[test]
    fn starts_are_asked_for_ahead_and_billed() {
        let workload =
            Workload::new([burst(0, 1), burst(6, 17), burst(7, 1), burst(8, 17), burst(12, 1)].concat());
        let config = WorldConfig::aggregated(pool());
        let oracle = Oracle::new(&config, &workload, &slo());
        assert_eq!(oracle.need(PoolId(0)), [1, 1, 1, 1, 1, 1, 2, 1, 2, 1, 1, 1, 1]);
        // Level 1: 13 slots and a start of 2; level 2: 3 and 2.
        assert!((oracle.gpu_hours() * 3_600.0 - 200.0).abs() < 1e-6);
        assert_eq!(oracle.initial(), [1]);

        let experiment = Experiment { config: &config, workload: &workload, slo: slo() };
        let run = experiment.run_oracle(&mut |_, _| ()).unwrap();
        let moves: Vec<_> = run.outcome.actions.iter().map(|a| (a.at.0 / SLOT.0, a.to)).collect();
        assert_eq!(moves, [(4, 2), (9, 1)]);
        assert_eq!(run.outcome.policy, "oracle");
    }

    #[test]
    fn a_need_that_no_number_meets_is_the_most_there_is() {
        assert_eq!(fewest(100, |_| false), 100);
        assert_eq!(fewest(100, |n| n >= 37), 37);
        assert_eq!(fewest(1, |_| false), 1);
    }
}
