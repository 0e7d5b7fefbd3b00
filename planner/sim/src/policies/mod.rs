//! Policies that come with the world, and how they are written down.

mod capacity;
pub mod demand;
pub mod dynamo;
mod fixed;
pub mod hpa;
pub mod keda;
pub mod kpa;
pub mod plimsoll;
mod schedule;
mod settings;
mod signals;
#[cfg(test)]
pub(crate) mod testing;
mod traffic;
mod window;
pub mod wva;

use plimsoll_core::score::Slo;

pub use demand::Demand;
pub use dynamo::Dynamo;
pub use fixed::Fixed;
pub use hpa::Hpa;
pub use keda::Keda;
pub use kpa::Kpa;
pub use plimsoll::Plimsoll;
pub use schedule::Schedule;
pub use signals::Signals;
pub use wva::Wva;

use crate::policy::{Briefing, ScalingPolicy};
use settings::Settings;

/// The policies there are: how each is written, and what it does.
pub const KNOWN: &[(&str, &str)] = &[
    ("static:N", "N replicas all the time; static:P+D for P prefill and D decode replicas"),
    ("hpa:queue=5", "Kubernetes' HPA on waiting requests, or on kv=0.7; sync=15, down=300 s"),
    ("keda:in_flight=30", "KEDA-like, on requests in flight; poll=30, cool_down=300 s"),
    ("kpa:in_flight=70", "Knative's autoscaler; stable=60, panic=6 s, threshold=200 %"),
    (
        "demand:utilisation=0.7",
        "by the request rate and the profile; window=60, hold=300, period=none or seconds, decode=another utilisation",
    ),
    ("dynamo:target=throughput", "NVIDIA Dynamo's planner 1.6.1: target throughput, latency, load or sla"),
    (
        "dynamo:target=sla,loops=hybrid",
        "of target sla, the loops throughput, load or both; interval=180, tick=5 s",
    ),
    (
        "plimsoll",
        "the decision core; tick=5 s, ahead=0.95, keep=0.95, spend=1, panic=2, hold=60 s; signals=all, few, least",
    ),
    ("wva:kv=0.8", "llm-d's WVA by saturation; queue=5, spare_kv=0.1, spare_queue=3, interval=60 s"),
];

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
    /// A policy has no such setting.
    #[error("{given:?}: there is no setting {setting:?}: it takes {known}")]
    Setting {
        /// What was given.
        given: String,
        /// Which part of it.
        setting: String,
        /// What there is.
        known: String,
    },
    /// A setting's value cannot be used.
    #[error("{given:?}: {setting} cannot be {value:?}: give {wanted}")]
    Value {
        /// What was given.
        given: String,
        /// Which setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What would do.
        wanted: String,
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
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let read = |known| Settings::read(text, rest, known);
    Ok(match kind {
        "hpa" => Box::new(Hpa::read(&read(Hpa::SETTINGS)?)?),
        "keda" => Box::new(Keda::read(&read(Keda::SETTINGS)?)?),
        "kpa" => Box::new(Kpa::read(&read(Kpa::SETTINGS)?)?),
        "plimsoll" => Box::new(Plimsoll::read(&read(Plimsoll::SETTINGS)?, briefing, slo)?),
        "demand" => Box::new(Demand::read(&read(Demand::SETTINGS)?, briefing, slo)?),
        "dynamo" => Box::new(Dynamo::read(&read(Dynamo::SETTINGS)?, briefing, slo)?),
        "wva" => Box::new(Wva::read(&read(Wva::SETTINGS)?)?),
        _ => Box::new(fixed(text, briefing)?),
    })
}

fn fixed(text: &str, briefing: &Briefing) -> Result<Fixed, PolicyError> {
    let unknown = || {
        let known: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
        PolicyError::Unknown { given: text.to_owned(), known: known.join(", ") }
    };
    let numbers = static_sizes(text).ok_or_else(unknown)?;
    if numbers.len() != briefing.pools.len() {
        let (named, pools) = (numbers.len(), briefing.pools.len());
        return Err(PolicyError::Pools { given: text.to_owned(), named, pools });
    }
    Ok(Fixed::new(numbers))
}

/// The numbers of replicas that a text names if it is that of a static fleet: such a fleet is there from the start.
#[must_use]
pub fn static_sizes(text: &str) -> Option<Vec<u32>> {
    let numbers = text.strip_prefix("static:")?;
    numbers.split('+').map(|number| number.parse().ok().filter(|n| (1..=10_000).contains(n))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_text_names_a_policy() {
        let (config, _) = testing::burst_world();
        let (briefing, slo) = (config.briefing(), Slo::of_millis(1_000, 30));
        for (text, _) in KNOWN {
            let text = text.replace('N', "2");
            let policy = from_text(&text, &briefing, &slo).unwrap_or_else(|error| panic!("{error}"));
            assert!(!policy.name().is_empty());
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (config, _) = testing::burst_world();
        let (briefing, slo) = (config.briefing(), Slo::of_millis(1_000, 30));
        let error = |text: &str| from_text(text, &briefing, &slo).unwrap_err().to_string();
        assert!(error("hpq").contains("choose one of static:N"));
        assert!(error("hpa:que=5").contains("it takes queue, kv"));
        assert!(error("hpa:kv=5").contains("kv cannot be \"5\""));
        assert!(error("keda:in_flight=nan").contains("in_flight cannot be"));
        assert!(error("keda:poll").contains("poll cannot be"));
        assert!(error("dynamo:target=slo").contains("one of throughput, latency, load, sla"));
        assert!(error("static:2+2").contains("1 pools"));
    }
}
