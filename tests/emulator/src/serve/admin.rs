//! The admin port: states and faults, switched from outside. A port of its own, so that it answers while the engine's
//! is closed, slow or locked.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{config::CustomBuckets, script::Action, serve::supervisor::Control};

const HELP: &str = "\
POST /do        body: one of freeze, thaw, sleep, sleep:2, wake, gone, back, restart, restart:SECONDS, slow:SECONDS,
                torn:cut, torn:short, torn:mixed, locked, heal
POST /restart   body: {\"down_s\": 2.0, \"custom_histogram_buckets\": {...}}, both optional
GET  /state     what is switched on, as JSON
An answer means that it is done; a restart or a return has begun.
";

pub(super) fn router(control: Control) -> Router {
    Router::new()
        .route("/", get(|| async { HELP }))
        .route("/do", post(act))
        .route("/restart", post(restart))
        .route("/state", get(state))
        .with_state(control)
}

async fn act(State(control): State<Control>, body: String) -> Response {
    match Action::parse(body.trim()) {
        Ok(action) => answer(control.act(action).await),
        Err(reason) => (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response(),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Restart {
    #[serde(default)]
    down_s: f64,
    custom_histogram_buckets: Option<CustomBuckets>,
}

async fn restart(State(control): State<Control>, Json(restart): Json<Restart>) -> Response {
    let Ok(down) = Duration::try_from_secs_f64(restart.down_s) else {
        return (StatusCode::BAD_REQUEST, "down_s is no time: give seconds from 0 on\n").into_response();
    };
    let buckets = restart.custom_histogram_buckets;
    if let Some(Err(reason)) = buckets.as_ref().map(CustomBuckets::check) {
        return (StatusCode::BAD_REQUEST, format!("custom_histogram_buckets: {reason}\n")).into_response();
    }
    answer(control.act(Action::Restart { down, buckets }).await)
}

fn answer(done: Result<(), String>) -> Response {
    match done {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(reason) => (StatusCode::CONFLICT, format!("{reason}\n")).into_response(),
    }
}

async fn state(State(control): State<Control>) -> Json<Value> {
    let faults = control.faults.now();
    let engine = control.engine().map(|api| {
        let (state, frozen) = (api.driver.shared.snapshot(), api.driver.shared.is_frozen());
        json!({
            "frozen": frozen, "sleep": state.sleep, "running": state.load.running, "waiting": state.load.waiting,
            "in_flight": api.in_flight(),
        })
    });
    Json(json!({
        "engine": engine, "lives": control.lives(), "slow_s": faults.slow.as_secs_f64(),
        "torn": faults.torn.map(|torn| format!("{torn:?}").to_lowercase()), "locked": faults.locked,
    }))
}
