//! The HTTP side.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use plimsoll_engine::Micros;
use serde_json::json;
use tokio::sync::watch;

use crate::{args::Kind, config::Config, driver::DriverHandle, faults::Faults, words::mix};

mod endpoints;
mod error;
mod generate;
mod guard;
mod info;
mod meter;
mod prompt;
mod scrape;
mod sglang;
mod stream;
mod trtllm;
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
    pub(crate) config: Arc<Config>,
    pub(crate) driver: DriverHandle,
    pub(crate) faults: Faults,
    http: meter::Meter,
    /// When draining began, µs, plus one; zero if it has not.
    draining: Arc<AtomicU64>,
    /// A health check found the engine stuck.
    unhealthy: Arc<AtomicBool>,
    /// Generation requests between their acceptance and the end of their answer.
    in_flight: Arc<watch::Sender<u64>>,
    /// Requests named so far.
    named: Arc<AtomicU64>,
}

impl Api {
    pub(crate) fn new(config: Arc<Config>, driver: DriverHandle, faults: Faults) -> Self {
        let http = meter::Meter::new(driver.shared.clock);
        let in_flight = Arc::new(watch::Sender::new(0));
        Self {
            config,
            driver,
            faults,
            http,
            draining: Arc::default(),
            unhealthy: Arc::default(),
            in_flight,
            named: Arc::default(),
        }
    }

    pub(crate) fn start_draining(&self) {
        let since = self.driver.shared.clock.now().0 + 1;
        let _ = self.draining.compare_exchange(0, since, Ordering::AcqRel, Ordering::Acquire);
    }

    /// How long it has been draining; none if it is not.
    fn draining_for(&self) -> Option<Duration> {
        let since = self.draining.load(Ordering::Acquire).checked_sub(1)?;
        Some(Duration::from_micros(self.driver.shared.clock.now().saturating_sub(Micros(since)).0))
    }

    fn is_draining(&self) -> bool {
        self.draining_for().is_some()
    }

    /// Whether the port is open but the engine not ready yet.
    fn is_warming_up(&self) -> bool {
        let up = Duration::from_micros(self.driver.shared.clock.now().0);
        self.config.kind != Kind::Vllm && up < self.config.warmup
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
    let common = Router::new()
        .route("/v1/completions", post(generate::completions))
        .route("/v1/chat/completions", post(generate::chat_completions))
        .route("/v1/models", get(info::models))
        .route("/emulator/exact", get(info::exact));
    let router = match api.config.kind {
        Kind::Vllm => common.merge(info::router()),
        Kind::Sglang => common.merge(sglang::router()),
        Kind::Trtllm => common.merge(trtllm::router()),
    };
    let router = router
        .fallback(|| async { detail(StatusCode::NOT_FOUND, "Not Found") })
        .method_not_allowed_fallback(|| async {
            detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(api.clone(), guard::ask_for_token));
    let router = match api.config.kind {
        Kind::Vllm => router.layer(middleware::from_fn_with_state(api.http.clone(), meter::meter)),
        Kind::Sglang => router.layer(middleware::from_fn_with_state(api.http.clone(), endpoints::count)),
        Kind::Trtllm => router,
    };
    router.layer(middleware::map_response(name_server)).with_state(api)
}

fn detail(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "detail": text }))).into_response()
}

/// What the engines' servers call themselves; scrapers that guess an engine from it guess right.
async fn name_server(mut response: Response) -> Response {
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static("uvicorn"));
    response
}
