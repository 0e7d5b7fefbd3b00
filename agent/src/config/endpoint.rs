//! One engine's metrics page, and what the page does not tell.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use plimsoll_common::{
    engine::{EngineKind, Role},
    ids::{EngineId, GpuUuid, ModelName, PoolName, ReplicaId},
    units::{Micros, Ratio},
    wire::{MAX_ENGINES, MAX_GPUS},
};
use plimsoll_shell::{config::Problems, duration::HumanDuration};
use serde::{Deserialize, Serialize};

use super::{
    Settings,
    exact::{self, ExactSources},
};
use crate::engines::Slo;

/// What a limit of an SLO may be.
const LIMITS: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(2);

/// One engine to read, validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Its name on this node; defaults to the URL's `host:port`.
    pub id: EngineId,
    /// The server's root, such as `http://127.0.0.1:8000`, without a path.
    pub url: String,
    /// The path of the metrics page; by default `/prometheus/metrics` for `trtllm` and `/metrics` for all others.
    pub metrics_path: String,
    /// Which software serves there; `None`: what the page shows.
    pub kind: Option<EngineKind>,
    /// The model it serves; absent: what the page says.
    pub model: Option<ModelName>,
    /// The pool it belongs to; absent: planner-side default (model and role).
    pub pool: Option<PoolName>,
    /// Which part of a request it serves; `None`: what the page shows, else aggregated.
    pub role: Option<Role>,
    /// The replica it is, or is a part of (a replica may span nodes).
    pub replica: Option<ReplicaId>,
    /// The GPUs it runs on.
    pub gpus: Vec<GpuUuid>,
    /// Whether it is one of the further nodes of an engine that spans several: those serve no page.
    pub follower: bool,
    /// Whether TensorRT-LLM's iteration statistics are read. Reading them takes them away from every other reader.
    pub iteration_stats: bool,
    /// Where it tells of single requests and forward passes.
    pub exact: ExactSources,
    /// The file with the bearer token that its server wants to see.
    pub bearer_token_file: Option<PathBuf>,
    /// What is promised of it.
    pub slo: Option<Slo>,
}

/// One `[[endpoint]]` of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct EndpointTable {
    /// The server's root URL.
    pub url: String,
    /// Its name on this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `vllm`, `sglang`, `trtllm`, `triton`, `dynamo-frontend` or `dynamo-worker`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<EngineKind>,
    /// The path of the metrics page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_path: Option<String>,
    /// The served model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The pool it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// `aggregated`, `prefill` or `decode`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The replica it is, or is a part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// UUIDs of the GPUs it runs on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    /// Whether it is a further node of an engine that spans several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follower: Option<bool>,
    /// Whether TensorRT-LLM's iteration statistics are drained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iteration_stats: Option<bool>,
    /// The folder to which it writes a record of each request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_metrics_dir: Option<PathBuf>,
    /// Whether TensorRT-LLM's page of finished requests is drained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_stats: Option<bool>,
    /// Where it publishes forward-pass metrics.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forward_pass_metrics: Vec<String>,
    /// The service of its OTLP traces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_service: Option<String>,
    /// File with the token to show to its server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_token_file: Option<PathBuf>,
    /// What is promised of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slo: Option<SloTable>,
}

/// One `[endpoint.slo]` of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SloTable {
    /// The share of requests that must keep each limit, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentile: Option<f64>,
    /// Time to first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft: Option<HumanDuration>,
    /// Inter-token latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub itl: Option<HumanDuration>,
    /// Time per output token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpot: Option<HumanDuration>,
    /// Arrival to last token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e2e: Option<HumanDuration>,
}

impl EndpointTable {
    /// The keys of the table.
    pub const KEYS: &'static [&'static str] = &[
        "url",
        "id",
        "kind",
        "metrics-path",
        "model",
        "pool",
        "role",
        "replica",
        "gpus",
        "follower",
        "iteration-stats",
        "request-metrics-dir",
        "request-stats",
        "forward-pass-metrics",
        "otlp-service",
        "bearer-token-file",
        "slo",
    ];
}

/// Checks the URLs of `--engine` and the `[[endpoint]]` tables together.
pub(super) fn check_all(settings: &Settings, problems: &mut Problems) -> Vec<Endpoint> {
    let bare =
        settings.engine.iter().map(|url| EndpointTable { url: url.clone(), ..EndpointTable::default() });
    let endpoints: Vec<Endpoint> =
        settings.endpoint.iter().cloned().chain(bare).filter_map(|table| check(&table, problems)).collect();
    if endpoints.len() > MAX_ENGINES {
        problems.push(format!("endpoint: {} engines, a node has at most {MAX_ENGINES}", endpoints.len()));
    }
    let (mut ids, mut pages) = (BTreeSet::new(), BTreeSet::new());
    for endpoint in &endpoints {
        if !ids.insert(endpoint.id.clone()) {
            problems.push(format!(
                "endpoint: two engines are called '{}'; give each an id of its own",
                endpoint.id
            ));
        }
        // A front-end's page speaks of several models: it may be listed once for each.
        if !pages.insert((&endpoint.url, &endpoint.metrics_path, &endpoint.model)) {
            problems.push(format!("endpoint: {}{} is listed twice", endpoint.url, endpoint.metrics_path));
        }
    }
    exact::check_all(&endpoints, problems);
    endpoints
}

fn check(table: &EndpointTable, problems: &mut Problems) -> Option<Endpoint> {
    let url = table.url.trim_end_matches('/');
    let place = |key: &str| format!("endpoint '{url}': {key}");
    let host = problems.take("endpoint", host_of(url));
    let metrics_path = table.metrics_path.clone().unwrap_or_else(|| default_path(table.kind).to_owned());
    if !metrics_path.starts_with('/') {
        problems.push(format!("{}: '{metrics_path}' does not start with '/'", place("metrics-path")));
    }
    if table.gpus.len() > MAX_GPUS {
        problems.push(format!("{}: {} GPUs, at most {MAX_GPUS}", place("gpus"), table.gpus.len()));
    }
    let id = table.id.as_deref().or(host);
    let id = id.and_then(|id| problems.take(&place("id"), EngineId::parse(id)));
    let model = table.model.as_deref().and_then(|m| problems.take(&place("model"), ModelName::parse(m)));
    let pool = table.pool.as_deref().and_then(|p| problems.take(&place("pool"), PoolName::parse(p)));
    let replica =
        table.replica.as_deref().and_then(|r| problems.take(&place("replica"), ReplicaId::parse(r)));
    let gpus = table.gpus.iter().filter_map(|g| problems.take(&place("gpus"), GpuUuid::parse(g))).collect();
    let exact = exact::check(table, place, problems);
    Some(Endpoint {
        id: id?,
        url: url.to_owned(),
        metrics_path,
        kind: table.kind,
        model,
        pool,
        role: table.role,
        replica,
        gpus,
        follower: table.follower.unwrap_or(false),
        iteration_stats: table.iteration_stats.unwrap_or(false),
        exact,
        bearer_token_file: table.bearer_token_file.clone(),
        slo: table.slo.as_ref().and_then(|slo| check_slo(slo, &place("slo"), problems)),
    })
}

fn check_slo(table: &SloTable, place: &str, problems: &mut Problems) -> Option<Slo> {
    let mut limit = |name: &str, given: Option<HumanDuration>| {
        let HumanDuration(limit) = given?;
        if !LIMITS.contains(&limit) {
            problems.push(format!("{place}.{name}: {limit:?} is outside 1ms to 2h"));
        }
        Some(Micros(u64::try_from(limit.as_micros()).unwrap_or(u64::MAX)))
    };
    let (ttft, itl) = (limit("ttft", table.ttft), limit("itl", table.itl));
    let (tpot, e2e) = (limit("tpot", table.tpot), limit("e2e", table.e2e));
    if ttft.or(itl).or(tpot).or(e2e).is_none() {
        problems.push(format!(
            "{place}: it promises nothing; give ttft, itl, tpot or e2e, such as ttft = \"500ms\""
        ));
    }
    let percent = table.percentile.unwrap_or(95.0);
    if !(1.0..=100.0).contains(&percent) {
        problems.push(format!("{place}.percentile: {percent} is outside 1 to 100"));
    }
    let percentile = problems.take(&format!("{place}.percentile"), Ratio::new(percent / 100.0))?;
    Some(Slo { percentile, ttft, itl, tpot, e2e })
}

/// Where an engine serves its Prometheus page unless it is told otherwise. TensorRT-LLM's `/metrics` is another page,
/// which empties itself when it is read.
const fn default_path(kind: Option<EngineKind>) -> &'static str {
    match kind {
        Some(EngineKind::TensorRtLlm) => "/prometheus/metrics",
        _ => "/metrics",
    }
}

/// The `host:port` of a plain root URL.
fn host_of(url: &str) -> Result<&str, String> {
    if url.is_empty() {
        return Err("url is missing; write url = \"http://127.0.0.1:8000\"".to_owned());
    }
    if url.starts_with("https://") {
        return Err(format!(
            "'{url}': https is not spoken to engines yet; scrape the engine's own http port"
        ));
    }
    let host = url.strip_prefix("http://").ok_or_else(|| format!("'{url}' does not start with http://"))?;
    let valid = url.parse::<hyper::Uri>().is_ok_and(|uri| uri.host().is_some());
    if host.contains(['/', '?', '#', '@']) || !valid {
        return Err(format!("'{url}' is more than http://HOST:PORT; put the page's path into metrics-path"));
    }
    Ok(host)
}
