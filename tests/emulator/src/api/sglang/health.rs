//! Health and readiness.

use std::{sync::atomic::Ordering, time::Duration};

use axum::{extract::State, http::StatusCode};
use tokio::time::Instant;

use crate::{api::Api, job::Job};

/// How long after the start of a drain `/ready` answers 503, and `/health`: as in a captured shutdown.
const UNREADY_AFTER: Duration = Duration::from_secs(1);
const UNHEALTHY_AFTER: Duration = Duration::from_millis(1_500);

/// How often a health check looks for a token, and how often at most.
const LOOK: Duration = Duration::from_secs(1);
const LOOKS: u32 = 20;

/// Generates a token if the engine has nothing to do, and looks once a second whether any token has come.
pub(crate) async fn health(State(api): State<Api>) -> StatusCode {
    if api.is_warming_up() || api.draining_for().is_some_and(|span| span >= UNHEALTHY_AFTER) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let shared = &api.driver.shared;
    let begun = shared.clock.now();
    let load = shared.snapshot().load;
    if load.running == 0 && load.waiting == 0 {
        tokio::spawn(probe(api.clone()));
    }
    let started = Instant::now();
    for look in 1..=LOOKS {
        tokio::time::sleep_until(started + LOOK * look).await;
        if shared.last_token().is_some_and(|at| at >= begun) {
            api.unhealthy.store(false, Ordering::Release);
            return StatusCode::OK;
        }
    }
    api.unhealthy.store(true, Ordering::Release);
    StatusCode::SERVICE_UNAVAILABLE
}

async fn probe(api: Api) {
    let job = Job {
        name: "health-check".to_owned(),
        prompt_tokens: 1,
        chain: Vec::new(),
        max_tokens: 1,
        output_tokens: 1,
        streaming: false,
        probe: true,
    };
    if let Ok(mut ticket) = api.driver.submit(job).await {
        // Dropped before its end, it would be aborted.
        let _ = ticket.progress.wait_for(|progress| progress.finished.is_some()).await;
    }
}

pub(crate) async fn ready(State(api): State<Api>) -> StatusCode {
    let leaving = api.draining_for().is_some_and(|span| span >= UNREADY_AFTER);
    let unhealthy = api.unhealthy.load(Ordering::Acquire);
    let paused = api.driver.shared.snapshot().sleep > 0;
    if api.is_warming_up() || leaving || unhealthy || paused {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    }
}
