//! Reports: what happened, as numbers over time, for people, JSON and one self-contained page.

mod html;
mod series;

use plimsoll_common::units::Micros;
use plimsoll_core::score::{Score, Slo};
use serde::Serialize;

pub use series::{PoolSeries, Series};

use crate::{
    experiment::{Run, StaticBest},
    outcome::{Action, Ending, Outcome, RequestRecord},
    workload::{Summary, Workload},
};

/// The most actions of one policy that a report lists; the rest are counted.
const MOST_ACTIONS: usize = 5_000;

/// Everything that a report shows.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What this is, for whoever reads the JSON.
    pub schema: &'static str,
    /// What was asked, in words.
    pub title: String,
    /// What came in.
    pub workload: Summary,
    /// What was promised.
    pub slo: Slo,
    /// The world, as a list of names and values.
    pub world: Vec<(String, String)>,
    /// The policies, in the order in which they were named.
    pub runs: Vec<RunReport>,
    /// What a static fleet could have done, if that was asked.
    pub static_best: Option<StaticReport>,
}

/// One policy.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// Its name.
    pub policy: String,
    /// How well it went.
    pub score: Score,
    /// Percentiles of TTFT over requests that got a first token, ms.
    pub ttft_ms: Percentiles,
    /// Percentiles of the mean time between tokens over finished requests, ms.
    pub itl_ms: Percentiles,
    /// Requests that were aborted.
    pub aborted: usize,
    /// Requests that engines refused.
    pub rejected: usize,
    /// Requests that had not finished when patience ended.
    pub unfinished: usize,
    /// What happened over time.
    pub series: Series,
    /// Every change of a target.
    pub actions: Vec<Action>,
    /// Actions that are not listed, since there are too many.
    pub actions_left_out: usize,
}

/// A distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Mean.
    pub mean: Option<f64>,
    /// Median.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

/// What static fleets did.
#[derive(Clone, Debug, Serialize)]
pub struct StaticReport {
    /// The smallest that keeps the promise, replicas by pool; none if no fleet does.
    pub replicas: Option<Vec<u32>>,
    /// Those that were tried, by size.
    pub tried: Vec<StaticPoint>,
}

/// One static fleet.
#[derive(Clone, Debug, Serialize)]
pub struct StaticPoint {
    /// Replicas by pool.
    pub replicas: Vec<u32>,
    /// GPU-hours.
    pub gpu_hours: f64,
    /// The share of requests that attained.
    pub attained: f64,
}

impl Report {
    /// A report without any run yet.
    #[must_use]
    pub fn new(title: String, workload: &Workload, slo: Slo, world: Vec<(String, String)>) -> Self {
        Self {
            schema: "plimsoll-simulation/1",
            title,
            workload: workload.summary(),
            slo,
            world,
            runs: Vec::new(),
            static_best: None,
        }
    }

    /// Adds a run.
    pub fn add(&mut self, run: &Run, workload: &Workload) {
        self.runs.push(RunReport::of(run, workload.span()));
    }

    /// Adds what static fleets did.
    pub fn add_static(&mut self, best: &StaticBest) {
        let point = |(replicas, score): &(Vec<u32>, Score)| StaticPoint {
            replicas: replicas.clone(),
            gpu_hours: score.gpu_hours.total,
            attained: share(score),
        };
        let tried = best.tried.iter().map(point).collect();
        self.static_best = Some(StaticReport { replicas: best.replicas.clone(), tried });
    }

    /// As JSON, one object.
    ///
    /// # Errors
    /// None in a tested build: every number is finite.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// As one page that needs nothing but a browser.
    ///
    /// # Errors
    /// As [`Report::to_json`].
    pub fn to_html(&self) -> Result<String, serde_json::Error> {
        html::page(self)
    }
}

/// The share of requests that certainly attained; 1 where nobody asked for anything.
#[must_use]
pub fn share(score: &Score) -> f64 {
    score.attained.map_or(1.0, |attained| attained.low().get())
}

impl RunReport {
    fn of(run: &Run, span: Micros) -> Self {
        let outcome = &run.outcome;
        let listed = outcome.actions.len().min(MOST_ACTIONS);
        Self {
            policy: outcome.policy.clone(),
            score: run.score.clone(),
            ttft_ms: Percentiles::of(outcome.requests.iter().filter_map(RequestRecord::ttft)),
            itl_ms: Percentiles::of(outcome.requests.iter().filter_map(RequestRecord::mean_itl)),
            aborted: outcome.count(Ending::Aborted),
            rejected: outcome.count(Ending::Rejected),
            unfinished: outcome.count(Ending::Unfinished),
            series: Series::of(outcome, span),
            actions: outcome.actions[..listed].to_vec(),
            actions_left_out: outcome.actions.len() - listed,
        }
    }
}

impl Outcome {
    /// Percentiles of TTFT and of the mean time between tokens, ms.
    #[must_use]
    pub fn percentiles(&self) -> (Percentiles, Percentiles) {
        (
            Percentiles::of(self.requests.iter().filter_map(RequestRecord::ttft)),
            Percentiles::of(self.requests.iter().filter_map(RequestRecord::mean_itl)),
        )
    }
}

impl Percentiles {
    /// Of latencies, in milliseconds with three decimals.
    #[must_use]
    pub fn of(latencies: impl Iterator<Item = Micros>) -> Self {
        let mut latencies: Vec<Micros> = latencies.collect();
        latencies.sort_unstable();
        let n = latencies.len();
        let at = |q: f64| {
            let rank = ((n as f64 * q).ceil() as usize).clamp(1, n.max(1));
            latencies.get(rank - 1).map(|latency| latency.as_millis_f64())
        };
        let sum: u128 = latencies.iter().map(|latency| u128::from(latency.0)).sum();
        let mean = (n > 0).then(|| (sum as f64 / n as f64).round() / 1e3);
        Self { mean, p50: at(0.5), p90: at(0.9), p99: at(0.99) }
    }
}
