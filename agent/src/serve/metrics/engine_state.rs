//! How engines are, and whether their SLOs can be read.

use plimsoll_common::wire::EngineState;
use plimsoll_shell::metrics::{
    MetricPage,
    MetricType::{Counter, Gauge},
};
use tokio::time::Instant;

use super::{engines::labels, states};
use crate::window::EngineView;

pub(super) fn write(page: &mut MetricPage, engines: &[EngineView], now: Instant) {
    let all: Vec<_> = EngineState::ALL.iter().map(|state| state.as_str()).collect();
    let rows: Vec<_> = engines.iter().map(|v| (labels(v).to_vec(), v.seen.state.as_str())).collect();
    states(page, "plimsoll_engine_state", "How an engine is seen; 1 for the state that holds.", &rows, &all);
    let help = "For how long the state holds.";
    let mut family = page.family("plimsoll_engine_state_duration_seconds", Gauge, help);
    for view in engines {
        family.sample(&labels(view), now.saturating_duration_since(view.seen.since).as_secs_f64());
    }
    let help = "How often the state changed since the agent started.";
    let mut family = page.family("plimsoll_engine_state_changes_total", Counter, help);
    engines.iter().for_each(|view| family.sample(&labels(view), view.seen.changes));
    let help = "How often an engine changed the buckets of its histograms.";
    let mut family = page.family("plimsoll_engine_bucket_layout_changes_total", Counter, help);
    engines.iter().for_each(|view| family.sample(&labels(view), view.layout_changes));
    let help = "Whether a limit of the engine's SLO is an edge of its buckets: where 0, attainment is known to a bucket only.";
    let mut family = page.family("plimsoll_engine_slo_is_bucket_edge", Gauge, help);
    for view in engines {
        let [engine, model] = labels(view);
        for edge in view.slo.iter() {
            family.sample(&[engine, model, ("metric", edge.metric.as_str())], edge.is_edge);
        }
    }
}
