//! Everything but generation.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{api::Api, exact::Exact, page};

/// The version that the page and the manners are those of.
const VERSION: &str = "0.32.0";

pub(crate) async fn health() -> StatusCode {
    StatusCode::OK
}

pub(crate) async fn version() -> Json<Value> {
    Json(json!({ "version": VERSION }))
}

pub(crate) async fn load(State(api): State<Api>) -> Json<Value> {
    Json(json!({ "server_load": api.in_flight() }))
}

pub(crate) async fn models(State(api): State<Api>) -> Json<Value> {
    let model = &api.config.model;
    let created = api.driver.shared.clock.unix_seconds(plimsoll_engine::Micros::ZERO) as u64;
    Json(json!({
        "object": "list",
        "data": [{
            "id": model, "object": "model", "created": created, "owned_by": "vllm", "root": model, "parent": null,
            "max_model_len": api.config.engine.max_model_len,
            "permission": [],
        }],
    }))
}

pub(crate) async fn metrics(State(api): State<Api>) -> Response {
    page(&api, "text/plain; version=1.0.0; charset=utf-8")
}

pub(crate) async fn metrics_slash(State(api): State<Api>) -> Response {
    page(&api, "text/plain; version=0.0.4; charset=utf-8")
}

fn page(api: &Api, content_type: &'static str) -> Response {
    let shared = &api.driver.shared;
    let text = page::render(&api.config, &shared.clock, &shared.snapshot(), &api.http.snapshot());
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
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
