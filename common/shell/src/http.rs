//! The pages' server, probes, and errors that say what to do.

mod access;
mod guard;
mod patient;
mod server;

use axum::{
    Json, Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

pub use access::Access;
pub use guard::{Guard, shown_token};
pub use server::{Refusals, Server};

use crate::{metrics::MetricPage, ready::Readiness};

/// `/healthz` (the event loop answers) and `/readyz` (every latch is set; else 503 and the list of what is missing).
pub fn probes(readiness: Readiness) -> Router {
    let ready = move || {
        let waiting = readiness.waiting_for();
        let status = if waiting.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        async move { (status, Json(json!({ "ready": waiting.is_empty(), "waiting_for": waiting }))) }
    };
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready))
}

/// An HTTP error as JSON: `{"error": "…", "hint": "…"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The status to answer with.
    pub status: StatusCode,
    /// What was wrong.
    pub error: String,
    /// What to do about it.
    pub hint: String,
}

impl ApiError {
    /// 404: there is no such thing; `hint` says what there is.
    pub fn not_found(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, error: error.into(), hint: hint.into() }
    }

    /// 400: the request can't be understood; `hint` says how it should look.
    pub fn bad_request(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error: error.into(), hint: hint.into() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.error, "hint": self.hint }))).into_response()
    }
}

/// A fallback handler's answer for paths that are not served.
pub fn no_such_page(paths: &'static [&'static str]) -> ApiError {
    ApiError::not_found("there is no such page", format!("there are {}", paths.join(", ")))
}

/// A Prometheus page (text format 0.0.4) as a response.
pub fn prometheus(page: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

/// What the server refused, as counters whose names begin with `prefix`.
pub fn write_refusals(page: &mut MetricPage, prefix: &str, refusals: &Refusals) {
    let counters = [
        (
            "http_unauthorized_total",
            "Requests for pages without a token that is taken.",
            refusals.unauthorized(),
        ),
        (
            "http_handshake_failures_total",
            "TLS handshakes for pages that failed or took too long.",
            refusals.handshakes(),
        ),
    ];
    for (name, help, count) in counters {
        page.counter(&format!("{prefix}_{name}"), help, &[], count);
    }
}
