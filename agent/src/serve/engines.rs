//! `/v1/engines`.

use axum::{Json, extract::State};
use plimsoll_common::{
    engine::{EngineKind, SleepState},
    units::Ratio,
};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    Pages, engine_state, exact,
    json::{age_seconds, distribution, seconds},
};
use crate::{
    exact::{SourceKey, SourceStatus},
    window::EngineView,
};

pub(super) async fn list(State(pages): State<Pages>) -> Json<Value> {
    let now = Instant::now();
    let sources = pages.0.feeds.exact.all();
    let engines: Vec<_> = pages.engines(now).iter().map(|view| one_engine(view, &sources, now)).collect();
    Json(json!({ "node": pages.0.node, "engines": engines }))
}

fn one_engine(view: &EngineView, sources: &[(SourceKey, SourceStatus)], now: Instant) -> Value {
    let mut row = identity(view, now);
    row.append(&mut gauges(view, now));
    row.insert("since_agent_start".to_owned(), Value::Object(totals(view)));
    row.insert("forward_passes".to_owned(), exact::passes(view));
    row.insert("exact_sources".to_owned(), exact::sources(sources, Some(&view.info.id)).into());
    let bucketed =
        view.distributions.iter().map(|(kind, d)| (kind.as_str().to_owned(), distribution(*kind, d)));
    let distributions: Map<String, Value> = bucketed.chain(exact::distributions(view)).collect();
    let recent =
        json!({ "since_seconds": age_seconds(view.recent_since, now), "distributions": distributions });
    row.insert("recent".to_owned(), recent);
    Value::Object(row)
}

/// The members of an object.
fn members(object: Value) -> Map<String, Value> {
    if let Value::Object(members) = object { members } else { Map::new() }
}

fn identity(view: &EngineView, now: Instant) -> Map<String, Value> {
    members(json!({
        "id": view.info.id,
        "kind": view.info.kind,
        "seen_on_the_wire": EngineKind::from_name(&view.info.kind).map(EngineKind::seen_on_the_wire),
        "url": view.info.url,
        "version": view.info.version,
        "model": view.info.model,
        "pool": view.info.pool,
        "role": view.info.role.as_str(),
        "replica": view.info.replica,
        "gpus": view.info.gpus,
        "follower": view.info.follower,
        "state": view.seen.state.as_str(),
        "state_seconds": age_seconds(view.seen.since, now),
        "evidence": engine_state::evidence(view, now),
        "state_changes": view.seen.changes,
        "slo": engine_state::slo(view),
        "bucket_layout_changes": view.layout_changes,
        "age_seconds": view.read.map(|read| age_seconds(read, now)),
        "scrape_seconds": view.took.map(seconds),
    }))
}

fn gauges(view: &EngineView, now: Instant) -> Map<String, Value> {
    let gauges = &view.gauges;
    members(json!({
        "signal_age_seconds": view.signal_since.map(|since| age_seconds(since, now)),
        "requests_running": gauges.running,
        "requests_waiting": gauges.waiting,
        "requests_waiting_for_capacity": gauges.waiting_capacity,
        "requests_waiting_deferred": gauges.waiting_deferred,
        "requests_paused": gauges.paused,
        "kv_cache_utilization": gauges.kv_usage.map(Ratio::get),
        "kv_cache_utilization_max": gauges.kv_usage_max.map(Ratio::get),
        "kv_capacity_tokens": view.info.kv_capacity_tokens,
        "kv_offload_utilization": gauges.kv_offload_usage.map(Ratio::get),
        "prefix_cache_hit_ratio": gauges.prefix_hit_ratio.map(Ratio::get),
        "spec_acceptance_ratio": gauges.spec_acceptance.map(Ratio::get),
        "sleep": gauges.sleep.map(SleepState::as_str),
        "frontend_requests_inflight": gauges.frontend_inflight,
        "frontend_requests_queued": gauges.frontend_queued,
    }))
}

fn totals(view: &EngineView) -> Map<String, Value> {
    let totals = &view.totals;
    members(json!({
        "requests_arrived": totals.arrived,
        "requests_finished_stop": totals.finished_stop,
        "requests_finished_length": totals.finished_length,
        "requests_aborted": totals.aborted,
        "requests_errored": totals.errored,
        "requests_ended_untold": totals.ended,
        "requests_rejected": totals.rejected,
        "frontend_requests_arrived": totals.frontend_arrived,
        "prompt_tokens": totals.prompt_tokens,
        "generation_tokens": totals.generation_tokens,
        "prefix_cache_queried_tokens": totals.prefix_queries,
        "prefix_cache_hit_tokens": totals.prefix_hits,
        "kv_offload_hit_tokens": totals.offload_hits,
        "spec_draft_tokens": totals.draft_tokens,
        "spec_accepted_tokens": totals.accepted_tokens,
        "preemptions": totals.preemptions,
        "counter_resets": totals.resets,
    }))
}
