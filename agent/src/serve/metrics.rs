//! `/metrics`: everything the pages show that is a number, for Prometheus.

use std::{collections::BTreeMap, sync::PoisonError};

use plimsoll_common::{
    engine::{DistributionKind, Unit},
    units::Ratio,
    wire::{EngineState, SourceState},
};
use plimsoll_shell::metrics::{
    Label, MetricPage, MetricType::Counter, MetricType::Gauge, MetricType::Histogram,
};
use tokio::time::Instant;

use super::Pages;
use crate::{
    gpu::{GpuReading, GpuSnapshot, GpuStatus},
    window::EngineView,
};

pub(super) fn page(pages: &Pages) -> String {
    let now = Instant::now();
    let snapshot = pages.gpus(now);
    let engines = pages.engines();
    let mut page = MetricPage::new();
    gpus(&mut page, &snapshot);
    gpu_source(&mut page, &snapshot, now);
    engine_gauges(&mut page, &engines, now);
    engine_counters(&mut page, &engines);
    distributions(&mut page, &engines);
    agent(&mut page, pages);
    page.finish()
}

/// The states of a closed set, one sample each, 1 for the one that holds.
fn states(
    page: &mut MetricPage,
    name: &str,
    help: &str,
    rows: &[(Vec<Label<'_>>, &'static str)],
    all: &[&'static str],
) {
    let mut family = page.family(name, Gauge, help);
    for (labels, holds) in rows {
        for state in all {
            let mut labels = labels.clone();
            labels.push(("state", state));
            family.sample(&labels, state == holds);
        }
    }
}

fn gpus(page: &mut MetricPage, snapshot: &GpuSnapshot) {
    let labelled: Vec<(&GpuReading, String)> =
        snapshot.gpus.iter().map(|gpu| (gpu, gpu.info.index.to_string())).collect();
    let labels = |row: &'_ (&GpuReading, String)| {
        let (gpu, index) = row;
        [("gpu", index.clone()), ("uuid", gpu.info.uuid.as_str().to_owned())]
    };
    let mut info = page.family("plimsoll_gpu_info", Gauge, "What a GPU is; always 1.");
    for row in &labelled {
        let [(_, index), (_, uuid)] = labels(row);
        let name = row.0.info.name.as_deref().unwrap_or("");
        let bus = row.0.info.pci_bus_id.as_deref().unwrap_or("");
        info.sample(&[("gpu", &index), ("uuid", &uuid), ("name", name), ("pci_bus_id", bus)], 1u64);
    }
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&GpuReading) -> Option<f64>| {
        let mut family = page.family(name, Gauge, help);
        for row in &labelled {
            let [(_, index), (_, uuid)] = labels(row);
            family.maybe(&[("gpu", &index), ("uuid", &uuid)], value(row.0));
        }
    };
    let ratio = |percent: Option<u64>| percent.map(|p| p as f64 / 100.0);
    let watts = |mw: Option<u64>| mw.map(|mw| mw as f64 / 1e3);
    let bytes = |n: Option<u64>| n.map(|n| n as f64);
    gauge("plimsoll_gpu_utilization_ratio", "Share of time in which a kernel ran, 0 to 1.", &|g| {
        ratio(g.utilization_percent)
    });
    gauge(
        "plimsoll_gpu_memory_activity_ratio",
        "Share of time in which device memory was read or written, 0 to 1.",
        &|g| ratio(g.memory_activity_percent),
    );
    gauge("plimsoll_gpu_memory_used_bytes", "Frame buffer in use.", &|g| bytes(g.memory_used_bytes));
    gauge("plimsoll_gpu_memory_size_bytes", "Frame buffer size.", &|g| bytes(g.info.memory_total_bytes));
    gauge("plimsoll_gpu_power_watts", "Power draw.", &|g| watts(g.power_mw));
    gauge("plimsoll_gpu_power_limit_watts", "Enforced power limit.", &|g| watts(g.info.power_limit_mw));
    gauge("plimsoll_gpu_temperature_celsius", "GPU temperature.", &|g| g.temperature_c.map(|t| t as f64));
    let rows: Vec<_> = labelled
        .iter()
        .map(|(gpu, index)| {
            (vec![("gpu", index.as_str()), ("uuid", gpu.info.uuid.as_str())], gpu.state.as_str())
        })
        .collect();
    let all = GpuStatus::ALL.map(GpuStatus::as_str);
    states(page, "plimsoll_gpu_state", "How a GPU is seen; 1 for the state that holds.", &rows, &all);
}

fn gpu_source(page: &mut MetricPage, snapshot: &GpuSnapshot, now: Instant) {
    let all = [SourceState::Healthy, SourceState::Degraded, SourceState::Unsupported, SourceState::Failed]
        .map(SourceState::as_str);
    let rows = [(Vec::new(), snapshot.source.as_str())];
    states(
        page,
        "plimsoll_gpu_source_state",
        "How the GPU source is; 1 for the state that holds.",
        &rows,
        &all,
    );
    let age = now.saturating_duration_since(snapshot.taken).as_secs_f64();
    page.gauge("plimsoll_gpu_sample_age_seconds", "How old the GPU values on this page are.", &[], age);
    let mut calls = page.family("plimsoll_agent_nvml_calls_total", Counter, "Calls into NVML.");
    for cost in &snapshot.costs {
        calls.sample(&[("call", cost.call.as_str())], cost.calls);
    }
    let mut busy = page.family(
        "plimsoll_agent_nvml_busy_seconds_total",
        Counter,
        "Wall time spent inside NVML calls, which hold the driver's lock.",
    );
    for cost in &snapshot.costs {
        busy.sample(&[("call", cost.call.as_str())], cost.busy.as_secs_f64());
    }
}

fn engine_labels(view: &EngineView) -> [Label<'_>; 2] {
    [
        ("engine", view.info.id.as_str()),
        ("model", view.info.model.as_ref().map_or("", |model| model.as_str())),
    ]
}

fn engine_gauges(page: &mut MetricPage, engines: &[EngineView], now: Instant) {
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&EngineView) -> Option<f64>| {
        let mut family = page.family(name, Gauge, help);
        for view in engines {
            family.maybe(&engine_labels(view), value(view));
        }
    };
    gauge("plimsoll_engine_requests_running", "Requests in the running batch.", &|v| {
        v.gauges.running.map(|n| n as f64)
    });
    gauge("plimsoll_engine_requests_waiting", "Requests waiting to be scheduled.", &|v| {
        v.gauges.waiting.map(|n| n as f64)
    });
    gauge("plimsoll_engine_kv_cache_utilization_ratio", "KV-cache utilization, 0 to 1.", &|v| {
        v.gauges.kv_usage.map(Ratio::get)
    });
    gauge("plimsoll_engine_kv_capacity_tokens", "Tokens that the KV cache holds.", &|v| {
        v.info.kv_capacity_tokens.map(|n| n as f64)
    });
    gauge("plimsoll_engine_scrape_duration_seconds", "How long the last scrape took.", &|v| {
        v.took.map(|took| took.as_secs_f64())
    });
    gauge("plimsoll_engine_sample_age_seconds", "How old the engine's values on this page are.", &|v| {
        v.read.map(|read| now.saturating_duration_since(read).as_secs_f64())
    });
    let all = [EngineState::Ready, EngineState::Unreachable, EngineState::Unrecognised, EngineState::Pending]
        .map(EngineState::as_str);
    let rows: Vec<_> = engines.iter().map(|v| (engine_labels(v).to_vec(), v.state.as_str())).collect();
    states(page, "plimsoll_engine_state", "How an engine is seen; 1 for the state that holds.", &rows, &all);
}

fn engine_counters(page: &mut MetricPage, engines: &[EngineView]) {
    let mut counter = |name: &str, help: &str, value: &dyn Fn(&EngineView) -> Option<u64>| {
        let mut family = page.family(name, Counter, help);
        for view in engines {
            family.maybe(&engine_labels(view), value(view));
        }
    };
    counter(
        "plimsoll_engine_requests_arrived_total",
        "Requests that arrived since the agent started.",
        &|v| v.totals.arrived,
    );
    counter(
        "plimsoll_engine_prompt_tokens_total",
        "Prompt tokens processed since the agent started.",
        &|v| v.totals.prompt_tokens,
    );
    counter("plimsoll_engine_generation_tokens_total", "Tokens generated since the agent started.", &|v| {
        v.totals.generation_tokens
    });
    counter(
        "plimsoll_engine_prefix_cache_queried_tokens_total",
        "Prompt tokens looked up in the prefix cache.",
        &|v| v.totals.prefix_queries,
    );
    counter(
        "plimsoll_engine_prefix_cache_hit_tokens_total",
        "Prompt tokens found in the prefix cache.",
        &|v| v.totals.prefix_hits,
    );
    counter("plimsoll_engine_preemptions_total", "Preemptions since the agent started.", &|v| {
        v.totals.preemptions
    });
    counter("plimsoll_engine_counter_resets_total", "How often the engine's counters began again.", &|v| {
        v.totals.resets
    });
    counter(
        "plimsoll_engine_malformed_lines_total",
        "Lines of the engine's page that could not be read.",
        &|v| Some(v.quality.malformed_lines),
    );
    counter(
        "plimsoll_engine_dropped_samples_total",
        "Samples of the engine's page beyond the agent's limits.",
        &|v| Some(v.quality.dropped_samples + v.unplaced),
    );
    counter(
        "plimsoll_engine_torn_histograms_total",
        "Histograms read in the middle of a change, and read again.",
        &|v| Some(v.quality.torn_histograms),
    );
    let name = "plimsoll_engine_requests_finished_total";
    let mut family = page.family(name, Counter, "Requests that ended since the agent started, by reason.");
    for view in engines {
        let [engine, model] = engine_labels(view);
        for (reason, value) in [
            ("stop", view.totals.finished_stop),
            ("length", view.totals.finished_length),
            ("abort", view.totals.aborted),
            ("error", view.totals.errored),
        ] {
            family.maybe(&[engine, model, ("reason", reason)], value);
        }
    }
}

/// Each engine's distributions under one name for all kinds of engines, in the engine's own buckets.
fn distributions(page: &mut MetricPage, engines: &[EngineView]) {
    for kind in DistributionKind::ALL {
        let unit = match kind.unit() {
            Unit::Seconds => "seconds",
            Unit::Tokens => "tokens",
        };
        let name = format!("plimsoll_engine_{}_{unit}", kind.as_str());
        let help = format!("The engine's {kind} since the agent first saw it, in the engine's own buckets.");
        let mut family = page.family(&name, Histogram, &help);
        for view in engines {
            let Some(total) = view.cumulative.get(kind) else { continue };
            let [engine, model] = engine_labels(view);
            let counts: BTreeMap<usize, u64> = total.counts.nonzero().collect();
            let mut upto = 0u64;
            for (bucket, edge) in total.counts.layout().edges().iter().enumerate() {
                upto += counts.get(&bucket).copied().unwrap_or(0);
                family.suffixed("_bucket", &[engine, model, ("le", &edge.to_string())], upto);
            }
            upto += counts.get(&total.counts.layout().edges().len()).copied().unwrap_or(0);
            family.suffixed("_bucket", &[engine, model, ("le", "+Inf")], upto);
            family.suffixed("_sum", &[engine, model], total.sum as f64 / kind.unit().per_published());
            family.suffixed("_count", &[engine, model], upto);
        }
    }
}

fn agent(page: &mut MetricPage, pages: &Pages) {
    let own = *pages.0.costs.borrow();
    let version = env!("CARGO_PKG_VERSION");
    page.gauge(
        "plimsoll_agent_info",
        "The agent; always 1.",
        &[("version", version), ("node", pages.0.node.as_str())],
        1u64,
    );
    page.counter(
        "plimsoll_agent_cpu_seconds_total",
        "CPU time of the agent.",
        &[],
        own.cpu_us_total as f64 / 1e6,
    );
    page.family("plimsoll_agent_resident_memory_bytes", Gauge, "Resident memory of the agent.")
        .maybe(&[], own.rss_bytes);
    page.family("plimsoll_host_cpu_utilization_ratio", Gauge, "CPU utilization of the host, 0 to 1.")
        .maybe(&[], own.host_cpu.map(Ratio::get));
    page.family("plimsoll_host_memory_used_bytes", Gauge, "Memory of the host in use.")
        .maybe(&[], own.host_memory_used_bytes);
    let Some(uplink) = &pages.0.uplink else { return };
    let status = uplink.status.borrow().clone();
    let spool = uplink.spool.lock().unwrap_or_else(PoisonError::into_inner).usage();
    let connected = status.state == crate::uplink::LinkState::Connected;
    page.gauge("plimsoll_agent_planner_connected", "Whether a planner takes the reports.", &[], connected);
    page.counter(
        "plimsoll_agent_planner_connections_total",
        "Connections made to the planner.",
        &[],
        status.connects,
    );
    page.counter(
        "plimsoll_agent_reports_sent_total",
        "Reports sent, repeats included.",
        &[],
        status.reports_sent,
    );
    page.counter(
        "plimsoll_agent_report_bytes_sent_total",
        "Frame bytes sent, without QUIC's own.",
        &[],
        status.bytes_sent,
    );
    page.gauge(
        "plimsoll_agent_spool_reports",
        "Reports that wait for an acknowledgement.",
        &[],
        spool.reports,
    );
    page.gauge("plimsoll_agent_spool_bytes", "Bytes of the spool in use.", &[], spool.bytes);
    page.counter(
        "plimsoll_agent_windows_dropped_total",
        "Windows dropped because the spool was full.",
        &[],
        spool.dropped_windows,
    );
}
