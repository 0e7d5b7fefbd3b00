//! Policies that come with the world, and how they are written down.

mod fixed;
mod schedule;

use plimsoll_core::score::Slo;

pub use fixed::Fixed;
pub use schedule::Schedule;

use crate::policy::{Briefing, ScalingPolicy};

/// The policies there are: how each is written, and what it does.
pub const KNOWN: &[(&str, &str)] =
    &[("static:N", "N replicas all the time; static:P+D for P prefill and D decode replicas")];

/// Why there is no such policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// No policy has this name.
    #[error("no policy is written {given:?}: choose one of {known}")]
    Unknown {
        /// What was given.
        given: String,
        /// What there is.
        known: String,
    },
    /// The numbers do not fit the world.
    #[error("{given:?} names {named} numbers of replicas and the world has {pools} pools")]
    Pools {
        /// What was given.
        given: String,
        /// How many numbers.
        named: usize,
        /// How many pools.
        pools: usize,
    },
}

/// The policy that a text names, for a world of which it is briefed and an SLO that it is to keep.
///
/// # Errors
/// Names the known ones if there is none.
pub fn from_text(text: &str, briefing: &Briefing, slo: &Slo) -> Result<Box<dyn ScalingPolicy>, PolicyError> {
    let _ = slo;
    let unknown = || {
        let known: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
        PolicyError::Unknown { given: text.to_owned(), known: known.join(", ") }
    };
    let numbers = static_sizes(text).ok_or_else(unknown)?;
    if numbers.len() != briefing.pools.len() {
        let (named, pools) = (numbers.len(), briefing.pools.len());
        return Err(PolicyError::Pools { given: text.to_owned(), named, pools });
    }
    Ok(Box::new(Fixed::new(numbers)))
}

/// The numbers of replicas that a text names if it is that of a static fleet: such a fleet is there from the start.
#[must_use]
pub fn static_sizes(text: &str) -> Option<Vec<u32>> {
    let numbers = text.strip_prefix("static:")?;
    numbers.split('+').map(|number| number.parse().ok().filter(|n| (1..=10_000).contains(n))).collect()
}
