//! A small page for people, without a script: it loads itself again every other second.

use std::fmt::Write;

use plimsoll_common::{engine::DistributionKind, units::Micros};
use plimsoll_core::fleet::{
    Counter, DistributionKey, DistributionSummary, EngineRow, EngineState, Freshness, ModelRow, PoolGauges,
    Source, Tally, Window,
};

use super::advice;
use crate::{advise::Advice, drive::Published};

const WINDOW: Window = Window::OneMinute;
/// How many rows a table has before it points to the API.
const MAX_ROWS: usize = 50;
const LATENCIES: [DistributionKind; 4] =
    [DistributionKind::Ttft, DistributionKind::ItlStep, DistributionKind::ItlToken, DistributionKind::E2e];

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta http-equiv=\"refresh\" content=\"2\"><title>Plimsoll planner</title><style>\
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#16202a}\
table{border-collapse:collapse;margin:.5rem 0 1.5rem;width:100%}\
th,td{text-align:right;padding:.2rem .6rem;border-bottom:1px solid #d8dee4;font-variant-numeric:tabular-nums}\
th:first-child,td:first-child{text-align:left}th{color:#57606a;font-weight:600}\
small,.stale{color:#8a6d00}.silent{color:#b42318}a{color:#0b5cad}</style></head><body>";

pub(super) fn render(shown: &Published, advised: Option<&Advice>, uptime: Micros) -> String {
    let mut page = String::from(HEAD);
    // Writing to a String cannot fail.
    let _ = write!(page, "<h1>Plimsoll planner {}</h1>", env!("CARGO_PKG_VERSION"));
    let fleet = &shown.snapshot.fleet;
    let _ = write!(
        page,
        "<p>{} agents connected, up {} s. Nodes: {}. GPUs: {}. Engines: {}.</p>",
        shown.agents.len(),
        uptime.0 / 1_000_000,
        tally(&fleet.nodes),
        tally(&fleet.gpus),
        tally(&fleet.engines),
    );
    if let Some(advised) = advised {
        advice::section(&mut page, advised);
    }
    models(&mut page, &shown.snapshot.models);
    troubled(&mut page, &shown.snapshot.engines);
    nodes(&mut page, shown);
    page.push_str("<p>More: ");
    let links = [
        "/api/v1/fleet",
        "/api/v1/plan",
        "/api/v1/nodes",
        "/api/v1/agents",
        "/api/v1/gpus",
        "/api/v1/engines",
        "/api/v1/pools",
        "/api/v1/models",
        "/metrics",
        "/healthz",
        "/readyz",
    ];
    for link in links {
        let _ = write!(page, "<a href=\"{link}\">{link}</a> ");
    }
    page.push_str("</p></body></html>\n");
    page
}

fn models(page: &mut String, models: &[ModelRow]) {
    page.push_str("<h2>Models, last minute</h2>");
    if models.is_empty() {
        page.push_str("<p>No engine has told its model yet. Agents find engines by their configuration.</p>");
        return;
    }
    page.push_str(
        "<table><tr><th>Model</th><th>Engines</th><th>Running</th><th>Waiting</th><th>KV cache</th>\
         <th>Requests/s</th><th>Tokens/s</th><th>Latency</th><th>p50</th><th>p95</th><th>p99</th></tr>",
    );
    for row in models.iter().take(MAX_ROWS) {
        let Some(window) = row.windows.get(&WINDOW) else { continue };
        let gauges: &PoolGauges = &row.gauges;
        let kv = gauges.kv_cache_utilization_ratio_mean.map(|kv| format!("{:.0} %", kv * 100.0));
        let cells = [
            gauges.engines.live.to_string(),
            number(gauges.running_requests),
            number(gauges.waiting_requests),
            kv.unwrap_or_else(dash),
            rate(window.rates.get(Counter::Arrived)),
            rate(window.rates.get(Counter::GenerationTokens)),
        ];
        let _ = write!(page, "<tr><td>{}</td>", escape(row.model.as_str()));
        for cell in cells {
            let _ = write!(page, "<td>{cell}</td>");
        }
        let mut first = true;
        for (key, distribution) in &window.distributions {
            if !is_shown(*key) {
                continue;
            }
            page.push_str(if first { "" } else { "</tr><tr><td colspan=\"7\"></td>" });
            first = false;
            latency(page, *key, distribution);
        }
        page.push_str("</tr>");
    }
    page.push_str(
        "</table><p><small>≤ a ≥ b: the truth lies certainly between b and a; the number is the estimate. \
         Engines publish buckets, not single latencies.</small></p>",
    );
}

/// The engines that do not serve; nothing where all do.
fn troubled(page: &mut String, engines: &[EngineRow]) {
    let serves =
        |row: &&EngineRow| matches!(row.gauges.state, Some(EngineState::Ready | EngineState::Follower));
    let troubled: Vec<&EngineRow> = engines.iter().filter(|row| !serves(row)).collect();
    if troubled.is_empty() {
        return;
    }
    let _ = write!(page, "<h2>Engines that do not serve: {}</h2>", troubled.len());
    page.push_str("<table><tr><th>Engine</th><th>Node</th><th>State</th><th>Told from</th><th>For</th></tr>");
    for row in troubled.iter().take(MAX_ROWS) {
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(row.identity.id.as_str()),
            escape(row.node.as_str()),
            row.gauges.state.map_or("unknown to this planner", EngineState::as_str),
            row.gauges.state_evidence.unwrap_or("–"),
            row.state_seconds.map_or_else(dash, |seconds| format!("{seconds:.0} s")),
        );
    }
    page.push_str("</table>");
}

fn is_shown(key: DistributionKey) -> bool {
    LATENCIES.contains(&key.kind)
}

fn latency(page: &mut String, key: DistributionKey, distribution: &DistributionSummary) {
    let _ = write!(page, "<td>{key}</td>");
    for quantile in &distribution.quantiles {
        let Some(quantile) = quantile else {
            page.push_str("<td>–</td>");
            continue;
        };
        let bounds = match (key.source, quantile.high) {
            (Source::Exact, _) => String::new(),
            (Source::Bucketed, Some(high)) => format!(" <small>≤ {high} ≥ {}</small>", quantile.low),
            (Source::Bucketed, None) => format!(" <small>≥ {}</small>", quantile.low),
        };
        let _ = write!(page, "<td>{}{bounds}</td>", quantile.estimate);
    }
}

fn nodes(page: &mut String, shown: &Published) {
    let nodes = &shown.snapshot.nodes;
    page.push_str("<h2>Nodes</h2>");
    if nodes.is_empty() {
        page.push_str(
            "<p>No agent has reported yet. Start one with --planner and this planner's address.</p>",
        );
        return;
    }
    page.push_str("<table><tr><th>Node</th><th>Status</th><th>Age</th><th>GPUs</th><th>Engines</th></tr>");
    for row in nodes.iter().take(MAX_ROWS) {
        let class = if row.status == Freshness::Live { "" } else { row.status.as_str() };
        let left = if row.left { ", left" } else { "" };
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"{class}\">{}{left}</td><td>{:.1} s</td><td>{}</td><td>{}</td></tr>",
            escape(row.node.as_str()),
            row.status.as_str(),
            row.age_seconds,
            row.gpus,
            row.engines
        );
    }
    page.push_str("</table>");
    if nodes.len() > MAX_ROWS {
        let _ = write!(
            page,
            "<p>… and {} more in <a href=\"/api/v1/nodes\">/api/v1/nodes</a></p>",
            nodes.len() - MAX_ROWS
        );
    }
}

fn tally(tally: &Tally) -> String {
    let mut text = format!("{} live", tally.live);
    for freshness in [Freshness::Stale, Freshness::Silent] {
        let n = tally.get(freshness);
        if n > 0 {
            let _ = write!(text, ", <span class=\"{0}\">{n} {0}</span>", freshness.as_str());
        }
    }
    text
}

fn dash() -> String {
    "–".to_owned()
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(dash, |value| value.to_string())
}

fn rate(value: Option<f64>) -> String {
    value.map_or_else(dash, |value| format!("{value:.1}"))
}

/// Names come from other machines.
pub(super) fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_no_markup() {
        assert_eq!(escape("<img src=x onerror='a&\"'>"), "&lt;img src=x onerror=&#39;a&amp;&quot;&#39;&gt;");
    }
}
