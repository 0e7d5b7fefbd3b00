//! What is wrong with a policy, and where.

use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};

/// One step into a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The value of a key.
    Key(String),
    /// An element of a list, from 0.
    Index(usize),
}

/// Where in a policy: `models[0].pools[1].max`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(Vec<Step>);

impl Place {
    /// The whole document.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// The value of a key in it.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    /// An element of it.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    /// The steps from the document's root.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// What contains it; of the whole document the document.
    #[must_use]
    pub fn parent(&self) -> Self {
        let inner = self.0.len().saturating_sub(1);
        Self(self.0.iter().take(inner).cloned().collect())
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        if self.0.is_empty() { f.write_char('.') } else { Ok(()) }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy contradicts itself and is refused.
    Error,
    /// By the profile no number of replicas keeps a promise. The planner does what it can: a profile is only believed
    /// until the engines themselves were seen.
    Impossible,
    /// It can be done, and is probably not what was meant.
    Warning,
}

impl Severity {
    /// The name in texts and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Impossible => "impossible",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where it stands.
    pub place: Place,
    /// What is wrong and what to do.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.severity.as_str(), self.place, self.text)
    }
}

/// Findings while a policy is looked through.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn error(&mut self, place: &Place, text: impl Into<String>) {
        self.add(Severity::Error, place, text.into());
    }

    pub(super) fn impossible(&mut self, place: &Place, text: impl Into<String>) {
        self.add(Severity::Impossible, place, text.into());
    }

    pub(super) fn warning(&mut self, place: &Place, text: impl Into<String>) {
        self.add(Severity::Warning, place, text.into());
    }

    fn add(&mut self, severity: Severity, place: &Place, text: String) {
        self.0.push(Finding { severity, place: place.clone(), text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_as_people_write_it() {
        let place = Place::root().key("models").index(0).key("pools").index(1).key("max");
        assert_eq!(place.to_string(), "models[0].pools[1].max");
        assert_eq!(Place::root().to_string(), ".");
    }
}
