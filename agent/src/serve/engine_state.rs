//! How engines are, and how their SLOs fit their buckets, as JSON.

use plimsoll_common::{histogram::attainment, wire::EngineState};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::json::age_seconds;
use crate::{engines::SloEdge, window::EngineView};

/// The evidence of an engine's state.
pub(super) fn evidence(view: &EngineView, now: Instant) -> Value {
    let seen = &view.seen;
    json!({
        "code": seen.evidence.as_str(),
        "text": seen.reason,
        "age_seconds": age_seconds(seen.told, now),
    })
}

/// Each limit of an engine's SLO: whether it can be read off its buckets, and what share of the recent requests kept it.
pub(super) fn slo(view: &EngineView) -> Vec<Value> {
    view.slo.iter().map(|edge| limit(view, edge)).collect()
}

fn limit(view: &EngineView, edge: &SloEdge) -> Value {
    let distribution = edge.kind.and_then(|kind| view.distributions.get(&kind));
    json!({
        "metric": edge.metric.as_str(),
        "limit_seconds": edge.limit.as_secs_f64(),
        "percentile": edge.percentile.get() * 100.0,
        "distribution": edge.kind.map(plimsoll_common::engine::DistributionKind::as_str),
        "is_bucket_edge": edge.is_edge,
        "edge_below_seconds": edge.around.0,
        "edge_above_seconds": edge.around.1,
        "attainment": distribution.and_then(|distribution| attainment(&distribution.buckets, edge.limit)),
        "samples": distribution.map(|distribution| distribution.histogram().count()),
        "advice": (!edge.is_edge).then(|| edge.to_string()),
        "flag": edge.flag.as_ref().map(|flag| &flag.text),
    })
}

/// How many engines are in each state, and whose SLO splits a bucket.
pub(super) fn summary(engines: &[EngineView]) -> Value {
    let mut states: Map<String, Value> = EngineState::ALL
        .iter()
        .map(|state| {
            let n = engines.iter().filter(|view| view.seen.state == *state).count();
            (state.as_str().to_owned(), json!(n))
        })
        .collect();
    let split: Vec<_> = engines
        .iter()
        .flat_map(|view| view.slo.iter().filter(|edge| !edge.is_edge).map(move |edge| (view, edge)))
        .map(|(view, edge)| {
            json!({
                "engine": view.info.id,
                "metric": edge.metric.as_str(),
                "advice": edge.to_string(),
                "flag": edge.flag.as_ref().map(|flag| &flag.text),
            })
        })
        .collect();
    states.insert("slo_without_edge".to_owned(), json!(split));
    Value::Object(states)
}
