//! `/v1/engines`.

use axum::{Json, extract::State};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    Pages, exact,
    json::{age_seconds, distribution, seconds},
};
use crate::{
    exact::{SourceKey, SourceStatus},
    window::EngineView,
};

pub(super) async fn list(State(pages): State<Pages>) -> Json<Value> {
    let now = Instant::now();
    let sources = pages.0.feeds.exact.all();
    let engines: Vec<_> = pages.engines().iter().map(|view| one_engine(view, &sources, now)).collect();
    Json(json!({ "node": pages.0.node, "engines": engines }))
}

fn one_engine(view: &EngineView, sources: &[(SourceKey, SourceStatus)], now: Instant) -> Value {
    let bucketed =
        view.distributions.iter().map(|(kind, d)| (kind.as_str().to_owned(), distribution(*kind, d)));
    let distributions: Map<String, Value> = bucketed.chain(exact::distributions(view)).collect();
    let totals = &view.totals;
    json!({
        "id": view.info.id,
        "kind": view.info.kind,
        "url": view.info.url,
        "version": view.info.version,
        "model": view.info.model,
        "pool": view.info.pool,
        "role": view.info.role.as_str(),
        "replica": view.info.replica,
        "gpus": view.info.gpus,
        "state": view.state.as_str(),
        "error": view.error,
        "age_seconds": view.read.map(|read| age_seconds(read, now)),
        "scrape_seconds": view.took.map(seconds),
        "requests_running": view.gauges.running,
        "requests_waiting": view.gauges.waiting,
        "kv_cache_utilization_ratio": view.gauges.kv_usage.map(plimsoll_common::units::Ratio::get),
        "kv_capacity_tokens": view.info.kv_capacity_tokens,
        "since_agent_start": {
            "requests_arrived": totals.arrived,
            "requests_finished_stop": totals.finished_stop,
            "requests_finished_length": totals.finished_length,
            "requests_aborted": totals.aborted,
            "requests_errored": totals.errored,
            "prompt_tokens": totals.prompt_tokens,
            "generation_tokens": totals.generation_tokens,
            "prefix_cache_queried_tokens": totals.prefix_queries,
            "prefix_cache_hit_tokens": totals.prefix_hits,
            "preemptions": totals.preemptions,
            "counter_resets": totals.resets,
        },
        "forward_passes": exact::passes(view),
        "exact_sources": exact::sources(sources, Some(&view.info.id)),
        "recent": {
            "since_seconds": age_seconds(view.recent_since, now),
            "distributions": distributions,
        },
    })
}
