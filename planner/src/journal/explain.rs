//! `explain`: why a pool has the target it has, also when nothing moved.

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use plimsoll_common::{ids::PoolName, units::Micros};
use plimsoll_core::{
    explain::{PoolExplanation, Reason},
    observe::Observation,
};
use plimsoll_shell::config::nearest;
use serde::Serialize;

use super::{
    Journal, JournalArgs, JournalError, Segment, When,
    command::print,
    time::{self, shown},
};

/// How many segments back the last change is looked for: about four hours.
const BACK: usize = 24;

/// Says why a pool has the target it has: what was seen and believed, what was sized, and what held it back; also when
/// nothing moved.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ExplainArgs {
    #[command(flatten)]
    journal: JournalArgs,

    /// The pool's name in the policy.
    #[arg(long, value_name = "NAME")]
    pool: String,

    /// When: the last step at or before 2026-11-23T12:00:00Z, "10m ago", or seconds since 1970 [default: the newest step].
    #[arg(long, value_name = "TIME")]
    at: Option<When>,

    /// Print all that is known as JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Why does the pool have so many replicas?
  plimsoll-planner explain --journal /var/lib/plimsoll --pool chat

Why did it do nothing ten minutes ago?
  plimsoll-planner explain --journal /var/lib/plimsoll --pool chat --at '10m ago'";

/// Why a pool had the target that it had.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// When the step was.
    pub at: Micros,
    /// The pool.
    pub pool: PoolName,
    /// What was decided, and why.
    pub explanation: PoolExplanation,
    /// What was observed of the pool for this step; none where nothing was told.
    pub observed: Option<Observation>,
    /// The rules that the plan broke, where it was refused.
    pub refused: Vec<String>,
    /// When its target last changed before, as far as it was looked for.
    pub last_move: Option<Move>,
}

/// A change of a target.
#[derive(Clone, Debug, Serialize)]
pub struct Move {
    /// When.
    pub at: Micros,
    /// Replicas before.
    pub from: u32,
    /// Replicas after.
    pub to: u32,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// Runs the command.
///
/// # Errors
/// When the journal can't be read, or has no such step or pool.
pub fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let journal = args.journal.open()?;
    let at = args.at.map_or(Micros::MAX, |at| at.resolve(time::now()));
    let explained = explain(&journal, &args.pool, at)?;
    print(&if args.json { serde_json::to_string_pretty(&explained)? + "\n" } else { explained.text() })?;
    Ok(ExitCode::SUCCESS)
}

/// Explains the last step at or before a time.
///
/// # Errors
/// When the journal can't be read, or has no such step or pool.
pub fn explain(journal: &Journal, pool: &str, at: Micros) -> anyhow::Result<Explained> {
    let segments = journal.segments()?;
    let with_steps = |segment: &&Segment| segment.steps > 0;
    let Some(place) = segments.iter().rposition(|segment| segment.began <= at && with_steps(&segment)) else {
        match segments.iter().find(with_steps) {
            Some(first) => anyhow::bail!("the journal begins only at {}", shown(first.began)),
            None => anyhow::bail!("the journal has no steps yet"),
        }
    };
    let mut steps = journal.steps(&segments[place])?;
    steps.retain(|step| step.at <= at);
    let Some(recorded) = steps.pop() else {
        // Its checkpoint is older than `at`, and its first step is not: the one before tells.
        let before = segments[..place].iter().rfind(with_steps).and_then(|segment| segment.last);
        let Some(before) = before else { anyhow::bail!("the journal begins only after {}", shown(at)) };
        return explain(journal, pool, before);
    };
    let step = recorded.step()?;
    let known: Vec<&str> = step.explanation.pools.keys().map(PoolName::as_str).collect();
    let Some((name, explanation)) = step.explanation.pools.iter().find(|(name, _)| name.as_str() == pool)
    else {
        let hint = nearest(pool, &known).map_or_else(
            || {
                format!(
                    "there are {}",
                    if known.is_empty() { "none yet".to_owned() } else { known.join(", ") }
                )
            },
            |near| format!("did you mean '{near}'?"),
        );
        anyhow::bail!("nothing was known of a pool '{pool}' at {}; {hint}", shown(recorded.at));
    };
    Ok(Explained {
        at: recorded.at,
        pool: name.clone(),
        explanation: explanation.clone(),
        observed: recorded.observations.into_iter().find(|seen| seen.pool == *name),
        refused: step.explanation.refused.iter().map(ToString::to_string).collect(),
        last_move: last_move(journal, &segments[..=place], name, recorded.at)?,
    })
}

fn last_move(
    journal: &Journal,
    segments: &[Segment],
    pool: &PoolName,
    before: Micros,
) -> Result<Option<Move>, JournalError> {
    for segment in segments.iter().rev().take(BACK) {
        for recorded in journal.steps(segment)?.iter().rev().filter(|step| step.at < before) {
            let step = recorded.step()?;
            if let Some(one) = step.explanation.pools.get(pool).filter(|one| one.from != one.to) {
                let (from, to, reasons) = (one.from, one.to, one.reasons.clone());
                return Ok(Some(Move { at: recorded.at, from, to, reasons }));
            }
        }
    }
    Ok(None)
}

impl Explained {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let one = &self.explanation;
        let verdict = if one.from == one.to {
            format!("stays at {}", one.to)
        } else {
            format!("{} → {}", one.from, one.to)
        };
        let _ = writeln!(text, "{} at {}: {verdict}", self.pool, shown(self.at));
        for (index, reason) in one.reasons.iter().enumerate() {
            let label = if index == 0 { "because" } else { "" };
            line(&mut text, label, &format!("{reason}: {}", reason.meaning()));
        }
        if let Some(rule) = &one.held_back {
            line(&mut text, "held back", &format!("by {rule}"));
        }
        for switch in &one.switches {
            let what = format!("{} replicas of {} could become {}", switch.replicas, switch.from, switch.to);
            line(&mut text, "proposed", &what);
        }
        for rule in &self.refused {
            line(&mut text, "refused", rule);
        }
        line(&mut text, "seen", &self.seen());
        // Before demand is known, the sizes are only those that there are.
        let known = !one.reasons.contains(&Reason::NoDemand);
        if known {
            line(&mut text, "load", &load(one));
        }
        line(&mut text, "believed", &believed(one));
        if known {
            line(&mut text, "needs", &needs(one));
        }
        let before = self.last_move.as_ref().map_or_else(
            || "no change is recorded".to_owned(),
            |last| {
                let reasons: Vec<&str> = last.reasons.iter().map(|reason| reason.as_str()).collect();
                format!("{} → {} at {}: {}", last.from, last.to, shown(last.at), reasons.join(", "))
            },
        );
        line(&mut text, "before", &before);
        text
    }

    fn seen(&self) -> String {
        let seen = &self.explanation.seen;
        let mut parts = vec![format!("{} ready", seen.ready)];
        let counted = [
            (seen.starting, "starting"),
            (seen.overdue, "of them overdue"),
            (seen.unschedulable, "without a place"),
            (seen.draining, "draining"),
            (seen.silent, "silent"),
        ];
        parts.extend(counted.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
        let requests = |n: Option<u64>| n.map_or_else(|| "an unknown number".to_owned(), |n| n.to_string());
        parts.push(format!("{} run, {} wait", requests(seen.running), requests(seen.waiting)));
        parts.push(format!("KV caches {:.0} % full", self.explanation.load.kv_utilization * 100.0));
        if seen.age > Micros::ZERO {
            parts.push(format!("all this {} old", seen.age));
        }
        parts.join(", ")
    }
}

fn line(text: &mut String, label: &str, what: &str) {
    let _ = writeln!(text, "  {label:<10}{what}");
}

fn load(one: &PoolExplanation) -> String {
    let load = &one.load;
    format!(
        "{:.2} requests/s now; up to {:.2} within {:.0} s, when a replica asked for now would be ready; up to {:.2} to keep \
         replicas for{}",
        load.now_rps,
        load.ahead_rps,
        load.start_up_s,
        load.keep_rps,
        if load.panic { "; more than any forecast had" } else { "" },
    )
}

fn believed(one: &PoolExplanation) -> String {
    let (believed, to) = (&one.believed, f64::from(one.to.max(1)));
    let mut parts = Vec::new();
    match &believed.capacity {
        Some(known) => parts.push(format!(
            "a replica takes {:.2} requests/s within the SLO ({} of 4 sizes run ahead, {} ago)",
            one.load.capacity.of(to) / to,
            known.searched,
            known.age,
        )),
        None => parts.push("what a replica takes is not known".to_owned()),
    }
    if let Some(mix) = &believed.mix {
        parts.push(format!("prompts of {:.0} and outputs of {:.0} tokens", mix.isl.mean, mix.osl.mean));
    }
    parts.push(format!("engines {:.2} × as slow as their profile", believed.factor));
    parts.push(format!("{:.0} % of the allowed misses used of late", believed.budget_used * 100.0));
    let members: Vec<String> =
        believed.forecast.iter().map(|(name, weight)| format!("{name} {:.0} %", weight * 100.0)).collect();
    if !members.is_empty() {
        parts.push(format!("forecast by {}", members.join(", ")));
    }
    parts.join("; ")
}

fn needs(one: &PoolExplanation) -> String {
    let (needs, (least, most)) = (&one.needs, one.load.bounds);
    format!(
        "{} for the forecast, {} for what comes now, {} for the backlog, {} for the KV caches, {} to keep; {} for what is in \
         flight; within {least} to {most}",
        needs.ahead, needs.now, needs.backlog, needs.kv, needs.keep, one.in_flight,
    )
}
