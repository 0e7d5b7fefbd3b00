//! One model: what is promised of it, and the pools that serve it.

use plimsoll_common::{ids::ModelName, units::Ratio};
use serde::{Deserialize, Serialize};

use super::{
    demand::DemandSource,
    pool::PoolPolicy,
    quantity::{Percentile, Requests, Utilization},
    span::Span,
};
use crate::score::Slo;

/// One model: what is promised of it, and the pools that serve it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ModelPolicy {
    /// The model's name, as clients ask for it and engines show it.
    pub name: ModelName,
    /// Who gets GPUs first when the budget does not do for all: the higher number. 0 by default.
    #[serde(default)]
    pub priority: i32,
    /// By what replicas are counted; `sla` by default.
    #[serde(default)]
    pub target: Target,
    /// What is promised; `target: sla` needs at least one limit.
    #[serde(default, skip_serializing_if = "SloPolicy::is_empty")]
    pub slo: SloPolicy,
    /// The thresholds of `target: load`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// What is known of its requests before any was seen.
    #[serde(default, skip_serializing_if = "Traffic::is_unknown")]
    pub traffic: Traffic,
    /// A front-end or gateway that tells demand, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demand: Option<DemandSource>,
    /// Whether a replica of its prefill pools can become one of its decode pools and back without being started anew;
    /// `false` by default, since no engine's page tells.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub role_switch: bool,
    /// The pools that serve it, at least one.
    pub pools: Vec<PoolPolicy>,
}

/// By what replicas are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The fewest replicas whose forecast keeps the SLO.
    #[default]
    Sla,
    /// Full batches: the fewest replicas that keep up with the load, whatever it waits. Thresholds of [`Load`].
    Throughput,
    /// Short queues: replicas are added before anything waits. Lower thresholds of [`Load`].
    Latency,
    /// The operator's own thresholds, as a HorizontalPodAutoscaler has them.
    Load,
}

impl Target {
    /// The name in a policy.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sla => "sla",
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::Load => "load",
        }
    }
}

/// Thresholds per replica. As in HPA, each asks for ⌈replicas × mean / threshold⌉ and the greatest answer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Load {
    /// KV-cache utilization, per cent of the blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache_utilization: Option<Utilization>,
    /// Running sequences, per cent of `maxNumSeqs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_utilization: Option<Utilization>,
    /// Requests that wait in a replica's engines, a mean over replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_per_replica: Option<Requests>,
}

impl Load {
    /// What `target: throughput` means: batches nearly full, and a queue that never runs dry.
    #[must_use]
    pub const fn throughput() -> Self {
        Self {
            kv_cache_utilization: Some(Utilization::of(90.0)),
            running_utilization: Some(Utilization::of(95.0)),
            waiting_per_replica: Some(Requests::of(8.0)),
        }
    }

    /// What `target: latency` means: room for a burst, and nothing that waits.
    #[must_use]
    pub const fn latency() -> Self {
        Self {
            kv_cache_utilization: Some(Utilization::of(60.0)),
            running_utilization: Some(Utilization::of(60.0)),
            waiting_per_replica: Some(Requests::of(0.5)),
        }
    }

    /// No threshold at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.kv_cache_utilization.is_none()
            && self.running_utilization.is_none()
            && self.waiting_per_replica.is_none()
    }
}

/// What is promised of a model's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SloPolicy {
    /// Time to first token, queueing included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft: Option<Promise>,
    /// Mean time between a request's tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub itl: Option<Promise>,
    /// The share of requests that are to keep all limits, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attainment: Option<Ratio>,
}

/// One limit and who keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Promise {
    /// The longest time allowed.
    pub limit: Span,
    /// The percentile of requests that keep it, 99 by default.
    #[serde(default = "Promise::default_percentile")]
    pub percentile: Percentile,
}

/// What is known of a model's requests before any was seen: where the planner starts from, and what the check of a policy
/// computes with. What is observed replaces it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Traffic {
    /// Mean input sequence length, tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isl: Option<u32>,
    /// The longest prompts to keep the SLO for, tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_isl: Option<u32>,
    /// Mean output sequence length, tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub osl: Option<u32>,
}

impl Traffic {
    /// Nothing is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

impl Promise {
    /// 99: what is assumed where no percentile is written.
    #[must_use]
    pub const fn default_percentile() -> Percentile {
        Percentile::P99
    }
}

impl SloPolicy {
    /// Nothing is promised.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The share of requests that must attain: the strictest of the percentiles and the attainment written, 0.99
    /// without any.
    #[must_use]
    pub fn goal(&self) -> Ratio {
        let shares = [
            self.ttft.map(|promise| promise.percentile.share()),
            self.itl.map(|promise| promise.percentile.share()),
            self.attainment,
        ];
        let strictest = shares.into_iter().flatten().map(Ratio::to_ppm).max();
        Ratio::from_ppm(strictest.unwrap_or(990_000))
    }
}

impl ModelPolicy {
    /// The promise as the score judges it. A request attains when it keeps both limits; of two percentiles and an
    /// attainment goal the strictest counts. `None` where no latency is promised.
    #[must_use]
    pub fn slo(&self) -> Option<Slo> {
        let (ttft, itl) = (self.slo.ttft, self.slo.itl);
        (ttft.is_some() || itl.is_some()).then(|| Slo {
            ttft: ttft.map(|promise| promise.limit.0),
            itl: itl.map(|promise| promise.limit.0),
            goal: self.slo.goal(),
        })
    }

    /// The thresholds by which replicas are counted; `None` for `target: sla`, where a model of the engines counts them.
    #[must_use]
    pub fn thresholds(&self) -> Option<Load> {
        match self.target {
            Target::Sla => None,
            Target::Throughput => Some(Load::throughput()),
            Target::Latency => Some(Load::latency()),
            Target::Load => Some(self.load.unwrap_or_default()),
        }
    }
}
