//! `/status`: how the agent itself is, what it costs, and what it had to drop.

use std::{collections::BTreeMap, net::SocketAddr};

use axum::{Json, extract::State};
use plimsoll_common::{ids::Seq, units::Ratio};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Pages, engine_state, exact, gpus, json::age_seconds, json::seconds, pods};
use crate::{
    gpu::{DearQuestion, GovernorState, GpuSnapshot},
    uplink::{LinkStatus, Uplink},
};

pub(super) async fn status(State(pages): State<Pages>) -> Json<Value> {
    let now = Instant::now();
    let snapshot = pages.gpus(now);
    let engines = pages.engines(now);
    let own = *pages.0.feeds.costs.borrow();
    let readers = pages.0.hub.totals();
    Json(json!({
        "node": pages.0.node,
        "version": env!("CARGO_PKG_VERSION"),
        "boot_id": pages.0.boot,
        "agent_epoch": pages.0.epoch,
        "uptime_seconds": age_seconds(pages.0.started, now),
        "sources": {
            "gpu": gpus::source(&snapshot, now),
            "attribution": pods::status(&pages.attribution(), now),
            "engines": engine_state::summary(&engines),
            "exact": exact::all_sources(&pages.0.feeds.exact.all()),
        },
        "cost": {
            "cpu_seconds": own.cpu_us_total as f64 / 1e6,
            "resident_memory_bytes": own.rss_bytes,
            "nvml": {
                "calls": snapshot.calls,
                "busy_seconds": seconds(snapshot.busy),
                "last_tick_busy_seconds": seconds(snapshot.tick_busy),
                "missed_ticks": snapshot.missed_ticks,
                "governor": governor(&snapshot.governor),
                "by_call": by_call(&snapshot),
            },
            "stream": {
                "readers": readers.subscribers,
                "dropped_slow_readers": readers.dropped,
                "refused_readers": readers.refused,
            },
        },
        "host": {
            "cpu_utilization": own.host_cpu.map(Ratio::get),
            "memory_used_bytes": own.host_memory_used_bytes,
        },
        "planner": pages.0.feeds.uplink.as_ref().map(|uplink| planner(&pages, uplink, now)),
    }))
}

fn governor(governor: &GovernorState) -> Value {
    let tiers: Map<_, _> = governor
        .tiers
        .iter()
        .map(|tier| {
            let cadence = json!({
                "interval_seconds": seconds(tier.effective),
                "configured_interval_seconds": seconds(tier.nominal),
                "stretch": tier.stretch,
            });
            (tier.tier.as_str().to_owned(), cadence)
        })
        .collect();
    json!({
        "budget_seconds_per_second": seconds(governor.budget_average),
        "budget_seconds_in_any_second": seconds(governor.budget_peak),
        "busy_seconds_last_second": seconds(governor.busy_last_second),
        "busy_seconds_last_ten_seconds": seconds(governor.busy_last_ten_seconds),
        "tiers": tiers,
        "deferred": governor.deferred,
        "asked_beyond_budget": governor.forced,
        "dear": governor.dear.iter().map(dear).collect::<Vec<_>>(),
        "reason": governor.reason,
    })
}

/// A group of values that is asked less often because of its own cost.
fn dear(question: &DearQuestion) -> Value {
    json!({
        "group": question.group,
        "typical_seconds": seconds(question.typical),
        "interval_seconds": seconds(question.interval),
        "over_budget": question.over_budget,
    })
}

/// What each kind of call cost, with percentiles of its duration; calls that were never made are left out.
fn by_call(snapshot: &GpuSnapshot) -> Vec<Value> {
    let mut percentiles = BTreeMap::new();
    snapshot.latencies.each(|call, latency| {
        let at = |q| Ratio::new(q).ok().and_then(|q| latency.quantile(q)).map(|value| value.0 as f64 / 1e6);
        percentiles.insert(call, [at(0.5), at(0.95), at(0.99)]);
    });
    let made = snapshot.costs.iter().filter(|cost| cost.calls > 0);
    made.map(|cost| {
        let [p50, p95, p99] = percentiles.get(&cost.call).copied().unwrap_or_default();
        json!({
            "call": cost.call.as_str(), "calls": cost.calls, "failures": cost.failures,
            "busy_seconds": seconds(cost.busy), "slowest_seconds": seconds(cost.slowest),
            "p50_seconds": p50, "p95_seconds": p95, "p99_seconds": p99,
        })
    })
    .collect()
}

fn planner(pages: &Pages, uplink: &Uplink, now: Instant) -> Value {
    let status = uplink.status.borrow().clone();
    let spool = uplink.usage();
    let best = status.best().map(|(_, link)| link);
    let unresolved = status.unresolved.as_ref();
    let since = best.map(|link| link.since).or_else(|| unresolved.map(|(since, _)| *since));
    let error =
        best.and_then(|link| link.last_error.clone()).or_else(|| unresolved.map(|(_, error)| error.clone()));
    json!({
        "address": pages.0.planner,
        "state": best.map_or("unresolved", |link| link.state.as_str()),
        "since_seconds": since.map(|since| age_seconds(since, now)),
        "last_error": error,
        "name_error": unresolved.map(|(_, error)| error),
        "round_trip_seconds": best.and_then(|link| link.rtt).map(seconds),
        "connections": status.connects,
        "reports_sent": status.reports_sent,
        "frame_bytes_sent": status.bytes_sent,
        "gaps_told": status.gaps_told,
        "acknowledged_window": best.map_or(Seq(0), |link| link.acknowledged),
        "unknown_messages": status.bad_frames,
        "report_interval_seconds": pages.0.report_interval.as_secs_f64(),
        "report_interval_asked_seconds": uplink.asked_interval.borrow().map(|asked| asked.as_secs_f64()),
        "links": status.links.iter().map(|(address, link)| planner_link(*address, link, now)).collect::<Vec<_>>(),
        "spool": {
            "reports": spool.reports,
            "retained_reports": spool.retained,
            "bytes": spool.bytes,
            "coalesced_windows": spool.coalesced_windows,
            "dropped_windows": spool.dropped_windows,
        },
    })
}

fn planner_link(address: SocketAddr, link: &LinkStatus, now: Instant) -> Value {
    json!({
        "address": address.to_string(),
        "state": link.state.as_str(),
        "since_seconds": age_seconds(link.since, now),
        "last_error": link.last_error,
        "round_trip_seconds": link.rtt.map(seconds),
        "acknowledged_window": link.acknowledged,
        "report_interval_asked_seconds": link.asked_interval.map(|asked| asked.as_secs_f64()),
    })
}
