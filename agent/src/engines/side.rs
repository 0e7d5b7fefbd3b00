//! What is read next to an engine's metrics page: SGLang's snapshot, TensorRT-LLM's statistics of iterations and requests.

use std::time::Duration;

use plimsoll_common::engine::EngineKind;
use tokio::time::Instant;

use super::{
    client::Client,
    iterations::read_iterations,
    loads::{LOADS_PATH, read_loads},
    page::EnginePage,
    scrape_error::ScrapeError,
};
use crate::{
    config::Endpoint,
    exact::{DrainedRequests, read_drained},
};

/// Where TensorRT-LLM's iteration statistics are drained.
const ITERATIONS_PATH: &str = "/metrics";
/// Where TensorRT-LLM up to 1.2 tells of the requests that ended.
const REQUESTS_PATH: &str = "/perf_metrics";
/// The longest answer that is read of it: some 5,000 requests.
const REQUESTS_BYTES: usize = 4 << 20;
/// How long a page that the server does not have, or does not show us, is left alone.
const LEFT_ALONE: Duration = Duration::from_mins(5);
/// How long one that failed is left alone.
const PAUSE: Duration = Duration::from_secs(10);
/// The longest snapshot: some 4,000 data-parallel engines.
const LOADS_BYTES: usize = 1 << 20;

/// The further pages of one engine.
#[derive(Debug, Default)]
pub(super) struct SidePages {
    loads: Turn,
    iterations: Turn,
    requests: Turn,
    /// Whether the requests were read before: those that lay there at the first look are history.
    requests_begun: bool,
    drained: DrainedRequests,
    version: Option<String>,
}

/// When a page is asked for again.
#[derive(Debug, Default)]
struct Turn {
    not_before: Option<Instant>,
}

impl Turn {
    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }

    /// Takes how the page could be read.
    fn took(&mut self, now: Instant, error: Option<&ScrapeError>) {
        self.not_before = error.map(|error| {
            let missing = matches!(error, ScrapeError::Status { .. } | ScrapeError::Unauthorised { .. });
            now + if missing { LEFT_ALONE } else { PAUSE }
        });
    }
}

impl SidePages {
    /// The version that a further page told.
    pub(super) fn version(&self) -> Option<&String> {
        self.version.as_ref()
    }

    /// The requests that ended since this was last called, where they are read.
    pub(super) fn take_requests(&mut self) -> DrainedRequests {
        std::mem::take(&mut self.drained)
    }

    /// Completes the metrics page, or stands in for one that the server does not have. What a further page lacks costs
    /// nothing of the metrics page.
    pub(super) async fn complete(
        &mut self,
        client: &mut Client,
        endpoint: &Endpoint,
        page: Result<EnginePage, ScrapeError>,
    ) -> Result<EnginePage, ScrapeError> {
        match page {
            Ok(mut page) => {
                match page.kind {
                    Some(EngineKind::Sglang) => drop(self.lay_loads_over(client, &mut page).await),
                    Some(EngineKind::TensorRtLlm) => {
                        if endpoint.iteration_stats {
                            self.lay_iterations_over(client, &mut page).await;
                        }
                        if endpoint.exact.request_stats {
                            self.drain_requests(client).await;
                        }
                    }
                    _ => {}
                }
                Ok(page)
            }
            // SGLang without `--enable-metrics` still has its snapshot.
            Err(error @ ScrapeError::Status { status: 404, .. })
                if matches!(endpoint.kind, None | Some(EngineKind::Sglang)) =>
            {
                let mut page = EnginePage { kind: Some(EngineKind::Sglang), ..EnginePage::default() };
                if self.lay_loads_over(client, &mut page).await { Ok(page) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    /// Answers whether there was a snapshot.
    async fn lay_loads_over(&mut self, client: &mut Client, page: &mut EnginePage) -> bool {
        let now = Instant::now();
        if !self.loads.is_due(now) {
            return false;
        }
        let answer = client.get(LOADS_PATH, LOADS_BYTES).await;
        self.loads.took(now, answer.as_ref().err());
        let Ok(answer) = answer else { return false };
        match read_loads(answer) {
            Ok(loads) => {
                loads.lay_over(page);
                self.version.clone_from(&loads.version);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the engine's snapshot is left out");
                self.loads.not_before = Some(now + LEFT_ALONE);
                false
            }
        }
    }

    async fn drain_requests(&mut self, client: &mut Client) {
        let now = Instant::now();
        if !self.requests.is_due(now) {
            return;
        }
        let answer = client.get(REQUESTS_PATH, REQUESTS_BYTES).await;
        self.requests.took(now, answer.as_ref().err());
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%error, "the engine's finished requests can't be read");
                return;
            }
        };
        match read_drained(answer) {
            Ok(drained) if self.requests_begun => self.drained = drained,
            Ok(_) => self.requests_begun = true,
            Err(error) => {
                tracing::warn!(%error, "the engine's finished requests are no such page");
                self.requests.not_before = Some(now + LEFT_ALONE);
            }
        }
    }

    async fn lay_iterations_over(&mut self, client: &mut Client, page: &mut EnginePage) {
        let now = Instant::now();
        if !self.iterations.is_due(now) {
            return;
        }
        let limit = crate::exposition::Limits::default().page_bytes;
        let answer = client.get(ITERATIONS_PATH, limit).await;
        self.iterations.took(now, answer.as_ref().err());
        let Ok(answer) = answer else { return };
        match read_iterations(answer, limit) {
            Ok(iterations) => iterations.lay_over(page),
            Err(error) => {
                tracing::debug!(%error, "the engine's iteration statistics are left out");
                self.iterations.not_before = Some(now + LEFT_ALONE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_missing_is_left_alone_for_long() {
        let (mut turn, now) = (Turn::default(), Instant::now());
        assert!(turn.is_due(now));
        let missing = ScrapeError::Status { status: 404, path: LOADS_PATH.to_owned() };
        turn.took(now, Some(&missing));
        assert!(!turn.is_due(now + LEFT_ALONE - Duration::from_secs(1)));
        assert!(turn.is_due(now + LEFT_ALONE));
        turn.took(now, Some(&ScrapeError::Refused("x".to_owned())));
        assert!(!turn.is_due(now) && turn.is_due(now + PAUSE));
        turn.took(now, None);
        assert!(turn.is_due(now));
    }
}
