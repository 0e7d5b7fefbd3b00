//! What SGLang's front process counts of HTTP: every path by its own name, also those that do not exist.

use axum::{
    body::{Body, HttpBody as _},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http_body_util::BodyExt as _;

use crate::api::meter::{HttpStats, Meter, Seen, known_method};

/// Endpoints that are counted apart; the rest is not counted, so that a client cannot make series without end.
const MOST_ENDPOINTS: usize = 64;

/// What nobody asks of a real engine.
const OURS: &str = "/emulator/";

/// Counts a request when it comes, its response when it begins, and in between and until its end as active.
pub(crate) async fn count(State(meter): State<Meter>, request: Request, next: Next) -> Response {
    let (path, method) = (request.uri().path().to_owned(), known_method(request.method()));
    if path.starts_with(OURS) {
        return next.run(request).await;
    }
    let Some(place) = place(&mut meter.stats(), path, method) else { return next.run(request).await };
    if let Some(seen) = meter.stats().endpoints.get_mut(place) {
        seen.requests += 1;
        seen.active += 1;
    }
    let active = Active { meter, place };
    let response = next.run(request).await;
    active.respond(response.status().as_u16());
    let whole = response.body().size_hint().exact();
    response.map(|body| {
        if whole.is_some() {
            return body;
        }
        Body::new(body.map_frame(move |frame| {
            // The closure owns the count, and goes when the body does.
            let _ = &active;
            frame
        }))
    })
}

fn place(stats: &mut HttpStats, endpoint: String, method: &'static str) -> Option<usize> {
    let known = stats.endpoints.iter().position(|seen| seen.endpoint == endpoint && seen.method == method);
    if known.is_some() || stats.endpoints.len() >= MOST_ENDPOINTS {
        return known;
    }
    stats.endpoints.push(Seen { endpoint, method, requests: 0, active: 0, responses: Vec::new() });
    Some(stats.endpoints.len() - 1)
}

struct Active {
    meter: Meter,
    place: usize,
}

impl Active {
    fn respond(&self, status: u16) {
        let mut stats = self.meter.stats();
        let Some(seen) = stats.endpoints.get_mut(self.place) else { return };
        match seen.responses.iter_mut().find(|(known, _)| *known == status) {
            Some((_, count)) => *count += 1,
            None => seen.responses.push((status, 1)),
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if let Some(seen) = self.meter.stats().endpoints.get_mut(self.place) {
            seen.active -= 1;
        }
    }
}
