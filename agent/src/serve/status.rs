//! `/status`: how the agent itself is, what it costs, and what it had to drop.

use std::sync::PoisonError;

use axum::{Json, extract::State};
use plimsoll_common::wire::EngineState;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Pages, gpus, json::age_seconds, json::seconds};
use crate::uplink::Uplink;

pub(super) async fn status(State(pages): State<Pages>) -> Json<Value> {
    let now = Instant::now();
    let snapshot = pages.gpus(now);
    let engines = pages.engines();
    let own = *pages.0.costs.borrow();
    let in_state = |state| engines.iter().filter(|view| view.state == state).count();
    let calls: Vec<_> = snapshot
        .costs
        .iter()
        .map(|cost| {
            json!({
                "call": cost.call.as_str(), "calls": cost.calls, "failures": cost.failures,
                "busy_seconds": seconds(cost.busy), "slowest_seconds": seconds(cost.slowest),
            })
        })
        .collect();
    Json(json!({
        "node": pages.0.node,
        "version": env!("CARGO_PKG_VERSION"),
        "boot_id": pages.0.boot,
        "agent_epoch": pages.0.epoch,
        "uptime_seconds": age_seconds(pages.0.started, now),
        "sources": {
            "gpu": gpus::source(&snapshot, now),
            "engines": {
                "ready": in_state(EngineState::Ready),
                "unreachable": in_state(EngineState::Unreachable),
                "unrecognised": in_state(EngineState::Unrecognised),
                "pending": in_state(EngineState::Pending),
            },
        },
        "cost": {
            "cpu_seconds": own.cpu_us_total as f64 / 1e6,
            "resident_memory_bytes": own.rss_bytes,
            "nvml": {
                "calls": snapshot.calls,
                "busy_seconds": seconds(snapshot.busy),
                "last_tick_busy_seconds": seconds(snapshot.tick_busy),
                "missed_ticks": snapshot.missed_ticks,
                "by_call": calls,
            },
        },
        "host": {
            "cpu_utilization": own.host_cpu.map(plimsoll_common::units::Ratio::get),
            "memory_used_bytes": own.host_memory_used_bytes,
        },
        "planner": pages.0.uplink.as_ref().map(|uplink| planner(&pages, uplink, now)),
    }))
}

fn planner(pages: &Pages, uplink: &Uplink, now: Instant) -> Value {
    let status = uplink.status.borrow().clone();
    let spool = uplink.spool.lock().unwrap_or_else(PoisonError::into_inner).usage();
    json!({
        "address": pages.0.planner,
        "state": status.state.as_str(),
        "since_seconds": age_seconds(status.since, now),
        "last_error": status.last_error,
        "round_trip_seconds": status.rtt.map(seconds),
        "connections": status.connects,
        "reports_sent": status.reports_sent,
        "frame_bytes_sent": status.bytes_sent,
        "acknowledged_window": status.acknowledged,
        "unknown_messages": status.bad_frames,
        "report_interval_seconds": pages.0.report_interval.as_secs_f64(),
        "report_interval_asked_seconds": uplink.asked_interval.borrow().map(|asked| asked.as_secs_f64()),
        "spool": {
            "reports": spool.reports,
            "bytes": spool.bytes,
            "dropped_windows": spool.dropped_windows,
        },
    })
}
