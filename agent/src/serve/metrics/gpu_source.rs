//! How the GPU source is, and what it costs.

use plimsoll_common::{histogram::LatencyHistogram, units::Micros, wire::SourceState};
use plimsoll_shell::metrics::{
    MetricPage,
    MetricType::{Counter, Gauge, Histogram},
};
use tokio::time::Instant;

use super::states;
use crate::gpu::GpuSnapshot;

/// Few, so that forty kinds of calls stay a small page: what costs nothing, what is usual, what is dear, what is wrong.
const EDGES_US: [(u64, &str); 5] =
    [(100, "0.0001"), (1_000, "0.001"), (5_000, "0.005"), (20_000, "0.02"), (100_000, "0.1")];

pub(super) fn write(page: &mut MetricPage, snapshot: &GpuSnapshot, now: Instant) {
    health(page, snapshot, now);
    governor(page, snapshot);
    costs(page, snapshot);
}

fn health(page: &mut MetricPage, snapshot: &GpuSnapshot, now: Instant) {
    let all = [SourceState::Healthy, SourceState::Degraded, SourceState::Unsupported, SourceState::Failed]
        .map(SourceState::as_str);
    let rows = [(Vec::new(), snapshot.source.as_str())];
    let help = "How the GPU source is; 1 for the state that holds.";
    states(page, "plimsoll_gpu_source_state", help, &rows, &all);
    let age = now.saturating_duration_since(snapshot.taken).as_secs_f64();
    page.gauge("plimsoll_gpu_sample_age_seconds", "How old the GPU values on this page are.", &[], age);
    let help = "Whether NVML is released on request, so that a GPU can be reset.";
    page.gauge("plimsoll_gpu_source_released", help, &[], snapshot.release.is_some());
    if let Some(driver) = &snapshot.driver {
        let labels = [("version", driver.version.as_str()), ("cuda", driver.cuda.as_deref().unwrap_or(""))];
        page.gauge("plimsoll_gpu_driver_info", "The NVIDIA driver; always 1.", &labels, 1u64);
    }
}

fn governor(page: &mut MetricPage, snapshot: &GpuSnapshot) {
    let governor = &snapshot.governor;
    let mut stretch = page.family(
        "plimsoll_agent_nvml_cadence_stretch",
        Gauge,
        "By how much the cadence of a tier is stretched to keep the budget of NVML time; 1 is not at all.",
    );
    for tier in &governor.tiers {
        stretch.sample(&[("tier", tier.tier.as_str())], tier.stretch);
    }
    let help = "Values that were due and had to wait to keep the budget of NVML time.";
    page.counter("plimsoll_agent_nvml_deferred_total", help, &[], governor.deferred);
    let help = "Ticks left out because an earlier one took too long.";
    page.counter("plimsoll_agent_nvml_missed_ticks_total", help, &[], snapshot.missed_ticks);
}

fn costs(page: &mut MetricPage, snapshot: &GpuSnapshot) {
    let made = || snapshot.costs.iter().filter(|cost| cost.calls > 0);
    let help = "Calls into NVML that gave no value.";
    let mut failures = page.family("plimsoll_agent_nvml_call_failures_total", Counter, help);
    for cost in made() {
        failures.sample(&[("call", cost.call.as_str())], cost.failures);
    }
    // Read under one lock and written after it: the thread that asks the driver waits for it otherwise.
    let mut rows: Vec<(&str, [u64; EDGES_US.len()], u64)> = Vec::new();
    snapshot.latencies.each(|call, latency| rows.push((call.as_str(), cumulative(latency), latency.count())));
    let help = "Wall time of calls into NVML, which hold the driver's lock.";
    let mut family = page.family("plimsoll_agent_nvml_call_duration_seconds", Histogram, help);
    for (call, counts, count) in rows {
        for ((_, edge), upto) in EDGES_US.iter().zip(counts) {
            family.suffixed("_bucket", &[("call", call), ("le", edge)], upto);
        }
        let busy = snapshot.costs.iter().find(|cost| cost.call.as_str() == call);
        let busy = busy.map_or(0.0, |cost| cost.busy.as_secs_f64());
        family.suffixed("_bucket", &[("call", call), ("le", "+Inf")], count);
        family.suffixed("_sum", &[("call", call)], busy);
        family.suffixed("_count", &[("call", call)], count);
    }
}

fn cumulative(latency: &LatencyHistogram) -> [u64; EDGES_US.len()] {
    EDGES_US.map(|(edge, _)| latency.count_at_or_below(Micros(edge)))
}
