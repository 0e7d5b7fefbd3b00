//! What only trtllm-serve answers, or it alone in this way. From its source; never compared with a running one.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    api::{Api, info, scrape},
    config::Config,
    state::{
        EngineState, Shown,
        trtllm::{Iteration, Trtllm},
    },
};

/// How long the JSON page waits for an iteration where no loop gathers them.
const WAITS: Duration = Duration::from_secs(2);

const LOOK: Duration = Duration::from_millis(10);

pub(crate) fn router() -> Router<Api> {
    Router::new()
        .route("/health", get(health))
        .route("/health_generate", get(health))
        .route("/version", get(info::version))
        .route("/server_info", get(server_info))
        .route("/metrics", get(iterations))
        .route("/prometheus/metrics", get(metrics))
        .route("/prometheus/metrics/", get(metrics))
        .route("/perf_metrics", get(requests))
}

async fn health(State(api): State<Api>) -> StatusCode {
    if api.is_warming_up() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

async fn server_info(State(api): State<Api>) -> Json<Value> {
    Json(json!({ "model": api.config.model, "version": api.config.version.as_str() }))
}

async fn metrics(State(api): State<Api>) -> Response {
    if !api.config.measures.requests {
        return super::detail(StatusCode::NOT_FOUND, "Not Found");
    }
    scrape::answer(&api, "text/plain; version=0.0.4; charset=utf-8").await
}

/// The iterations since the last reader, whoever that was.
async fn iterations(State(api): State<Api>) -> Json<Value> {
    let measures = api.config.measures;
    let patience = if measures.iterations && !measures.requests { WAITS } else { Duration::ZERO };
    let deadline = Instant::now() + patience;
    loop {
        let taken = api.driver.shared.drain(|state| engine(state).map(Trtllm::drain_iterations));
        let taken = taken.unwrap_or_default();
        if !taken.is_empty() || Instant::now() >= deadline {
            return Json(taken.iter().map(|iteration| iteration_json(&api.config, iteration)).collect());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The requests that ended since the last reader. Gone after 1.2.
async fn requests(State(api): State<Api>) -> Response {
    if api.config.version.at_least(1, 3, 0) {
        return super::detail(StatusCode::NOT_FOUND, "Not Found");
    }
    let taken =
        api.driver.shared.drain(|state| engine(state).map(Trtllm::drain_requests)).unwrap_or_default();
    let requests: Vec<Value> = taken
        .iter()
        .map(|measured| {
            json!({ "request_id": measured.facts.id.0, "perf_metrics": measured.perf_metrics(api.config.engine.block_size) })
        })
        .collect();
    Json(requests).into_response()
}

fn engine(state: &mut EngineState) -> Option<&mut Trtllm> {
    match &mut state.shown {
        Shown::Trtllm(trtllm) => Some(trtllm),
        _ => None,
    }
}

fn iteration_json(config: &Config, iteration: &Iteration) -> Value {
    let (reused, missed) = (iteration.reused_blocks, iteration.missed_blocks);
    json!({
        "iter": iteration.number, "iterLatencyMS": iteration.took.as_millis_f64(),
        "gpuMemUsage": config.gpus.memory_bytes, "cpuMemUsage": 0, "pinnedMemUsage": 0,
        "numActiveRequests": iteration.active, "numQueuedRequests": iteration.queued,
        "numCompletedRequests": iteration.completed, "maxNumActiveRequests": config.engine.max_num_seqs,
        "maxBatchSizeStatic": config.engine.max_num_seqs, "maxBatchSizeRuntime": config.engine.max_num_seqs,
        "maxNumTokensRuntime": config.engine.max_num_batched_tokens,
        "kvCacheStats": {
            "maxNumBlocks": iteration.blocks, "freeNumBlocks": iteration.blocks.saturating_sub(iteration.used_blocks),
            "usedNumBlocks": iteration.used_blocks, "tokensPerBlock": config.engine.block_size,
            "allocTotalBlocks": iteration.allocated_blocks, "allocNewBlocks": iteration.allocated_blocks,
            "reusedBlocks": reused, "missedBlocks": missed,
            "cacheHitRate": reused as f64 / (reused + missed).max(1) as f64,
        },
        "inflightBatchingStats": {
            "numContextRequests": iteration.context, "numGenRequests": iteration.generating,
            "numPausedRequests": iteration.paused, "numScheduledRequests": iteration.context + iteration.generating,
            "numCtxTokens": iteration.context_tokens, "microBatchId": 0, "avgNumDecodedTokensPerIter": 1.0,
        },
    })
}
