//! The HTTP side.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::json;
use tokio::sync::watch;

use crate::{config::Config, driver::DriverHandle, words::mix};

mod error;
mod generate;
mod info;
mod meter;
mod prompt;
mod stream;
mod types;

pub(crate) use meter::{HttpStats, Sizes};
use stream::Flavour;

/// Largest request body, bytes: a prompt of a few million tokens as ids.
const LARGEST_BODY: usize = 32 << 20;

/// Longest request name that is taken from a client, bytes.
const LONGEST_NAME: usize = 128;

/// What every handler has.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    config: Arc<Config>,
    driver: DriverHandle,
    http: meter::Meter,
    draining: Arc<AtomicBool>,
    /// Generation requests between their acceptance and the end of their answer.
    in_flight: Arc<watch::Sender<u64>>,
    /// Requests named so far.
    named: Arc<AtomicU64>,
}

impl Api {
    pub(crate) fn new(config: Arc<Config>, driver: DriverHandle) -> Self {
        let http = meter::Meter::new(driver.shared.clock);
        let in_flight = Arc::new(watch::Sender::new(0));
        Self { config, driver, http, draining: Arc::default(), in_flight, named: Arc::default() }
    }

    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn in_flight(&self) -> u64 {
        *self.in_flight.borrow()
    }

    /// Until no generation request is in flight.
    pub(crate) async fn idle(&self) {
        let mut in_flight = self.in_flight.subscribe();
        // The sender lives as long as this.
        let _ = in_flight.wait_for(|count| *count == 0).await;
    }

    /// The client's own name for a request, if it gives a short one, or one that no other request has here.
    fn name_request(&self, flavour: Flavour, headers: &HeaderMap) -> String {
        let given = headers.get("x-request-id").and_then(|name| name.to_str().ok());
        if let Some(name) = given.filter(|name| (1..=LONGEST_NAME).contains(&name.len())) {
            return format!("{}-{name}", flavour.id_prefix());
        }
        let serial = self.named.fetch_add(1, Ordering::Relaxed);
        format!("{}-{:016x}", flavour.id_prefix(), mix(self.config.seed ^ mix(serial)))
    }

    fn enter(&self) -> InFlight {
        self.in_flight.send_modify(|count| *count += 1);
        InFlight(Arc::clone(&self.in_flight))
    }
}

/// A generation request in flight; its end is when this is dropped.
#[derive(Debug)]
struct InFlight(Arc<watch::Sender<u64>>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/completions", post(generate::completions))
        .route("/v1/chat/completions", post(generate::chat_completions))
        .route("/v1/models", get(info::models))
        .route("/health", get(info::health))
        .route("/ping", get(info::health).post(info::health))
        .route("/version", get(info::version))
        .route("/load", get(info::load))
        .route("/metrics", get(info::metrics))
        .route("/metrics/", get(info::metrics_slash))
        .route("/emulator/exact", get(info::exact))
        .fallback(|| async { detail(StatusCode::NOT_FOUND, "Not Found") })
        .method_not_allowed_fallback(|| async {
            detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(api.http.clone(), meter::meter))
        .layer(middleware::map_response(name_server))
        .with_state(api)
}

fn detail(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "detail": text }))).into_response()
}

/// What vLLM's server calls itself; scrapers that guess an engine from it guess right.
async fn name_server(mut response: Response) -> Response {
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static("uvicorn"));
    response
}
