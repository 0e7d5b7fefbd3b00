//! What came of it: which requests attained, and what that took.

use std::path::PathBuf;

use plimsoll_tests::request_log::{self, Ended};

use super::Took;
use crate::{load::Tally, plan::ModelPlan, policy::PERCENTILE};

/// Requests by the engines' own records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Score {
    requests: u64,
    attained: u64,
    failed: u64,
}

impl Score {
    /// From the records of all engines that ever served, and what the load knows of requests that have none.
    ///
    /// # Errors
    /// When a record can't be read.
    pub(super) fn read(logs: &[PathBuf], tally: Tally, model: &ModelPlan) -> anyhow::Result<Self> {
        let mut score = Self {
            requests: tally.sent + tally.held_back,
            attained: 0,
            failed: tally.failed + tally.held_back,
        };
        for log in logs {
            let ended = request_log::read(log)?;
            score.attained += ended.iter().filter(|request| attains(request, model)).count() as u64;
        }
        Ok(score)
    }

    /// Whether the promised share attained.
    pub(super) const fn is_held(&self) -> bool {
        self.requests > 0 && self.attained * 100 >= self.requests * PERCENTILE as u64
    }

    pub(super) fn lines(&self, model: &ModelPlan, took: &Took) -> Vec<String> {
        let share = self.attained as f64 / self.requests.max(1) as f64 * 100.0;
        let fixed = took.seconds * took.most as f64;
        let hours = |seconds: f64| format!("{:.3} GPU-hours", seconds / 3600.0);
        let verdict = if self.is_held() { "held" } else { "MISSED" };
        vec![
            format!(
                "SLO {verdict}: {} of {} requests ({share:.1} %) had TTFT within {} ms and a mean ITL within {} ms; \
                 {PERCENTILE} % were promised, {} failed",
                self.attained, self.requests, model.ttft_ms, model.itl_ms, self.failed
            ),
            format!(
                "engines: {} at most, {} started and {} stopped in {:.0} s",
                took.most, took.started, took.stopped, took.seconds
            ),
            format!(
                "by the advice: {} (start-up and draining included); {} engines all the time: {}; saved {:.0} %",
                hours(took.engine_seconds),
                took.most,
                hours(fixed),
                (1.0 - took.engine_seconds / fixed.max(1e-9)) * 100.0
            ),
        ]
    }
}

/// Both limits count, the mean time between tokens for answers of more than one.
fn attains(request: &Ended, model: &ModelPlan) -> bool {
    let within = |seconds: f64, ms: u32| seconds * 1e3 <= f64::from(ms);
    request.finish_reason != "abort"
        && request.ttft_s.is_some_and(|ttft| within(ttft, model.ttft_ms))
        && request.tpot_s.is_none_or(|tpot| within(tpot, model.itl_ms))
}
