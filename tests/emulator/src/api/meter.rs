//! The generic HTTP families of vLLM's page: what the server's own middleware counts, engine or not.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::{Body, HttpBody as _},
    extract::{MatchedPath, Request, State},
    http::{Method, header},
    middleware::Next,
    response::Response,
};
use http_body_util::BodyExt as _;
use plimsoll_engine::Micros;

use crate::{clock::Clock, histogram::Histogram, state::nanos};

/// Paths that are not counted: probes, scrapes, and what no real engine has.
const UNCOUNTED: [&str; 7] =
    ["/metrics", "/metrics/", "/health", "/ping", "/version", "/load", "/emulator/exact"];

/// Methods that are counted by name; others share one, so that a client cannot make series without end.
const METHODS: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT"];

const FINE_BOUNDS: [f64; 21] = [
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 7.5, 10.0,
    30.0, 60.0,
];
const LOADS_BOUNDS: [f64; 9] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];
const COARSE_BOUNDS: [f64; 3] = [0.1, 0.5, 1.0];

/// What was counted.
#[derive(Clone, Debug)]
pub(crate) struct HttpStats {
    /// By handler, method and class of status.
    pub(crate) requests: BTreeMap<(String, &'static str, &'static str), Counted>,
    /// Request bytes by handler.
    pub(crate) request_sizes: BTreeMap<String, Sizes>,
    /// Response bytes by handler.
    pub(crate) response_sizes: BTreeMap<String, Sizes>,
    /// Of all requests, fine.
    pub(crate) durations: Histogram,
    /// By handler and method, coarse.
    pub(crate) durations_by_handler: BTreeMap<(String, &'static str), (Histogram, Micros)>,
    /// What SGLang counts, by endpoint and method, in the order of first sight.
    pub(crate) endpoints: Vec<Seen>,
    /// Of answers to SGLang's `/v1/loads`.
    pub(crate) loads_durations: Histogram,
}

/// One endpoint and method in SGLang's eyes.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) endpoint: String,
    pub(crate) method: &'static str,
    pub(crate) requests: u64,
    pub(crate) active: u64,
    /// By status, in the order of first sight.
    pub(crate) responses: Vec<(u16, u64)>,
}

/// A count, and when it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) count: u64,
    pub(crate) since: Micros,
}

/// A count and a sum, and when they began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    pub(crate) since: Micros,
}

/// Counts requests.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    clock: Clock,
    stats: Arc<Mutex<HttpStats>>,
}

impl Meter {
    pub(crate) fn new(clock: Clock) -> Self {
        let stats = HttpStats {
            requests: BTreeMap::new(),
            request_sizes: BTreeMap::new(),
            response_sizes: BTreeMap::new(),
            durations: Histogram::of_seconds(&FINE_BOUNDS),
            durations_by_handler: BTreeMap::new(),
            endpoints: Vec::new(),
            loads_durations: Histogram::of_seconds(&LOADS_BOUNDS),
        };
        Self { clock, stats: Arc::new(Mutex::new(stats)) }
    }

    pub(crate) fn snapshot(&self) -> HttpStats {
        self.stats().clone()
    }

    pub(crate) fn stats(&self) -> MutexGuard<'_, HttpStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Micros {
        self.clock.now()
    }
}

/// Counts a request when its answer has ended, whether it was sent or cut off.
pub(crate) async fn meter(State(meter): State<Meter>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if path.is_some_and(|path| UNCOUNTED.contains(&path)) {
        return next.run(request).await;
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let mut pending = Pending {
        handler: path.unwrap_or("none").to_owned(),
        method: known_method(request.method()),
        // A client that leaves before the answer begins counts as answered, as it does in a real engine.
        status: "2xx",
        request_bytes: length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0),
        response_bytes: 0,
        begun: meter.clock.now(),
        meter,
    };
    let response = next.run(request).await;
    pending.status = class(response.status().as_u16());
    pending.response_bytes = response.body().size_hint().exact().unwrap_or(0);
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            // The closure owns the count, and goes when the body does.
            let _ = &pending;
            frame
        }))
    })
}

pub(super) fn known_method(method: &Method) -> &'static str {
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

const fn class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// A request that has not ended.
struct Pending {
    meter: Meter,
    handler: String,
    method: &'static str,
    status: &'static str,
    request_bytes: u64,
    response_bytes: u64,
    begun: Micros,
}

impl Drop for Pending {
    fn drop(&mut self) {
        let now = self.meter.clock.now();
        let mut stats = self.meter.stats();
        let key = (self.handler.clone(), self.method, self.status);
        stats.requests.entry(key).or_insert(Counted { count: 0, since: now }).count += 1;
        let empty = Sizes { count: 0, bytes: 0, since: now };
        let sizes = stats.request_sizes.entry(self.handler.clone()).or_insert(empty);
        sizes.count += 1;
        sizes.bytes += self.request_bytes;
        let sizes = stats.response_sizes.entry(self.handler.clone()).or_insert(empty);
        sizes.count += 1;
        sizes.bytes += self.response_bytes;
        let duration = nanos(now.saturating_sub(self.begun));
        stats.durations.observe(duration);
        let key = (self.handler.clone(), self.method);
        let coarse = || (Histogram::of_seconds(&COARSE_BOUNDS), now);
        stats.durations_by_handler.entry(key).or_insert_with(coarse).0.observe(duration);
    }
}
