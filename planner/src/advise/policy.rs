//! The policy's file: read at the start, read again when it changes, and kept out while it is wrong.

use std::path::PathBuf;

use plimsoll_common::units::Micros;
use plimsoll_core::policy::Policy;
use plimsoll_shell::tls::Watched;

use super::PolicyState;
use crate::policy::{Checked, Problem, load};

/// A policy that is followed.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The policy.
    pub policy: Policy,
    /// What is odd about it.
    pub problems: Vec<Problem>,
}

impl From<Checked> for InForce {
    fn from(checked: Checked) -> Self {
        Self { policy: checked.policy, problems: checked.problems }
    }
}

/// The file and what was last read of it.
#[derive(Debug)]
pub struct PolicyFile {
    path: PathBuf,
    in_force: InForce,
    loaded: Micros,
    watched: Watched,
    /// Why the file as it is now is not followed.
    error: Option<String>,
    reloads: u64,
    failures: u64,
}

impl PolicyFile {
    /// A file that was just read.
    #[must_use]
    pub fn new(path: PathBuf, now: Micros, in_force: InForce) -> Self {
        let watched = Watched::new([path.as_path()]);
        Self { path, in_force, loaded: now, watched, error: None, reloads: 0, failures: 0 }
    }

    /// The policy that is followed.
    #[must_use]
    pub const fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// What is told of it.
    #[must_use]
    pub fn state(&self) -> PolicyState {
        PolicyState {
            path: self.path.display().to_string(),
            loaded: self.loaded,
            reloads: self.reloads,
            failures: self.failures,
            error: self.error.clone(),
        }
    }

    /// Reads the file again if it changed. Answers whether another policy is in force since.
    pub async fn look(&mut self, now: Micros) -> bool {
        if !self.watched.changed() {
            return false;
        }
        let path = self.path.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || load(&path)).await else { return false };
        match read {
            Ok(checked) => {
                self.error = None;
                let changed = checked.policy != self.in_force.policy;
                if changed {
                    self.in_force = checked.into();
                    self.loaded = now;
                    self.reloads += 1;
                    tracing::info!(policy = %self.path.display(), "the policy was changed");
                }
                changed
            }
            Err(error) => {
                self.failures += 1;
                let error = error.to_string();
                tracing::warn!(policy = %self.path.display(), error, "the changed policy can't be used; the one before stays");
                self.error = Some(error);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "models: [{name: a, slo: {ttft: {limit: 1s}}, pools: [{name: p, max: 2, profile: llama-3.1-8b-h100-tp1}]}]";

    #[tokio::test]
    async fn a_changed_file_is_followed_and_a_wrong_one_is_kept_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        std::fs::write(&path, GOOD).unwrap();
        let mut file = PolicyFile::new(path.clone(), Micros(1), load(&path).unwrap().into());
        assert!(!file.look(Micros(2)).await, "nothing changed");
        std::fs::write(&path, "models: [{name: a, pools: []}]").unwrap();
        assert!(!file.look(Micros(3)).await);
        let state = file.state();
        assert!(state.error.is_some_and(|error| error.contains("models[0]")));
        assert_eq!((state.reloads, state.failures, state.loaded), (0, 1, Micros(1)));
        assert_eq!(file.in_force().policy.models[0].pools[0].max, 2, "the one before stays");
        assert!(!file.look(Micros(4)).await, "a file that stays wrong is read once");
        assert_eq!(file.state().failures, 1);
        std::fs::write(&path, GOOD.replace("max: 2", "max: 12")).unwrap();
        assert!(file.look(Micros(5)).await);
        assert_eq!(file.in_force().policy.models[0].pools[0].max, 12);
        assert_eq!((file.state().error, file.state().loaded), (None, Micros(5)));
        std::fs::remove_file(&path).unwrap();
        assert!(!file.look(Micros(6)).await);
        assert!(file.state().error.is_some_and(|error| error.contains("can't be read")));
    }
}
