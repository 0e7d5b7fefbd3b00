//! One pool: replicas of one model, role and hardware.

use plimsoll_common::{engine::Role, ids::PoolName, units::Ratio};
use plimsoll_engine::{EngineConfig, Profile};
use serde::{Deserialize, Serialize};

use super::{
    behavior::Behavior,
    profile::ProfileRef,
    quantity::{Cost, Watts},
    span::Span,
};

/// One pool: replicas of one model, role and hardware, scaled together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PoolPolicy {
    /// The pool's name, as agents declare it; one of its kind in a policy.
    pub name: PoolName,
    /// Which part of a request its replicas serve; `aggregated` by default.
    #[serde(default)]
    pub role: Role,
    /// How the model is spread over a replica's GPUs; the profile's number of GPUs, or one, by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<Parallel>,
    /// The fewest replicas, 1 by default.
    #[serde(default = "PoolPolicy::default_min")]
    pub min: u32,
    /// The most replicas.
    pub max: u32,
    /// How long a replica takes from the order to its first token, until that was observed; 2 minutes by default.
    #[serde(default = "PoolPolicy::default_start_up")]
    pub start_up: Span,
    /// What a GPU costs an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_per_gpu_hour: Option<Cost>,
    /// What a GPU takes from the power budget, its share of the machine included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watts_per_gpu: Option<Watts>,
    /// What its engines are believed to do, until that was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileRef>,
    /// How its engines are started, where that differs from the profile.
    #[serde(default, skip_serializing_if = "EngineSettings::is_empty")]
    pub engine: EngineSettings,
    /// How requests are spread over its replicas.
    #[serde(default)]
    pub routing: Routing,
    /// How fast it may grow and shrink.
    #[serde(default)]
    pub behavior: Behavior,
}

/// How a model is spread over a replica's GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Parallel {
    /// Tensor-parallel size: GPUs that share every layer.
    #[serde(default = "one")]
    pub tp: u32,
    /// Pipeline-parallel size: groups that share the layers among them.
    #[serde(default = "one")]
    pub pp: u32,
    /// Data-parallel size: copies that start and stop together as one replica.
    #[serde(default = "one")]
    pub dp: u32,
}

const fn one() -> u32 {
    1
}

impl Default for Parallel {
    fn default() -> Self {
        Self { tp: 1, pp: 1, dp: 1 }
    }
}

impl Parallel {
    /// GPUs that a replica occupies: tp × pp × dp, saturating.
    #[must_use]
    pub const fn gpus(self) -> u32 {
        self.tp.saturating_mul(self.pp).saturating_mul(self.dp)
    }
}

/// How engines are started, in the words of their command lines, where it differs from the profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EngineSettings {
    /// Sequences that may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_num_seqs: Option<u32>,
    /// Tokens that one iteration may compute: the chunk of chunked prefill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_num_batched_tokens: Option<u32>,
    /// Prompt and output tokens that a request may have together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<u32>,
    /// Tokens of a KV block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u32>,
    /// Tokens that the KV cache of one engine holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_tokens: Option<u32>,
    /// Whether prompts' prefixes are kept: `false` says that the engine was started without a prefix cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_cache: Option<bool>,
    /// The share of prompt tokens expected to be found in the prefix cache, until that was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_hit_rate: Option<Ratio>,
    /// Speculative decoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speculation: Option<Speculation>,
}

/// Speculative decoding: several tokens are drafted, and those accepted are generated in one iteration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Speculation {
    /// Tokens drafted an iteration, 1 or more.
    pub tokens: u32,
    /// The share of drafted tokens that is accepted, until that was observed.
    pub acceptance: Ratio,
}

impl Speculation {
    /// Tokens that an iteration gives a sequence: 1 + drafted × accepted.
    #[must_use]
    pub fn tokens_per_iteration(&self) -> f64 {
        1.0 + f64::from(self.tokens) * self.acceptance.get()
    }
}

/// How requests are spread over a pool's replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Routing {
    /// To the replica with the fewest requests, or near to it.
    #[default]
    LeastLoaded,
    /// One after the other, whatever they do.
    RoundRobin,
    /// To a replica that has the prompt's prefix in its cache, load considered.
    PrefixAware,
}

impl EngineSettings {
    /// Nothing differs from the profile.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl PoolPolicy {
    const fn default_min() -> u32 {
        1
    }

    const fn default_start_up() -> Span {
        Span::from_secs(120)
    }

    /// GPUs that a replica occupies: tp × pp × dp where that is written, else the profile's, else 1. Never 0.
    #[must_use]
    pub fn gpus_per_replica(&self) -> u32 {
        let profile = || self.profile().map_or(1, |profile| profile.gpus);
        self.parallel.map_or_else(profile, Parallel::gpus).max(1)
    }

    /// Engines that a replica is made of, as far as the profile tells: a profile is one engine, and data parallelism
    /// runs several. At least 1.
    #[must_use]
    pub fn engines_per_replica(&self) -> u32 {
        self.profile().map_or(1, |profile| self.gpus_per_replica() / profile.gpus.max(1)).max(1)
    }

    /// The profile, once [`super::Policy::inline_profiles`] has looked it up.
    #[must_use]
    pub fn profile(&self) -> Option<&Profile> {
        match &self.profile {
            Some(ProfileRef::Inline(profile)) => Some(profile),
            Some(ProfileRef::Named(_)) | None => None,
        }
    }

    /// One engine of the pool: the profile with what this pool starts it with. `None` without a profile. What is
    /// started with may make no sense; [`EngineConfig::validate`] tells.
    #[must_use]
    pub fn engine_config(&self) -> Option<EngineConfig> {
        let profile = self.profile()?;
        let mut config = profile.engine_config();
        let settings = &self.engine;
        config.block_size = settings.block_size.unwrap_or(config.block_size);
        // One block is the engine's own, as in vLLM.
        let kv_tokens = settings.kv_tokens.unwrap_or(profile.kv_tokens);
        config.kv_blocks = (kv_tokens / config.block_size.max(1)).saturating_sub(1).max(1);
        config.max_num_seqs = settings.max_num_seqs.unwrap_or(config.max_num_seqs);
        config.max_num_batched_tokens =
            settings.max_num_batched_tokens.unwrap_or(config.max_num_batched_tokens);
        let longest = u32::try_from(config.kv_tokens()).unwrap_or(u32::MAX);
        config.max_model_len = settings.max_model_len.unwrap_or_else(|| profile.max_model_len.min(longest));
        Some(config)
    }

    /// Watts of one replica, where `wattsPerGpu` is given.
    #[must_use]
    pub fn watts_per_replica(&self) -> Option<f64> {
        self.watts_per_gpu.map(|watts| watts.get() * f64::from(self.gpus_per_replica()))
    }

    /// Cost of one replica an hour, where `pricePerGpuHour` is given.
    #[must_use]
    pub fn cost_per_replica_hour(&self) -> Option<f64> {
        self.price_per_gpu_hour.map(|price| price.get() * f64::from(self.gpus_per_replica()))
    }
}
