//! The bearer token: who asks for it where.

use axum::{
    Json,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use serde_json::json;

use crate::{api::Api, args::Kind};

/// Answers 401 where a token is needed and is not the configured one.
pub(crate) async fn ask_for_token(State(api): State<Api>, request: Request, next: Next) -> Response {
    let locked = api.faults.now().locked;
    let key = api.config.api_key.as_deref();
    let asks = locked || (key.is_some() && is_guarded(api.config.kind, request.uri().path()));
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer "));
    if asks && (key.is_none() || shown != key) {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "Unauthorized" }))).into_response();
    }
    next.run(request).await
}

/// Whether the real engine guards a path.
fn is_guarded(kind: Kind, path: &str) -> bool {
    match kind {
        Kind::Vllm => path.starts_with("/v1/"),
        Kind::Sglang | Kind::Trtllm => {
            !["/health", "/metrics", "/prometheus"].iter().any(|open| path.starts_with(open))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_open_and_loads_are_not() {
        for (kind, path, guarded) in [
            (Kind::Vllm, "/metrics", false),
            (Kind::Vllm, "/v1/models", true),
            (Kind::Vllm, "/load", false),
            (Kind::Sglang, "/metrics/", false),
            (Kind::Sglang, "/health_generate", false),
            (Kind::Sglang, "/v1/loads", true),
            (Kind::Sglang, "/server_info", true),
        ] {
            assert_eq!(is_guarded(kind, path), guarded, "{kind:?} {path}");
        }
    }
}
