//! What operators want: models with their promises, pools with their bounds, budgets, and how fast the fleet may move.
//!
//! A [`Policy`] is plain data, written as YAML or JSON with keys in Kubernetes' style (`startUp`, `gpusPerReplica`); the
//! shell reads it, this module says what it means. [`Policy::inline_profiles`] looks named engine profiles up once, and
//! [`validate()`] tells every contradiction and every SLO that the engines' profiles can't keep, each with its [`Place`]. What the rest of the core needs is behind methods: [`ModelPolicy::slo`],
//! [`PoolPolicy::gpus_per_replica`], [`PoolPolicy::engine_config`], [`Behavior::allowed`].

mod behavior;
mod demand;
pub mod feasible;
mod finding;
mod model;
mod pool;
mod profile;
mod quantity;
mod span;
mod validate;

use finding::Findings;
use plimsoll_engine::Profile;
use serde::{Deserialize, Serialize};

pub use behavior::{
    Allowed, Behavior, HeldBack, History, RateLimit, RateLimitType, ScalingRules, SelectPolicy,
};
pub use demand::{DemandMapping, DemandSource, MappingRef, Metric, UnknownMapping};
pub use finding::{Finding, Place, Severity, Step};
pub use model::{Load, ModelPolicy, Promise, SloPolicy, Target, Traffic};
pub use pool::{EngineSettings, Parallel, PoolPolicy, Routing, Speculation};
pub use profile::ProfileRef;
pub use quantity::{Cost, OutOfRange, Percentile, Requests, Utilization, Watts};
pub use span::{NotASpan, Span};
pub use validate::validate;

/// What a fleet is to do, and within which bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Policy {
    /// The models served, at least one.
    pub models: Vec<ModelPolicy>,
    /// What all pools together may use.
    #[serde(default)]
    pub budget: Budget,
    /// Between two decisions, 1 s to 1 h.
    #[serde(default = "Policy::default_interval")]
    pub interval: Span,
}

/// What all pools together may use; what is not given is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Budget {
    /// GPUs, those of starting replicas included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// Watts, by the pools' `wattsPerGpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watts: Option<Watts>,
    /// Money an hour, by the pools' `pricePerGpuHour` and in their currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_per_hour: Option<Cost>,
}

impl Policy {
    const fn default_interval() -> Span {
        Span::from_secs(10)
    }

    /// All pools with the model that each belongs to, in the order written.
    pub fn pools(&self) -> impl Iterator<Item = (&ModelPolicy, &PoolPolicy)> {
        self.models.iter().flat_map(|model| model.pools.iter().map(move |pool| (model, pool)))
    }

    /// Replaces every profile's name by the profile. `look_up` takes a name or a path as written; the shell reads files
    /// there, [`ProfileRef::built_in`] knows the built-in ones.
    ///
    /// # Errors
    /// One finding for each pool whose profile can't be had; the others are replaced.
    pub fn inline_profiles<E: std::fmt::Display>(
        &mut self,
        look_up: &mut dyn FnMut(&str) -> Result<Profile, E>,
    ) -> Result<(), Vec<Finding>> {
        let mut findings = Findings::default();
        for (m, model) in self.models.iter_mut().enumerate() {
            for (p, pool) in model.pools.iter_mut().enumerate() {
                if let Some(ProfileRef::Named(name)) = &pool.profile {
                    let place = Place::root().key("models").index(m).key("pools").index(p).key("profile");
                    match look_up(name) {
                        Ok(profile) => pool.profile = Some(ProfileRef::Inline(Box::new(profile))),
                        Err(error) => findings.error(&place, error.to_string()),
                    }
                }
            }
        }
        if findings.0.is_empty() { Ok(()) } else { Err(findings.0) }
    }
}
