//! `/`: everything at a glance, for a person. One self-contained page: no network, complete without JavaScript.

mod engines;
mod gpu;
mod html;

use std::fmt::Write;

use axum::{
    extract::State,
    http::header,
    response::{Html, IntoResponse, Response},
};
use plimsoll_common::wire::SourceState;
use tokio::time::Instant;

use self::html::{Tone, bytes, escape, gib, pill, span};
use super::{PATHS, Pages};
use crate::gpu::{GpuReading, GpuSnapshot, GpuStatus};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");
/// Nothing is loaded from anywhere (the empty icon is part of the page), and the page goes into no frame.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn index(State(pages): State<Pages>) -> Response {
    let headers = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")];
    (headers, Html(page(&pages))).into_response()
}

fn page(pages: &Pages) -> String {
    let now = Instant::now();
    let snapshot = pages.gpus(now);
    let node = escape(pages.0.node.as_str());
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{node} · Plimsoll agent</title><link rel=\"icon\" href=\"data:,\">\
         <noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript><style>{STYLE}</style></head><body><main>"
    );
    header(&mut html, pages, &snapshot, now);
    notes(&mut html, &snapshot, now);
    if !snapshot.gpus.is_empty() || !snapshot.absent.is_empty() {
        tiles(&mut html, &snapshot);
        gpu::table(&mut html, &snapshot, &pages.topology(), &pages.attribution(), now);
    }
    engines::table(&mut html, &pages.engines(now), now);
    cost(&mut html, pages, &snapshot, now);
    html.push_str("</main><footer><nav>");
    for path in PATHS.iter().filter(|path| !path.contains('{') && !path.contains("source") && **path != "/") {
        // Writing to a String cannot fail.
        let _ = write!(html, "<a href=\"{path}\">{path}</a>");
    }
    let _ = write!(
        html,
        "</nav><p>Plimsoll agent {} · <span id=\"live\">reload for new values</span></p></footer><script>{SCRIPT}</script></body></html>",
        env!("CARGO_PKG_VERSION"),
    );
    html
}

fn header(html: &mut String, pages: &Pages, snapshot: &GpuSnapshot, now: Instant) {
    let (tone, word) = match (snapshot.source, snapshot.release) {
        (_, Some(_)) => (Tone::Warn, "GPU source released"),
        (SourceState::Healthy, _) => (Tone::Ok, "GPU source healthy"),
        (SourceState::Degraded, _) => (Tone::Warn, "GPU source degraded"),
        (SourceState::Unsupported, _) => (Tone::Off, "no GPU source"),
        (SourceState::Failed, _) => (Tone::Bad, "GPU source failed"),
    };
    let mut facts = Vec::new();
    if let Some(driver) = &snapshot.driver {
        facts.push(format!("driver {}", driver.version));
        facts.extend(driver.cuda.as_ref().map(|cuda| format!("CUDA {cuda}")));
    }
    let up = now.saturating_duration_since(pages.0.started).as_secs();
    facts.push(format!("up {}", span(up)));
    let _ = write!(
        html,
        "<header><span class=\"who\">Plimsoll agent</span><h1>{}</h1>{}<span class=\"facts\">{}</span></header>",
        escape(pages.0.node.as_str()),
        pill(tone, word),
        escape(&facts.join(" · ")),
    );
}

/// What an operator has to know before reading on.
fn notes(html: &mut String, snapshot: &GpuSnapshot, now: Instant) {
    if let Some(release) = snapshot.release {
        let left = release.until.saturating_duration_since(now).as_secs();
        let _ = write!(
            html,
            "<p class=\"note\">NVML is released, so GPUs can be reset; the agent comes back by itself in {}.</p>",
            span(left),
        );
    } else if let Some(detail) = &snapshot.detail {
        let class = if snapshot.source == SourceState::Failed { "note bad" } else { "note" };
        let _ = write!(html, "<p class=\"{class}\">{}</p>", escape(detail));
    }
}

fn tiles(html: &mut String, snapshot: &GpuSnapshot) {
    let gpus = &snapshot.gpus;
    let ok = gpus.iter().filter(|gpu| gpu.state == GpuStatus::Ok).count();
    let all = gpus.len() + snapshot.absent.len();
    let sum = |value: fn(&GpuReading) -> Option<u64>| -> Option<u64> {
        gpus.iter().filter_map(value).reduce(u64::saturating_add)
    };
    let told = gpus.iter().filter(|gpu| gpu.utilization_percent.is_some()).count();
    let utilization = sum(|gpu| gpu.utilization_percent).map(|sum| sum / told.max(1) as u64);
    let memory = sum(|gpu| gpu.memory_used_bytes);
    let total = sum(|gpu| gpu.info.memory_total_bytes);
    let xids: u64 = gpus.iter().flat_map(|gpu| gpu.xids.counts.values()).sum();
    let hottest = gpus.iter().filter_map(|gpu| gpu.temperature_c).max();
    let throttled = gpus.iter().filter(|gpu| gpu.throttle.is_some_and(|why| why.is_throttled())).count();
    let dash = || "–".to_owned();
    html.push_str("<div class=\"tiles\">");
    for (name, value, small) in [
        ("GPUs ok", format!("{ok}"), format!("of {all}")),
        ("mean utilization", utilization.map_or_else(dash, |u| format!("{u} %")), String::new()),
        (
            "memory in use",
            memory.map_or_else(dash, gib),
            total.map_or_else(String::new, |t| format!("of {} GiB", gib(t))),
        ),
        (
            "power",
            sum(|gpu| gpu.power_mw).map_or_else(dash, |mw| format!("{:.2}", mw as f64 / 1e6)),
            "kW".to_owned(),
        ),
        ("hottest", hottest.map_or_else(dash, |t| format!("{t} °C")), String::new()),
        ("throttled", throttled.to_string(), "GPUs".to_owned()),
        ("XIDs", xids.to_string(), "since start".to_owned()),
    ] {
        let _ = write!(
            html,
            "<div class=\"tile\"><b>{value} <small>{small}</small></b><span>{name}</span></div>"
        );
    }
    html.push_str("</div>");
}

/// What the agent costs this node.
fn cost(html: &mut String, pages: &Pages, snapshot: &GpuSnapshot, now: Instant) {
    let own = *pages.0.feeds.costs.borrow();
    let up = now.saturating_duration_since(pages.0.started).as_secs_f64().max(1.0);
    let governor = &snapshot.governor;
    let millis = |duration: std::time::Duration| format!("{:.2} ms", duration.as_secs_f64() * 1e3);
    html.push_str("<h2>What the agent costs</h2><div class=\"tiles\">");
    for (name, value, small) in [
        ("CPU of one core, mean", format!("{:.2} %", own.cpu_us_total as f64 / 1e4 / up), String::new()),
        ("resident memory", own.rss_bytes.map_or_else(|| "–".to_owned(), bytes), String::new()),
        (
            "in NVML, last second",
            millis(governor.busy_last_second),
            format!("of {}", millis(governor.budget_peak)),
        ),
        (
            "in NVML a second, over 10 s",
            millis(governor.busy_last_ten_seconds / 10),
            format!("of {}", millis(governor.budget_average)),
        ),
        ("NVML calls", snapshot.calls.to_string(), format!("{} ticks missed", snapshot.missed_ticks)),
    ] {
        let _ = write!(
            html,
            "<div class=\"tile\"><b>{value} <small>{small}</small></b><span>{name}</span></div>"
        );
    }
    html.push_str("</div>");
    if let Some(reason) = &governor.reason {
        let _ = write!(
            html,
            "<p class=\"sub\">Values are asked less often than configured: {}.</p>",
            escape(reason)
        );
    }
}
