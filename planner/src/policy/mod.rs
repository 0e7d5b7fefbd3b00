//! A policy as operators write it, YAML or JSON, and everything that is wrong with it by line and column.

mod located;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use plimsoll_core::policy::{Finding, Place, Policy, Severity, validate};
use plimsoll_engine::Profile;
use plimsoll_shell::config::nearest;
use serde::Serialize;

use located::Located;

/// The largest policy that is read, bytes: 5,000 pools are about 2 MB.
const MOST_BYTES: u64 = 8 << 20;

/// One thing that is wrong with a policy, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The line, from 1; none where the document as a whole is meant.
    pub line: Option<u64>,
    /// The column, from 1.
    pub column: Option<u64>,
    /// The place in the document, such as `models[0].pools[1].max`.
    pub place: String,
    /// What is wrong and what to do.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(self.severity.as_str())?;
        if self.place != "." {
            write!(f, ": {}", self.place)?;
        }
        write!(f, ": {}", self.text)
    }
}

/// A policy that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The policy, profiles looked up.
    pub policy: Policy,
    /// What is odd about it; no errors.
    pub problems: Vec<Problem>,
}

/// Why a policy can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The file can't be read.
    #[error("the policy {} can't be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The policy is wrong; with everything that is.
    #[error("the policy can't be used{}", Listed(.0))]
    Wrong(Vec<Problem>),
}

struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl PolicyError {
    /// All that is wrong, as a list.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Wrong(problems) => problems.clone(),
            unreadable @ Self::Unreadable { .. } => vec![Problem {
                severity: Severity::Error,
                line: None,
                column: None,
                place: ".".to_owned(),
                text: unreadable.to_string(),
            }],
        }
    }
}

/// Reads a policy's file and the profiles that it names; `-` is standard input.
///
/// # Errors
/// With all that is wrong, not only the first: a file that can't be read, a text that is no policy, contradictions.
pub fn load(path: &Path) -> Result<Checked, PolicyError> {
    load_with(path, &|_| None)
}

/// The same, where some profiles are known already: those come before built-in ones and files.
pub(crate) fn load_with(
    path: &Path,
    known: &dyn Fn(&str) -> Option<Profile>,
) -> Result<Checked, PolicyError> {
    let text = if path == Path::new("-") {
        bounded(std::io::stdin().lock(), MOST_BYTES)
    } else {
        std::fs::File::open(path).and_then(|file| bounded(file, MOST_BYTES))
    };
    let text = text.map_err(|error| PolicyError::Unreadable { path: path.to_owned(), error })?;
    // Profiles' paths are relative to the policy, so that the two can be moved together.
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    parse_with(&text, folder, known)
}

/// Takes a text as a policy, with profiles' files relative to a folder.
pub(crate) fn parse_with(
    text: &str,
    folder: &Path,
    known: &dyn Fn(&str) -> Option<Profile>,
) -> Result<Checked, PolicyError> {
    parse(text, &mut |name| known(name).map_or_else(|| profile(folder, name), Ok))
}

/// Takes a text as a policy. `look_up` gives the profiles that it names.
///
/// # Errors
/// With all that is wrong, not only the first.
pub fn parse(
    text: &str,
    look_up: &mut dyn FnMut(&str) -> Result<Profile, String>,
) -> Result<Checked, PolicyError> {
    let located = Located::read(text);
    let mut policy: Policy = serde_saphyr::from_str(text)
        .map_err(|error| PolicyError::Wrong(vec![problem_of(&error, located.as_ref())]))?;
    let unknown = policy.inline_profiles(look_up).err().unwrap_or_default();
    let mut findings = validate(&policy);
    // A pool whose profile can't be had is told that, and not that it has none.
    findings.retain(|finding| !unknown.iter().any(|one| one.place == finding.place.key("profile")));
    findings.extend(unknown);
    let mut problems: Vec<Problem> =
        findings.into_iter().map(|finding| placed(finding, located.as_ref())).collect();
    problems.sort_by(|a, b| (a.line, a.column, &a.text).cmp(&(b.line, b.column, &b.text)));
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(PolicyError::Wrong(problems));
    }
    Ok(Checked { policy, problems })
}

/// A profile by its name or path.
pub(crate) fn profile(folder: &Path, name: &str) -> Result<Profile, String> {
    if !Profile::names_file(name) {
        return Profile::built_in(name).map_err(|error| unknown_profile(name, &error.to_string()));
    }
    let read = plimsoll_profiles::read(&folder.join(name));
    read.map_err(|error| format!("the profile {:#}", anyhow::Error::from(error)))
}

/// Says the nearest name, rather than all, where one is near.
pub(crate) fn unknown_profile(name: &str, error: &str) -> String {
    let known = Profile::all_built_in().unwrap_or_default();
    let names: Vec<&str> = known.iter().map(|profile| profile.name.as_str()).collect();
    let error = format!("{error}; or give the path of a profile or of a profiler's tables (with a /)");
    match nearest(name, &names) {
        Some(near) => format!("did you mean '{near}'? {error}"),
        None => error,
    }
}

fn bounded(from: impl std::io::Read, most: u64) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    from.take(most + 1).read_to_string(&mut text)?;
    if text.len() as u64 > most {
        return Err(std::io::Error::other(format!("it is larger than {} MiB", most >> 20)));
    }
    Ok(text)
}

fn placed(finding: Finding, located: Option<&Located>) -> Problem {
    let at = located.map(|located| located.find(finding.place.steps()));
    Problem {
        severity: finding.severity,
        line: at.map(|at| at.line),
        column: at.map(|at| at.column),
        place: finding.place.to_string(),
        text: finding.text,
    }
}

/// A reader's error in our words, with the nearest known key.
fn problem_of(error: &serde_saphyr::Error, located: Option<&Located>) -> Problem {
    use serde_saphyr::Error;
    let error = error.without_snippet();
    let known = error.location().filter(|location| location.line() > 0);
    let (line, column) = (known.map(|at| at.line()), known.map(|at| at.column()));
    let text = match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            let hint = nearest(field, expected).map_or_else(
                || format!("known keys here are {}", expected.join(", ")),
                |near| format!("did you mean '{near}'?"),
            );
            format!("unknown key '{field}'; {hint}")
        }
        Error::SerdeMissingField { field, .. } => format!("the key '{field}' is missing here"),
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("'{variant}' is none of {}", expected.join(", "))
        }
        Error::MultipleDocuments { .. } => {
            "a second document begins here: a policy is one document".to_owned()
        }
        Error::SerdeInvalidType { unexpected, expected, .. } => {
            format!("this is {unexpected}: give {expected}")
        }
        Error::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("this is {unexpected}: give {expected}")
        }
        other => told(&other.render()),
    };
    let place = located.zip(line.zip(column)).map(|(located, (line, column))| located.at(line, column));
    // What is missing is told at the end of the mapping that lacks it, behind its last key.
    let is_missing = matches!(error, Error::SerdeMissingField { .. });
    let place = place.map(|place| if is_missing { place.parent() } else { place });
    Problem {
        severity: Severity::Error,
        line,
        column,
        place: place.unwrap_or_else(Place::root).to_string(),
        text,
    }
}

/// The library's own words without the place, which is told already, and in one line.
fn told(rendered: &str) -> String {
    let line = rendered.lines().next().unwrap_or(rendered);
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let end = line.rfind(" at line ").unwrap_or(line.len());
    line[..end].to_owned()
}

#[cfg(test)]
mod tests;
