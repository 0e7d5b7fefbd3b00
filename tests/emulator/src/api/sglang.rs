//! What only SGLang answers, or it alone in this way.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, scrape};

mod health;
mod loads;

/// How often a handler that needs the scheduler looks whether it has thawed.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) fn router() -> Router<Api> {
    Router::new()
        .route("/health", get(health::health))
        .route("/health_generate", get(health::health))
        .route("/ready", get(health::ready))
        .route("/server_info", get(server_info))
        .route("/get_server_info", get(server_info))
        .route("/model_info", get(model_info))
        .route("/get_model_info", get(model_info))
        .route("/v1/loads", get(loads))
        .route("/get_load", get(get_load))
        .route("/metrics", get(metrics))
        .route("/metrics/", get(metrics))
}

async fn metrics(State(api): State<Api>) -> Response {
    scrape::answer(&api, "text/plain; version=0.0.4; charset=utf-8").await
}

#[derive(Debug, Deserialize)]
struct LoadsQuery {
    include: Option<String>,
    format: Option<String>,
    dp_rank: Option<u32>,
}

/// Answers from the scheduler's last word, however old.
async fn loads(State(api): State<Api>, Query(query): Query<LoadsQuery>) -> Response {
    if !has_loads(&api) {
        return super::detail(StatusCode::NOT_FOUND, "Not Found");
    }
    let begun = api.http.now();
    let state = api.driver.shared.snapshot();
    let sections = match loads::Sections::parse(query.include.as_deref()) {
        Ok(sections) => sections,
        Err(message) => return super::detail(StatusCode::BAD_REQUEST, &message),
    };
    let ranks = if query.dp_rank.is_none_or(|rank| rank == 0) { 1 } else { 0 };
    let load = loads::of_rank(&api, &state, &sections);
    let response = if query.format.as_deref() == Some("prometheus") {
        let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        (content_type, if ranks == 1 { loads::as_text(&load) } else { String::new() }).into_response()
    } else {
        let loads = if ranks == 1 { vec![load] } else { Vec::new() };
        let body = json!({
            "timestamp": loads::iso(api.driver.shared.clock.unix_seconds(api.http.now())),
            "version": api.config.version.as_str(), "accelerator": null, "num_accelerators": 1, "loads": loads,
        });
        Json(body).into_response()
    };
    let took = crate::state::nanos(api.http.now().saturating_sub(begun));
    api.http.stats().loads_durations.observe(took);
    response
}

/// Whether the version has `/v1/loads`, and so no longer its forerunner.
fn has_loads(api: &Api) -> bool {
    api.config.version.at_least(0, 5, 9)
}

async fn get_load(State(api): State<Api>) -> Response {
    if has_loads(&api) {
        return super::detail(StatusCode::NOT_FOUND, "Not Found");
    }
    let state = api.driver.shared.snapshot();
    let load = state.load;
    let tokens = u64::from(load.kv_blocks_used) * u64::from(api.config.engine.block_size);
    Json(json!([{
        "dp_rank": 0, "num_reqs": load.running + load.waiting, "num_waiting_reqs": load.waiting, "num_tokens": tokens,
    }]))
    .into_response()
}

/// Asks the scheduler, and so hangs while that is frozen.
async fn server_info(State(api): State<Api>) -> Json<Value> {
    while api.driver.shared.is_frozen() {
        tokio::time::sleep(LOOK).await;
    }
    let (config, engine) = (&api.config, &api.config.engine);
    let capacity = u64::from(engine.kv_blocks) * u64::from(engine.block_size);
    let status = if api.is_warming_up() { "starting" } else { "ready" };
    Json(json!({
        "model_path": config.model, "served_model_name": config.model, "tokenizer_path": config.model,
        "context_length": engine.max_model_len, "max_running_requests": engine.max_num_seqs,
        "max_queued_requests": config.most_waiting,
        "chunked_prefill_size": engine.max_num_batched_tokens, "schedule_policy": "fcfs",
        "page_size": engine.block_size, "disable_radix_cache": !config.prefix_caching,
        "nnodes": 1, "node_rank": 0, "tp_size": 1, "pp_size": 1, "dp_size": 1, "ep_size": 1,
        "random_seed": config.seed, "enable_metrics": true, "enable_metrics_for_all_schedulers": false,
        "load_snapshot_publish_interval": crate::state::sglang::PUBLISH_INTERVAL,
        "decode_log_interval": crate::state::sglang::DECODE_LOG_INTERVAL,
        "bucket_time_to_first_token": config.buckets.time_to_first_token,
        "bucket_inter_token_latency": config.buckets.inter_token_latency,
        "bucket_e2e_request_latency": config.buckets.request_latency,
        "disaggregation_mode": "null", "enable_forward_pass_metrics": config.exports.passes.is_some(),
        "export_metrics_to_file": config.exports.sglang_dir.is_some(),
        "status": status, "max_total_num_tokens": capacity,
        "max_req_input_len": engine.max_model_len.saturating_sub(6),
        "internal_states": [{ "max_total_num_tokens": capacity }],
        "version": config.version.as_str(), "frontend": "python",
    }))
}

async fn model_info(State(api): State<Api>) -> Json<Value> {
    let model = &api.config.model;
    Json(json!({
        "model_path": model, "served_model_name": model, "tokenizer_path": model, "is_generation": true,
        "preferred_sampling_params": null, "weight_version": "default", "load_format": "dummy",
        "disaggregation_mode": "null", "has_image_understanding": false, "has_audio_understanding": false,
    }))
}
