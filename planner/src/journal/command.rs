//! What the commands that read a journal have in common.

use std::{io::Write as _, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plimsoll_common::units::Micros;

use super::{Journal, Segment, When, time};

/// Which journal, and which part of it.
#[derive(Debug, Args)]
pub struct JournalArgs {
    /// The journal's folder: the planner's --journal-dir. It may be read while the planner writes it.
    #[arg(long, env = "PLIMSOLL_PLANNER_JOURNAL_DIR", value_name = "DIR")]
    pub journal: PathBuf,
}

/// From when to when.
#[derive(Debug, Args)]
pub struct SpanArgs {
    /// Begin here: 2026-11-23T12:00:00Z, "10m ago", or seconds since 1970 [default: the oldest step].
    #[arg(long, value_name = "TIME")]
    pub from: Option<When>,

    /// End here [default: the newest step].
    #[arg(long, value_name = "TIME")]
    pub to: Option<When>,
}

impl JournalArgs {
    pub(super) fn open(&self) -> anyhow::Result<Journal> {
        Ok(Journal::open(&self.journal)?)
    }
}

impl SpanArgs {
    /// As Unix times, both included.
    pub(super) fn resolve(&self) -> anyhow::Result<(Micros, Micros)> {
        let now = time::now();
        let from = self.from.map_or(Micros::ZERO, |from| from.resolve(now));
        let to = self.to.map_or(Micros::MAX, |to| to.resolve(now));
        anyhow::ensure!(from <= to, "--from {} is after --to {}", time::shown(from), time::shown(to));
        Ok((from, to))
    }
}

/// The segments that have steps in a span.
pub(super) fn within(segments: Vec<Segment>, (from, to): (Micros, Micros)) -> Vec<Segment> {
    let overlaps = |segment: &Segment| {
        segment.steps > 0 && segment.began <= to && segment.last.is_some_and(|last| last >= from)
    };
    segments.into_iter().filter(overlaps).collect()
}

/// Writes a result to standard output.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("the result can't be written"),
    }
}

/// A bar on standard error, and only if a person watches.
pub(super) fn bar(steps: u64, verb: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} steps, {elapsed}");
    let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr()).with_message(verb);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
