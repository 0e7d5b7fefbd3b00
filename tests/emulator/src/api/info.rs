//! Everything but generation: what all engines answer, and what vLLM does.

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::{Api, scrape},
    args::Kind,
    exact::Exact,
    job::Refusal,
};

/// What only vLLM answers, or it alone in this way.
pub(crate) fn router() -> Router<Api> {
    Router::new()
        .route("/health", get(health))
        .route("/ping", get(health).post(health))
        .route("/version", get(version))
        .route("/load", get(load))
        .route("/is_sleeping", get(is_sleeping))
        .route("/sleep", post(sleep))
        .route("/wake_up", post(wake_up))
        .route("/metrics", get(metrics))
        .route("/metrics/", get(metrics_slash))
}

async fn health() -> StatusCode {
    StatusCode::OK
}

pub(crate) async fn version(State(api): State<Api>) -> Json<Value> {
    Json(json!({ "version": api.config.version.as_str() }))
}

async fn load(State(api): State<Api>) -> Json<Value> {
    Json(json!({ "server_load": api.in_flight() }))
}

pub(crate) async fn models(State(api): State<Api>) -> Json<Value> {
    let model = &api.config.model;
    let created = api.driver.shared.clock.unix_seconds(plimsoll_engine::Micros::ZERO) as u64;
    let owner = match api.config.kind {
        Kind::Vllm => "vllm",
        Kind::Sglang => "sglang",
        Kind::Trtllm => "tensorrt_llm",
    };
    let mut card = json!({
        "id": model, "object": "model", "created": created, "owned_by": owner, "root": model, "parent": null,
        "max_model_len": api.config.engine.max_model_len,
    });
    if api.config.kind == Kind::Vllm {
        card["permission"] = json!([]);
    }
    Json(json!({ "object": "list", "data": [card] }))
}

async fn is_sleeping(State(api): State<Api>) -> Json<Value> {
    Json(json!({ "is_sleeping": api.driver.shared.snapshot().sleep > 0 }))
}

#[derive(Debug, Deserialize)]
struct Level {
    level: Option<u8>,
}

/// As vLLM's development mode has it; what runs is aborted.
async fn sleep(State(api): State<Api>, Query(level): Query<Level>) -> StatusCode {
    match level.level.unwrap_or(1) {
        level @ 1..=2 => told(api.driver.sleep(level)),
        _ => StatusCode::BAD_REQUEST,
    }
}

async fn wake_up(State(api): State<Api>) -> StatusCode {
    told(api.driver.sleep(0))
}

fn told(result: Result<(), Refusal>) -> StatusCode {
    result.map_or(StatusCode::SERVICE_UNAVAILABLE, |()| StatusCode::OK)
}

async fn metrics(State(api): State<Api>) -> Response {
    scrape::answer(&api, "text/plain; version=1.0.0; charset=utf-8").await
}

async fn metrics_slash(State(api): State<Api>) -> Response {
    scrape::answer(&api, "text/plain; version=0.0.4; charset=utf-8").await
}

pub(crate) async fn exact(State(api): State<Api>) -> Json<Exact> {
    let shared = &api.driver.shared;
    let state = shared.snapshot();
    let now = shared.clock.now();
    Json(Exact {
        model: api.config.model.clone(),
        now_unix_s: shared.clock.unix_seconds(now),
        running: state.load.running,
        waiting: state.load.waiting,
        finished: state.finished_stop + state.finished_length,
        aborted: state.totals.aborted,
        windows: shared.exact().windows(now),
    })
}
