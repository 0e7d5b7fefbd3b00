//! `shadow`: advice that nobody took, scored against what happened.

mod fleet;
mod tally;
mod text;

use std::{collections::BTreeMap, process::ExitCode};

use clap::Args;
use plimsoll_common::{
    histogram::AttainmentInterval,
    ids::{ModelName, PoolName},
    units::Micros,
};
use plimsoll_core::spec::PoolSpec;
use serde::Serialize;

use super::{
    Journal, JournalArgs, JournalError, Recorded, Segment,
    command::{SpanArgs, bar, print, within},
};
use tally::Tally;

/// Scores advice that nobody took against what happened: GPU-hours, and whether it would have been enough.
///
/// A shadow fleet follows the advice: what is added is ready after the start-up time that was believed, what is taken away
/// is gone at once. At each step both fleets are held against the replicas that the demand of that moment needed within
/// the SLO, by the model as it was calibrated then. Queues that a shortage would have left behind are not followed.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ShadowArgs {
    #[command(flatten)]
    journal: JournalArgs,

    #[command(flatten)]
    span: SpanArgs,

    /// Only this pool.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
What would yesterday have cost by the planner's advice, and when would it have been short?
  plimsoll-planner shadow --journal /var/lib/plimsoll --from '24h ago'";

/// How advice compares with what was.
#[derive(Clone, Debug, Serialize)]
pub struct Shadow {
    /// The first step's time.
    pub from: Micros,
    /// The last step's time.
    pub to: Micros,
    /// Each pool.
    pub pools: Vec<PoolShadow>,
}

/// How advice compares with what was, for one pool.
#[derive(Clone, Debug, Serialize)]
pub struct PoolShadow {
    /// The pool.
    pub pool: PoolName,
    /// Its model.
    pub model: ModelName,
    /// Steps.
    pub steps: u64,
    /// Steps at which the advice was not what was ready or starting.
    pub differed: u64,
    /// Time that is scored, s: gaps in the journal are not.
    pub seconds: f64,
    /// Of it, time in which the model told what was needed, s.
    pub judged_s: f64,
    /// The fleet that follows the advice.
    pub advised: Side,
    /// The fleet that was.
    pub had: Side,
    /// The share of requests that is to attain; none without a promise.
    pub goal: Option<f64>,
    /// Requests whose first token was in time, as the engines measured it.
    pub ttft: Option<AttainmentInterval>,
    /// Requests that kept all limits, as far as the engines' separate counts tell.
    pub attained: Option<AttainmentInterval>,
    /// When the shadow fleet would have been short, the worst first; at most ten.
    pub short: Vec<Shortage>,
}

/// One of the two fleets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Side {
    /// GPU-hours, those of starting replicas included.
    pub gpu_hours: f64,
    /// Time with fewer ready replicas than the demand needed, s.
    pub short_s: f64,
    /// Replica-hours that were missing.
    pub missing_replica_hours: f64,
    /// Replica-hours beyond what was needed.
    pub spare_replica_hours: f64,
    /// The share of requests that attains, by the model; none where it can't tell.
    pub attained_by_model: Option<f64>,
    /// Changes of its target.
    pub moves: u64,
}

/// A time in which the shadow fleet would have been short.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shortage {
    /// Its first step.
    pub from: Micros,
    /// Its end.
    pub to: Micros,
    /// The most replicas that were missing.
    pub missing: u32,
    /// The replicas that were needed then.
    pub needed: u32,
}

/// Runs the command.
///
/// # Errors
/// When the journal can't be read or has nothing in the span.
pub fn run(args: &ShadowArgs) -> anyhow::Result<ExitCode> {
    let (journal, span) = (args.journal.open()?, args.span.resolve()?);
    let segments = within(journal.segments()?, span);
    let bar = bar(segments.iter().map(|segment| segment.steps).sum(), "scoring");
    let shadow = shadow(&journal, &segments, span, &mut || bar.inc(1));
    bar.finish_and_clear();
    let mut shadow = shadow?;
    if let Some(wanted) = &args.pool {
        shadow.pools.retain(|pool| pool.pool.as_str() == wanted);
    }
    anyhow::ensure!(!shadow.pools.is_empty(), "the journal has no step of such a pool in this time");
    print(&if args.json { serde_json::to_string_pretty(&shadow)? + "\n" } else { shadow.text() })?;
    Ok(ExitCode::SUCCESS)
}

/// Scores segments.
///
/// # Errors
/// When the journal can't be read.
pub fn shadow(
    journal: &Journal,
    segments: &[Segment],
    (from, to): (Micros, Micros),
    progress: &mut dyn FnMut(),
) -> Result<Shadow, JournalError> {
    let mut scorer = Scoring::default();
    let mut run = None;
    for segment in segments {
        if run != Some(segment.run) {
            let spec = journal.run(segment.run)?.basis.spec;
            scorer.interval = spec.interval;
            scorer.specs = spec.pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect();
            run = Some(segment.run);
        }
        for step in journal.steps(segment)?.into_iter().filter(|step| (from..=to).contains(&step.at)) {
            scorer.step(&step)?;
            progress();
        }
    }
    Ok(scorer.finish())
}

#[derive(Default)]
struct Scoring {
    interval: Micros,
    specs: BTreeMap<PoolName, PoolSpec>,
    tallies: BTreeMap<PoolName, Tally>,
    span: Option<(Micros, Micros)>,
}

impl Scoring {
    fn step(&mut self, recorded: &Recorded) -> Result<(), JournalError> {
        let step = recorded.step()?;
        let (first, _) = *self.span.get_or_insert((recorded.at, recorded.at));
        self.span = Some((first, recorded.at));
        for (name, explained) in &step.explanation.pools {
            let Some(spec) = self.specs.get(name) else { continue };
            let seen = recorded.observations.iter().filter(|seen| seen.pool == *name);
            let tally = self.tallies.entry(name.clone()).or_default();
            tally.step(recorded.at, self.interval, spec, explained, seen);
        }
        Ok(())
    }

    fn finish(self) -> Shadow {
        let (from, to) = self.span.unwrap_or_default();
        let pools = self.tallies.into_iter().filter_map(|(name, tally)| tally.finish(name, to)).collect();
        Shadow { from, to, pools }
    }
}
