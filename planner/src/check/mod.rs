//! `plimsoll-planner check`: what a policy means, and what is wrong with it.

mod args;
mod page;
mod table;
mod understood;

use std::{fmt::Write as _, io::Write as _, process::ExitCode};

use anyhow::Context as _;
use serde::Serialize;

pub use args::CheckArgs;
pub use page::PageAdvice;
pub(crate) use table::aligned;
pub use understood::Understood;

use crate::policy::{self, Problem};

/// The exit code of a policy with warnings, or with promises that are impossible by its profiles.
const WARNINGS: u8 = 1;
/// The exit code of a policy that can't be used.
const REFUSED: u8 = 2;

/// What `check` found.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The policy's file.
    pub file: String,
    /// Whether the planner would run with it.
    pub usable: bool,
    /// What it means; none if it can't be used.
    pub understood: Option<Understood>,
    /// What is wrong or odd, in the order of the file.
    pub problems: Vec<Problem>,
    /// How the promises fit the page's buckets; none without `--page`.
    pub page: Option<PageAdvice>,
}

impl Outcome {
    /// 0: fine; 1: usable with remarks; 2: refused.
    #[must_use]
    pub fn code(&self) -> u8 {
        let remarks = !self.problems.is_empty() || self.page.as_ref().is_some_and(PageAdvice::has_remarks);
        match (self.usable, remarks) {
            (false, _) => REFUSED,
            (true, true) => WARNINGS,
            (true, false) => 0,
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        if let Some(understood) = &self.understood {
            text.push_str(&table::table(understood));
        }
        if let Some(page) = &self.page {
            let _ = write!(text, "\n{page}");
        }
        if !text.is_empty() {
            text.push('\n');
        }
        for problem in &self.problems {
            let _ = writeln!(text, "{}: {problem}", self.file);
        }
        let verdict = match (self.code(), self.problems.len()) {
            (REFUSED, 1) => "refused: 1 problem".to_owned(),
            (REFUSED, n) => format!("refused: {n} problems"),
            (0, _) => "fine".to_owned(),
            _ => "can be used; see the remarks above".to_owned(),
        };
        let _ = writeln!(text, "{}: {verdict}", self.file);
        text
    }
}

/// Checks what the command line names, and tells it on standard output.
///
/// # Errors
/// When the page can't be had, or the result can't be written.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let outcome = check(args)?;
    let text = if args.json { serde_json::to_string_pretty(&outcome)? + "\n" } else { outcome.text() };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("the result can't be written")?,
    }
    Ok(ExitCode::from(outcome.code()))
}

fn check(args: &CheckArgs) -> anyhow::Result<Outcome> {
    let file = args.policy.display().to_string();
    let checked = match policy::load(&args.policy) {
        Ok(checked) => checked,
        Err(error) => {
            let problems = error.problems();
            return Ok(Outcome { file, usable: false, understood: None, problems, page: None });
        }
    };
    let page = match &args.page {
        Some(page) => Some(page::advise(&checked.policy, page, args.model.as_deref())?),
        None => None,
    };
    let understood = Some(Understood::of(&checked.policy));
    Ok(Outcome { file, usable: true, understood, problems: checked.problems, page })
}
