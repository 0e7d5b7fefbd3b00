//! `replay`: decides every recorded step again and compares, byte for byte.

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use plimsoll_common::units::Micros;
use plimsoll_core::controller::Controller;
use serde::Serialize;

use super::{
    Build, Journal, JournalArgs, JournalError, Recorded, Run, Segment, blob,
    command::{SpanArgs, bar, print, within},
    diff::{Difference, differences},
    time,
};

/// Decides every recorded step again, from the recorded observations, and compares byte for byte: plan and explanation.
///
/// The same build on the same kind of machine decides the same. Exit code 0: every step agrees; 1: some differ; 64: there
/// is nothing to replay, or the journal can't be read.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ReplayArgs {
    #[command(flatten)]
    journal: JournalArgs,

    #[command(flatten)]
    span: SpanArgs,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Does this build decide as it did in the last hour?
  plimsoll-planner replay --journal /var/lib/plimsoll --from '1h ago'

Would another build have decided otherwise? Run it on a copy of the journal:
  ./plimsoll-planner-next replay --journal ./journal";

/// What a replay found.
#[derive(Clone, Debug, Serialize)]
pub struct Replayed {
    /// The first step's time.
    pub from: Micros,
    /// The last step's time.
    pub to: Micros,
    /// Checkpoints that it started from.
    pub checkpoints: u64,
    /// Steps that agree.
    pub agree: u64,
    /// Steps that differ.
    pub differ: u64,
    /// Steps that can't be decided again, since some before them were dropped.
    pub skipped: u64,
    /// Checkpoints that were reached with another learned state than was recorded, though the plans agreed.
    pub states_differ: u64,
    /// The first step that differs.
    pub first: Option<First>,
    /// Builds other than this one that recorded some of it.
    pub other_builds: Vec<Build>,
    /// This build.
    pub build: Build,
}

/// The first step that differs.
#[derive(Clone, Debug, Serialize)]
pub struct First {
    /// When it was.
    pub at: Micros,
    /// Where it differs; empty where only the bytes do.
    pub differences: Vec<Difference>,
}

/// Runs the command.
///
/// # Errors
/// When the journal can't be read or has nothing in the span.
pub fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let (journal, span) = (args.journal.open()?, args.span.resolve()?);
    let segments = within(journal.segments()?, span);
    anyhow::ensure!(!segments.is_empty(), "the journal has no step in this time");
    let bar = bar(segments.iter().map(|segment| segment.steps).sum(), "replaying");
    let done = replay(&journal, &segments, span, &mut || bar.inc(1));
    bar.finish_and_clear();
    let done = done?;
    anyhow::ensure!(
        done.agree + done.differ > 0,
        "the journal has no step in this time that can be replayed"
    );
    print(&if args.json { serde_json::to_string_pretty(&done)? + "\n" } else { done.text() })?;
    Ok(if done.differ == 0 && done.states_differ == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Replays segments; steps before the span are decided again and not compared.
///
/// # Errors
/// When the journal can't be read.
pub fn replay(
    journal: &Journal,
    segments: &[Segment],
    span: (Micros, Micros),
    progress: &mut dyn FnMut(),
) -> Result<Replayed, JournalError> {
    let mut replayer = Replayer { journal, span, run: None, live: None, done: Replayed::none() };
    for segment in segments {
        replayer.segment(segment, progress)?;
    }
    Ok(replayer.done)
}

struct Replayer<'a> {
    journal: &'a Journal,
    span: (Micros, Micros),
    run: Option<Run>,
    /// The controller as it goes on, and the last step's number, while nothing is missing and nothing differs.
    live: Option<(Controller, u64)>,
    done: Replayed,
}

impl Replayer<'_> {
    fn segment(&mut self, segment: &Segment, progress: &mut dyn FnMut()) -> Result<(), JournalError> {
        if self.run.as_ref().is_none_or(|run| run.id != segment.run) {
            let run = self.journal.run(segment.run)?;
            if run.build != self.done.build && !self.done.other_builds.contains(&run.build) {
                self.done.other_builds.push(run.build.clone());
            }
            (self.run, self.live) = (Some(run), None);
        }
        let steps = self.journal.steps(segment)?;
        if steps.is_empty() {
            return Ok(());
        }
        let (mut controller, mut before) = match self.live.take() {
            // Without a gap the controller goes on, and must have come to what the checkpoint says.
            Some((controller, before)) if before == segment.seq => {
                let own = controller.checkpoint().to_bytes()?;
                if own == self.journal.checkpoint_bytes(segment)? {
                    (controller, before)
                } else {
                    self.done.states_differ += 1;
                    (self.restored(segment)?, before)
                }
            }
            // The step right after a checkpoint can be missing, too.
            _ => (self.restored(segment)?, segment.seq),
        };
        let differed = self.done.differ;
        for (index, step) in steps.iter().enumerate() {
            if step.seq != before + 1 {
                self.done.skipped += (steps.len() - index) as u64;
                return Ok(());
            }
            before = step.seq;
            self.step(&mut controller, step);
            progress();
        }
        if self.done.differ == differed {
            self.live = Some((controller, before));
        }
        Ok(())
    }

    fn restored(&mut self, segment: &Segment) -> Result<Controller, JournalError> {
        let checkpoint = self.journal.checkpoint(segment)?;
        self.done.checkpoints += 1;
        let Some(run) = &self.run else {
            return Err(JournalError::Sql(rusqlite::Error::QueryReturnedNoRows));
        };
        Ok(Controller::restore(run.basis.spec.clone(), run.basis.tuning, checkpoint).0)
    }

    fn step(&mut self, controller: &mut Controller, recorded: &Recorded) {
        for observation in &recorded.observations {
            controller.observe(observation.clone());
        }
        let step = controller.step(recorded.at);
        if recorded.at < self.span.0 || recorded.at > self.span.1 {
            return;
        }
        let done = &mut self.done;
        if done.agree + done.differ == 0 {
            done.from = recorded.at;
        }
        done.to = recorded.at;
        if blob::encode(&step) == recorded.decided {
            done.agree += 1;
            return;
        }
        done.differ += 1;
        if done.first.is_none() {
            let value = |bytes: &[u8]| blob::decode::<serde_json::Value>(bytes).unwrap_or_default();
            let differences = differences(&value(&recorded.decided), &value(&blob::encode(&step)));
            done.first = Some(First { at: recorded.at, differences });
        }
    }
}

impl Replayed {
    fn none() -> Self {
        Self {
            from: Micros::ZERO,
            to: Micros::ZERO,
            checkpoints: 0,
            agree: 0,
            differ: 0,
            skipped: 0,
            states_differ: 0,
            first: None,
            other_builds: Vec::new(),
            build: Build::this(),
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let Self { agree, differ, skipped, checkpoints, .. } = self;
        let checkpoints =
            if *checkpoints == 1 { "1 checkpoint".to_owned() } else { format!("{checkpoints} checkpoints") };
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "{} to {}: {} steps decided again from {checkpoints}: {agree} agree, {differ} differ",
            time::shown(self.from),
            time::shown(self.to),
            agree + differ,
        );
        if *skipped > 0 {
            let _ =
                writeln!(text, "{skipped} steps can't be decided again: some before them were not recorded");
        }
        if self.states_differ > 0 {
            let _ =
                writeln!(text, "{} checkpoints were reached with another learned state", self.states_differ);
        }
        for build in &self.other_builds {
            let _ = writeln!(
                text,
                "recorded by {build}, replayed by {}: they may decide differently",
                self.build
            );
        }
        if let Some(first) = &self.first {
            let _ = writeln!(text, "the first difference is at {}:", time::shown(first.at));
            for difference in &first.differences {
                let _ = writeln!(text, "  {difference}");
            }
            if first.differences.is_empty() {
                let _ = writeln!(text, "  only in bytes: a not-a-number, or the sign of a zero");
            }
        }
        text
    }
}
