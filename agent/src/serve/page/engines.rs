//! The engines of the node.

use std::fmt::Write;

use plimsoll_common::{engine::DistributionKind, units::Ratio, wire::EngineState};

use tokio::time::Instant;

use super::html::{Tone, escape, meter, or_none, pill};
use crate::window::EngineView;

pub(super) fn table(html: &mut String, engines: &[EngineView], now: Instant) {
    if engines.is_empty() {
        return;
    }
    html.push_str(
        "<h2>Engines</h2><div class=\"scroll cards\"><table><thead><tr><th>Engine</th><th>State</th><th>Model</th>\
         <th class=\"num\">Running</th><th class=\"num\">Waiting</th><th>KV cache</th><th class=\"num\">TTFT p95</th>\
         <th class=\"num\">ITL p95</th></tr></thead>",
    );
    for view in engines {
        row(html, view, now);
    }
    html.push_str("</table></div>");
}

fn row(html: &mut String, view: &EngineView, now: Instant) {
    let tone = match view.seen.state {
        EngineState::Ready => Tone::Ok,
        EngineState::Pending | EngineState::Follower | EngineState::Sleeping => Tone::Off,
        EngineState::Starting | EngineState::Draining => Tone::Warn,
        EngineState::Frozen
        | EngineState::Gone
        | EngineState::Unreachable
        | EngineState::Unauthorised
        | EngineState::WrongEndpoint => Tone::Bad,
    };
    // Of an engine that serves, the evidence is all that the row shows.
    let serves = view.seen.state == EngineState::Ready;
    let since = now.saturating_duration_since(view.seen.since).as_secs();
    let state = if serves { String::new() } else { format!("for {since} s: {}", view.seen.reason) };
    let usage = view.gauges.kv_usage.map(Ratio::get);
    let text = usage.map_or_else(String::new, |usage| format!("{:.0} %", usage * 100.0));
    let kv_tone = if usage.is_some_and(|usage| usage > 0.95) { Tone::Warn } else { Tone::Ok };
    let count = |value: Option<u64>| or_none(value.map(|n| n.to_string()));
    // Writing to a String cannot fail.
    let _ = write!(
        html,
        "<tbody><tr class=\"row\"><td><b>{}</b><div class=\"sub\">{}</div></td><td>{}<div class=\"sub\">{}</div></td>\
         <td data-k=\"Model\">{}</td><td class=\"num\" data-k=\"Running\">{}</td><td class=\"num\" data-k=\"Waiting\">{}</td>\
         <td data-k=\"KV cache\">{}</td><td class=\"num\" data-k=\"TTFT p95\">{}</td>\
         <td class=\"num\" data-k=\"ITL p95\">{}</td></tr></tbody>",
        escape(view.info.id.as_str()),
        escape(&kind(view)),
        pill(tone, view.seen.state.as_str()),
        escape(&state),
        or_none(view.info.model.as_ref().map(|model| model.as_str().to_owned())),
        count(view.gauges.running.or(view.gauges.frontend_inflight)),
        count(view.gauges.waiting.or(view.gauges.frontend_queued)),
        meter("KV cache", usage, &text, "", kv_tone),
        percentile(view, &[DistributionKind::Ttft, DistributionKind::FrontendTtft]),
        percentile(
            view,
            &[DistributionKind::ItlToken, DistributionKind::ItlStep, DistributionKind::FrontendItl]
        ),
    );
}

fn kind(view: &EngineView) -> String {
    let version = view.info.version.as_deref().unwrap_or("");
    format!("{} {version}", view.info.kind).trim().to_owned()
}

/// p95 of the last half minute, in milliseconds, of the first of these that the engine publishes.
fn percentile(view: &EngineView, wanted: &[DistributionKind]) -> String {
    let value = wanted.iter().find_map(|kind| view.distributions.get(kind)).and_then(|distribution| {
        let q = Ratio::new(0.95).ok()?;
        distribution.histogram().quantile(q)
    });
    or_none(value.map(|value| format!("{:.1} ms", value.0 as f64 / 1e3)))
}
